"""The user's own samples as .npz."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedali.data.dataset import STORED_DTYPES
from fedali.data.labels import Label, client_of, labels_of
from fedali.data.look.doubts import coarse
from fedali.data.look.files import SeenFile
from fedali.data.npz import read_arrays
from fedali.data.sources.layouts import arranged
from fedali.data.sources.own_csv import Piece
from fedali.data.sources.own_numbers import check_codes, stand_ins
from fedali.data.sources.own_targets import names_of, targets_of
from fedali.data.sources.reading import ITSELF, ForModel, Reading
from fedali.errors import DataError, did_you_mean

_KNOWN = {"x", "y", "client", "recording", "start", "class_names", "channel_names", "target_names"}


def read_npz(path: Path, client: str | None, reading: Reading, model: ForModel = ITSELF) -> Piece:
    """One .npz; with ``client`` it is that client's file and holds no ``client`` array.

    Raises ``DataError`` for whatever is wrong with it.
    """
    arrays = {name: _text(array, f"{path}: {name}") for name, array in read_arrays(path).items()}
    roles = {"y": "label", "client": "client"}
    needed = ["x", "y"] if client is not None else ["x", "y", "client"]
    missing = [name for name in needed if name not in arrays and roles.get(name) not in model.may_lack]
    if missing:
        odd = sorted(set(arrays) - _KNOWN)
        hint = did_you_mean(missing[0], odd) if odd else f"it holds {', '.join(sorted(arrays)) or 'nothing'}"
        raise DataError(f"{path} lacks the array {missing[0]!r}; {hint}")
    if client is not None and "client" in arrays and not model.owners:
        raise DataError(
            f"{path} holds an array 'client', but the file's name is the client; leave the array out"
        )
    names = {
        key: tuple(str(v) for v in arrays[key].ravel())
        for key in ("class_names", "channel_names")
        if key in arrays
    }
    x, notes = arrays["x"], list[str]()
    if model.shape is not None and x.shape == model.shape:
        x = x[None]
    if x.ndim in (2, 3, 4):  # others are refused below
        x, notes = arranged(x, str(path), reading.layout, names.get("channel_names"), model.shape)
    if x.ndim in (2, 3) and x.dtype.kind in "fiu":
        known = names.get("channel_names", ())
        numbers = [f"channel-{k + 1}" for k in range(x.shape[-1])]
        notes += coarse(known if len(known) == x.shape[-1] else numbers, x.reshape(-1, x.shape[-1]))
    x, holes = _to_stored(x, path, reading)
    n = len(x)
    if n == 0:
        raise DataError(f"{path} holds no samples; add some")
    labels: list[Label | None] = [None] * n
    targets, classes = None, reading.targets == "classes"
    if "y" in arrays and not classes:
        targets = targets_of(arrays["y"], n, str(path), reading.targets)
    elif "y" in arrays:
        labels = labels_of(arrays["y"], n, str(path), unlabelled=reading.unlabelled)
    for name in ("client", "recording", "start"):
        if name in arrays and arrays[name].shape != (n,):
            raise DataError(
                f"{path}: x has {n} samples but {name} has shape {list(arrays[name].shape)}; give one entry each"
            )
    overlap = "recording" in arrays
    if overlap != ("start" in arrays):
        raise DataError(
            f"{path} has one of recording and start; overlapping samples need both, independent ones neither"
        )
    for name in ("recording", "start"):
        if overlap and arrays[name].dtype.kind not in "iu":
            raise DataError(f"{path}: {name} is {arrays[name].dtype}; make it integers")
    owners = _client_names(arrays["client"], path) if "client" in arrays else [str(client)] * n
    start = arrays["start"].astype(np.int64) if overlap else np.zeros(n, np.int64)
    recording = arrays["recording"].astype(np.int64) if overlap else np.arange(n)
    keep = "label" in model.may_lack or not classes
    rows = [row for row, label in enumerate(labels) if (label is not None or keep) and not holes[row]]
    none = sum(label is None for label in labels)
    if none and not keep:
        notes.append(f"{none} of {n} samples are left out: they have no label (data.unlabelled)")
    if holes.any():
        notes.append(
            f"{int(holes.sum())} of {n} samples are left out: they hold missing values (data.missing)"
        )
    if len(rows) < n:
        x, recording, start = x[rows], recording[rows], start[rows]
        targets = None if targets is None else targets[rows]
    kept = [labels[row] for row in rows]
    if not all(isinstance(label, int) for label in kept if label is not None):
        kept = [None if label is None else str(label) for label in kept]
    return Piece(
        where=str(path),
        x=x,
        labels=kept,
        clients=[owners[row] for row in rows],
        recording=recording,
        start=start,
        length=(x.shape[1] if x.ndim == 3 else 1) if overlap else 0,
        everyone=tuple(dict.fromkeys(owners)),
        channel_names=names.get("channel_names"),
        class_names=names.get("class_names") if classes else None,
        notes=tuple(notes),
        seen=SeenFile(str(path), _form(arrays.get("y")), unlabelled=none if classes else 0),
        rows=np.array(rows, np.int64),
        targets=targets,
        target_names=() if targets is None else names_of(arrays, targets.shape[1], str(path)),
    )


def _form(y: npt.NDArray[Any] | None) -> str:
    return "none" if y is None else f"{y.dtype} {list(y.shape)}"


def _to_stored(
    x: npt.NDArray[Any], path: Path, reading: Reading
) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """``x`` in one of the dtypes that a data set stores, and which samples [n] hold a missing value."""
    if x.dtype.kind not in "fiu":
        raise DataError(f"{path}: x is {x.dtype}; make it numbers")
    if not 2 <= x.ndim <= 4 or 0 in x.shape[1:]:
        raise DataError(
            f"{path}: x has shape {list(x.shape)}; make it [samples, features], [samples, time, channels] or "
            "[samples, channels, height, width]"
        )
    words, values = stand_ins(reading.missing or ())
    missing = np.isin(x, list(values)) if values else np.zeros(x.shape, bool)
    if "nan" in words and x.dtype.kind == "f":
        missing |= np.isnan(x)
    holes = np.asarray(missing.any(axis=tuple(range(1, x.ndim))))
    if reading.missing is None and x.dtype.kind == "f" and x.ndim < 4:
        check_codes(str(path), [f"channel-{k + 1}" for k in range(x.shape[-1])], x.reshape(-1, x.shape[-1]))
    finite = np.isfinite(x) | missing
    if not finite.all():
        row = int(np.argmin(finite.reshape(len(x), -1).all(axis=1)))
        raise DataError(
            f"{path}: x holds {int((~finite).sum())} values that are NaN or infinite, first in row {row}; "
            'repair or leave out these rows, or say that NaN is a missing value: data.missing = ["nan"]'
        )
    if x.dtype.name in STORED_DTYPES:
        return x.astype(x.dtype.newbyteorder("="), copy=False), holes
    with np.errstate(over="ignore"):  # becomes infinite
        stored = x.astype(np.float32)
    large = np.isinf(stored) & finite & ~missing
    if large.any():
        row = int(np.argwhere(large)[0][0])
        raise DataError(
            f"{path}: x holds {int(large.sum())} values that are NaN or infinite in single precision, for which they are too large, first in row {row}; repair or leave "
            "them out"
        )
    return stored, holes


def _text(array: npt.NDArray[Any], where: str) -> npt.NDArray[Any]:
    """An array of bytes as text, without spaces around it, as it is read in a CSV; any other as it is."""
    if array.dtype.kind not in "SU":
        return array
    try:
        return np.char.strip(np.char.decode(array, "utf-8") if array.dtype.kind == "S" else array)
    except UnicodeError:
        raise DataError(f"{where} is bytes that are no UTF-8 text; save it as strings") from None


def _client_names(client: npt.NDArray[Any], path: Path) -> list[str]:
    if client.dtype.kind in "iu":
        if (client < 0).any():
            row = int(np.argmax(client < 0))
            raise DataError(
                f"{path}: client of row {row} is {client[row]}, which may stand for no client, and so for several people; leave these rows "
                "out, or save names as strings"
            )
        return [f"client-{k}" for k in client.tolist()]
    if client.dtype.kind != "U":
        raise DataError(f"{path}: client is {client.dtype}; make it integers or strings")
    first = dict(zip(reversed(client.tolist()), range(len(client) - 1, -1, -1), strict=True))
    for name, row in first.items():
        client_of(name, f"{path}: client of row {row}")
    return [str(name) for name in client.tolist()]
