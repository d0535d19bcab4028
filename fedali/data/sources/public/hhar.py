"""HHAR: nine people, six activities, eight phones at the waist and four watches at the arms, of six models at once [1].

``Phones_accelerometer.csv``, ``Phones_gyroscope.csv``, ``Watch_accelerometer.csv``, ``Watch_gyroscope.csv``, 44 million rows with the header
``Index,Arrival_Time,Creation_Time,x,y,z,User,Model,Device,gt``: arrival [ms since 1970], creation [ns, of the device's own clock],
[m/s² or rad/s]. ``gt`` is ``null`` without an activity. The models measure at 50 (samsungold), 100, 150 and 200 Hz; all lie on a
clock of 50 Hz here, by straight lines between their own moments: no filter comes before. A moment is when a sample was created, on
the clock of arrivals, from which creation differs by a constant for each device and activity.

[1] Stisen et al.: Smart Devices are Different: Assessing and Mitigating Mobile Sensing Heterogeneities for Activity Recognition. SenSys 2015.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from fedali.data.sources.public.archive import Place, Tree
from fedali.data.sources.public.cutting import Cutter, on_grid, pauses, runs
from fedali.data.sources.public.facts import UCI, PublicSet, Wanted, axes
from fedali.data.sources.public.tables import Array, header, parse
from fedali.errors import DataError

FACTS = PublicSet(
    name="hhar",
    title="HHAR",
    people=tuple("abcdefghi"),
    classes=("bike", "sit", "stand", "walk", "stairsup", "stairsdown"),
    channels=axes("acc", "gyro"),
    units=("m/s²",) * 3 + ("rad/s",) * 3,
    rate=50.0,
    devices=("nexus4", "s3", "s3mini", "samsungold", "gear", "lgwatch"),
    licence=UCI,
    citation="Stisen et al.: Smart Devices are Different: Assessing and Mitigating Mobile Sensing Heterogeneities for Activity "
    "Recognition. SenSys 2015. doi:10.1145/2809695.2809718, doi:10.24432/C5689X",
    home="https://archive.ics.uci.edu/dataset/344",
    archives=(
        "Activity recognition exp.zip",
        "heterogeneity+activity+recognition.zip",
        "Activity recognition exp",
    ),
    url="https://archive.ics.uci.edu/static/public/344/heterogeneity+activity+recognition.zip",
    most_bytes=900_000_000,
)

_WATCHES = ("gear", "lgwatch")
_STEP = round(1e9 / FACTS.rate)
_ROWS = 1 << 20  # at a time
_RECORD = np.dtype(
    [
        *(("Arrival_Time", "i8"), ("Creation_Time", "i8"), ("x", "f4"), ("y", "f4"), ("z", "f4")),
        *(("User", "S8"), ("Model", "S16"), ("Device", "S16"), ("gt", "S16")),
    ]
)
_SAMPLE = np.dtype([("time", "i8"), ("label", "i1"), ("xyz", "f4", 3)])
_Blocks = dict[tuple[str, str], dict[str, list[Array]]]  # by model and device, then by sensor


def read(tree: Tree, wanted: Wanted, cutter: Cutter) -> None:
    """The stretches of each person and device; what several devices saw at the same time is one recording."""
    files = tree.find(r"(?:^|/)(Phones|Watch)_(accelerometer|gyroscope)\.csv$", "Phones_accelerometer.csv")
    people: dict[str, _Blocks] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for kind, needed in (
        ("Phones", set(wanted.devices) - set(_WATCHES)),
        ("Watch", set(wanted.devices) & set(_WATCHES)),
    ):
        for sensor in ("accelerometer", "gyroscope") if needed else ():
            if (kind, sensor) not in files:
                raise DataError(f"{tree.root} holds no {kind}_{sensor}.csv; {tree.get}")
            for person, model, device, records in _blocks(tree, files[kind, sensor]):
                if person in wanted.people and model in wanted.devices:
                    samples = _samples(tree, files[kind, sensor], records, cutter)
                    people[person][model, device][sensor].append(samples)
    for person in wanted.people:
        stretches = sorted(_stretches(people.pop(person, {}), wanted, cutter), key=lambda found: found[0])
        number, origin, end = -1, 0, -1
        for begin, label, model, signal in stretches:
            if begin > end:
                number, origin = number + 1, begin
            end = max(end, begin + len(signal) - 1)
            cutter.add(person, label, (number,), begin - origin, signal[:, wanted.picked], model)


def _blocks(tree: Tree, place: Place) -> Iterator[tuple[str, str, str, Array]]:
    """Rows of one person and device that stand together, a block at a time."""
    with tree.open(place) as stream:
        columns = header(tree, place, stream.readline(), _RECORD.names or ())
        pieces: list[Array] = []
        for first in stream:
            if not first.strip():
                continue
            records = parse(tree, place, itertools.chain([first], stream), _RECORD, columns, ",", _ROWS)
            for begin, end in runs(records["User"], records["Device"]):
                if pieces and any(pieces[0][name][0] != records[name][begin] for name in ("User", "Device")):
                    yield _block(pieces)
                    pieces = []
                pieces.append(records[begin:end])
        if pieces:
            yield _block(pieces)


def _block(pieces: list[Array]) -> tuple[str, str, str, Array]:
    records = np.concatenate(pieces)
    person, model, device = (bytes(records[name][0]).decode() for name in ("User", "Model", "Device"))
    return person, model, device, records


def _samples(tree: Tree, place: Place, records: Array, cutter: Cutter) -> Array:
    """The labelled rows, on the clock of arrivals [ns]."""
    samples = np.empty(len(records), _SAMPLE)
    samples["xyz"] = np.stack([records[axis] for axis in "xyz"], axis=1)
    samples["label"] = -1
    for label, name in enumerate(FACTS.classes):
        samples["label"][records["gt"] == name.encode()] = label
    odd = np.flatnonzero((samples["label"] < 0) & (records["gt"] != b"null"))
    if len(odd):
        found = bytes(records["gt"][odd[0]]).decode()
        raise DataError(f"{tree.where(place)}: activity {found!r} is none of HHAR's; {tree.get}")
    late = records["Arrival_Time"] * 1_000_000 - records["Creation_Time"]
    for first, last in runs(samples["label"]):
        middle = (last - first) // 2
        usual = np.partition(late[first:last], middle)[middle]  # a median that stays a whole number
        samples["time"][first:last] = records["Creation_Time"][first:last] + usual
    cutter.leave_out("samples without an activity (null), left out", np.sum(samples["label"] < 0))
    return samples[samples["label"] >= 0]


def _stretches(blocks: _Blocks, wanted: Wanted, cutter: Cutter) -> Iterator[tuple[int, int, str, Array]]:
    """First tick, label, model and signal [t, 6] of what each device of a person recorded without a pause."""
    longest = wanted.gap * _STEP
    for (model, _), sensors in sorted(blocks.items()):
        if len(sensors) < 2:
            cutter.leave_out("devices of a person with one sensor alone, left out", 1)
            continue
        acc, gyro = (_in_time(sensors[name]) for name in ("accelerometer", "gyroscope"))
        for first, last in runs(acc["label"], pauses(acc["time"], longest)):
            begin = max(int(np.searchsorted(gyro["time"], acc["time"][first])) - 1, 0)
            end = int(np.searchsorted(gyro["time"], acc["time"][last - 1], side="right")) + 1
            both = [(part["time"], part["xyz"]) for part in (acc[first:last], gyro[begin:end])]
            tick, signal = on_grid(both, _STEP, longest)
            if len(signal):
                yield tick, int(acc["label"][first]), model, signal
            else:
                cutter.leave_out("stretches without a gyroscope at the time, left out", 1)


def _in_time(parts: list[Array]) -> Array:
    samples = np.concatenate(parts)
    return samples[np.argsort(samples["time"], kind="stable")]
