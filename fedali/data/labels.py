"""Labels as people write them: whole numbers or names, and what stands for none."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fedali.errors import DataError

Label = int | str
UNKNOWN = ("?", "na", "n/a", "#n/a", "nan", "null")
"""Texts, in lower case, that are hardly ever the name of a class."""

_WHOLE = re.compile(r"[+-]?(0|[1-9][0-9]{0,17})(\.0+)?")
_ZEROS = re.compile(r"0[0-9]+")


def label_of(text: str) -> Label | None:
    """A whole number, also written as a float, or a name; None for a number that is neither.

    >>> [label_of(text) for text in ("1", "1.0", "-1", "01", "walk", "1.5", "nan", "1_0")]
    [1, 1, -1, '01', 'walk', None, None, None]
    """
    if _WHOLE.fullmatch(text):
        return int(text.partition(".")[0])
    if _ZEROS.fullmatch(text):
        return text
    try:
        float(text)
    except ValueError:
        return text
    return None


def stands(text: str, among: Collection[str]) -> bool:
    """Whether a text is one of some, or the same whole number.

    >>> stands("-1.0", ["-1"]), stands("01", ["1"]), stands("", [""])
    (True, False, True)
    """
    if text in among:
        return True
    label = label_of(text) if among and text else None
    return isinstance(label, int) and any(label_of(one) == label for one in among)


def is_unlabelled(text: str, unlabelled: Sequence[str] | None, where: str) -> bool:
    """Whether a label says that there is none.

    Raises ``DataError`` for one that may say so while nobody has said which do: ``unlabelled`` is None.
    """
    if unlabelled is not None and stands(text, unlabelled):
        return True
    if not text:
        raise DataError(
            f'{where} is empty; fill it in, or leave out what has no label: data.unlabelled = [""]'
        )
    if unlabelled is None:
        number = label_of(text)
        if (isinstance(number, int) and number < 0) or text.lower() in UNKNOWN:
            raise DataError(
                f'{where} is {text!r}, which may stand for no label; if so say data.unlabelled = ["{text}"], '
                "if it is a class say data.unlabelled = []"
            )
    return False


def tidied(y: npt.NDArray[Any], samples: int) -> npt.NDArray[Any]:
    """Labels [n] of an array [n, 1], or [n, classes] with a single 1 in each row; whole floats as integers, booleans as words.

    Any other array comes back as it is.

    >>> tidied(np.array([[0.0, 1.0], [1.0, 0.0]]), 2), tidied(np.array([[2.0], [1.0]]), 2), tidied(np.array([True]), 1)
    (array([1, 0]), array([2, 1]), array(['True'], dtype='<U5'))
    """
    if y.shape == (samples, 1):
        y = y[:, 0]
    elif y.ndim == 2 and len(y) == samples and y.shape[1] > 1 and y.dtype.kind in "biuf":
        ones, zeros = y == 1, y == 0
        if not ((ones | zeros).all() and (ones.sum(axis=1) == 1).all()):
            return y
        y = ones.argmax(axis=1)
    if y.dtype.kind == "f" and (np.abs(y) < 2**53).all() and (y == np.rint(y)).all():
        return y.astype(np.int64)
    return y.astype("U5") if y.dtype.kind == "b" else y


def labels_of(
    y: npt.NDArray[Any], samples: int, where: str, *, unlabelled: Sequence[str] | None = ()
) -> list[Label | None]:
    """One label for each sample of an array as ``tidied`` takes it, in a file ``where``; NaN may stand for none, which is None.

    Raises ``DataError`` for another shape, numbers that are not whole, and as ``is_unlabelled`` does.
    """
    y = tidied(y, samples)
    if y.shape != (samples,):
        raise DataError(
            f"{where}: x has {samples} samples but y has shape {list(y.shape)}; give one entry each"
        )
    found: list[Any] = y.tolist()
    if y.dtype.kind == "f" and np.isnan(y).any():
        whole = tidied(y[~np.isnan(y)], samples - int(np.isnan(y).sum()))
        if whole.dtype.kind == "i":
            found = ["nan" if np.isnan(label) else int(label) for label in found]
            y = whole
    if y.dtype.kind not in "iuU":
        raise DataError(f"{where}: labels y are {y.dtype}; make them integers or strings")
    first: dict[Any, int] = {}
    for row, label in enumerate(found):
        first.setdefault(label, row)
    none = {
        label: is_unlabelled(str(label).strip(), unlabelled, f"{where}: label y of row {row}")
        for label, row in first.items()
    }
    return [None if none[label] else label for label in found]
