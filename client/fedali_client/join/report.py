"""What a joined device says: lines for people on stderr, lines of JSON on stdout."""

from __future__ import annotations

import json
import sys
from typing import Any

from fedali_client.join.journal import COUNTED, Record


class Report:
    """Where a device's life is told.

    Args:
        quiet: nothing for people.
        as_json: also lines of JSON, one an event.
    """

    def __init__(self, *, quiet: bool = False, as_json: bool = False) -> None:
        self._quiet, self._json = quiet, as_json
        self._away, self._joined = False, False

    def joined(self, federation: str, device: str, gateway: str) -> None:
        """Connected, for the first time or again."""
        if self._joined and not self._away:
            return
        again = " again" if self._joined else ""
        self._away, self._joined = False, True
        self._say(f"joined {federation}{again} as {device}, gateway {gateway}")
        self._event("joined", federation=federation, device=device, gateway=gateway)

    def away(self, why: str) -> None:
        """The gateway is not there; told once until it is."""
        if not self._away:
            self._say(f"{why}; this device keeps trying")
            self._event("away", reason=why)
        self._away = True

    def bundle(self, name: str, sha256: str, size: int, signed_by: str | None) -> None:
        """A bundle was taken up."""
        self._say(f"bundle {name}, {_size(size)}, signed by key {(signed_by or 'none')[:16]}")
        self._event("bundle", name=name, sha256=sha256, bytes=size, signed_by=signed_by)

    def answered(self, record: Record, verdict: str, reason: str, sent: int) -> None:
        """The gateway answered an update; ``sent`` bytes of it went over the wire now."""
        facts, metrics = record.facts, record.facts.get("metrics", {})
        if record.kind == "train":
            line = f"trained on {facts.get('samples')} samples, loss {metrics.get('train_loss', 0.0):.2f}"
            if "personalisation" in metrics:
                line += f", {100 * metrics['personalisation']:.1f} % on own test data"
        elif record.kind == "statistics":
            line = f"added up {facts.get('samples')} samples"
        else:
            line = f"the server's model is right on {100 * metrics.get('global', 0.0):.1f} % of own test data"
            if "personalisation" in metrics:
                line += f", this device on {100 * metrics['personalisation']:.1f} %"
        line += f", sent {_size(record.size)}"
        if verdict != COUNTED:
            line += f", {verdict}: {reason or 'no reason was given'}"
        self._say(f"round {record.round}: {line}")
        self._event(
            record.kind,
            run=record.run,
            round=record.round,
            verdict=verdict,
            reason=reason,
            bytes=record.size,
            sent=sent,
            **facts,
        )

    def not_done(self, round_: int, why: str, *, declined: bool) -> None:
        """A task came to nothing; it was ``declined`` or its round closed."""
        self._say(f"round {round_}: {'declined, ' if declined else ''}{why}")
        self._event("declined" if declined else "missed", round=round_, reason=why)

    def trouble(self, why: str) -> None:
        """Something outside of a task that a person should know."""
        self._say(why)
        self._event("trouble", reason=why)

    def note(self, text: str) -> None:
        """What reading this device's data assumed or left out."""
        self._say(f"note: {text}")
        self._event("note", text=text)

    def _say(self, text: str) -> None:
        if not self._quiet:
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()

    def _event(self, name: str, /, **facts: Any) -> None:
        if self._json:
            sys.stdout.write(json.dumps({"event": name, **facts}) + "\n")
            sys.stdout.flush()


def _size(count: int) -> str:
    """Bytes for people.

    >>> [_size(count) for count in (90, 96_400, 11_000_000)]
    ['90 B', '96 kB', '11.0 MB']
    """
    if count < 1000:
        return f"{count} B"
    return f"{count / 1e3:.0f} kB" if count < 1_000_000 else f"{count / 1e6:.1f} MB"
