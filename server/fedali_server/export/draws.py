"""Random batches to compare two ways of computing with: without near-ties, where rounding alone decides what follows.

An ALP layer picks prototypes for tokens, and tokens for prototypes, by the largest match. Where two are nearly equal,
float32 decides by its last bits, and both decisions are right.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from fedali.alp import Alignment, ALPLayer, match
from fedali.answers import PROTOTYPES
from fedali.bundle.manifest import Mode
from fedali.errors import BundleError
from fedali.methods import Method
from fedali.models import Model
from fedali.optimizers.rules import Optimizer
from fedali.step import make_embed
from fedali.tasks import CLASSIFICATION, Task

TIES = (1e-4, 3e-5, 1e-5)  # how near is near, relative; smaller where no batch is without
_BATCHES, _TRIES = 3, 60


@dataclass(frozen=True)
class Subject:
    """What graphs are compared with: a model with its method, optimizer and a client's vector [P]."""

    model: Model
    method: Method
    optimizer: Optimizer
    vector: Tensor
    input_shape: tuple[int, ...]
    classes: int
    mode: Mode
    batch: int
    task: Task = CLASSIFICATION

    @property
    def theta(self) -> Tensor:
        """The model's parameters [M]."""
        return self.vector[: self.model.parameter_layout.size]

    @property
    def prototypes(self) -> int:
        """L."""
        return self.model.prototype_layout.size


class Draw:
    """One random batch, with prototypes and numbers to match."""

    def __init__(self, subject: Subject, number: int, size: int) -> None:
        self._random = torch.Generator().manual_seed(1_000 * number + size)
        shape = (size, *subject.input_shape)
        self.x = torch.randn(shape, generator=self._random)
        self.y = self._targets(subject, size)
        self.weights = torch.ones(size)
        if size > 3:  # padding, as the last batch of an epoch has it
            self.weights[-2:] = 0
        self.local = torch.randn(subject.prototypes, generator=self._random)
        self.global_ = torch.randn(subject.prototypes, generator=self._random)
        self.influence, self.decay = 0.3, 0.5
        model, theta = subject.model, subject.theta
        self.embedding = make_embed(model, matcher="cosine")(theta, self.local, self.x, self.influence)

    def _targets(self, subject: Subject, size: int) -> Tensor:
        """Of random samples: classes [B], or targets [B, T]."""
        shape = (size, subject.classes)
        if subject.task.kind == "classes":
            return torch.randint(0, subject.classes, (size,), generator=self._random)
        if subject.task.kind == "labels":
            return torch.randint(0, 2, shape, generator=self._random).float()
        return torch.randn(shape, generator=self._random)

    def like(self, tensor: Tensor) -> Tensor:
        """Random numbers of a tensor's shape."""
        return torch.randn(tensor.shape, generator=self._random)

    def gate(self, subject: Subject) -> tuple[tuple[Tensor, ...], Tensor]:
        """Inputs of an answer by the gate whose score is on both sides of its middle, and how clear the shared model's choices are, [B]."""
        theta = subject.theta * 1.1
        embed = make_embed(subject.model, matcher="cosine")
        near = embed(theta, self.global_, self.x, self.influence)
        spread = near.std(0, correction=0).mean().clamp(min=0.1)
        own, everyone = (
            near[torch.arange(PROTOTYPES) % len(near)]
            + spread * torch.randn(PROTOTYPES, near.shape[1], generator=self._random)
            for _ in range(2)
        )
        numbers = (torch.tensor(0.02), torch.tensor(0.5))
        given = (subject.theta, theta, own, everyone, *numbers, self.local, self.global_)
        gaps = self.gaps(subject, training=False, theta=theta, local=self.global_)
        return (*given, self.x, torch.tensor(self.influence)), gaps

    def gaps(
        self, subject: Subject, *, training: bool, theta: Tensor | None = None, local: Tensor | None = None
    ) -> Tensor:
        """How clear the least clear choice is that each sample takes part in, [B]; where classes tie, too.

        ``theta`` and ``local`` are of another model than the subject's.
        """
        layout = subject.model.prototype_layout
        theta, own = subject.theta if theta is None else theta, self.local if local is None else local
        local_, global_ = (list(layout.unflatten(p).values()) for p in (own, self.global_))
        watching = _Watching(local_, global_, training=training, influence=self.influence, decay=self.decay)
        watching.weights = self.weights if training else None
        watching.matcher = None if training else "cosine"
        with torch.no_grad():
            parameters = subject.model.parameter_layout.unflatten(theta)
            output = functional_call(subject.model, parameters, (self.x, watching))
        if subject.task.kind == "classes":
            best = output.logits.topk(2, 1).values
            watching.see((best[:, 0] - best[:, 1]) / best[:, 0].abs().clamp(min=1e-3))
        else:
            watching.see(clearness(subject.task, output.logits))
        gaps = watching.gaps
        return torch.where(self.weights > 0, gaps, torch.full_like(gaps, math.inf)) if training else gaps


def clearness(task: Task, logits: Tensor) -> Tensor:
    """How clear what outputs [B, T] say is, [B]: how far the best class is from the next, or a label from a half; infinite of numbers."""
    if task.kind == "classes":
        best = logits.topk(2, 1).values
        return best[:, 0] - best[:, 1]
    return logits.abs().amin(1) if task.kind == "labels" else torch.full_like(logits[:, 0], math.inf)


class _Watching(Alignment):
    """A forward pass that notes how clear its choices of prototypes are, by sample."""

    gaps: Tensor
    size = 0

    def __call__(self, layer: ALPLayer, tokens: Tensor) -> Tensor:
        """Align as always; look at the same matrix before."""
        index = len(self.new_local)
        local, global_ = self.local[index], self.global_[index]
        flat, samples = tokens.reshape(-1, layer.dim), len(tokens)
        matcher = self.matcher or layer.matcher
        options: dict[str, Any] = {"temperature": layer.temperature, "iterations": layer.iterations}
        smaller = matcher == "euclidean"
        if not self.training:
            matrix = match(flat, local, matcher, **options)
            self.see(_apart(matrix, smaller).reshape(samples, -1).amin(1))
            return super().__call__(layer, tokens)
        valid = None
        if self.weights is not None:
            valid = self.weights[:, None].expand(samples, len(flat) // samples).reshape(-1)
        matrix = match(flat, torch.cat([local, global_]), matcher, valid=valid, **options)
        mine, theirs = matrix[:, : len(local)], matrix[:, len(local) :]
        self.see(_apart(theirs, smaller).reshape(samples, -1).amin(1))
        if layer.update == "single":
            self.see(_apart(mine, smaller).reshape(samples, -1).amin(1))
        else:
            count = samples if layer.topk_from == "batch" else len(flat)
            k = max(1, count // len(local))
            seen = mine if valid is None else mine[valid > 0]
            if k < len(seen):
                last, next_ = seen.topk(k + 1, 0).values[-2:]
                self.see(((last - next_) / last.abs().clamp(min=1e-30)).amin().expand(samples))
        return super().__call__(layer, tokens)

    def see(self, gaps: Tensor) -> None:
        """Keep the smallest of each sample."""
        self.gaps = gaps if self.size == 0 else torch.minimum(self.gaps, gaps)
        self.size = len(gaps)


def _apart(matrix: Tensor, smaller: bool) -> Tensor:
    """How far the best of each row is from the second best, relative; infinite where there is one alone."""
    if matrix.shape[1] < 2:
        return torch.full_like(matrix[:, 0], math.inf)
    best = matrix.topk(2, 1, largest=not smaller).values
    return (best[:, 0] - best[:, 1]).abs() / best[:, 0].abs().clamp(min=1e-30)


def clean_batches(subject: Subject, *, training: bool) -> tuple[list[Draw], float]:
    """Random batches without a near-tie, and how near is meant."""
    draws = [Draw(subject, number, subject.batch) for number in range(_TRIES)]
    least = [float(draw.gaps(subject, training=training).min()) for draw in draws]
    for tie in TIES:
        clean = [draw for draw, gap in zip(draws, least, strict=True) if gap > tie]
        if len(clean) >= _BATCHES or (clean and tie == TIES[-1]):
            return clean[:_BATCHES], tie
    raise BundleError("no random batch without a tie was found to compare with torch. No bundle was written")
