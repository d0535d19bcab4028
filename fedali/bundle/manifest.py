"""What a bundle says of itself: the manifest, typed, and checked strictly where it enters.

A manifest is JSON with sorted keys. Every key but ``data``, ``answers_by``, ``schedule`` and ``task`` has to be there, unknown ones are refused, and so are repeated ones and
numbers that JSON does not have. ``docs/bundle.md`` says what each means.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fedali.answers import Answer, size_without
from fedali.data.facts import NO_FACTS, DataFacts
from fedali.layout import Layout
from fedali.optimizers.schedules import CONSTANT, RateSchedule
from fedali.slots import PrototypeUpload
from fedali.targets import Targets

FORMAT = 2
READABLE = (1, 2)  # 1 is 0.1.0's
LARGEST_MANIFEST = 1 << 20  # bytes
Mode = Literal["full", "head"]
NormalisationKind = Literal["global", "client", "none"]

GRAPHS = ("train", "infer", "embed", "adapt", "begin", "measure", "finish", "infer_int8", "embed_int8")
PARTS = (*(f"{name}.onnx" for name in GRAPHS), "state.safetensors")
LAYOUTS = ("parameters", "prototypes", "trained")


@dataclass(frozen=True)
class Component:
    """A model or method of the registry by name, with its options; ``alp`` are a model's ALP settings, or None."""

    name: str
    options: dict[str, Any]
    alp: dict[str, Any] | None = None


@dataclass(frozen=True)
class BundleNormalisation:
    """How raw samples become what the graphs take: ``(x - mean) / std``, in float32.

    ``kind`` ``"client"``: a device takes its own mean and standard deviation per channel from its first training data;
    those here serve until then. ``"none"``: they are 0 and 1.
    """

    kind: NormalisationKind
    mean: npt.NDArray[np.float32]
    std: npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class BundleTask:
    """What is learnt, where it is not classification as ever; ``targets`` have the names of the manifest's ``classes``."""

    name: str
    options: dict[str, Any]
    targets: Targets

    def to_plain(self) -> dict[str, Any]:
        """As JSON can hold it."""
        targets = self.targets
        numbers = targets.kind == "numbers"
        return {
            "name": self.name,
            "options": self.options,
            "kind": targets.kind,
            "units": list(targets.units),
            "mean": np.ravel(targets.mean).astype(np.float64).tolist() if numbers else [],
            "std": np.ravel(targets.std).astype(np.float64).tolist() if numbers else [],
        }


@dataclass(frozen=True)
class BundleLayouts:
    """Of a client's vector theta [P] (``fedali.slots``), of a set of prototypes [L], and of what training changes of theta: its
    beginning [T], or the head [H].
    """

    parameters: Layout
    prototypes: Layout
    trained: Layout


@dataclass(frozen=True)
class ALPNumbers:
    """Numbers of the ALP layers that each step gets."""

    influence: float
    decay: float


@dataclass(frozen=True)
class BundlePart:
    """One file of the bundle: SHA-256 in hex, and size."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Parity:
    """How far a graph was from torch when it was exported: the largest relative ``error``, and of ``what``."""

    error: float
    what: str


@dataclass(frozen=True)
class Manifest:
    """What is in a bundle and how to use it."""

    format: int
    fedali: str
    name: str
    created: str
    model: Component
    method: Component
    mode: Mode
    batch: int
    input_shape: tuple[int, ...]
    classes: tuple[str, ...]
    normalisation: BundleNormalisation
    layouts: BundleLayouts
    personal: tuple[tuple[int, int], ...]
    optimizer: dict[str, Any]
    hyper: ALPNumbers
    keeps_local_prototypes: bool
    prototypes: PrototypeUpload | None
    answer: tuple[int, int]
    phases: tuple[int | None, ...]
    round: int
    opset: int
    onnxruntime: str
    parts: dict[str, BundlePart]
    parity: dict[str, Parity]
    int8: dict[str, Any] | None
    data: DataFacts = NO_FACTS
    answers_by: Answer = "trained"
    schedule: RateSchedule = CONSTANT
    task: BundleTask | None = None

    @property
    def targets(self) -> Targets:
        """What is learnt of samples."""
        return Targets(self.classes) if self.task is None else self.task.targets

    @property
    def known(self) -> int:
        """What training knows of theta [P]: all but the answer's slot, which lies behind it."""
        return size_without(self.answers_by, self.layouts.parameters)

    @property
    def trained(self) -> slice:
        """Where in theta [P] the trained part [T] lies: its beginning, or the head."""
        names = self.layouts.trained.names
        first = next((e.offset for e in self.layouts.parameters.entries if e.name == names[0]), 0)
        return slice(first, first + self.layouts.trained.size)

    @property
    def minimum_onnxruntime(self) -> tuple[int, int]:
        """The oldest onnxruntime that runs the graphs."""
        major, minor = self.onnxruntime.removeprefix(">=").split(".")
        return int(major), int(minor)

    def to_json(self) -> bytes:
        """The manifest as UTF-8 JSON, read back by ``fedali.bundle.manifest_reader``; the same manifest gives the same bytes."""
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        model, layouts, normalisation = self.model, self.layouts, self.normalisation
        plain |= {
            "model": {"name": model.name, "options": model.options, "alp": model.alp},
            "method": {"name": self.method.name, "options": self.method.options},
            "normalisation": {
                "kind": normalisation.kind,
                "mean": normalisation.mean.astype(np.float64).tolist(),
                "std": normalisation.std.astype(np.float64).tolist(),
            },
            "layouts": {name: json.loads(getattr(layouts, name).to_json()) for name in LAYOUTS},
            "hyper": vars(self.hyper),
            "prototypes": None if self.prototypes is None else vars(self.prototypes),
            "parts": {name: vars(part) for name, part in self.parts.items()},
            "parity": {name: vars(parity) for name, parity in self.parity.items()},
            "data": self.data.to_plain(),
            "schedule": self.schedule.to_plain(),
        }
        for name in ("data", "schedule"):
            if not plain[name]:
                del plain[name]
        if self.answers_by == "trained":
            del plain["answers_by"]
        del plain["task"]
        if self.task is not None:
            plain["task"] = self.task.to_plain()
        text = json.dumps(plain, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode()
