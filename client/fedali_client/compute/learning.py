"""How a client learns: from labelled samples by training, from others by letting its prototypes follow."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import numpy.typing as npt

from fedali.bundle.file import Bundle
from fedali.data.normalisation import channel_statistics
from fedali.support.memory import give_back
from fedali_client.compute.batches import Batches, Labels, Order, OwnOrder, RoundOrder, fingerprint
from fedali_client.compute.embedding import cached_embeddings
from fedali_client.compute.graphs import BoundGraph, Runtime, open_session
from fedali_client.compute.inference import Inference
from fedali_client.compute.trainer import Callback, Trainer
from fedali_client.results import FitReport
from fedali_client.state.personal import PersonalState

Array = npt.NDArray[Any]


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

    def fit(self, x: Array, y: Labels, epochs: int, seed: int, progress: Callback | None) -> FitReport:
        """Train on checked samples [n, *shape] and labels [n]; see ``EdgeClient.fit``. What comes out is not saved yet."""
        state, identity = self._state, fingerprint(x, y, epochs, seed)
        goes_on = state.progress.under_way and state.progress.identity == identity
        number = state.progress.fit + (not goes_on)
        return self._run(x, y, epochs, identity, goes_on, OwnOrder(seed, number), progress)

    def fit_round(
        self, x: Array, y: Labels, epochs: int, entropy: tuple[int, ...], progress: Callback | None
    ) -> FitReport:
        """``fit`` for a round of a federation; see ``EdgeClient.fit_round``."""
        identity = round_identity(x, y, epochs, entropy)
        there = self._state.progress.identity == identity
        return self._run(x, y, epochs, identity, there, RoundOrder(entropy), progress)

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
            Trainer(state, session, batches).run(order, progress)
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
        constants = self._inference.constants()
        body = constants["theta"].copy()
        body[manifest.trained] = 0.0
        key = fingerprint(
            x,
            body,
            constants["local_prototypes"],
            constants["influence"],
            self._inference.part("embed"),
            *(() if normalisation is None else (normalisation.mean, normalisation.std)),
        )
        embeddings = cached_embeddings(self._state.folder, key, len(x), lambda: self._inference.embeddings(x))
        return Batches(manifest.batch, embeddings, y, None)


def round_identity(x: Array, y: Labels, epochs: int, entropy: tuple[int, ...]) -> bytes:
    """32 bytes that name a fit of a round, after the ``receive`` that began it."""
    return fingerprint("round", x, y, epochs, *entropy)
