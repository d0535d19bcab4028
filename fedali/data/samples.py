"""Samples and labels from outside: checked, and refused in one line that says what to mend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fedali.data.labels import tidied
from fedali.data.normalisation import channel_axis
from fedali.errors import DataError, MisfitError, did_you_mean
from fedali.targets import Targets

Array = npt.NDArray[Any]
Labels = npt.NDArray[np.int64]


def check_samples(x: npt.ArrayLike, shape: Sequence[int], where: str = "x") -> Array:
    """Samples [n, *shape], n > 0, of a float or integer dtype; a single sample [*shape] becomes [1, *shape].

    Raises ``DataError`` for anything else, and for values that are NaN or infinite, naming the first.
    """
    shape = tuple(shape)
    try:
        samples = np.asarray(x)
    except ValueError as error:
        raise DataError(f"{where} is no array: samples have different shapes") from error
    if samples.dtype.kind not in "fiu":
        raise DataError(f"{where} is {samples.dtype}; make it numbers")
    if samples.shape == shape:
        samples = samples[None]
    if samples.shape[1:] != shape:
        wanted = ", ".join(["n", *map(str, shape)])
        raise MisfitError(
            f"{where} has shape {list(samples.shape)}; this model takes [{wanted}]",
            f"this device's samples are {_in_words(samples.shape[1:])}; the federation's are {_in_words(shape)}",
        )
    if not len(samples):
        raise DataError(f"{where} holds no samples")
    if samples.dtype.kind == "f":
        for start in range(0, len(samples), 256):  # also of a mapped file, a piece at a time
            with np.errstate(over="ignore"):  # what is too large for single precision becomes infinite
                finite = np.isfinite(samples[start : start + 256].astype(np.float32, copy=False))
            if not finite.all():
                at = np.argwhere(~finite)[0]
                at[0] += start
                raise DataError(
                    f"{where}{at.tolist()} is {samples[tuple(at)]}; repair or leave out sample {at[0]}"
                )
    return samples


def check_labels(y: npt.ArrayLike, classes: Sequence[str], count: int, where: str = "y") -> Labels:
    """Indices [n] of labels that are given as indices or as names, in any form that ``fedali.data.labels.tidied`` takes.

    Raises ``DataError`` for a wrong number of them, or a label that is not of this model, naming the first.
    """
    labels = tidied(np.asarray(y), count)
    if labels.shape != (count,):
        raise DataError(
            f"{where} has shape {list(labels.shape)}; {count} samples need one label each: [{count}]"
        )
    unknown = f"this device has a label that is none of the federation's {len(classes)} classes"
    if labels.dtype.kind in "iu":
        wrong = (labels < 0) | (labels >= len(classes))
        if wrong.any():
            row = int(np.argmax(wrong))
            raise MisfitError(
                f"{where}[{row}] is {labels[row]}; this model has the classes 0..{len(classes) - 1}: {', '.join(classes)}",
                unknown,
            )
        return labels.astype(np.int64)
    if labels.dtype.kind not in "UO":
        raise DataError(f"{where} is {labels.dtype}; make it integers or the names of classes")
    index = {name: k for k, name in enumerate(classes)}
    found = np.empty(count, np.int64)
    for row, label in enumerate(labels.tolist()):
        if label not in index:
            raise MisfitError(
                f"{where}[{row}] is {label!r}, no class of this model; {did_you_mean(str(label), classes)}",
                unknown,
            )
        found[row] = index[label]
    return found


def check_targets(y: npt.ArrayLike, targets: Targets, count: int, where: str = "y") -> Array:
    """What is known of ``count`` samples as it is trained on: classes [n] as ``check_labels`` gives them, labels [n, T] of 0 and 1, or
    measured quantities [n, T], or [n] of one, normalised.

    Raises ``DataError`` for another shape or values that cannot be.
    """
    if targets.kind == "classes":
        return check_labels(y, targets.names, count, where)
    found = np.asarray(y)
    width = len(targets.names)
    found = found[:, None] if width == 1 and found.shape == (count,) else found
    if found.shape != (count, width) or found.dtype.kind not in "biuf":
        raise DataError(
            f"{where} is {found.dtype} {list(found.shape)}; {count} samples need numbers [{count}, {width}]: {', '.join(targets.names)}"
        )
    good = np.isin(found, (0, 1)) if targets.kind == "labels" else np.isfinite(found)
    if not good.all():
        row, place = np.argwhere(~good)[0].tolist()
        what = "0 or 1" if targets.kind == "labels" else "a finite number"
        raise DataError(
            f"{where}[{row}] has {found[row, place]} for {targets.names[place]!r}, where {what} has to be"
        )
    return targets.normalised(found).astype(np.float32)


def named_labels(
    labels: Sequence[Any], classes: Sequence[str], where: str, *, by_name: bool = False
) -> Sequence[Any]:
    """Labels of a file, all whole numbers or all names, with None for none: whole numbers that are names of classes as those, as a
    simulation reads them; places of classes as they are.

    Raises ``DataError`` for what may be either, and means different classes; ``by_name``: what may be either is a name.
    """
    found = {label: str(label) for label in labels if label is not None}
    if not all(isinstance(label, int) for label in found) or not found:
        return labels
    names = {label: name for label, name in found.items() if name in classes}
    places = {label: classes[label] for label in found if 0 <= label < len(classes)}
    differ = [label for label, name in names.items() if places.get(label) != name]
    if not differ:
        as_places = len(places) == len(found) or not (names or by_name)
        return labels if as_places else [found.get(label) for label in labels]
    if len(places) == len(found) and not (by_name and len(names) == len(found)):
        label = min(differ)
        raise MisfitError(
            f"{where} has whole numbers that may be names of classes or their places: {label} is class "
            f"{found[label]!r} by name and {places[label]!r} by place; save them as strings, or add class_names",
            "this device's labels are whole numbers that may be names of classes or their places",
        )
    return [found.get(label) for label in labels]


def _in_words(shape: Sequence[int]) -> str:
    """The shape of a sample for people.

    >>> _in_words((128, 6)), _in_words((1, 8, 8)), _in_words((9,)), _in_words(())
    ('windows of 128 with 6 channels', 'images of 8 x 8 with 1 channel', 'vectors of 9', 'of shape []')
    """
    channels = shape[channel_axis(len(shape))] if shape else 0
    with_ = f"with {channels} channel{'' if channels == 1 else 's'}"
    if len(shape) == 3:
        return f"images of {shape[1]} x {shape[2]} {with_}"
    if len(shape) == 2:
        return f"windows of {shape[0]} {with_}"
    return f"vectors of {shape[0]}" if len(shape) == 1 else f"of shape {list(shape)}"
