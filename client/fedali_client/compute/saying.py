"""What a client says of samples, from outputs [n, T]: by what its bundle's task learns."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from fedali.bundle.manifest import Manifest
from fedali.data.samples import check_targets
from fedali.metrics import accuracy, macro_f1
from fedali.targets import Kind, Targets, predicted, scores, shares
from fedali_client.results import Evaluation, Scores

Array = npt.NDArray[Any]
Vector = npt.NDArray[np.float32]

_NAME = "all"  # of the scores of all targets together, before it is taken off


def seen_of(kind: Kind) -> str:
    """What is counted while training: accuracy of classes or labels, or the absolute error of numbers in standard deviations."""
    return "error" if kind == "numbers" else "accuracy"


def told(targets: Targets, logits: Vector) -> Vector:
    """Probabilities [n, T] of classes or labels, or numbers [n, T] in their units."""
    if targets.kind == "numbers":
        return targets.in_units(logits).astype(np.float32)
    if targets.kind == "labels":
        return shares("labels", logits).astype(np.float32)
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    found: Vector = shifted / shifted.sum(axis=1, keepdims=True)
    return found


def named(targets: Targets, said: Vector) -> list[Any]:
    """What ``told`` gave, in words: the name of a class, names of labels, or numbers by name, for each sample."""
    if targets.kind == "classes":
        return [targets.names[k] for k in said.argmax(axis=1)]
    if targets.kind == "labels":
        return [[targets.names[k] for k in np.flatnonzero(row > 0.5)] for row in said]
    return [dict(zip(targets.names, map(float, row), strict=True)) for row in said]


def line_of(manifest: Manifest, row: Vector) -> dict[str, Any]:
    """One row of ``told``, as JSON tells it."""
    targets = manifest.targets
    if targets.kind == "classes":
        best = int(row.argmax())
        return {"label": targets.names[best], "probability": round(float(row[best]), 6)}
    if targets.kind == "labels":
        shown = {name: round(float(share), 6) for name, share in zip(targets.names, row, strict=True)}
        return {"labels": named(targets, row[None])[0], "probabilities": shown}
    numbers = {name: float(f"{value:.6g}") for name, value in zip(targets.names, row, strict=True)}
    units = dict(zip(targets.names, targets.units, strict=False))
    return {"values": numbers, **({"units": units} if units else {})}


def compared(targets: Targets, logits: Vector, y: npt.ArrayLike) -> Evaluation:
    """How good outputs are for samples with ``y``, as somebody gave them."""
    wanted = check_targets(y, targets, len(logits))
    said = predicted(targets.kind, logits)
    if targets.kind == "classes":
        return Evaluation(accuracy(wanted, said), macro_f1(wanted, said, len(targets.names)), len(wanted))
    found = scores(_NAME, wanted, said, targets)
    main = {"labels": "micro_f1", "numbers": "nrmse"}[targets.kind]
    names = {
        _NAME: main,
        f"{_NAME}_f1": "macro_f1",
        f"{_NAME}_exact": "subset_accuracy",
        f"{_NAME}_labels": "label_accuracy",
    }
    plain = {names.get(name, name.removeprefix(f"{_NAME}_")): value for name, value in found.items()}
    units = dict(zip(targets.names, targets.units, strict=False))
    right, f1 = plain.get("label_accuracy", math.nan), plain.get("macro_f1", math.nan)
    return Scores(right, f1, len(wanted), plain, units)
