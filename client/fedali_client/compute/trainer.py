"""One fit: steps of the training graph from slot to slot, until they are done or something stops the process."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fedali.errors import FedaliError
from fedali.optimizers.schedules import schedule_of, takes
from fedali.slots import share_epochs
from fedali_client.compute.batches import Batches, Order
from fedali_client.compute.beginning import Beginning
from fedali_client.compute.graphs import BoundGraph
from fedali_client.state.personal import PersonalState
from fedali_client.state.slots import ARRAYS, Progress

if TYPE_CHECKING:
    import onnxruntime

SAVE_EVERY = 30.0  # seconds, the most that a power cut costs; memory cards wear out by writing more often


@dataclass(frozen=True)
class FitProgress:
    """Where a fit is: ``step`` of ``total``, and loss and accuracy of the current epoch so far."""

    step: int
    total: int
    epoch: int
    epochs: int
    loss: float
    accuracy: float


Callback = Callable[[FitProgress], None]


class Phases:
    """Which phase of a training a step is in; ``now`` [] is what the graph takes.

    Args:
        epochs: of each phase, None for what others leave; none for a training without phases.
        per_epoch: steps.
    """

    def __init__(self, epochs: Sequence[int | None], per_epoch: int) -> None:
        self.now = np.zeros((), np.float32)
        self._epochs, self._per_epoch = epochs, per_epoch

    def enter(self, step: int, total: int) -> int:
        """The number of a step of ``total`` within its phase, from 0."""
        if not self._epochs:
            return step
        first = 0
        for phase, epochs in enumerate(share_epochs(self._epochs, total // self._per_epoch)):
            if step < first + epochs * self._per_epoch:
                self.now[...] = phase
                break
            first += epochs * self._per_epoch
        return step - first


class Trainer:
    """Runs the steps of a fit that ``PersonalState.begin`` started.

    Args:
        state: is trained.
        session: of ``train.onnx``.
        batches: of the fit's samples, or of their embeddings.
        beginning: what the method does as a phase starts; None for nothing.
        factor: of the learning rate, see ``RateSchedule``.
    """

    def __init__(
        self,
        state: PersonalState,
        session: onnxruntime.InferenceSession,
        batches: Batches,
        beginning: Beginning | None = None,
        factor: float = 1.0,
    ) -> None:
        self._factor = factor
        self._state, self._batches, self._beginning = state, batches, beginning
        self._schedule = schedule_of(state.manifest.optimizer)
        names = ("step_size", "correction", *takes(state.manifest.optimizer))
        self._numbers = {name: np.zeros((), np.float32) for name in names}
        self._hyper = {
            **self._numbers,
            "influence": np.full((), state.checkpoint.influence, np.float32),
            "decay": np.full((), state.manifest.hyper.decay, np.float32),
        }
        self._metrics = {name: np.zeros((), np.float32) for name in ("loss", "correct", "weight")}
        manifest, kept = state.manifest, state.kept if beginning is None else beginning.kept
        shared = (
            state.known_theta
            if kept.size and manifest.mode == "full"
            else state.shared_theta[manifest.trained]
        )
        self._phases = Phases(manifest.phases, batches.per_epoch)
        fixed = {
            "x": batches.x,
            "y": batches.y,
            "weights": batches.weights,
            "shared_theta": np.ascontiguousarray(shared),
            "shared_prototypes": state.shared_prototypes,
            "kept": np.ascontiguousarray(kept),
            "phase": self._phases.now,
            **self._hyper,
        }
        slots = state.slots
        self._graphs = tuple(
            BoundGraph(
                session,
                {**fixed, **slots.arrays[slot]},
                {**self._metrics, **{f"new_{name}": slots.arrays[1 - slot][name] for name in ARRAYS}},
            )
            for slot in (0, 1)
        )

    def run(self, order: Order, progress: Callback | None = None) -> None:
        """Do the steps that are left; what stops it, an exception or a signal, leaves the steps done.

        Raises ``FedaliError`` when the loss is not finite; the state is then what the latest checkpoint has.
        """
        state = self._state
        saved = time.monotonic()
        now = state.progress
        while now.under_way:
            now = self._step(now, order)
            if progress is not None:
                progress(self._where(now))
            if now.under_way and time.monotonic() - saved > SAVE_EVERY:
                state.save()
                saved = time.monotonic()

    def _step(self, now: Progress, order: Order) -> Progress:
        count = self._batches.fill(order, now.step)
        within = self._phases.enter(now.step, now.total)
        if (
            within == 0 and now.step
        ):  # a phase's optimizer begins anew; done again after a kill, it is the same
            for moment in ("first_moment", "second_moment"):
                self._state.slots.current[moment][...] = 0.0
        if within == 0 and self._beginning is not None:
            self._beginning.enter(float(self._phases.now))
        for number, value in zip(
            self._numbers.values(), self._schedule(within + 1, self._factor), strict=True
        ):
            number[...] = value
        slots = self._state.slots
        self._graphs[slots.now].run()
        loss, correct, weight = (float(value) for value in self._metrics.values())
        if not np.isfinite(loss):
            self._state.revert()
            raise FedaliError(
                f"training diverged: the loss is {loss} at step {now.step + 1}; the state before this fit, or its latest "
                "checkpoint, is kept; look for odd values in the data, or export with a smaller learning rate"
            )
        first = now.step % self._batches.per_epoch == 0
        if not first:
            loss, correct, weight = loss + now.loss, correct + now.correct, weight + now.weight
        step = now.step + 1
        last = step % self._batches.per_epoch == 0
        now = now._replace(
            step=step,
            steps=now.steps + 1,
            samples=now.samples + count,
            loss=loss,
            correct=correct,
            weight=weight,
            last_loss=loss / weight if last else now.last_loss,
            last_accuracy=correct / weight if last else now.last_accuracy,
        )
        slots.commit(now)
        return now

    def _where(self, now: Progress) -> FitProgress:
        per_epoch = self._batches.per_epoch
        return FitProgress(
            now.step,
            now.total,
            (now.step - 1) // per_epoch + 1,
            now.total // per_epoch,
            now.loss / now.weight,
            now.correct / now.weight,
        )
