"""How a client learns: from labelled samples by training, from others by letting its prototypes follow."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import numpy.typing as npt

from fedali.bundle.file import Bundle
from fedali.data.normalisation import channel_statistics
from fedali.support.memory import give_back
from fedali_client.compute.batches import (
    Batches,
    InOrder,
    Labels,
    Order,
    OwnOrder,
    RoundOrder,
    fingerprint,
)
from fedali_client.compute.beginning import Beginning
from fedali_client.compute.graphs import BoundGraph, Runtime, open_session
from fedali_client.compute.inference import Inference
from fedali_client.compute.trainer import Callback, Trainer
from fedali_client.results import FitReport
from fedali_client.state.personal import PersonalState

Array = npt.NDArray[Any]
Vector = npt.NDArray[np.float32]


class Learning:
    """Changes ``state`` by the graphs of ``bundle``.

    Args:
        bundle: has the graphs.
        state: is trained.
        inference: gives embeddings, where the head alone is trained.
        runtime: where they run.
    """

    def __init__(self, bundle: Bundle, state: PersonalState, inference: Inference, runtime: Runtime) -> None:
        self._bundle, self._state, self._inference, self._runtime = bundle, state, inference, runtime

    def fit(
        self,
        x: Array,
        y: Labels,
        epochs: int,
        seed: int,
        progress: Callback | None,
        *,
        again: bool = False,
    ) -> FitReport:
        """Train on checked samples [n, *shape] and labels [n]; see ``EdgeClient.fit``. What comes out is not saved yet.

        ``again``: what follows a fit was not done after the latest, so that the same one is complete and does not begin anew.
        """
        state, identity = self._state, fingerprint(x, y, epochs, seed)
        goes_on = (state.progress.under_way or again) and state.progress.identity == identity
        number = state.progress.fit + (not goes_on)
        report = self._run(x, y, epochs, identity, goes_on, OwnOrder(seed, number), progress)
        if self._bundle.manifest.answer[0] >= state.sizes.theta:  # what answers is made of what was trained
            self._finish(x, y, report.steps, 1.0)
        return report

    def fit_round(
        self, x: Array, y: Labels, epochs: int, entropy: tuple[int, ...], progress: Callback | None
    ) -> FitReport:
        """``fit`` for a round of a federation; see ``EdgeClient.fit_round``."""
        identity = round_identity(x, y, epochs, entropy)
        there = self._state.progress.identity == identity
        factor = self._bundle.manifest.schedule.factor(self._state.checkpoint.round)
        report = self._run(x, y, epochs, identity, there, RoundOrder(entropy), progress, factor)
        self._finish(x, y, report.steps, factor)
        return report

    def _finish(self, x: Array, y: Labels, steps: int, factor: float) -> None:
        """What the method makes of the rest of the vector after a round's training; always of what the round began with."""
        state, manifest = self._state, self._bundle.manifest
        if "finish.onnx" not in self._bundle.parts:
            return
        state.forget_kept()
        theta, measured = state.theta()[: manifest.known].copy(), np.zeros(0, np.float32)
        if (beginning := self._beginning(y)) is not None:
            theta[state.sizes.theta :] = beginning.kept
        if "measure.onnx" in self._bundle.parts:
            measured = self._measure(x, y, theta)
        kept = np.empty(theta.size - state.sizes.theta, np.float32)
        inputs = {"theta": theta, "shared_theta": state.known_theta, "measured": measured}
        rate = factor * manifest.optimizer["learning_rate"]
        numbers = {"steps": steps, "step_size": rate, "samples": len(x)}
        BoundGraph(
            open_session(self._bundle, "finish.onnx", self._runtime),
            {**inputs, **{name: np.full((), value, np.float32) for name, value in numbers.items()}},
            {"kept": kept},
        ).run()
        state.keep(kept)

    def _beginning(self, y: Labels) -> Beginning | None:
        """What the method does as a phase of training on ``y`` starts."""
        if "begin.onnx" not in self._bundle.parts:
            return None
        session = open_session(self._bundle, "begin.onnx", self._runtime)
        return Beginning(self._state, session, y)

    def _measure(self, x: Array, y: Labels, theta: Vector) -> Vector:
        """The method's sums over the samples, in their order."""
        state = self._state
        batches = Batches(self._bundle.manifest.batch, x, y, self._inference.normalisation)
        session = open_session(self._bundle, "measure.onnx", self._runtime)
        found = np.empty(session.get_outputs()[0].shape[0], np.float32)
        graph = BoundGraph(
            session,
            {
                "theta": theta,
                "local_prototypes": state.local_prototypes,
                "x": batches.x,
                "y": batches.y,
                "weights": batches.weights,
                "shared_theta": state.known_theta,
                "influence": self._inference.constants()["influence"],
            },
            {"measured": found},
        )
        total = np.zeros_like(found)
        for step in range(batches.per_epoch):
            batches.fill(InOrder(), step)
            graph.run()
            total += found
        return total

    def normalise(self, x: Array) -> None:
        """Where normalisation is left to the device, and it has none yet: take that of checked samples [n, *shape]."""
        own = self._bundle.manifest.normalisation.kind == "client"
        if own and self._state.checkpoint.normalisation is None:
            self._state.save(normalisation=channel_statistics([x]))

    def _run(
        self,
        x: Array,
        y: Labels,
        epochs: int,
        identity: bytes,
        goes_on: bool,
        order: Order,
        progress: Callback | None,
        factor: float = 1.0,
    ) -> FitReport:
        began = time.monotonic()
        state = self._state
        self.normalise(x)
        if not goes_on or state.progress.under_way:
            batches = self._batches(x, y)
            if not goes_on:
                state.begin(identity, epochs * batches.per_epoch, len(x))
            resumed_at = state.progress.step
            session = open_session(self._bundle, "train.onnx", self._runtime)
            give_back()
            Trainer(state, session, batches, self._beginning(y), factor).run(order, progress)
        else:
            resumed_at = state.progress.step
        done = state.progress
        seconds = time.monotonic() - began
        return FitReport(
            done.fit, done.total, resumed_at, len(x), epochs, done.last_loss, done.last_accuracy, seconds
        )

    def adapt(self, x: Array) -> None:
        """Move the local prototypes by checked samples [n, *shape], in an order that depends on nothing."""
        state, manifest = self._state, self._bundle.manifest
        batches = Batches(manifest.batch, x, np.zeros(len(x), np.int64), self._inference.normalisation)
        local = state.local_prototypes.copy()
        moved = np.empty_like(local)
        graph = BoundGraph(
            open_session(self._bundle, "adapt.onnx", self._runtime),
            {
                **self._inference.constants(),
                "local_prototypes": local,
                "x": batches.x,
                "weights": batches.weights,
                "shared_prototypes": state.shared_prototypes,
                "decay": np.full((), manifest.hyper.decay, np.float32),
            },
            {"new_local_prototypes": moved},
        )
        for step in range(batches.per_epoch):
            batches.fill(OwnOrder(0, 0), step)
            graph.run()
            local[...] = moved
        state.move_prototypes(local)

    def _batches(self, x: Array, y: Labels) -> Batches:
        """Batches for ``train.onnx``: of samples, or of their embeddings where the head alone is trained."""
        manifest, normalisation = self._bundle.manifest, self._inference.normalisation
        if manifest.mode == "full":
            return Batches(manifest.batch, x, y, normalisation)
        embeddings = self._inference.kept_embeddings(x, self._inference.constants())
        return Batches(manifest.batch, embeddings, y, None)


def round_identity(x: Array, y: Labels, epochs: int, entropy: tuple[int, ...]) -> bytes:
    """32 bytes that name a fit of a round, after the ``receive`` that began it."""
    return fingerprint("round", x, y, epochs, *entropy)
