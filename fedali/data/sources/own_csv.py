"""The user's own recordings as CSV: a row per raw sample, cut into windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedali.data.labels import Label
from fedali.data.look.files import SeenFile, clock_of
from fedali.data.sources.own_table import check_header, numbered, read_table, together
from fedali.data.sources.own_time import check_order, in_order, pauses
from fedali.data.sources.reading import Reading
from fedali.data.windows import cut_windows, window_starts


@dataclass(frozen=True, eq=False)
class Piece:
    """What one file gives: n samples with labels (all integers or all strings) and owners, in the file's order.

    ``everyone`` names each client that the file mentions, also one that is left without a whole window; ``remedy`` is
    what to do about that. ``notes`` say what was left out, and why; ``short`` has the rows of each stretch that is shorter than
    a window, by its label; ``seen`` how the file was read.
    """

    where: str
    x: npt.NDArray[Any]
    labels: list[Any]
    clients: list[str]
    recording: npt.NDArray[np.int64]
    start: npt.NDArray[np.int64]
    length: int
    everyone: tuple[str, ...]
    channel_names: tuple[str, ...] | None = None
    class_names: tuple[str, ...] | None = None
    remedy: str = ""
    notes: tuple[str, ...] = ()
    short: Mapping[int | str, Sequence[int]] = field(default_factory=dict)
    seen: SeenFile | None = None


def read_csv(
    path: Path, window: int, stride: int, client: str | None, reading: Reading, most: int | None = None
) -> Piece:
    """Windows [n, window, c] float32 of one CSV, or of its first rows, ``most`` of them; with ``client`` it is that client's file and has
    no such column.

    Raises ``DataError`` naming the line for whatever is wrong with the file.
    """
    table = together(read_table(path, client, reading, most), window)
    label = numbered(table.labels)
    new_recording = np.concatenate([[True], np.diff(table.group) != 0])
    new_stretch = new_recording | np.concatenate([[True], np.diff(label) != 0])
    recording = np.cumsum(new_recording) - 1
    begin_of_recording = np.flatnonzero(new_recording)[recording]
    notes, seen = list(table.notes), table.seen
    if table.times is not None:
        times = np.array(table.times)
        check_order(path, times, table.lines, new_recording)
        paused = pauses(times, recording, reading.gap)
        new_stretch |= paused
        clock = clock_of(dict(seen.columns)["time"], times, recording, paused, dates=table.dates)
        seen = replace(seen, clock=clock)
        recording, without = in_order(times, recording, numbered(table.clients))
        notes += _on_time(int(paused.sum()), reading.gap, without)
    begins = np.flatnonzero(new_stretch).tolist()
    parts, at = [table.values[:0, None].repeat(window, 1)], [np.zeros(0, np.int64)]
    short: dict[int | str, list[int]] = {}
    for begin, end in zip(begins, [*begins[1:], len(label)], strict=True):
        if table.labels[begin] is None:
            continue
        if end - begin < window:
            short.setdefault(table.labels[begin], []).append(end - begin)
        parts.append(cut_windows(table.values[begin:end], window, stride))
        at.append(begin + window_starts(end - begin, window, stride))
    x, rows = np.concatenate(parts), np.concatenate(at)
    holes = np.isnan(x).any(axis=(1, 2))
    if holes.any():
        missing = int(np.isnan(table.values).sum())
        notes.append(
            f"{int(holes.sum())} of {len(x)} windows are left out: they hold one of {missing} missing values (data.missing)"
        )
        x, rows = x[~holes], rows[~holes]
    notes += _left_out(table.labels, short, window)
    return Piece(
        where=str(path),
        x=x,
        labels=[table.labels[i] for i in rows.tolist()],
        clients=[table.clients[i] for i in rows.tolist()],
        recording=recording[rows],
        start=rows - begin_of_recording[rows],
        length=window,
        everyone=tuple(dict.fromkeys(table.clients)),
        channel_names=table.channel_names,
        remedy=f"a window needs {window} rows in a row of one client, label and recording, without a pause: sort the rows, shorten the window, ",
        notes=tuple(notes),
        short=short,
        seen=seen,
    )


def check_csv(path: Path, client: str | None, reading: Reading) -> None:
    """Look at the header alone. Raises ``DataError`` for one that ``read_csv`` would refuse."""
    check_header(path, client, reading)


def _on_time(gaps: int, gap: float, without: int) -> list[str]:
    notes = []
    if gaps:
        some = f"{gaps} pauses" if gaps > 1 else "a pause"
        notes.append(
            f"windows are cut anew after {some} of more than {gap:g} median intervals of a recording (data.gap)"
        )
    if without:
        whose = f"{without} clients" if without > 1 else "a client"
        notes.append(
            f"recordings of {whose} overlap in time, so that they are in the order of the rows, not of their times"
        )
    return notes


def _left_out(labels: Sequence[Label | None], short: Mapping[Label, Sequence[int]], window: int) -> list[str]:
    notes, none = [], sum(label is None for label in labels)
    if none:
        notes.append(f"{none} of {len(labels)} rows are left out: they have no label (data.unlabelled)")
    stretches = [rows for runs in short.values() for rows in runs]
    if stretches:
        some = f"{len(stretches)} stretches" if len(stretches) > 1 else "a stretch"
        notes.append(
            f"{sum(stretches)} of {len(labels)} rows are left out: they are in {some} of one label shorter than {window} rows"
        )
    return notes
