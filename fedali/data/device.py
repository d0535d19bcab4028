"""A file of a device or a site as its bundle says: the samples that a simulation would make of it, their labels, and which rows they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fedali.bundle.manifest import Manifest
from fedali.data.facts import DataFacts
from fedali.data.normalisation import channel_axis
from fedali.data.samples import Array, Labels, check_labels, check_samples, named_labels
from fedali.data.sources.layouts import arranged
from fedali.data.sources.own import ENDINGS, ending_of, read_piece, without_window
from fedali.data.sources.own_csv import Piece
from fedali.data.sources.reading import ForModel, Reading
from fedali.data.sources.settings import with_settings
from fedali.data.split import split
from fedali.errors import DataError, MisfitError, SettingsError, did_you_mean

Need = Literal["all", "known", "none"]
Pair = tuple[Array, Array]

UNLABELLED = -1
PARTS = ("train", "validation", "test")
SHARES = (
    0.56,
    0.14,
    0.30,
)  # of each class's samples of a file that is split here, as a scenario's are unless it says otherwise

_OTHER_RATE = 1.2  # times the interval that the model learned with, or its inverse
_MOVES = 1e-5  # of a constant channel's value
_SHOWN = 5  # names in a note


@dataclass(frozen=True, eq=False)
class FileSamples:
    """What a file gives: samples ``x`` [n, *shape], and classes ``y`` [n], ``UNLABELLED`` for none; or targets ``y`` [n, T] as measured.

    ``recording`` [n], ``start`` [n] and ``length`` are as in ``Dataset``. Of windows cut from rows, ``rows`` [n] are their first ones, from
    0 below the header, and ``times`` [n] the times of those, where there are times, seconds since 1970 of what is ``dated``. ``notes``
    are for people.
    """

    where: str
    x: Array
    y: Array
    recording: npt.NDArray[np.int64]
    start: npt.NDArray[np.int64]
    length: int
    rows: npt.NDArray[np.int64] | None = None
    times: npt.NDArray[np.float64] | None = None
    dated: bool = False
    notes: tuple[str, ...] = ()

    def moment(self, sample: int) -> float | str | None:
        """When a sample begins: a number as in the file, or ISO 8601 in UTC where the file has dates; None without times."""
        if self.times is None:
            return None
        time = float(self.times[sample])
        return datetime.fromtimestamp(time, timezone.utc).isoformat() if self.dated else time


def read_file(
    path: Path,
    manifest: Manifest,
    settings: Mapping[str, Any] | None = None,
    *,
    labels: Need = "all",
    client: str | None = None,
) -> FileSamples:
    """The samples of a file, cut as those that the model learned from.

    Args:
        path: ``.npz``, ``.csv``, ``.csv.gz`` or ``.tsv``; ``.npy`` where labels are not needed.
        manifest: of the model's bundle, which knows how.
        settings: of ``--set``, see ``fedali.data.sources.settings``, where the file is another one than the bundle knows.
        labels: whether ``all`` samples have to have one, those are taken that are ``known``, or ``none`` is looked at but as a border of
            windows.
        client: whose file it is; None for this device's, which may have a column ``client``.

    Raises ``DataError`` for what cannot be read or does not fit the model, and ``SettingsError`` for settings that make no sense.
    """
    given = dict(settings or {})
    if not path.exists():
        raise DataError(f"{path} does not exist")
    if path.suffix == ".npy" and labels != "all":
        return _npy(path, manifest, given)
    ending = ending_of(path)
    if ending not in ENDINGS:
        raise DataError(
            f"{path}: unknown ending {path.suffix!r}, neither .npz nor .csv; {did_you_mean(path.suffix, ('.npz', '.csv', '.tsv'))}"
        )
    shape, facts = manifest.input_shape, manifest.data
    rows = ending != ".npz"
    if rows and len(shape) != 2:
        raise MisfitError(
            f"{path}: rows of CSV make windows [time, channels], and this model takes {list(shape)}: save .npz",
            "this device's data are rows for windows, and the federation's samples are no windows",
        )
    window = shape[0]
    if rows and given.get("window", window) != window:
        raise SettingsError(f"data.window is {given['window']}, and the model takes windows of {window} rows")
    reading, model = _asked(facts, given, shape, rows=rows, labels=labels, owners=client is None)
    kind = manifest.targets.kind
    reading = replace(reading, targets=kind)
    stride = given.get("stride") or facts.stride_of(shape)
    piece = read_piece(path, window, stride, client or "this device", reading, model)
    if len(piece.x) == 0:
        raise DataError(_nothing(piece, window if rows else None))
    notes = [*piece.notes, *without_window([piece]), *_owners(piece, client), *_rate(piece, facts)]
    if rows and not facts.channels and "columns.channels" not in given:
        notes.append(
            f"the bundle names no channels; taken in this order: {', '.join(piece.channel_names or ())}"
        )
    x = check_samples(_in_order(piece, facts), shape, f"{path}: x")
    return FileSamples(
        where=str(path),
        x=x,
        y=_known(piece, manifest, rows=rows) if labels != "none" else _unknown(len(x)),
        recording=piece.recording,
        start=piece.start,
        length=piece.length,
        rows=piece.rows if rows else None,
        times=piece.times,
        dated=piece.dated,
        notes=(*notes, *_constant(x, manifest)),
    )


def read_parts(
    path: Path, manifest: Manifest, settings: Mapping[str, Any] | None = None, client: str | None = None
) -> tuple[dict[str, Pair | None], tuple[str, ...]]:
    """The parts of one file for all by name, None for one without a sample, and notes: split by class in time order, without windows that
    share rows across a border.

    Raises as ``read_file`` does.
    """
    stamp = path.stat() if path.exists() else None
    given = tuple(sorted((settings or {}).items()))
    key = None if stamp is None else (stamp.st_mtime_ns, stamp.st_size)
    return _parts(path, key, _Key(manifest), given, client)


@dataclass(frozen=True)
class _Key:
    """A manifest by what reading takes of it."""

    manifest: Manifest

    def __hash__(self) -> int:
        return hash((self.manifest.input_shape, self.manifest.classes))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and other.manifest is self.manifest


@lru_cache(maxsize=1)  # a client's parts are read one after another
def _parts(
    path: Path, stamp: object, key: _Key, settings: tuple[tuple[str, Any], ...], client: str | None
) -> tuple[dict[str, Pair | None], tuple[str, ...]]:
    found = read_file(path, key.manifest, dict(settings), client=client)
    strata = found.y if key.manifest.targets.kind == "classes" else np.zeros(len(found.y), np.int64)
    parts = split(strata, found.recording, found.start, found.length, fractions=SHARES, order="time")
    rows = {name: getattr(parts, name) for name in PARTS}
    return {
        name: (found.x[where], found.y[where]) if len(where) else None for name, where in rows.items()
    }, found.notes


def _asked(
    facts: DataFacts,
    given: Mapping[str, Any],
    shape: tuple[int, ...],
    *,
    rows: bool,
    labels: Need,
    owners: bool,
) -> tuple[Reading, ForModel]:
    """How a file is read, and for what: names of columns that the bundle has may be missing, those that were given may not."""
    reading = with_settings(facts.reading, given, "--set")
    if labels == "none":
        reading = replace(reading, unlabelled=(*(reading.unlabelled or ()), ""))
    theirs = "columns.channels" not in given and bool(facts.channels)
    if rows and theirs:
        reading = replace(reading, columns=replace(reading.columns, channels=facts.channels))
    named = reading.columns.channels
    if named is not None and len(named) != shape[channel_axis(len(shape))]:
        raise SettingsError(
            f"data.columns.channels names {len(named)} columns, and the model takes {shape[channel_axis(len(shape))]}: "
            f"{', '.join(facts.channels) or 'one for each channel'}"
        )
    may_lack = {"client", "recording", "time"} | ({"label"} if labels != "all" else set())
    may_lack -= {role for role in may_lack if given.get(f"columns.{role}") is not None}
    wanted = None if given.get("layout") is not None else shape
    return reading, ForModel(frozenset(may_lack), owners, theirs, wanted)


def _npy(path: Path, manifest: Manifest, given: Mapping[str, Any]) -> FileSamples:
    try:
        found: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # numpy lets through whatever its header parser raises
        raise DataError(
            f"{path} is broken or holds Python objects, and cannot be read ({type(error).__name__}); save it again"
        ) from error
    shape, layout = manifest.input_shape, with_settings(manifest.data.reading, given, "--set").layout
    notes: list[str] = []
    if found.shape != shape and found.ndim > 1:
        wanted = None if given.get("layout") is not None else shape
        found, notes = arranged(found, str(path), layout, manifest.data.channels or None, wanted)
    x = check_samples(found, shape, f"{path}: x")
    n = len(x)
    notes += _constant(x, manifest)
    return FileSamples(str(path), x, _unknown(n), np.arange(n), np.zeros(n, np.int64), 0, notes=tuple(notes))


def _unknown(n: int) -> Labels:
    return np.full(n, UNLABELLED, np.int64)


def _nothing(piece: Piece, window: int | None) -> str:
    """What is wrong with a file that gives no sample."""
    if window is None:
        return f"{piece.where} holds no samples that can be used; {'; '.join(piece.notes) or 'add some'}"
    longest = max(piece.longest.values(), default=0)
    notes = "".join(f"; {note}" for note in piece.notes)
    return (
        f"{piece.where} holds no samples: a window needs {window} rows in a row of one label and recording, without a pause or a missing "
        f"value, and its longest stretch has {longest}{notes}"
    )


def _owners(piece: Piece, client: str | None) -> list[str]:
    names = piece.everyone
    if client is not None or len(names) < 2:
        return []
    shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    return [f"the samples are of {len(names)} clients ({shown}); all are taken for this device's"]


def _rate(piece: Piece, facts: DataFacts) -> list[str]:
    """A warning of another sampling rate than the model learned with."""
    if facts.interval is None or not piece.longest:
        return []
    if piece.interval is None:
        return [
            "no times are known: pauses cannot be seen, nor whether the sampling rate is that of the model (data.columns.time)"
        ]
    if 1 / _OTHER_RATE <= piece.interval / facts.interval <= _OTHER_RATE:
        return []
    return [
        f"WARNING: rows are {piece.interval:.4g} apart in time, and {facts.interval:.4g} in the data that the model learned from: another "
        "sampling rate, to which it does not apply, or another unit of time"
    ]


def _in_order(piece: Piece, facts: DataFacts) -> Array:
    """The samples of a piece with their channels in the model's order, where both have names."""
    names, wanted = piece.channel_names, facts.channels
    if not names or not wanted or names == wanted or piece.longest:  # columns were named in the model's order
        return piece.x
    if len(set(names)) < len(names) or set(names) != set(wanted):
        odd = sorted(set(names) ^ set(wanted))
        raise MisfitError(
            f"{piece.where} has other channels than the model, which takes {', '.join(wanted)}: {', '.join(odd)} "
            f"{'is' if len(odd) == 1 else 'are'} missing, or too many; name them in channel_names",
            "this device's data have other channels than the federation's",
        )
    order = [names.index(name) for name in wanted]
    return np.take(piece.x, order, axis=channel_axis(piece.x.ndim - 1) + 1)


def _known(piece: Piece, manifest: Manifest, *, rows: bool) -> Array:
    """Places of classes [n], or targets [n, T]."""
    if manifest.targets.kind == "classes":
        return _classes(piece, manifest.classes, rows=rows)
    if piece.targets is None:
        raise DataError(f"{piece.where} has no targets: {', '.join(manifest.classes)}")
    given = not all(name == f"target-{k + 1}" for k, name in enumerate(piece.target_names))
    if piece.targets.shape[1] != len(manifest.classes) or (given and piece.target_names != manifest.classes):
        raise DataError(
            f"{piece.where} has the targets {', '.join(piece.target_names)}, and the model learns {', '.join(manifest.classes)}"
        )
    return piece.targets


def _classes(piece: Piece, classes: tuple[str, ...], *, rows: bool) -> Labels:
    """Places of classes, ``UNLABELLED`` for none."""
    where, labels = f"{piece.where}: y", list(piece.labels)
    known = [i for i, label in enumerate(labels) if label is not None]
    found = _unknown(len(labels))
    if not known:
        return found
    some: Any = [labels[i] for i in known]
    if piece.class_names is not None and all(isinstance(label, int) for label in some):
        places = check_labels(np.array(some), piece.class_names, len(some), where)
        some = [piece.class_names[place] for place in places]
    else:
        some = named_labels(some, classes, where, by_name=rows)
    found[known] = check_labels(np.array(some), classes, len(some), where)
    return found


def _constant(x: Array, manifest: Manifest) -> list[str]:
    """A note on channels that were constant in training, and are not here, and on those of windows the other way round."""
    axis, notes = channel_axis(len(manifest.input_shape)) + 1, []
    if len(manifest.input_shape) == 2 and len(x) > 1:
        low, high = x.min(axis=(0, 1)), x.max(axis=(0, 1))
        still = sorted(set(np.flatnonzero(low == high).tolist()) - set(manifest.data.constant))
        notes += [
            f"channel {manifest.data.name(place)!r} is {float(low[place]):.6g} all the time here, which it was not in training: does its "
            "sensor work?"
            for place in still
        ]
    for place in manifest.data.constant:
        mean = manifest.normalisation.mean.ravel()
        value = float(mean[place if mean.size > 1 else 0])
        values = x.take(place, axis=axis)
        low, high = float(values.min()), float(values.max())
        if max(abs(low - value), abs(high - value)) > _MOVES * abs(value):
            here = f"{low:.6g}" if low == high else f"{low:.6g} to {high:.6g}"
            notes.append(
                f"channel {manifest.data.name(place)!r} was constant in training ({value:.6g}) and is {here} here: the model never "
                "learned what that means"
            )
    return notes
