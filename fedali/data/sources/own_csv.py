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
from fedali.data.sources.own_targets import check_kind, of_windows
from fedali.data.sources.own_time import check_order, in_order, interval_of, pauses, still
from fedali.data.sources.reading import ITSELF, ForModel, Reading
from fedali.data.windows import cut_windows, window_starts


@dataclass(frozen=True, eq=False)
class Piece:
    """What one file gives: n samples with labels (all integers or all strings, None for none) and owners, in the file's order.

    ``everyone`` names each client that the file mentions, also one that is left without a whole window. ``notes`` say what was
    left out, and why; ``short`` has the rows of each stretch that is shorter than a window, by its label, ``longest`` the rows of the
    longest stretch of each client. Of windows, ``rows`` [n] are their first rows, from 0 below the header, and ``times`` [n] the times
    of those, where there are times, seconds since 1970 of what is ``dated``; ``interval`` is what is between two rows;
    ``seen`` says how the file was read. Of tasks without classes there are ``targets`` [n, T] with their names in the place of labels.
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
    notes: tuple[str, ...] = ()
    short: Mapping[int | str, Sequence[int]] = field(default_factory=dict)
    longest: Mapping[str, int] = field(default_factory=dict)
    rows: npt.NDArray[np.int64] | None = None
    times: npt.NDArray[np.float64] | None = None
    dated: bool = False
    interval: float | None = None
    seen: SeenFile | None = None
    targets: npt.NDArray[np.float32] | None = None
    target_names: tuple[str, ...] = ()


def read_csv(
    path: Path,
    window: int,
    stride: int,
    client: str | None,
    reading: Reading,
    model: ForModel = ITSELF,
    *,
    most: int | None = None,
) -> Piece:
    """Windows [n, window, c] float32 of one CSV, or of its first rows, ``most`` of them; with ``client`` it is that client's file and has
    no such column.

    Raises ``DataError`` naming the line for whatever is wrong with the file.
    """
    check_kind(path, reading)
    keep = "label" in model.may_lack or reading.targets != "classes"
    table = together(read_table(path, client, reading, model, most=most), window)
    label = numbered(table.labels)
    new_recording = np.concatenate([[True], np.diff(table.group) != 0])
    new_stretch = new_recording | np.concatenate([[True], np.diff(label) != 0])
    recording = np.cumsum(new_recording) - 1
    begin_of_recording = np.flatnonzero(new_recording)[recording]
    notes, times, interval, seen = list(table.notes), None, None, table.seen
    if table.times is not None:
        times = np.array(table.times)
        check_order(path, times, table.lines, new_recording)
        notes += [note] if (note := still(times, recording)) else []
        again = ~new_recording[1:] & (np.diff(times) == 0) & (np.diff(table.values, axis=0) == 0).all(axis=1)
        if again.sum() >= len(times) / 10:
            notes.append(
                f"{int(again.sum())} of {len(times)} rows have the time and the values of the row before: was something copied?"
            )
        paused = pauses(times, recording, reading.gap)
        new_stretch |= paused
        interval = interval_of(times, recording, paused)
        clock = clock_of(dict(seen.columns)["time"], times, recording, paused, dates=table.dated)
        seen = replace(seen, clock=clock)
        recording, without = in_order(times, recording, numbered(table.clients))
        notes += _on_time(int(paused.sum()), reading.gap, without)
    begins = np.flatnonzero(new_stretch).tolist()
    parts, at = [table.values[:0, None].repeat(window, 1)], [np.zeros(0, np.int64)]
    short: dict[Label | None, list[int]] = {}
    longest = dict.fromkeys(table.clients, 0)
    for begin, end in zip(begins, [*begins[1:], len(label)], strict=True):
        if table.labels[begin] is None and not keep:
            continue
        if end - begin < window:
            short.setdefault(table.labels[begin], []).append(end - begin)
        longest[table.clients[begin]] = max(longest[table.clients[begin]], end - begin)
        parts.append(cut_windows(table.values[begin:end], window, stride))
        at.append(begin + window_starts(end - begin, window, stride))
    x, rows = np.concatenate(parts), np.concatenate(at)
    holes, targets = np.isnan(x).any(axis=(1, 2)), None
    if table.targets is not None:
        targets = of_windows(table.targets, rows, window, reading.targets)
        holes |= np.isnan(targets).any(axis=1)
    if holes.any():
        missing = int(np.isnan(table.values).sum())
        missing += 0 if table.targets is None else int(np.isnan(table.targets).sum())
        notes.append(
            f"{int(holes.sum())} of {len(x)} windows are left out: they hold one of {missing} missing values (data.missing)"
        )
        x, rows = x[~holes], rows[~holes]
        targets = None if targets is None else targets[~holes]
    none = 0 if keep else sum(label is None for label in table.labels)
    notes += _left_out(len(label), none, [n for runs in short.values() for n in runs], window)
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
        notes=tuple(notes),
        short={label: runs for label, runs in short.items() if label is not None},
        longest=longest,
        rows=np.argsort(np.argsort(table.lines))[rows],
        times=None if times is None else times[rows],
        dated=table.dated,
        interval=interval,
        seen=seen,
        targets=targets,
        target_names=reading.columns.target or () if targets is not None else (),
    )


def check_csv(path: Path, client: str | None, reading: Reading, model: ForModel = ITSELF) -> None:
    """Look at the header alone. Raises ``DataError`` for one that ``read_csv`` would refuse."""
    check_header(path, client, reading, model)


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


def _left_out(rows: int, none: int, short: Sequence[int], window: int) -> list[str]:
    notes = []
    if none:
        notes.append(f"{none} of {rows} rows are left out: they have no label (data.unlabelled)")
    if short:
        some = f"{len(short)} stretches" if len(short) > 1 else "a stretch"
        notes.append(
            f"{sum(short)} of {rows} rows are left out: they are in {some} of one label shorter than {window} rows"
        )
    return notes
