"""What a bundle says of the data that its model learned from: what another file of the kind needs to give such samples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedali.data.normalisation import channel_axis
from fedali.data.sources.reading import PLAIN, Reading
from fedali.data.sources.settings import plain_settings, with_settings
from fedali.errors import SettingsError

_KEYS = ("channels", "stride", "interval", "constant", "reading")


@dataclass(frozen=True)
class DataFacts:
    """How samples were made of files, and what was seen in them.

    Args:
        channels: their names, in the order of the samples; empty where they have none.
        stride: rows between the starts of windows; None for half a window.
        interval: between two rows, in the unit of the files' times; None where it is not known.
        constant: places of channels that never changed in training.
        reading: settings of the files.

    >>> facts = DataFacts(channels=("x", "y"), stride=32)
    >>> DataFacts.from_plain(facts.to_plain(), (128, 2), "a test") == facts
    True
    >>> DataFacts().to_plain()
    {}
    """

    channels: tuple[str, ...] = ()
    stride: int | None = None
    interval: float | None = None
    constant: tuple[int, ...] = ()
    reading: Reading = PLAIN

    def stride_of(self, shape: Sequence[int]) -> int:
        """Rows between the starts of windows that are samples of this shape."""
        return self.stride or max(1, shape[0] // 2)

    def name(self, channel: int) -> str:
        """What the channel at this place is called.

        >>> DataFacts().name(2)
        'channel-3'
        """
        return self.channels[channel] if self.channels else f"channel-{channel + 1}"

    def to_plain(self) -> dict[str, Any]:
        """As JSON can hold it; what is not known or as ever is left out."""
        found = {
            "channels": list(self.channels),
            "stride": self.stride,
            "interval": self.interval,
            "constant": list(self.constant),
            "reading": plain_settings(self.reading),
        }
        return {name: value for name, value in found.items() if value not in (None, [], {})}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any], shape: Sequence[int], where: str) -> DataFacts:
        """Those of samples of this shape. Raises ``SettingsError`` that says ``where`` for what makes no sense."""

        def wrong(key: str) -> SettingsError:
            return SettingsError(f"{where}: {key} cannot be {str(plain.get(key))[:80]!r}")

        odd = min(set(plain) - set(_KEYS), default=None)
        if odd is not None:
            raise SettingsError(f"{where} has an unknown key {odd[:60]!r}")
        count = shape[channel_axis(len(shape))]
        channels, constant = plain.get("channels", []), plain.get("constant", [])
        if not _unique(channels, str) or len(channels) not in (0, count) or not all(map(_is_name, channels)):
            raise wrong("channels")
        if not _unique(constant, int) or not all(0 <= place < count for place in constant):
            raise wrong("constant")
        stride, interval, reading = plain.get("stride"), plain.get("interval"), plain.get("reading", {})
        if stride is not None and not (type(stride) is int and stride > 0):
            raise wrong("stride")
        if interval is not None and not (
            type(interval) in (int, float) and interval > 0 and math.isfinite(interval)
        ):
            raise wrong("interval")
        if not isinstance(reading, dict) or {"window", "stride"} & set(reading):
            raise wrong("reading")
        settings = with_settings(PLAIN, reading, where)
        return cls(tuple(channels), stride, interval, tuple(constant), settings)


NO_FACTS = DataFacts()
"""Nothing is known of the data."""


def real_names(names: Sequence[str]) -> tuple[str, ...]:
    """Names of channels; none of those that reading made of numbers.

    >>> real_names(["channel-1", "channel-2"]), real_names(["x", "channel-2"])
    ((), ('x', 'channel-2'))
    """
    made = all(name == f"channel-{k + 1}" for k, name in enumerate(names))
    return () if made else tuple(names)


def _unique(values: Any, kind: type) -> bool:
    return (
        isinstance(values, list)
        and all(type(value) is kind for value in values)
        and len(set(values)) == len(values)
    )


def _is_name(name: str) -> bool:
    return 0 < len(name) <= 200
