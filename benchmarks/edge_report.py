"""docs/edge-performance.md, written from what was measured; ``python -m benchmarks.edge_report`` writes it again."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.edge_workloads import WORKLOADS
from benchmarks.report import _table
from benchmarks.summary import Results, Spread

RESULTS = Path(__file__).parent / "results" / "edge.json"
PAGE = Path(__file__).parent.parent / "docs" / "edge-performance.md"

_HEAD = """# Performance of the edge client

This page is written by `make bench-edge`; the numbers behind it are in `benchmarks/results/edge.json`. Each measurement is a
process of its own with one thread. Repetitions are interleaved: every contender trains every workload once before the
first does again. Numbers are medians with smallest and largest in brackets; ratios are of numbers of the same run. A
**bar** is what was promised before it was measured.
"""

_STEPS = """## A training step

Batches of {batch}, windows [128, 6], method FedAli, Adam; `cnn1d` has 64 prototypes, `hart` 2048 to 64 in six layers.

- `onnxruntime`: the edge client's `fit`: batches taken and normalised, state kept in a file that survives a kill.
- `torch`: the same step, `fedali.step`, operation by operation. This is what the bars are against.
- `module`: the model as PyTorch's tutorials train it: an `nn.Module`, `loss.backward()`, `torch.optim.Adam`. It does less: no weights
  of samples, no flat state that is replaced as a whole.

Peak memory is the largest resident set of the whole process, interpreter and imports included.
"""

_AGAIN = """## Run it again

```
make bench-edge                                  # everything above
make bench-edge BENCH_ARGS="--quick"             # does it work? prints the page, changes nothing
make bench-edge BENCH_ARGS="--parts steps size"  # some of it; the rest stays as it was
```

Linux only. MotionSense is read from the folder `FEDALI_DATA`; without it that part is skipped, and says so. Sizes need a package
index. Leave the machine alone meanwhile.
"""


def write_page() -> None:
    """Write the page from the results that are there."""
    PAGE.write_text(page(json.loads(RESULTS.read_text("utf-8"))), encoding="utf-8")


def page(results: Results) -> str:
    """The whole page."""
    sections: dict[str, Callable[[Results], str]] = {
        "steps": _steps,
        "imports": _imports,
        "size": _size,
        "parity": _parity,
        "people": _people,
    }
    parts = [_HEAD, _machine(results), *(make(results) for name, make in sections.items() if name in results)]
    return "\n".join(part.strip("\n") + "\n" for part in (*parts, _AGAIN))


def _machine(results: Results) -> str:
    machine = results["machine"]
    found: dict[str, str] = {}
    for part in results["measured"].values():
        found |= part["versions"]
    text = ", ".join(f"{name} {version}" for name, version in sorted(found.items()))
    loads = ", ".join(f"{name} {part['load']}" for name, part in results["measured"].items())
    return (
        f"## Machine\n\n{machine['processor']} (family/model {machine['family_model']}, "
        f"{'with' if machine['avx512'] else 'without'} AVX-512), {machine['cores']} cores, {machine['memory_gb']} GB, "
        f"{machine['system']}. {text}. Load at the end of each part (1 is this benchmark itself): {loads}.\n"
    )


def bar(ratio: float, most: float) -> str:
    """A number beside its bar."""
    return f"{ratio:.2f} (bar {most:g}{'' if ratio <= most else ', **missed**'})"


def _steps(results: Results) -> str:
    steps = results["steps"]
    rows, sizes = [], []
    for name, workload in WORKLOADS.items():
        runs = {
            c: [r for r in steps["runs"] if (r["workload"], r["contender"]) == (name, c)]
            for c in _names(steps)
        }
        base = {c: (_median(r, "median"), _median(r, "peak_rss")) for c, r in runs.items()}
        for contender, found in runs.items():
            time, memory = base[contender]
            ours = contender == "onnxruntime"
            rows.append(
                (
                    workload.description if ours else "",
                    f"`{contender}`",
                    Spread.of(1e3 * r["median"] for r in found),
                    bar(time / base["torch"][0], workload.most_time) if ours else "",
                    f"{time / base['module'][0]:.2f}" if ours else "",
                    Spread.of(round(r["peak_rss"] / 1e6) for r in found),
                    bar(memory / base["torch"][1], workload.most_memory) if ours else "",
                    f"{memory / base['module'][1]:.2f}" if ours else "",
                )
            )
        facts = steps["workloads"][name]
        graphs = ", ".join(
            f"{graph} {g['nodes']} nodes, {g['bytes'] / 1e3:.0f} kB" for graph, g in facts["graphs"].items()
        )
        sizes.append(
            (
                workload.description,
                f"{facts['parameters']:,}",
                f"{facts['trained']:,}",
                f"{facts['bundle_bytes'] / 1e6:.2f}",
                graphs,
            )
        )
    speed = _table(
        (
            "training",
            "contender",
            "ms a step",
            "x torch",
            "x module",
            "peak memory, MB",
            "x torch",
            "x module",
        ),
        rows,
    )
    header = ("training", "parameters", "trained", "bundle, MB", "graphs")
    return "\n".join(
        [_STEPS.format(batch=results["batch"]), speed, "", "Bundles:", "", _table(header, sizes)]
    )


def _names(steps: Results) -> list[str]:
    return list(dict.fromkeys(run["contender"] for run in steps["runs"]))


def _median(runs: Sequence[Results], key: str) -> float:
    return statistics.median(run[key] for run in runs)


def _imports(results: Results) -> str:
    found = results["imports"]
    torch_seconds = statistics.median(found["torch"]["seconds"])
    rows = []
    for kind, values in found.items():
        seconds, memory = statistics.median(values["seconds"]), statistics.median(values["rss"]) / 1e6
        ours = kind != "torch"
        limit = "" if kind != "fedali_client" else f" (bar 60{'' if memory <= 60 else ', **missed**'})"
        rows.append(
            (
                f"`import {kind.replace(' and ', ', ')}`",
                Spread.of(values["seconds"]),
                bar(seconds / torch_seconds, 0.2) if ours else "",
                f"{memory:.0f}{limit}",
            )
        )
    text = (
        "## Imports\n\nIn a fresh process; `fedali_client` imports onnxruntime when it first opens a graph.\n"
    )
    return "\n".join([text, _table(("import", "s", "x torch", "resident memory, MB"), rows)])


def _size(results: Results) -> str:
    here, there = results["size"]["x86-64"], results["size"]["aarch64"]
    megabytes = here["bytes"] / 1e6
    without = (here["bytes"] - here["compiled_bytes"]) / 1e6
    count = len(here["packages"])
    rows = [
        ("x86-64, as pip installs it", f"{megabytes:.0f}", _limit(megabytes, 180)),
        ("x86-64, `pip install --no-compile`", f"{without:.0f}", _limit(without, 180)),
        ("aarch64, files in the wheels", f"{there['bytes'] / 1e6:.0f}", _limit(there["bytes"] / 1e6, 140)),
    ]
    listed = ", ".join(f"{name} {version}" for name, version in here["packages"].items())
    largest = ", ".join(f"{name} {size / 1e6:.0f}" for name, size in here["largest"].items())
    wheels = sorted(there["packages"].items(), key=lambda item: -item[1])[:6]
    return "\n".join(
        [
            "## On disk\n\nThe extra `client` with all it needs, Python itself left out.\n",
            _table(("where", "MB", "bar"), rows),
            "",
            f"pip compiles every module, also those that are never imported: {here['compiled_bytes'] / 1e6:.0f} MB on x86-64. "
            "`--no-compile` leaves that away; Python compiles what is really imported.",
            f"Largest on x86-64, MB: {largest}; on aarch64: {', '.join(f'{n} {s / 1e6:.0f}' for n, s in wheels)}.",
            f"{count} packages (bar 12{'' if count <= 12 else ', **missed**'}): {listed}.",
            "",
            "A device that joins a federation needs the extra `join`, which brings grpcio.",
        ]
    )


def _limit(value: float, most: float) -> str:
    return f"{most:g}" if value <= most else f"{most:g}, **missed**"


def _parity(results: Results) -> str:
    rows = []
    for row in results["parity"]:
        errors = row["parity"]
        train = errors["train"]
        others = ", ".join(
            f"{name} {found['error']:.1e}" for name, found in errors.items() if name != "train"
        )
        nodes = row["graphs"]["train"]["nodes"]
        rows.append(
            (
                row["model"],
                ", ".join(row["methods"]),
                row["mode"],
                f"{train['error']:.1e}, {train['what'].partition(',')[0]}",
                others,
                nodes,
                f"{row['bundle_bytes'] / 1e6:.2f}",
            )
        )
    worst = max(found["error"] for row in results["parity"] for found in row["parity"].values())
    text = (
        "## Parity with torch\n\nThe gate that each export passes (`fedali_server.export.parity`): every graph on random batches against the "
        "torch function that it was made of. The largest relative error of all that a step gives (gradient, step, moments, movement of "
        f"prototypes, loss), and of logits, embeddings and prototypes of the other graphs. Worst: {worst:.1e} "
        f"(bar 1e-05{'' if worst <= 1e-5 else ', **missed**'}).\n"
    )
    header = ("model", "methods", "mode", "train", "other graphs", "nodes of train", "bundle, MB")
    return "\n".join([text, _table(header, rows)])


def _people(results: Results) -> str:
    found = results["people"]
    if "skipped" in found:
        return f"## MotionSense\n\nSkipped: {found['skipped']}\n"
    from benchmarks.edge_report_people import people

    return people(found)


if __name__ == "__main__":
    write_page()
