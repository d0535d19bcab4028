"""docs/performance.md, written from what was measured; ``python -m benchmarks.report`` writes it again."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.summary import Line, Results, Spread, lines, peak, short

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parent.parent / "docs" / "performance.md"
_RIVALS = ("flower-ray", "pfl")

_HEAD = """# Performance

This page is written by `make bench` and `make bench-scale`; the numbers behind it are in `benchmarks/results/`.

## What was measured

The same clients, model, batches and optimizer in each simulator: a client update is {epochs} epochs of Adam (1e-3, cross-entropy)
in batches of {batch_size}. Clients are ragged: sizes are lognormal around 200 samples, clipped to 40 to 640. Samples are synthetic and depend
on their class. All clients of a workload train in every round.

- `fedali-<engine>`: this project's simulator with one of its engines and {workers} workers: FedAli with alignment by optimal transport, a
  checkpoint and a table of metrics after each round, no evaluation. `stacked` is for GPUs and takes part where one is.
- `flower-ray`: Flower's `run_simulation` with {workers} Ray actors, FedAvg, and a client as in Flower's PyTorch quickstart. It trains the same
  model as a plain `nn.Module`; parameters and one set of prototypes travel.
- `pfl`: pfl-research's simulated federated averaging, which is one process. Only parameters are averaged; batches keep their order.

Each run is a process of its own. Repetitions ({repetitions}) are interleaved: every contender runs once before the first runs again. Numbers
are medians with smallest and largest in brackets, over all rounds after the first of all repetitions.

- GFLOP/s a core: matrix and convolution operations of the plain training step (`FlopCounterMode`), for the samples that were really
  trained, over processor seconds of the whole process tree. Padding and recomputation count for nothing.
- Of peak: that over a product of two 2048 x 2048 float32 matrices on one thread, measured before each repetition of a workload:
  {peak} GFLOP/s; {together} a core when all cores do it at once. That product is MKL's. oneDNN, which torch calls for
  convolutions and which graphs of `fedali-compiled` call for large products too, {onednn}: over 100 % is no error.
- Memory: peak proportional set size of the process tree, once caches are filled.
- First round done: from the start of the process. Cold: caches are empty and a compiling engine compiles.
"""

_AGAIN = """
## Run it again

```
make bench                                   # everything above; a quarter of an hour to an hour on two cores
make bench BENCH_ARGS="--quick"              # does it work? prints the page, changes nothing
make bench BENCH_ARGS="--workloads A As --contenders fedali-compiled flower-ray --repetitions 5"
make bench-scale
```

The environments `.venv-bench` (Flower with Ray) and `.venv-pfl` are made by these commands and used by nothing else. Linux only. Leave the machine
alone meanwhile.
"""


def write_page() -> None:
    """Write the page from the results that are there."""
    bench, scale = (_read(RESULTS / name) for name in ("bench.json", "scale.json"))
    if bench:
        PAGE.write_text(page(bench, scale), encoding="utf-8")


def page(results: Results, scale: dict[str, Any] | None) -> str:
    """The whole page."""
    together = statistics.median(p["together"] for p in results["peaks"])
    found = [p["onednn"] for p in results["peaks"] if "onednn" in p]
    onednn = (
        f"does the same one at {short(statistics.median(found))} GFLOP/s here" if found else "may be faster"
    )
    head = _HEAD.format(**results["plan"], peak=peak(results), together=short(together), onednn=onednn)
    parts = [head, _machine(results)]
    parts += [_workload(results, name) for name in results["workloads"]]
    parts.append(_overhead(results))
    if scale:
        parts.append(scale_section(scale))
    parts += [_missing(results), _AGAIN]
    return "\n".join(part.strip("\n") + "\n" for part in parts if part)


def scale_section(scale: dict[str, Any]) -> str:
    """What ``make bench-scale`` found."""
    header = (
        "clients",
        "train a round",
        "engine",
        "s a round",
        "training",
        "overhead",
        "RSS, MB",
        "anonymous, MB",
    )
    rows, notes = [], []
    for case in scale["cases"]:
        steady = case["rounds"][1:]
        overhead = Spread.of(100 * (r["seconds"] - r["training"]) / r["training"] for r in steady)
        rows.append(
            (
                f"{case['clients']:,}",
                f"{case['trained_in_a_round']:,}",
                case["engine"],
                Spread.of(r["seconds"] for r in steady),
                Spread.of(r["training"] for r in steady),
                f"{overhead} %",
                " ".join(f"{r['rss'] / 1e6:.0f}" for r in case["rounds"]),
                " ".join(f"{r['anonymous'] / 1e6:.0f}" for r in case["rounds"]),
            )
        )
        notes.append(
            f"- {case['clients']:,} clients: {_idle(case['bytes_per_idle_client'])} of memory for one that does not train, "
            f"{case['bytes_kept_per_trained_client']:,} bytes on disk for one that has trained; {case['workers']} worker."
        )
    text = (
        "## Many clients\n\nMethod `fedali-head`, model `cnn1d` with 16, 32 and 32 channels and a linear head, "
        f"{scale['samples']} float16 windows [128, 6] a client in a memory-mapped file, {scale['epochs']} epochs. "
        "Overhead is everything of a round but the training of its clients, over that training. "
        "RSS after each round holds pages of the samples' file; anonymous memory does not.\n"
    )
    return "\n".join([text, _table(header, rows), "", *notes]) + "\n"


def _idle(size: float) -> str:
    """Growth of anonymous memory; none where what had been freed before was enough."""
    return f"{size:.0f} bytes" if size > 0 else "no growth"


def _machine(results: Results) -> str:
    machine = results["machine"]
    found: dict[str, str] = {}
    for run in results["runs"]:
        found |= run["versions"]
    text = ", ".join(f"{name} {version}" for name, version in sorted(found.items()))
    return (
        "## Machine\n\n"
        f"{machine['processor']} (family/model {machine['family_model']}, {'with' if machine['avx512'] else 'without'} AVX-512), "
        f"{machine['cores']} cores, {machine['memory_gb']} GB, {machine['system']}; load before the start {machine['load_before']}. {text}.\n"
    )


def _workload(results: Results, name: str) -> str:
    facts, found = results["workloads"][name], lines(results, name)
    if not found:
        return ""
    per_sample = short(facts["flops_per_sample"] / 1e6)
    text = (
        f"## Workload {name}\n\n{facts['description']}: {facts['parameters']:,} parameters, {facts['prototype_values']:,} prototype values, "
        f"{per_sample} MFLOP a sample and step. {facts['clients']} clients, {facts['samples']:,} samples, {facts['steps']:,} steps a round; {facts['steady_rounds']} measured in each repetition.\n"
    )
    if "again" in facts:
        again = facts["again"]
        text += (
            f"\nMeasured again later than the others, {again['repetitions']} repetitions, load before the start {again['load_before']}: "
            "compare within this workload alone.\n"
        )
    speed = _table(
        (
            "contender",
            "s a round",
            "client updates/s",
            "samples/s",
            "CPU s an update",
            "GFLOP/s a core",
            "of peak",
        ),
        [
            (x.contender, x.seconds, x.updates, x.samples, x.cpu, x.gflops, f"{100 * x.share.median:.0f} %")
            for x in found
        ],
    )
    around = _table(
        (
            "contender",
            "memory, MB",
            "first round done, cold",
            "warm, s",
            *_ratio_titles(found),
            "loss at the end",
        ),
        [
            (
                x.contender,
                short(x.memory.median / 1e6),
                f"{short(x.cold)} s",
                x.warm or "",
                *_ratios(x, found),
                short(x.loss.median),
            )
            for x in found
        ],
    )
    return "\n".join([text, speed, "", around, "", _breakdown(found)])


def _ratio_titles(found: Sequence[Line]) -> list[str]:
    rivals = [line.contender for line in found if line.contender in _RIVALS]
    return [f"{kind} x {rival}" for rival in rivals for kind in ("speed", "per CPU s")]


def _ratios(line: Line, found: Sequence[Line]) -> list[str]:
    cells = []
    for rival in (x for x in found if x.contender in _RIVALS):
        cells.append(short(line.updates.median / rival.updates.median))
        cells.append(short(rival.cpu.median / line.cpu.median))
    return cells


def _breakdown(found: Sequence[Line]) -> str:
    split = [line for line in found if line.parts]
    if not split:
        return ""
    names = ("training", "alignment", "checkpoint", "other")
    rows = []
    for line in split:
        total = sum(line.parts.values())
        cells = (
            f"{short(line.parts.get(n, 0.0))} ({100 * line.parts.get(n, 0.0) / total:.0f} %)" for n in names
        )
        rows.append((line.contender, *cells))
    header = ("a steady round, s", "waiting for training", "alignment", "checkpoint, metrics", "other")
    return _table(header, rows) + "\n"


def _overhead(results: Results) -> str:
    rows = []
    for name in results["workloads"]:
        found = lines(results, name, training=False)
        for line in found:
            cost = Spread.of(1e3 / n for n in (line.updates.high, line.updates.median, line.updates.low))
            title = "fedali" if line.contender == "fedali-echo" else line.contender
            facts = results["workloads"][name]
            clients = facts.get("idle_clients", facts["clients"])
            spent = short(1e3 * line.cpu.median)
            rows.append((name, clients, title, cost, spent, f"{line.memory.median / 1e6:.0f}"))
    if not rows:
        return ""
    text = (
        "## Without training\n\nClients give back what they got: what is left is messages, actors, aggregation; "
        "for `fedali` also alignment and checkpoints.\n"
    )
    header = ("workload", "clients", "simulator", "ms a client", "CPU ms a client", "memory, MB")
    return "\n".join([text, _table(header, rows)]) + "\n"


def _missing(results: Results) -> str:
    skipped = [f"- `{name}` was skipped: {why}" for name, why in results["skipped"].items()]
    failed = [
        f"- `{run['contender']}` failed on {run['workload']} (repetition {run['repetition'] + 1}): {run['why']}"
        for run in results["failed"]
    ]
    return "\n".join(["## Missing", "", *skipped, *failed]) + "\n" if skipped or failed else ""


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    cells = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in row) + " |" for row in cells)


def _read(path: Path) -> Any:
    return json.loads(path.read_text("utf-8")) if path.exists() else None


if __name__ == "__main__":
    write_page()
