"""The edge client's training in torch, twice: ``fedali.step`` as it is, and as PyTorch's tutorials train a module."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812
from safetensors.numpy import load
from torch import Tensor

from benchmarks.edge_workloads import CLASSES, DECAY, INFLUENCE, LEARNING_RATE, SHAPE, EdgeWorkload
from fedali.bundle.file import read_bundle
from fedali.data.normalisation import Normalisation
from fedali.methods import build_method
from fedali.models import ALPSettings, Model, build_model
from fedali.optimizers.rules import Adam
from fedali.step import Batch, Hyper, Shared, State, make_embed, make_head_step, make_predict, make_step
from fedali_client.compute.batches import Batches

Array = npt.NDArray[Any]
DoStep = Callable[[int], None]


def build(workload: EdgeWorkload) -> Model:
    """The model of the workload's bundle."""
    alp = ALPSettings(num_prototypes=workload.prototypes, decay=DECAY)
    return build_model(workload.model, SHAPE, len(CLASSES), alp=alp, seed=0)


def embeddings(model: Model, theta: Tensor, prototypes: Tensor, x: Tensor) -> Tensor:
    """[n, d] of samples [n, *shape], as the edge client caches them."""
    embed = make_embed(model, matcher="cosine")
    return torch.cat([embed(theta, prototypes, piece, INFLUENCE) for piece in x.split(32)])


def functional(model: Model, batches: Batches, state: list[Tensor], shared: Shared, *, head: bool) -> DoStep:
    """Steps 0, 1, ... of ``fedali.step`` on what ``batches`` holds; ``state`` has what ``State`` has, and is replaced."""
    make = make_head_step if head else make_step
    step = make(model, build_method("fedali-paper"), Adam(LEARNING_RATE))
    batch = Batch(*map(torch.from_numpy, (batches.x, batches.y, batches.weights)))
    fixed = (torch.tensor(INFLUENCE), torch.tensor(DECAY))

    def run(number: int) -> None:
        batches.fill(0, 1, number)
        numbers = map(torch.tensor, Adam(LEARNING_RATE).schedule(number + 1))
        state[:], metrics = step(State(*state), batch, shared, Hyper(*numbers, *fixed))
        float(metrics.loss)

    return run


def module(model: Model, batches: Batches, *, head: bool) -> DoStep:
    """Steps of ``loss.backward()`` and ``torch.optim.Adam``."""
    for layer in model.alp_layers:
        layer.influence = INFLUENCE
    model.train()
    parameters = model.head.parameters() if head else model.parameters()
    optimizer = torch.optim.Adam(parameters, lr=LEARNING_RATE)
    x, y = torch.from_numpy(batches.x), torch.from_numpy(batches.y)

    def run(number: int) -> None:
        batches.fill(0, 1, number)
        optimizer.zero_grad()
        logits = model.head(x) if head else model(x).logits
        loss = F.cross_entropy(logits, y)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        loss.item()

    return run


def prepare(workload: EdgeWorkload, contender: str, x: Tensor, y: Tensor) -> DoStep:
    """Steps of ``contender`` on samples [n, *shape] with labels [n]."""
    torch.set_num_threads(1)
    model, head = build(workload), workload.mode == "head"
    theta = model.theta()
    local = torch.randn(model.prototype_layout.size, generator=torch.Generator().manual_seed(0))
    if head:
        x = embeddings(model, theta, local, x)
        theta = theta[-model.head_layout.size :]
    batches = Batches(32, x.numpy(), y.numpy(), None)
    if contender == "module":
        return module(model, batches, head=head)
    start = [theta, *Adam().initial(theta), local]
    return functional(model, batches, start, Shared(theta, local), head=head)


class Personal:
    """A bundle's model as the torch path personalises it.

    Args:
        path: of the bundle; of ``cnn1d`` with the options of the registry.
        theta: parameters to start from; None for the bundle's.
        prototypes: local and global ones to start from; None for the bundle's.
    """

    def __init__(self, path: Path, theta: Array | None, prototypes: Array | None) -> None:
        bundle = read_bundle(path, None, allow_unsigned=True)
        self.manifest, state = bundle.manifest, load(bundle.parts["state.safetensors"])
        given = self.manifest.normalisation
        self.normalise = Normalisation(given.mean, given.std)
        sizes = self.manifest.model.alp["num_prototypes"]  # type: ignore[index]
        alp = ALPSettings(num_prototypes=tuple(sizes), decay=self.manifest.hyper.decay)
        self.model = build_model(self.manifest.model.name, SHAPE, len(self.manifest.classes), alp=alp, seed=0)
        own, local = (state["theta"], state["local_prototypes"]) if theta is None else (theta, prototypes)
        self.theta, self.local = torch.tensor(own), torch.tensor(local)

    def fit(self, x: Array, y: Array, epochs: int) -> None:
        """Train on raw windows as the bundle's mode says."""
        seen, head = torch.from_numpy(self.normalise(x)), self.manifest.mode == "head"
        theta = self.theta
        if head:
            seen, theta = embeddings(self.model, theta, self.local, seen), theta[self.manifest.trained]
        batches = Batches(self.manifest.batch, seen.numpy(), y, None)
        state = [theta, *Adam().initial(theta), self.local]
        step = functional(self.model, batches, state, Shared(theta, self.local), head=head)
        for number in range(epochs * batches.per_epoch):
            step(number)
        self.theta = self.theta.clone()
        self.theta[self.manifest.trained], self.local = state[0], state[3]

    def accuracy(self, x: Array, y: Array) -> float:
        """On raw windows."""
        predict = make_predict(self.model, matcher="cosine")
        pieces = torch.from_numpy(self.normalise(x)).split(256)
        logits = torch.cat([predict(self.theta, self.local, piece, INFLUENCE) for piece in pieces])
        return float((logits.argmax(1).numpy() == y).mean())
