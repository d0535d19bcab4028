"""Which engine and device runs which kind of network, and how far it is from the loop: the table of docs/models.md.

    python -m benchmarks.models                              # all networks, all engines; minutes each, kept as they are done
    python -m benchmarks.models --networks vit --engines onnx
    python -m benchmarks.models --write docs/models.md       # what is kept, as the table between the marks of a page

Networks are small, with random weights, in plain torch (tests/networks.py). Two clients train for a round of two epochs of fedali-paper, an ALP layer
before the head; what is measured is the norm of the difference of their parameters to the loop's, by how far the loop moved them. For devices it is what the
export of FedAvg checks itself.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedali import __version__, adapt
from fedali.bundle.manifest import BundleNormalisation, Component
from fedali.data import Normalisation
from fedali.engines.base import Engine, Samples, TrainJob
from fedali.engines.compiled import CompiledEngine
from fedali.engines.loop import LoopEngine
from fedali.engines.onnx import OnnxEngine
from fedali.engines.stacked import StackedEngine
from fedali.errors import FedaliError
from fedali.methods import build_method
from fedali.models import ALPSettings
from fedali.optimizers.rules import SGD
from fedali.recipe import Recipe
from fedali_server.export.bundle_export import export_bundle
from fedali_server.export.source import Source, Start
from tests.networks import SMALL

KEPT = Path(__file__).parent / "results" / "models.json"
BEGIN, END = "<!-- models: begin -->", "<!-- models: end -->"
BATCH, CLASSES = 4, 3
ALP = ALPSettings(
    num_prototypes=(4,), topk_from="tokens", decay=0.7, scale=3.0
)  # batches of one size: fewer graphs
TITLES = {
    "resnet18": "ResNet, as ResNet-18 (BatchNorm, overlapping pooling)",
    "mobilenetv2": "MobileNetV2 (inverted residuals, depthwise, ReLU6)",
    "vit": "ViT (timm's attention, class token)",
    "encoder": "torch's TransformerEncoder over windows",
    "gru": "GRU of two layers over windows",
    "lstm": "LSTM over windows",
    "resnet1d": "ResNet of one dimension",
    "deepconvlstm": "DeepConvLSTM",
}
ENGINES: dict[str, Callable[[Recipe, Path], Engine]] = {
    "stacked": lambda recipe, folder: StackedEngine(recipe, device="cpu"),
    "compiled": lambda recipe, folder: CompiledEngine(recipe, cache=folder),
    "onnx": lambda recipe, folder: OnnxEngine(recipe, cache=folder),
}
COLUMNS = (*ENGINES, "device")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", default=",".join(SMALL))
    parser.add_argument("--engines", default=",".join(COLUMNS))
    parser.add_argument("--write", type=Path, help="a page to put the kept table into; measures nothing")
    options = parser.parse_args()
    if options.write:
        write(options.write, _kept())
        return
    torch.set_num_threads(1)
    for engine in options.engines.split(","):
        for name in options.networks.split(","):
            recipe = recipe_of(name, "fedavg" if engine == "device" else "fedali-paper")
            started = time.perf_counter()
            try:
                found: float | str = (
                    device(recipe) if engine == "device" else distance(recipe, ENGINES[engine])
                )
            except FedaliError as error:
                found = f"no: {error}"
            print(name, engine, found, f"{time.perf_counter() - started:.0f} s", flush=True)
            kept = _kept()  # another process may have written meanwhile
            kept.setdefault(name, {})[engine] = found
            KEPT.write_text(
                json.dumps({**kept, "version": f"{__version__}, torch {torch.__version__}"}, indent=1) + "\n"
            )


def recipe_of(name: str, method: str) -> Recipe:
    """A method on one network, by SGD."""
    make, shape = SMALL[name]
    torch.manual_seed(0)
    chosen = build_method(method)
    model = adapt(make()).build(shape, CLASSES, ALP if chosen.uses_prototypes else None)
    return Recipe(model, chosen, SGD(1e-2), shape, 2, BATCH, ALP.decay)


def distance(recipe: Recipe, make: Callable[[Recipe, Path], Engine]) -> float:
    """The largest distance of a client to the loop's, by how far the loop's moved."""
    jobs = jobs_of(recipe)
    loop = list(LoopEngine(recipe).train(jobs))
    with tempfile.TemporaryDirectory() as folder:
        found = list(make(recipe, Path(folder)).train(jobs))
    apart = [
        np.linalg.norm(one.theta - other.theta) / np.linalg.norm(one.theta - job.theta)
        for one, other, job in zip(loop, found, jobs, strict=True)
    ]
    return float(max(apart))


def jobs_of(recipe: Recipe) -> list[TrainJob]:
    """Two clients with random samples."""
    rng = np.random.default_rng(0)
    theta, jobs = recipe.model.theta().numpy(), []
    local, shared = rng.standard_normal((2, recipe.model.prototype_layout.size)).astype(np.float32)
    for client, count in enumerate((8, 4)):
        x = rng.standard_normal((count, *recipe.input_shape)).astype(np.float16)
        samples = Samples(x, rng.integers(0, CLASSES, count), Normalisation(np.float32(0), np.float32(1)))
        seed = np.random.SeedSequence([7, client])
        jobs.append(TrainJob(samples, theta, local, theta, shared, 0.3, seed))
    return jobs


def device(recipe: Recipe) -> float:
    """The largest error that the export of a bundle finds in its graphs, against torch."""
    theta, nothing = recipe.model.theta().numpy(), np.zeros(0, np.float32)
    source = Source(
        name="own",
        model=recipe.model,
        component=Component("networks:Net", {}),
        method=recipe.method,
        optimizer=SGD(1e-2),
        start=Start(theta, nothing, theta, nothing),
        round=0,
        decay=0.9,
        normalisation=BundleNormalisation("none", np.zeros((), np.float32), np.ones((), np.float32)),
        input_shape=recipe.input_shape,
        classes=tuple(str(number) for number in range(CLASSES)),
    )
    with tempfile.TemporaryDirectory() as folder:
        bundle = export_bundle(Path(folder) / "own.fedali", source, batch=4)
    return max(parity.error for parity in bundle.manifest.parity.values())


def write(page: Path, kept: dict[str, Any]) -> None:
    """Put the table between the marks of a page."""
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    lines = [f"| network | {' | '.join(COLUMNS)} |", f"| --- {'| --- ' * len(COLUMNS)}|"]
    for name, title in TITLES.items():
        row = kept.get(name, {})
        lines.append(f"| {title} | {' | '.join(_cell(row.get(column)) for column in COLUMNS)} |")
    made = f"FedAli {kept.get('version', '')}; one x86 core, float32."
    page.write_text(f"{before}{BEGIN}\n{chr(10).join(lines)}\n\n{made}\n{END}{after}")


def _kept() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    return found


def _cell(value: object) -> str:
    if value is None:
        return "not measured"
    return f"{value:.0e}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
