"""The edge client: a personal model that trains and predicts on the device, from a bundle, with onnxruntime and numpy."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from fedali.bundle.file import Bundle
from fedali.data.samples import check_labels, check_samples, check_targets
from fedali.errors import DataError, FedaliError, SettingsError
from fedali.support.places import user_path
from fedali_client import exchange as federation
from fedali_client.compute.gating import Gating
from fedali_client.compute.graphs import CPU, Runtime
from fedali_client.compute.inference import Inference
from fedali_client.compute.learning import Learning, round_identity
from fedali_client.compute.saying import compared, named, told
from fedali_client.compute.trainer import Callback
from fedali_client.observations import UNLABELLED, Observations, StoredDtype
from fedali_client.results import Evaluation, FitReport, Status, Update
from fedali_client.state.personal import PersonalState
from fedali_client.trust import open_bundle

Vector = npt.NDArray[np.float32]


class EdgeClient:
    """One client of a bundle; ``open`` makes it, ``close`` or the end of a ``with`` block saves it.

    Samples are raw: they are normalised here, as the bundle says. Labels are names of classes, or their indices.

    >>> with EdgeClient.open("model.fedali", "~/.fedali", trusted_key="site.pub") as client:  # doctest: +SKIP
    ...     client.fit(x, y, epochs=5)
    ...     client.predict(x[:1])
    ['walking']
    """

    def __init__(
        self,
        bundle: Bundle,
        state: PersonalState,
        runtime: Runtime,
        *,
        capacity: int | None = None,
        stored: StoredDtype | None = None,
    ) -> None:
        self.bundle, self.manifest = bundle, bundle.manifest
        self._state = state
        self._capacity, self._stored = capacity, stored
        self._store: Observations | None = None
        self._inference = Inference(bundle, state, runtime)
        self._learning = Learning(bundle, state, self._inference, runtime)
        by_gate = self.manifest.answers_by == "gate"
        self._gating = Gating(bundle, state, self._inference) if by_gate else None
        self._saved = None if state.read_only else self._version

    @classmethod
    def open(
        cls,
        path: Path | str,
        state: Path | str,
        *,
        trusted_key: Path | str | None = None,
        allow_unsigned: bool = False,
        read_only: bool = False,
        threads: int = 1,
        provider: str = CPU,
        capacity: int | None = None,
        stored: StoredDtype | None = None,
    ) -> EdgeClient:
        """Read and verify a bundle, and go on from where this device left it.

        Args:
            path: of the bundle.
            state: folder of the states of all bundles on this device.
            trusted_key: the ``.pub`` file of whoever signs bundles; once it verified one, ``state`` remembers it.
            allow_unsigned: take a bundle that nobody signed.
            read_only: predict and look, also while another process trains.
            threads: of onnxruntime.
            provider: of onnxruntime; ``fedali-client doctor`` finds the one to choose.
            capacity: of the store of observations; None is what it has, and 1000 for a new one.
            stored: dtype of observed windows on disk; None is what the store has, and float32 for a new one.

        Raises ``BundleError`` for a bundle that is not to be trusted, ``CheckpointError`` for a damaged state, and
        ``FedaliError`` when another process has the state open.
        """
        root = user_path(state, "--state DIR")
        key = None if trusted_key is None else user_path(trusted_key)
        bundle = open_bundle(
            user_path(path), root, key, allow_unsigned=allow_unsigned, remember=not read_only
        )
        personal = PersonalState(root / bundle.digest[:16], bundle, read_only=read_only)
        return cls(bundle, personal, Runtime(threads, provider), capacity=capacity, stored=stored)

    def fit(
        self,
        x: npt.ArrayLike,
        y: npt.ArrayLike,
        epochs: int = 5,
        *,
        seed: int = 0,
        progress: Callback | None = None,
        validation: npt.ArrayLike | None = None,
    ) -> FitReport:
        """Train on samples ``x`` [n, *shape] with labels ``y`` [n].

        Where a gate answers, ``validation`` are samples [m, *shape] of the same client that say when its own model counts; without, every
        fifth of ``x`` does.

        A fit that was interrupted goes on where it was when it is called again with the same data, epochs and seed, and
        ends with the same bits as one that was not. Anything else is a new fit, which starts from what is there.
        """
        if epochs < 1:
            raise SettingsError(f"epochs is {epochs}; it has to be at least 1")
        samples = check_samples(x, self.manifest.input_shape)
        labels = check_targets(y, self.manifest.targets, len(samples))
        self._writable()
        held_back = self._held_back(validation)
        again = self._gating is not None and self._gating.pending
        report = self._learning.fit(samples, labels, epochs, seed, progress, again=again)
        self.save()
        if self._gating is not None:
            self._gating.settle(samples, held_back)
        return report

    def fit_round(
        self,
        x: npt.ArrayLike,
        y: npt.ArrayLike,
        epochs: int,
        entropy: Sequence[int],
        *,
        progress: Callback | None = None,
    ) -> FitReport:
        """Train for the round that ``receive`` began, once: called again it goes on, or says what came out.

        Args:
            x: samples [n, *shape].
            y: labels [n].
            epochs: passes over them.
            entropy: of the order of the samples: a simulation with this entropy takes them in the same order.
            progress: called after each step.
        """
        if epochs < 1:
            raise SettingsError(f"epochs is {epochs}; it has to be at least 1")
        samples = check_samples(x, self.manifest.input_shape)
        labels = check_targets(y, self.manifest.targets, len(samples))
        self._writable()
        self._inference.close()
        report = self._learning.fit_round(samples, labels, epochs, tuple(entropy), progress)
        if self._gating is not None:
            self._gating.send(samples)
        self.save()
        return report

    @property
    def trained_for(self) -> str:
        """What ``receive`` was given as the name of the round that was trained last; "" while it is not, or outside of a federation."""
        now = self._state.progress
        return self._state.checkpoint.task if now.trained_on and not now.under_way else ""

    @property
    def unheard(self) -> bool:
        """Whether a gate answers here, and does not yet with what was trained last: ``hear`` makes it so."""
        return self._gating is not None and self._gating.pending

    def hear(
        self,
        theta: Vector,
        prototypes: Vector,
        influence: float,
        x: npt.ArrayLike,
        validation: npt.ArrayLike | None = None,
        *,
        took_part: bool = True,
    ) -> None:
        """Answer by a gate between a server's new model and the one trained last, from now on; on disk on return.

        Args:
            theta: the new model's shared parameters [S].
            prototypes: its prototypes [L].
            influence: of the prototypes, 0..1.
            x: samples [n, *shape] that were trained on.
            validation: others of this client [m, *shape]; without, every fifth of ``x``.
            took_part: whether the training was of the round that made the new model.

        Raises ``FedaliError`` where no gate answers.
        """
        samples, held_back = check_samples(x, self.manifest.input_shape), self._held_back(validation)
        self._writable()
        if self._gating is None:
            raise FedaliError(
                f"bundle {self.manifest.name!r} answers with the model trained here: there is no gate"
            )
        model = federation.shared_model(self._state, theta, prototypes, influence)
        self._gating.hear(*model, influence, samples, held_back, took_part=took_part)

    def goes_on(
        self, task: str, x: npt.ArrayLike, y: npt.ArrayLike, epochs: int, entropy: Sequence[int]
    ) -> bool:
        """Whether ``fit_round`` with these words goes on from what ``receive`` took for ``task``, and from nothing else."""
        now = self._state.progress.identity
        samples = check_samples(x, self.manifest.input_shape)
        labels = check_targets(y, self.manifest.targets, len(samples))
        known = (bytes(32), round_identity(samples, labels, epochs, tuple(entropy)))
        return self._state.checkpoint.task == task and now in known

    def predict_proba(self, x: npt.ArrayLike) -> Vector:
        """Probabilities [n, classes] of samples [n, *shape], or of labels, or numbers in their units [n, T]; each sample's are its own,
        whatever it comes with.
        """
        return self.answer(x)[0]

    def answer(self, x: npt.ArrayLike) -> tuple[Vector, Vector]:
        """``predict_proba``, and how much the personal model counted [n], 0..1; 1 where no gate answers."""
        samples = check_samples(x, self.manifest.input_shape)
        logits, weights = self._inference.logits(samples)
        return told(self.manifest.targets, logits), weights

    def predict(self, x: npt.ArrayLike) -> list[Any]:
        """The name of the class of each sample; names of its labels; or numbers by name."""
        return named(self.manifest.targets, self.predict_proba(x))

    def evaluate(self, x: npt.ArrayLike, y: npt.ArrayLike) -> Evaluation:
        """How well the personal model does on samples [n, *shape] with labels [n], or targets [n, T]."""
        logits = self._inference.logits(check_samples(x, self.manifest.input_shape))[0]
        return compared(self.manifest.targets, logits, y)

    def evaluate_shared(
        self, theta: Vector, prototypes: Vector, influence: float, x: npt.ArrayLike, y: npt.ArrayLike
    ) -> Evaluation:
        """How well a server's model does on samples [n, *shape] with labels [n]; this client's own is not touched.

        Args:
            theta: its shared parameters [S].
            prototypes: its prototypes [L].
            influence: of the prototypes, 0..1.
            x: samples [n, *shape].
            y: labels [n].
        """
        samples = check_samples(x, self.manifest.input_shape)
        model = federation.shared_model(self._state, theta, prototypes, influence)
        logits = self._inference.logits_of(*model, influence, samples)
        return compared(self.manifest.targets, logits, y)

    def normalise_by(self, x: npt.ArrayLike) -> None:
        """Take this device's own normalisation of samples [n, *shape], where the bundle leaves it to the device and there is none yet."""
        self._writable()
        self._learning.normalise(check_samples(x, self.manifest.input_shape))

    @property
    def observations(self) -> Observations:
        """The store that ``observe`` fills."""
        if self._store is None:
            path = self._writable().folder / "observations"
            self._store = Observations(path, self.manifest.input_shape, self._capacity, self._stored)
        return self._store

    def observe(self, window: npt.ArrayLike, label: str | int | None = None) -> None:
        """Keep one raw window [*shape], with its class where it is known; see ``fedali_client.observations``.

        Raises ``SettingsError`` where the model learns no classes.
        """
        if self.manifest.targets.kind != "classes":
            raise SettingsError(
                "the store of observations is balanced over classes, and this model learns none: use fit"
            )
        sample = check_samples(window, self.manifest.input_shape, "window")
        if len(sample) != 1:
            raise DataError(f"observe takes one window at a time, not {len(sample)}")
        index = UNLABELLED
        if label is not None:
            index = int(check_labels([label], self.manifest.classes, 1, "label")[0])
        self.observations.add(sample[0], index)

    def train_observed(
        self, epochs: int = 5, *, seed: int = 0, progress: Callback | None = None
    ) -> FitReport:
        """``fit`` on the observed windows that have a label."""
        windows, labels = self.observations.labelled()
        if not len(windows):
            raise DataError("no window with a label was observed yet; observe(window, label) keeps one")
        return self.fit(windows, labels, epochs, seed=seed, progress=progress)

    def adapt(self, x: npt.ArrayLike) -> int:
        """Move the local prototypes by samples without labels; how many samples that took.

        Raises ``FedaliError`` for a bundle whose prototypes do not move without labels: without any, or of mode head.
        """
        if "adapt.onnx" not in self.bundle.parts:
            raise FedaliError(
                f"bundle {self.manifest.name!r} cannot adapt without labels: that takes a model with prototypes, exported with "
                "mode full"
            )
        samples = check_samples(x, self.manifest.input_shape)
        self._writable()
        self._learning.adapt(samples)
        self.save()
        return len(samples)

    def update(self, *, aligned: bool = True) -> Update:
        """What a server is to have of this client: nothing personal; prototypes ``aligned`` with the server's where its method does that, or as trained."""
        return federation.update(self._state, self.bundle, aligned)

    def receive(
        self, theta: Vector, prototypes: Vector, round_: int, influence: float, *, task: str = ""
    ) -> None:
        """Begin a round with a server's parameters, their shared part [S] alone, and prototypes [L].

        What is personal stays. A fit that was under way cannot be resumed. ``task`` is kept as a name for this. On disk on
        return.
        """
        self._writable()
        federation.receive(self._state, theta, prototypes, round_, influence, task)
        self._saved = self._version

    def status(self) -> Status:
        """Where this client stands."""
        now = self._state.progress
        where = (self.manifest.name, self.bundle.digest, self.manifest.mode, self._state.checkpoint.round)
        return Status(*where, now.fit, now.step, now.total, *now[3:5], now.last_loss, now.last_accuracy)

    def refresh(self) -> bool:
        """Of a client that was opened ``read_only``: take what another process saved since; whether there was anything."""
        return self._state.refresh()

    def save(self) -> None:
        """Put everything on the disk, against power cuts."""
        self._writable().save()
        self._saved = self._version
        if self._store is not None:
            self._store.sync()

    def close(self) -> None:
        """Save what changed and let other processes in."""
        try:
            if not self._state.read_only and self._saved != self._version:
                self._state.save()
            if self._store is not None:
                self._store.close()
        finally:
            self._store = None
            self._state.close()

    def __enter__(self) -> EdgeClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(FedaliError) if error is not None else contextlib.nullcontext():
            self.close()

    def _writable(self) -> PersonalState:
        if self._state.read_only:
            raise FedaliError(
                "this client was opened read_only; open it without to train, observe or receive"
            )
        return self._state

    def _held_back(self, validation: npt.ArrayLike | None) -> npt.NDArray[np.floating]:
        """Checked samples that the gate looks at; none where there are none."""
        if validation is None or not np.size(validation):
            return np.zeros((0, *self.manifest.input_shape), np.float32)
        return check_samples(validation, self.manifest.input_shape, "validation")

    @property
    def _version(self) -> tuple[int, int]:
        """Changes with the state."""
        return self._state.checkpoint.generation, self._state.slots.tick
