"""Bundles and what torch makes of them, for tests on machines without torch: ``python -m tests.device.prepare FOLDER``."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path

import numpy as np
import torch

from fedali.answers import PROTOTYPES
from fedali.answers.between import HALFWAY, model_at
from fedali.answers.gate import Gate, mixed, probabilities
from fedali.bundle.manifest import BundleNormalisation, Component
from fedali.data import Normalisation
from fedali.data.normalisation import channel_shape
from fedali.methods import build_method
from fedali.models import ALPSettings, Model, build_model
from fedali.optimizers.rules import SGD, Adam
from fedali.step import (
    Batch,
    Hyper,
    Shared,
    State,
    make_adapt,
    make_embed,
    make_head_step,
    make_predict,
    make_step,
)
from fedali_client.compute.batches import Batches, OwnOrder
from fedali_server.export.bundle_export import export_bundle
from fedali_server.export.draws import Draw, Subject
from fedali_server.export.source import Source, Start
from tests import bundles
from tests.device.recorded import CASES, COPY, FACTS

CLASSES, BATCH, ROUND, DECAY = ("rest", "walk", "run"), 8, 2, 0.7
SMALL = {
    "mlp": ((12,), {"hidden": (8, 6)}),
    "cnn1d": ((33, 6), {"channels": (8, 16), "hidden": 5}),
    "cnn2d": ((2, 9, 8), {"kernel": 3, "channels": (4, 8), "embedding": 6}),
    "hart": ((32, 6), {"dim": 32, "kernels": (3,), "hidden": 16}),
}
VARIANTS = {  # method, ALP layers, optimizer, mode
    "fedali-paper": (
        "fedali-paper",
        ALPSettings(num_prototypes=(4,), decay=DECAY, scale=2.0),
        Adam(),
        "full",
    ),
    "fedali-head": ("fedali-head", ALPSettings(num_prototypes=(4,), decay=DECAY), Adam(), "head"),
    "fedper": ("fedper", None, SGD(0.05), "full"),
    "fedali": ("fedali", None, Adam(), "full"),
}
OPTIONS = {
    "fedali": {"balance": 0.0}
}  # the step is FedAvg's: of another balance it has a slot of class counts


def write_case(folder: Path, name: str, model_name: str, variant: str) -> None:
    """Write ``NAME.fedali``, and ``NAME.npz`` with samples and what torch makes of them."""
    shape, options = SMALL[model_name]
    method_name, alp, optimizer, mode = VARIANTS[variant]
    method = build_method(method_name, OPTIONS.get(method_name))
    model = build_model(model_name, shape, len(CLASSES), alp=alp, seed=0, **options)
    head, theta = mode == "head", model.theta()
    subject = Subject(model, method, optimizer, theta, shape, len(CLASSES), mode, BATCH)
    draw = _clear_draw(subject, method.influence(ROUND))
    local, shared = draw.local.numpy(), draw.global_.numpy()
    mean = np.linspace(-0.5, 0.5, channel_shape(shape)[0], dtype=np.float32).reshape(channel_shape(shape))
    statistics = BundleNormalisation("global", mean, np.full_like(mean, 2.0))
    count = BATCH - 2  # the rest of the batch is padding
    raw = draw.x[:count].numpy() * statistics.std + statistics.mean
    start = Start(theta.numpy(), local, theta.numpy(), shared)
    x = torch.from_numpy(Normalisation(statistics.mean, statistics.std)(raw))
    logits = make_predict(model, matcher="cosine")(
        theta, draw.local, x, torch.tensor(method.influence(ROUND))
    ).numpy()
    if method.answer == "gate":
        start, logits = _gated(model, theta, x)
    source = Source(
        name=name,
        model=model,
        component=Component(model_name, dict(options), None if alp is None else dataclasses.asdict(alp)),
        method=method,
        optimizer=optimizer,
        start=start,
        round=ROUND,
        decay=DECAY,
        normalisation=statistics,
        input_shape=shape,
        classes=CLASSES,
    )
    export_bundle(
        folder / f"{name}.fedali", source, mode=mode, batch=BATCH, created="2030-01-01T00:00:00+00:00"
    )

    influence, decay = torch.tensor(draw.influence), torch.tensor(DECAY)
    y = draw.y[:count].numpy()
    seen = make_embed(model, matcher="cosine")(theta, draw.local, x, influence) if head else x
    batches = Batches(BATCH, seen.numpy(), y, None)
    batches.fill(OwnOrder(0, 1), 0)
    trained = theta[-model.head_layout.size :] if head else theta
    step = (make_head_step if head else make_step)(model, method, optimizer)
    state, metrics = step(
        State(trained, *optimizer.initial(trained), draw.local),
        Batch(*map(torch.from_numpy, (batches.x, batches.y, batches.weights))),
        Shared(trained, draw.global_),
        Hyper(*map(torch.tensor, optimizer.schedule(1)), influence, decay),
    )
    expected = {
        **{name: value.numpy() for name, value in state._asdict().items()},
        "loss": np.float32(metrics.loss / metrics.weight),
        "logits": logits,
    }
    if alp is not None and not head:
        given = (batches.x, batches.weights)
        moved = make_adapt(model)(
            theta, draw.local, *map(torch.from_numpy, given), draw.global_, influence, decay
        )
        expected["adapted"] = moved.numpy()
    expected |= {"start_theta": trained.numpy(), "start_prototypes": local}
    np.savez(folder / f"{name}.npz", x=raw, y=y, **expected)


def _gated(model: Model, theta: torch.Tensor, x: torch.Tensor) -> tuple[Start, np.ndarray]:
    """A client that answers by a gate which is half open, and the logarithms of its answers' probabilities."""
    random, nothing = np.random.default_rng(3), torch.zeros(0)
    shared = theta + 0.1 * torch.from_numpy(random.standard_normal(len(theta)).astype(np.float32))
    seen = make_embed(model, matcher="cosine")(shared, nothing, x, torch.tensor(0.0)).numpy()
    near = [seen[random.integers(len(seen), size=PROTOTYPES)] for _ in range(2)]
    own, everyone = (z + z.std() * random.standard_normal(z.shape).astype(np.float32) for z in near)
    gate = Gate.of(own, everyone, seen)
    personal = torch.from_numpy(model_at(HALFWAY, theta.numpy(), shared.numpy()))
    answer = make_predict(model, matcher="cosine")
    both = (probabilities(answer(v, nothing, x, torch.tensor(0.0)).numpy()) for v in (personal, shared))
    answers = mixed(gate(seen), *both)
    of_all = everyone.reshape(-1).astype(np.float32)
    vectors = (np.concatenate([vector.numpy(), of_all]) for vector in (theta, shared))
    empty = np.zeros(0, np.float32)
    mine, others = vectors
    return Start(mine, empty, others, empty, gate), np.log(answers).astype(np.float32)


def _clear_draw(subject: Subject, influence: float) -> Draw:
    """The clearest of some random batches: no choice in it is left to the last bits."""
    found: list[tuple[float, int]] = []
    draws = [Draw(subject, number, BATCH) for number in range(20)]
    for number, draw in enumerate(draws):
        draw.influence, draw.decay = influence, DECAY
        gaps = [float(draw.gaps(subject, training=training)[: BATCH - 2].min()) for training in (True, False)]
        found.append((min(gaps), number))
    return draws[max(found)[1]]


def _case(folder: Path, model: str, variant: str) -> None:
    torch.set_num_threads(1)
    write_case(folder / CASES, f"{model}-{variant}", model, variant)


def main() -> None:
    """Write all cases, and the bundle that the client's own tests open."""
    folder = Path(sys.argv[1])
    (folder / CASES).mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        for case in [pool.submit(_case, folder, *pair) for pair in product(SMALL, VARIANTS)]:
            case.result()
    bundles.write_full(folder / COPY)
    (folder / FACTS).write_text(json.dumps({"shape": bundles.SHAPE, "classes": bundles.CLASSES}))


if __name__ == "__main__":
    main()
