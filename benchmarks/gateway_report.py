"""docs/gateway-performance.md, written from what was measured; ``python -m benchmarks.gateway_report`` writes it again."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from benchmarks.report import _table

RESULTS = Path(__file__).parent / "results" / "gateway.json"
PAGE = Path(__file__).parent.parent / "docs" / "gateway-performance.md"
_HANDOUT, _GROWTH, _DEVICES = 1.0, 0.20, 500  # the bars

_TEXT = """# Performance of the gateway

This page is written by `make bench-gateway`; the numbers behind it are in `benchmarks/results/gateway.json`. A **bar** is what
was promised before it was measured.

One gateway process on one core; the devices are one process on the other core{plural}, each with its own certificate and
connection, over mutual TLS on loopback. They have no training to do: all of them ask for the state, fetch it and send their
update at once, which is the worst that a round can bring. Rounds are of the method FedAli with `mlp`, {parameters:,} parameters and
{prototypes:,} numbers of prototypes, in float32: {sent:.1f} MB to each device and {received:.1f} MB from it in a round. All sums were
checked. Each number of devices got a fresh gateway; {rounds} rounds each.

{table}

- hand-out: from the order at the gateway's socket to the task at a device, all of which are waiting; over all devices and rounds.
- heartbeat: how long {probes} devices waited for the answers to heartbeats, sent all the time while models moved.
- memory: resident, of the gateway: when all devices are connected, and the most it ever had.

{bars}

What grows with the devices is first of all the buffers of TLS and HTTP/2: {idle:.0f} kB for each connection that has moved nothing yet, and more once
it has. A device sends when it is its turn, and connects anew after a large transfer, so that the
blocks of 64 KiB that gRPC reads bursts into are there for the 16 whose turn it is alone.

Not shown here: links that are slower than loopback, where a round takes the devices' time and the gateway waits; kernels of
prototypes that moved so far that they have to be matched anew, a millisecond each for {rows} rows; disks slower than this one: an
update is on the disk before it is acknowledged.

{machine}
"""


def line(run: dict[str, Any]) -> str:
    """A run in a line, for the terminal."""
    facts = _facts(run)
    return "  ".join(f"{name} {value}" for name, value in facts.items())


def verdict(results: dict[str, Any]) -> str:
    """The bars, and whether they were met."""
    most = max(results["runs"], key=lambda run: run["devices"])
    least = min(results["runs"], key=lambda run: run["devices"])
    growth = most["memory"]["peak"] / least["memory"]["peak"] - 1
    slowest = max(_p99(run["handout"]) for run in results["runs"])
    lines = [
        _bar(most["devices"] >= _DEVICES, f"rounds of {_DEVICES} devices are complete: {most['devices']}"),
        _bar(slowest < _HANDOUT, f"99 % of hand-outs take less than {_HANDOUT:g} s: {slowest:.2f} s"),
        _bar(
            growth <= _GROWTH,
            f"the peak of memory grows by {100 * _GROWTH:.0f} % at most from {least['devices']} to {most['devices']} devices: "
            f"{100 * growth:+.0f} %",
        ),
    ]
    return "\n".join(lines)


def write() -> None:
    """Write the page."""
    results = json.loads(RESULTS.read_text())
    facts = [_facts(run) for run in results["runs"]]
    cores = results["cores"]["devices"]
    run = results["runs"][-1]
    kind, model = results["machine"], results["model"]
    PAGE.write_text(
        _TEXT.format(
            plural="" if cores == 1 else "s",
            table=_table(list(facts[0]), [list(each.values()) for each in facts]),
            bars=verdict(results),
            rounds=results["rounds"],
            probes=10,
            idle=_idle(results["runs"]),
            rows=64,
            sent=run["received"] / 1e6,
            received=run["sent"] / 1e6,
            machine=f"Machine: {kind['processor']} ({kind['family_model']}), {kind['cores']} cores, {kind['memory_gb']} GB, "
            f"{kind['system']}. " + ", ".join(f"{name} {v}" for name, v in results["versions"].items()) + ".",
            **{name: model[name] for name in ("parameters", "prototypes")},
        )
    )


def _idle(runs: list[dict[str, Any]]) -> float:
    """kB of a connection."""
    least, most = runs[0], runs[-1]
    more = max(1, most["devices"] - least["devices"])
    return float(most["memory"]["connected"] - least["memory"]["connected"]) / more / 1e3


def _facts(run: dict[str, Any]) -> dict[str, str]:
    seconds = [each["seconds"] for each in run["rounds"]]
    busy = [each["cpu_seconds"] for each in run["rounds"]]
    memory = run["memory"]
    return {
        "devices": str(run["devices"]),
        "round, s": f"{statistics.median(seconds):.1f} [{min(seconds):.1f}, {max(seconds):.1f}]",
        "gateway's core, ms a device": f"{1e3 * statistics.median(busy) / run['devices']:.0f}",
        "hand-out, median / 99 %, s": f"{statistics.median(run['handout']):.2f} / {_p99(run['handout']):.2f}",
        "heartbeat, median / 99 %, s": f"{statistics.median(run['heartbeat']):.3f} / {_p99(run['heartbeat']):.2f}",
        "memory connected / peak, MB": f"{memory['connected'] / 1e6:.0f} / {memory['peak'] / 1e6:.0f}",
    }


def _p99(values: list[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(0.99 * len(values)))]


def _bar(met: bool, text: str) -> str:
    return f"- **bar {'met' if met else 'missed'}**: {text}"


if __name__ == "__main__":
    write()
