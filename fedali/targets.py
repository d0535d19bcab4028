"""What is learnt of samples, as numpy sees it: classes, labels that go together, or numbers; their names, and scores of what was said.

Numpy alone: a device does what a simulation does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from fedali.answers.gate import probabilities
from fedali.errors import DataError
from fedali.metrics import accuracy, labels_right, macro_f1, multilabel_f1, r2_of

Array = npt.NDArray[Any]

Kind = Literal["classes", "labels", "numbers"]
"""``classes``: one of several for each sample, y [n] int64; ``labels``: any of several, y [n, T] of 0 and 1; ``numbers``: y [n, T]."""
KINDS: tuple[str, ...] = get_args(Kind)


@dataclass(frozen=True)
class Score:
    """A number that says how good answers are.

    Args:
        ending: of its column, behind what was tested: ``""`` for the one that chooses rounds, ``"_f1"``.
        name: its column in a table, such as ``accuracy``.
        title: for people.
        better: which way.
        share: whether it is 0 to 1, and shown in %.
    """

    ending: str
    name: str
    title: str
    better: Literal["more", "less"] = "more"
    share: bool = True

    def text(self, value: float) -> str:
        """A value for people, with its unit.

        >>> Score("", "accuracy", "accuracy").text(0.912), Score("", "nrmse", "RMSE/std", "less", share=False).text(0.7512)
        ('91.2 %', '0.751')
        """
        return f"{100 * value:.1f} %" if self.share else f"{value:.3f}"

    def number(self, value: float) -> str:
        """A value for a table whose heading says the unit."""
        return f"{100 * value:.1f}" if self.share else f"{value:.3f}"


@dataclass(frozen=True, eq=False)
class Targets:
    """What is learnt of each sample.

    Args:
        names: of the classes, labels or quantities [T].
        kind: what they are.
        units: of quantities [T]; empty where nobody said.
        mean, std: of quantities [T]: y is ``(measured - mean) / std``, of training samples.
        counts: training samples of each class, or with each label [T]; None where that is not known.
        samples: training samples; None where that is not known.
    """

    names: tuple[str, ...]
    kind: Kind = "classes"
    units: tuple[str, ...] = ()
    mean: Array = field(default_factory=lambda: np.zeros(1, np.float32))
    std: Array = field(default_factory=lambda: np.ones(1, np.float32))
    counts: Array | None = None
    samples: int | None = None

    def normalised(self, y: Array) -> Array:
        """Measured quantities [n, T] as what is trained on, float32; classes and labels as they are."""
        if self.kind != "numbers":
            return y
        found: Array = ((np.asarray(y, np.float64) - self.mean) / self.std).astype(np.float32)
        return found

    def in_units(self, said: Array) -> Array:
        """Answers [n, T] as quantities in their units, float64."""
        found: Array = np.asarray(said, np.float64) * self.std + self.mean
        return found

    def unit(self, place: int) -> str:
        """The unit of a quantity, ``""`` where it is not known."""
        return self.units[place] if self.units else ""


def fit_numbers(names: Sequence[str], y: Array, units: Sequence[str] = ()) -> Targets:
    """``Targets`` of quantities, normalised by ``y`` [n, T] of training samples.

    Raises ``DataError`` for one that is the same in all samples: there is nothing to learn.
    """
    mean, std = y.mean(0, dtype=np.float64), y.std(0, dtype=np.float64)
    for name, spread, middle in zip(names, std, mean, strict=True):
        if not spread > 1e-12 * max(abs(middle), 1e-30):
            raise DataError(
                f"target {name!r} is {middle:g} in all training samples; there is nothing to learn"
            )
    return Targets(tuple(names), "numbers", tuple(units), mean, std)


def predicted(kind: Kind, logits: Any) -> Any:
    """What outputs [n, T] say of samples, of numpy or torch: a class [n], which labels there are [n, T], or numbers [n, T]."""
    if kind == "classes":
        return logits.argmax(-1)
    return logits > 0 if kind == "labels" else logits


def shares(kind: Kind, logits: Array) -> Array:
    """What answers of two models are mixed of: probabilities [n, T] in float64, or the numbers themselves."""
    if kind == "classes":
        return probabilities(logits)
    if kind == "labels":
        found: Array = 1.0 / (1.0 + np.exp(-np.clip(logits.astype(np.float64), -60, 60)))
        return found
    return logits.astype(np.float64)


def decided(kind: Kind, mixed: Array) -> Array:
    """``predicted`` of what ``shares`` gave."""
    return predicted(kind, mixed - 0.5 if kind == "labels" else mixed)  # type: ignore[no-any-return]


def scores(name: str, y: Array, said: Array, targets: Targets) -> dict[str, float]:
    """Numbers of answers ``said``, as ``predicted`` gives them, to samples with ``y``; NaN for no samples.

    * classes: accuracy as ``name``, macro-F1 as ``<name>_f1``;
    * labels: micro-F1 as ``name``, macro-F1 as ``<name>_f1``, samples with all labels right as ``<name>_exact``, labels that are right as
      ``<name>_labels``;
    * numbers: the root of the mean squared error in standard deviations as ``name``, R2 as ``<name>_r2``, its mean over targets; and of each
      target ``<name>_mae_<target>`` and ``<name>_rmse_<target>`` in its unit, and ``<name>_r2_<target>``.
    """
    if targets.kind == "classes":
        return {name: accuracy(y, said), f"{name}_f1": macro_f1(y, said, len(targets.names))}
    if targets.kind == "labels":
        micro, macro = multilabel_f1(y, said)
        exact, single = labels_right(y, said)
        return {name: micro, f"{name}_f1": macro, f"{name}_exact": exact, f"{name}_labels": single}
    return _number_scores(name, y, said, targets)


def _number_scores(name: str, y: Array, said: Array, targets: Targets) -> dict[str, float]:
    count = len(targets.names)
    error = said.reshape(-1, count).astype(np.float64) - y.reshape(-1, count)
    std = np.broadcast_to(targets.std, (count,))
    if not len(error):
        error = np.full((1, count), np.nan)
    squares, sizes = (error**2).mean(0), np.abs(error).mean(0)
    fits = r2_of(y.reshape(-1, count), said.reshape(-1, count))
    known = fits[~np.isnan(fits)]
    found: dict[str, float] = {
        name: float(np.sqrt(squares.mean())),
        f"{name}_r2": float(known.mean()) if known.size else float("nan"),
    }
    for place, target in enumerate(targets.names):
        found[f"{name}_mae_{target}"] = float(sizes[place] * std[place])
        found[f"{name}_rmse_{target}"] = float(np.sqrt(squares[place]) * std[place])
        found[f"{name}_r2_{target}"] = float(fits[place])
    return found


def counts(kind: Kind, y: Array, outputs: int) -> Array:
    """Samples of each class, or with each label [T], float32; zeros of numbers."""
    if kind == "classes":
        return np.bincount(y, minlength=outputs).astype(np.float32)
    return np.asarray(y.sum(0) if kind == "labels" else np.zeros(outputs), np.float32)


def of_score(columns: Mapping[str, Any] | Sequence[str], name: str, what: str) -> list[str]:
    """Targets that ``columns`` have a ``<name>_<what>_<target>`` of, in their order."""
    start = f"{name}_{what}_"
    return [str(column).removeprefix(start) for column in columns if str(column).startswith(start)]
