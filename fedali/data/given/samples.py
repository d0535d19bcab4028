"""Samples and labels of one client, or of all, as somebody's program has them; and the data set that they make together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fedali.data.dataset import STORED_DTYPES, TOKENS, Dataset
from fedali.data.labels import Label, client_of, labels_of
from fedali.data.normalisation import channel_axis
from fedali.data.sources.layouts import arranged
from fedali.errors import DataError, did_you_mean
from fedali.targets import Kind

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Given:
    """Samples ``x`` [n, ...] with labels ``y`` [n], by whoever gave them.

    ``client`` [n] says whose they are, None that they are one client's; ``part`` [n] what they are for, as in ``Dataset``. ``class_names`` are
    those that integer labels index, None where labels speak for themselves; ``pictures``: samples are [height, width, channels] or grey
    [height, width] for certain.
    """

    x: Array
    y: Array
    where: str
    client: Array | None = None
    part: Array | None = None
    class_names: tuple[str, ...] | None = None
    pictures: bool = False
    notes: tuple[str, ...] = ()


def given(x: Any, y: Any, where: str, *, client: Any = None, part: int | None = None) -> Given:
    """Arrays, or what becomes arrays. Raises ``DataError`` for what does not, or has other lengths."""
    samples, labels = _array(x, f"{where}: x"), _array(y, f"{where}: y")
    if samples.ndim < 2:
        raise DataError(
            f"{where}: x has shape {list(samples.shape)}; give [samples, features], [samples, time, channels] or "
            "[samples, channels, height, width]"
        )
    if labels.ndim == 0 or len(labels) != len(samples):
        raise DataError(f"{where}: x has {len(samples)} samples and y {labels.size} labels; give one each")
    owner = None if client is None else _array(client, f"{where}: clients").reshape(-1)
    if owner is not None and len(owner) != len(samples):
        raise DataError(
            f"{where}: x has {len(samples)} samples and there are {len(owner)} clients; give one each"
        )
    return Given(samples, labels, where, owner, None if part is None else np.full(len(samples), part))


def joined(pieces: Sequence[Given], where: str) -> Given:
    """All together. Raises ``DataError`` for samples of another shape or kind, naming where they are."""
    first = pieces[0]
    for piece in pieces:
        if piece.x.shape[1:] != first.x.shape[1:]:
            raise DataError(
                f"{piece.where} has samples of shape {list(piece.x.shape[1:])} and {first.where} of {list(first.x.shape[1:])}; "
                "make them the same"
            )
        if piece.class_names != first.class_names:
            raise DataError(f"{piece.where} has other classes than {first.where}; make them the same")
    client, part = _all([piece.client for piece in pieces]), _all([piece.part for piece in pieces])
    notes = tuple(dict.fromkeys(note for piece in pieces for note in piece.notes))
    x, y = (np.concatenate([getattr(piece, name) for piece in pieces]) for name in ("x", "y"))
    return replace(first, x=x, y=y, where=where, client=client, part=part, notes=notes)


def _all(arrays: Sequence[Array | None]) -> Array | None:
    """One after another; None where one is."""
    known = [array for array in arrays if array is not None]
    return np.concatenate(known) if len(known) == len(arrays) else None


def to_dataset(found: Given, name: str, layout: str | None = None, kind: Kind = "classes") -> Dataset:
    """The data set that samples and labels are; each sample is by itself, of no recording.

    Args:
        found: of all clients.
        name: for people.
        layout: axes of a sample, as the setting ``data.layout`` has them.
        kind: what is learnt of samples: one of several classes, labels [n, T] of 0 and 1, or numbers [n, T].

    Raises ``DataError`` that says what is wrong, and where.
    """
    x, notes = _stored(found, layout)
    if kind == "classes":
        class_names, y = _classes(labels_of(found.y, len(x), found.where), found)
    else:
        class_names, y = _targets(found)
    client_names, client = _clients(found, len(x))
    count = x.shape[channel_axis(x.ndim - 1) + 1]
    return Dataset(
        name=name,
        x=x,
        y=y,
        client=client,
        client_names=client_names,
        class_names=class_names,
        channel_names=tuple(f"channel-{k + 1}" for k in range(count)),
        recording=np.arange(len(x)),
        start=np.zeros(len(x), np.int64),
        length=0,
        licence="not stated",
        citation="",
        notes=(*found.notes, *notes),
        part=found.part,
        kind=kind,
    )


def _targets(found: Given) -> tuple[tuple[str, ...], Array]:
    """Names of targets, and those of each sample [n, T]."""
    if found.y.dtype.kind not in "fiub":
        raise DataError(f"{found.where}: y is {found.y.dtype}; this task learns numbers")
    y = found.y.reshape(len(found.y), -1).astype(np.float32)
    names = found.class_names or tuple(f"target-{k + 1}" for k in range(y.shape[1]))
    return names, y


def _array(value: Any, where: str) -> Array:
    try:
        array = np.asarray(value.numpy() if hasattr(value, "detach") else value)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"{where} is no array: {reason}. Give arrays on the CPU whose rows have the same shape"
        ) from None
    if array.dtype == object:
        array = np.array(array.tolist())
    if array.dtype == object:
        raise DataError(f"{where} holds {type(array.flat[0]).__name__}, no numbers or text")
    return array


def _stored(found: Given, layout: str | None) -> tuple[Array, list[str]]:
    """Samples in a dtype and with axes that FedAli stores, and what was assumed of them."""
    x, notes = found.x, []
    if x.dtype.kind not in "fiub":
        raise DataError(f"{found.where}: x is {x.dtype}; make it numbers")
    if x.ndim > 4:
        raise DataError(
            f"{found.where}: x has shape {list(x.shape)}; a sample has one to three axes: [features], [time, channels] or "
            "[channels, height, width]"
        )
    if x.dtype.name in ("int32", TOKENS) and x.ndim == 2:
        notes.append(
            "samples are whole numbers and taken as ids of tokens, not normalised; measurements are float32"
        )
        return x.astype(np.int64, copy=False), notes
    if x.dtype.name not in STORED_DTYPES:
        x = x.astype(np.uint8 if x.dtype.kind == "b" else np.float32)
    if found.pictures and layout is None:
        layout = "hwc" if x.ndim == 4 else "hw"
    try:
        return arranged(x, found.where, layout)
    except DataError as error:
        raise DataError(str(error).replace("data.layout", "layout")) from None


def _classes(labels: Sequence[Label | None], found: Given) -> tuple[tuple[str, ...], Array]:
    """Names of the classes, and each sample's index into them."""
    whole = all(isinstance(label, int) for label in labels)
    names = found.class_names
    if whole and (names is not None or min(int(label) for label in labels if label is not None) < 0):
        low, high = min(labels), max(labels)  # type: ignore[type-var]
        if low < 0 or (names is not None and high >= len(names)):  # type: ignore[operator]
            known = "0 or more" if names is None else f"0 to {len(names) - 1}"
            raise DataError(
                f"{found.where}: labels go from {low} to {high}, and classes are {known}; leave out what has no label"
            )
        assert names is not None
        return names, np.array(labels, np.int64)
    texts = labels if whole else [str(label) for label in labels]
    if names is None:
        names = tuple(str(label) for label in sorted(set(texts)))  # type: ignore[type-var]
    index = {name: place for place, name in enumerate(names)}
    odd = next((str(label) for label in texts if str(label) not in index), None)
    if odd is not None:
        raise DataError(f"{found.where}: label {odd!r} is no class; {did_you_mean(odd, names)}")
    return names, np.array([index[str(label)] for label in texts], np.int64)


def _clients(found: Given, samples: int) -> tuple[tuple[str, ...], Array]:
    """Names of the clients, in the order in which whole numbers or texts stand, and each sample's client."""
    if found.client is None:
        return ("everyone",), np.zeros(samples, np.int64)
    values, place = np.unique(found.client, return_inverse=True)
    names = tuple(client_of(str(value), f"{found.where}: a client's name") for value in values.tolist())
    return names, place.reshape(-1)
