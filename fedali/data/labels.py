"""Labels as people write them: whole numbers or names, and what stands for none."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fedali.errors import DataError

Label = int | str
UNKNOWN = (
    *("?", ".", "-", "--", "na", "n/a", "n.a.", "#n/a", "<na>", "nan", "nat", "null", "none"),
    *("#ref!", "#value!", "#name?", "#div/0!", "undefined", "unknown", "unlabelled", "unlabeled"),
)
"""Texts, in lower case, that may say that there is none."""

_WHOLE = re.compile(r"[+-]?(0|[1-9][0-9]{0,17})(\.0+)?")
_FLOAT = re.compile(r"[+-]?[0-9]\.[0-9]+[eE][+-]?[0-9]{1,2}")  # as numpy writes numbers
_ZEROS = re.compile(r"0[0-9]+")


def label_of(text: str) -> Label | None:
    """A whole number, also written as a float, or a name; None for a number that is neither.

    >>> [label_of(text) for text in ("1", "1.0", "2.000e+00", "-1", "01", "walk", "1.5", "nan", "1_0")]
    [1, 1, 2, -1, '01', 'walk', None, None, None]
    """
    if _WHOLE.fullmatch(text):
        return int(text.partition(".")[0])
    if (
        _FLOAT.fullmatch(text)
        and not lost_digits(text)
        and abs(float(text)) < 2**53
        and float(text).is_integer()
    ):
        return int(float(text))
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


def lost_digits(text: str) -> bool:
    """Whether a text is a whole number of which only the first digits are left, as spreadsheets do it to long ones.

    >>> lost_digits("1.23E+15"), lost_digits("1.000000e+02"), lost_digits("115")
    (True, False, False)
    """
    if not _FLOAT.fullmatch(text):
        return False
    digits, _, exponent = text.lower().partition("e")
    return int(exponent) > len(digits.partition(".")[2])


def client_of(text: str, where: str) -> str:
    """The name of a client, without spaces around it. Raises ``DataError`` for what says that there is none: it would be one client of
    several people.

    >>> client_of(" ann", "a file"), client_of("7.000000e+00", "a file"), client_of("7.0", "a file")
    ('ann', '7', '7.0')
    """
    name = text.strip()
    if not name:
        raise DataError(f"{where} is empty; fill it in")
    number = label_of(name) if name[-1].isdigit() else None
    if name.lower() in UNKNOWN or (isinstance(number, int) and number < 0):
        raise DataError(
            f"{where} is {name!r}, which may stand for no client, and so for several people; fill it in, leave these rows out, or give "
            "that client another name"
        )
    if lost_digits(name):
        raise DataError(
            f"{where} is {name!r}, a number whose last digits a spreadsheet left out, so that several people may have it; save it as text"
        )
    return str(number) if number is not None and _FLOAT.fullmatch(name) else name


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
    if y.ndim == 2 and len(y) == samples and y.shape[1] > 1 and y.dtype.kind in "biuf":
        row = int(
            np.argmax((y == 1).sum(axis=1) != 1)
            if ((y == 0) | (y == 1)).all()
            else np.argmax(((y != 0) & (y != 1)).any(axis=1))
        )
        raise DataError(
            f"{where}: y has shape {list(y.shape)}, and row {row} has not one 1 and else 0, as one-hot labels have; give one label for each "
            "sample, and leave out samples that have none or several"
        )
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
