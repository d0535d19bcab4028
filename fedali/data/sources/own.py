"""The user's own data: one ``.npz``, one ``.csv``, or a folder with one file per client."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedali.data.dataset import Dataset, channel_axis
from fedali.data.look.doubts import look_alikes, same_samples
from fedali.data.sources.own_csv import Piece, read_csv
from fedali.data.sources.own_npz import read_npz
from fedali.data.sources.reading import ITSELF, PLAIN, ForModel, Reading
from fedali.data.sources.unpacking import PACKED
from fedali.data.windows import check_window
from fedali.errors import DataError, did_you_mean
from fedali.targets import Kind

CSV = tuple(text + packed for text in (".csv", ".tsv") for packed in ("", *PACKED))
ENDINGS = (".npz", *CSV)
NOTES = (".md", ".rst", ".txt", ".json", ".pdf", ".yaml", ".yml", ".toml", ".html")
"""Files that may lie beside the data in a folder and are passed over; of those that may be data it is said."""

_LITTER = (
    "thumbs.db",
    "desktop.ini",
    "__macosx",
    "__pycache__",
    "readme",
    "license",
    "licence",
    "notice",
    "changelog",
)
_MAYBE = (".txt", ".json")
_OTHER_RATE = 1.2  # times the slowest

FEWEST_WINDOWS = 3
"""One each for training, validation and test."""


def load_own(path: str | Path, *, window: int = 128, stride: int = 64, reading: Reading = PLAIN) -> Dataset:
    """Read the user's own data; the data set is named after the file or folder.

    * ``.npz``: ``x`` [N, ...], ``y`` [N] (integers or strings), ``client`` [N] (integers or strings); optional
      ``class_names`` (then integer ``y`` indexes them), ``channel_names``, and, for samples that overlap,
      ``recording`` [N] and ``start`` [N] as in `Dataset`; without those, samples count as independent. Axes are those of `Dataset`,
      or others that ``reading.layout`` says or that are certain, see ``fedali.data.sources.layouts``.
    * ``.csv`` (also ``.tsv``, and either packed as ``.csv.gz``, ``.bz2``, ``.xz`` or ``.zip``; separated by comma, semicolon, tab or ``|``, with a decimal point or comma, in UTF-8 or with a
      byte order mark; lines above the header, comments and a row of units are passed over): a row per raw sample with the columns ``client``, ``label``, optional ``recording`` and ``time``
      (``reading.columns`` has other names); every other column is a channel, unless it is none: an index, a clock, words. Windows of ``window`` rows are cut every ``stride`` rows, inside each stretch of rows in
      which client, label and recording stay the same. ``time`` (numbers, or ISO 8601, UTC without a zone) must not go back in a
      recording, may be equal within packets, and no window crosses a pause in it, see ``reading.gap``. Recordings of a client are in
      the order of their times, where those do not overlap.
    * a folder of ``<client>.npz`` or ``<client>.csv``, the same without ``client``.

    Labels become classes in sorted order; the data set's notes say what was left out. Raises ``DataError`` that says what is wrong, where, and what to do, and
    ``SettingsError`` for a bad window or stride.
    """
    path = Path(path)
    check_window(window, stride)
    if not path.exists():
        raise DataError(
            f"{path} does not exist; give a .npz or .csv file, or a folder with one such file per client"
        )
    if path.is_dir():
        pieces = [read_piece(file, window, stride, stem_of(file), reading) for file in client_files(path)]
    else:
        _check_ending(path)
        pieces = [read_piece(path, window, stride, None, reading)]
    return _assemble(path, pieces, stride, reading.targets)


def client_files(folder: Path) -> list[Path]:
    """The data files of ``folder``, sorted by name."""
    files = [f for f in sorted(folder.iterdir()) if not _beside(f)]
    for file in files:
        if file.is_dir():
            raise DataError(
                f"{file} is a folder inside the data folder; put one .npz or .csv per client side by side"
            )
        _check_ending(file)
    if not files:
        raise DataError(f"{folder} holds no .npz or .csv files; put one per client there")
    twice = [name for name, count in Counter(map(stem_of, files)).items() if count > 1]
    if twice:
        raise DataError(f"{folder}: client {twice[0]!r} has two files; merge them or rename one")
    return files


def _check_ending(path: Path) -> None:
    if ending_of(path) not in ENDINGS:
        raise DataError(
            f"{path}: unknown ending {path.suffix!r}; {did_you_mean(path.suffix, ('.npz', '.csv', '.tsv'))}"
        )


def ending_of(path: Path) -> str:
    """What a file is by its name, in lower case; of ``.csv.gz`` both.

    >>> ending_of(Path("a.CSV")), ending_of(Path("b.csv.gz")), ending_of(Path("c.d.npz"))
    ('.csv', '.csv.gz', '.npz')
    """
    last = path.suffix.lower()
    return Path(path.stem).suffix.lower() + last if last in PACKED else last


def stem_of(path: Path) -> str:
    """A file's name without its ending: its client's, in a folder."""
    return path.name[: len(path.name) - len(ending_of(path))]


def _beside(path: Path) -> bool:
    """Whether something in a folder of data is no data."""
    name = path.name.lower()
    return (
        name.startswith((".", "~$")) or name in _LITTER or (path.is_file() and path.suffix.lower() in NOTES)
    )


def _passed_over(path: Path) -> list[str]:
    """A note on files that may have been meant as data."""
    if not path.is_dir():
        return []
    names = sorted(
        f.name
        for f in path.iterdir()
        if _beside(f) and f.suffix.lower() in _MAYBE and f.stem.lower() not in _LITTER
    )
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return [f"passed over in the folder, by their endings: {shown}"] if names else []


def read_piece(
    path: Path,
    window: int,
    stride: int,
    client: str | None,
    reading: Reading = PLAIN,
    model: ForModel = ITSELF,
) -> Piece:
    """One file, whole; with ``client`` it is that client's, and has no column or array of that name unless ``model`` says so.

    Raises ``DataError`` as ``load_own`` does.
    """
    if ending_of(path) == ".npz":
        return read_npz(path, client, reading, model)
    return read_csv(path, window, stride, client, reading, model)


def _assemble(path: Path, pieces: Sequence[Piece], stride: int, kind: Kind) -> Dataset:
    """One data set of all pieces, whose windows were cut every ``stride`` rows; ``kind`` is what is known of samples."""
    first = pieces[0]
    pieces = [first, *(_like(first, piece) for piece in pieces[1:])]
    owners = [owner for piece in pieces for owner in piece.clients]
    windows = Counter(owners)
    for piece in pieces:
        for client in piece.everyone:
            if windows[client] < FEWEST_WINDOWS:
                raise DataError(f"{piece.where}: {_too_few(client, windows[client], piece)}")
    client_names = tuple(dict.fromkeys(owners))
    index = {name: k for k, name in enumerate(client_names)}
    class_names, y = _classes(pieces) if kind == "classes" else _targets(pieces)
    _check_kinds(pieces)
    offsets = np.cumsum([0, *(int(p.recording.max()) + 1 for p in pieces[:-1])])
    channels = first.x.shape[channel_axis(first.x.ndim - 1) + 1]
    x = np.concatenate([p.x for p in pieces])
    whose = np.array([index[owner] for owner in owners], np.int64)
    times = [p.times for p in pieces if p.times is not None]
    file = np.repeat(np.arange(len(pieces)), [len(p.x) for p in pieces])
    doubts = [
        *_rates(pieces),
        *look_alikes("clients", client_names),
        *look_alikes("classes", class_names),
        *same_samples(
            x, whose, client_names, np.concatenate(times) if len(times) == len(pieces) else None, file
        ),
    ]
    return Dataset(
        name=stem_of(path) if path.is_file() else path.resolve().name,
        x=x,
        y=y,
        client=whose,
        client_names=client_names,
        class_names=class_names,
        channel_names=first.channel_names or tuple(f"channel-{k + 1}" for k in range(channels)),
        recording=np.concatenate([p.recording + offset for p, offset in zip(pieces, offsets, strict=True)]),
        start=np.concatenate([p.start for p in pieces]),
        length=max(p.length for p in pieces),
        licence="the owner's",
        citation="",
        notes=(*_together(pieces), *without_window(pieces), *_passed_over(path), *doubts),
        interval=_interval(pieces),
        stride=stride if any(piece.longest for piece in pieces) else None,
        files=tuple(piece.seen for piece in pieces if piece.seen is not None),
        kind=kind,
    )


def _too_few(client: str, have: int, piece: Piece) -> str:
    """Why a client cannot take part, and what to do."""
    if not piece.longest:
        return f"client {client!r} has {have} samples, fewer than {FEWEST_WINDOWS}; give it more, or leave it out"
    longest = piece.longest.get(client, 0)
    holes = "".join(f"; {note}" for note in piece.notes if "data.missing" in note)
    shorter = f", into which data.window = {longest} fits" if 0 < longest < piece.length else ""
    return (
        f"client {client!r} has {have} whole windows, fewer than {FEWEST_WINDOWS}: a window needs {piece.length} rows in a row of one "
        f"client, label and recording, without a pause, and its longest stretch has {longest}{shorter}. Shorten data.window or "
        f"data.stride, sort the rows, give it more data, or leave it out{holes}"
    )


def _check_kinds(pieces: Sequence[Piece]) -> None:
    """Raise ``DataError`` where labels of one file are whole numbers, and of another names of which none is a number."""
    kinds = {
        piece.where: {str(label).isdigit() for label in piece.labels} for piece in pieces if piece.labels
    }
    numbers, names = ([where for where, kind in kinds.items() if kind == {one}] for one in (True, False))
    if numbers and names:
        raise DataError(
            f"{numbers[0]} has whole numbers for labels, and {names[0]} has names; make them the same, or put class_names into the .npz"
        )


def _rates(pieces: Sequence[Piece]) -> list[str]:
    """A note where recordings have other rates, by clocks that count the same."""
    clocks = [piece.seen.clock for piece in pieces if piece.seen is not None and piece.seen.clock is not None]
    if len({(clock.column, clock.dates) for clock in clocks}) != 1:
        return []
    slow, fast = min(clock.slowest for clock in clocks), max(clock.fastest for clock in clocks)
    if fast <= _OTHER_RATE * slow:
        return []
    return [
        f"recordings have other rates, {slow:.4g} to {fast:.4g} rows in a unit of {clocks[0].column!r}, so that windows last longer in "
        "some; resample them, or leave some out"
    ]


def _interval(pieces: Sequence[Piece]) -> float | None:
    found = [piece.interval for piece in pieces if piece.interval is not None]
    return float(np.median(found)) if found else None


def _together(pieces: Sequence[Piece]) -> tuple[str, ...]:
    """The notes of all pieces; one that several have is said once."""
    files: dict[str, list[Piece]] = {}
    for piece in pieces:
        for note in piece.notes:
            files.setdefault(note, []).append(piece)
    some = {note: of[0].where if len(of) == 1 else f"{len(of)} files" for note, of in files.items()}
    return tuple(note if len(files[note]) == len(pieces) else f"{some[note]}: {note}" for note in files)


def without_window(pieces: Sequence[Piece]) -> list[str]:
    """A note for each class that has rows and not one window."""
    have = {str(label) for piece in pieces for label in piece.labels}
    lost = dict.fromkeys(str(label) for piece in pieces for label in piece.short if str(label) not in have)
    notes = []
    for label in lost:
        rows = [
            n for piece in pieces for other, runs in piece.short.items() if str(other) == label for n in runs
        ]
        stretches = (
            f"its {len(rows)} stretches have {max(rows)} rows at most"
            if len(rows) > 1
            else f"its one stretch has {rows[0]} rows"
        )
        notes.append(f"class {label!r} is left out: {stretches}, and a window needs {pieces[0].length}")
    return notes


def _like(first: Piece, piece: Piece) -> Piece:
    """``piece`` with its channels in the order of ``first``; ``DataError`` when the two do not go together."""
    if set(first.channel_names or ()) != set(piece.channel_names or ()):
        odd = sorted(set(first.channel_names or ()) ^ set(piece.channel_names or ()))
        raise DataError(
            f"{piece.where} has other channels than {first.where}: {', '.join(odd)}; make them the same"
        )
    if first.x.shape[1:] != piece.x.shape[1:] or first.x.dtype != piece.x.dtype:
        raise DataError(
            f"{piece.where} has samples {piece.x.dtype} {list(piece.x.shape[1:])}, {first.where} has {first.x.dtype} "
            f"{list(first.x.shape[1:])}; make them the same"
        )
    if first.class_names != piece.class_names:
        raise DataError(f"{piece.where} has other class_names than {first.where}; make them the same")
    if first.channel_names != piece.channel_names and first.channel_names and piece.channel_names:
        order = [piece.channel_names.index(name) for name in first.channel_names]
        return replace(piece, x=np.take(piece.x, order, axis=channel_axis(piece.x.ndim - 1) + 1))
    return piece


def _targets(pieces: Sequence[Piece]) -> tuple[tuple[str, ...], npt.NDArray[Any]]:
    """Names of the targets, and those of each sample [N, T]."""
    for piece in pieces:
        if piece.target_names != pieces[0].target_names or piece.targets is None:
            raise DataError(f"{piece.where} has other targets than {pieces[0].where}; make them the same")
    return pieces[0].target_names, np.concatenate(
        [piece.targets for piece in pieces if piece.targets is not None]
    )


def _classes(pieces: Sequence[Piece]) -> tuple[tuple[str, ...], npt.NDArray[np.int64]]:
    """Names of the classes, and each sample's index into them."""
    labels = [label for piece in pieces for label in piece.labels]
    whole = all(isinstance(label, int) for label in labels)
    given = pieces[0].class_names
    if given is not None and whole:
        return given, np.array(labels, np.int64)
    if not whole:
        labels = [str(label) for label in labels]
    names = given if given is not None else tuple(str(label) for label in sorted(set(labels)))
    index = {name: k for k, name in enumerate(names)}
    unknown = next((label for label in labels if str(label) not in index), None)
    if unknown is not None:
        raise DataError(
            f"{pieces[0].where}: label {unknown!r} is not in class_names; {did_you_mean(str(unknown), names)}"
        )
    if len(set(labels)) < 2:
        raise DataError(
            f"{pieces[0].where}: all samples have the label {labels[0]!r}; add samples of another class"
        )
    return names, np.array([index[str(label)] for label in labels], np.int64)
