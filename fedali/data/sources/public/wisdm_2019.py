"""WISDM 2019: 51 people, 18 activities of three minutes, a phone in the pocket and a watch, at 20 Hz [1].

``raw/phone/accel/data_1600_accel_phone.txt`` and its like (``watch``, ``gyro``):
``1600,A,252207666810782,-0.36476135,8.793503,1.0550842;`` is person, activity A..S without N, time [ns] of the device's own clock, x, y,
z [m/s² or rad/s]. Accelerometer and gyroscope measure at moments of their own: both lie on a clock of 20 Hz here, by straight lines.

[1] Weiss, Yoneda, Hayajneh: Smartphone and Smartwatch-Based Biometrics Using Activities of Daily Living. IEEE Access 7, 2019.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from fedali.data.sources.public.archive import Place, Tree
from fedali.data.sources.public.cutting import Cutter, on_grid, runs
from fedali.data.sources.public.facts import UCI, PublicSet, Wanted, axes, numbers
from fedali.data.sources.public.tables import Array, read_records

FACTS = PublicSet(
    name="wisdm-2019",
    title="WISDM 2019",
    people=numbers(1600, 1650),
    classes=(
        *("walking", "jogging", "stairs", "sitting", "standing", "typing", "teeth", "soup", "chips"),
        *("pasta", "drinking", "sandwich", "kicking", "catch", "dribbling", "writing", "clapping", "folding"),
    ),
    channels=axes("acc", "gyro"),
    units=("m/s²",) * 3 + ("rad/s",) * 3,
    rate=20.0,
    devices=("phone", "watch"),
    licence=UCI,
    citation="Weiss, Yoneda, Hayajneh: Smartphone and Smartwatch-Based Biometrics Using Activities of Daily Living. "
    "IEEE Access 7, 2019. doi:10.1109/ACCESS.2019.2940729, doi:10.24432/C5HK59",
    home="https://archive.ics.uci.edu/dataset/507",
    archives=(
        "wisdm-dataset.zip",
        "wisdm+smartphone+and+smartwatch+activity+and+biometrics+dataset.zip",
        "wisdm-dataset",
    ),
    url="https://archive.ics.uci.edu/static/public/507/"
    "wisdm+smartphone+and+smartwatch+activity+and+biometrics+dataset.zip",
    most_bytes=400_000_000,
)

CODES = "ABCDEFGHIJKLMOPQRS"
_STEP = round(1e9 / FACTS.rate)
_RECORD = np.dtype([("code", "S1"), ("time", "i8"), ("x", "f4"), ("y", "f4"), ("z", "f4")])
_LINE = rb"\d+,[" + CODES.encode() + rb"],-?\d+" + rb", *-?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?" * 3


def read(tree: Tree, wanted: Wanted, cutter: Cutter) -> None:
    """Each activity of each person and device."""
    files = tree.find(
        r"(?:^|/)raw/(phone|watch)/(accel|gyro)/data_(\d+)_\2_\1\.txt$",
        "raw/phone/accel/data_1600_accel_phone.txt",
    )
    for person in wanted.people:
        for device in wanted.devices:
            places = [files.get((device, sensor, person)) for sensor in ("accel", "gyro")]
            if places[0] is None or places[1] is None:
                cutter.leave_out(f"people without a {device} with both sensors", 1)
                continue
            accel, gyro = (_records(tree, place, cutter) for place in places if place is not None)
            done: Counter[str] = Counter()
            for first, last in runs(accel["code"]):
                code = bytes(accel["code"][first]).decode()
                performance = accel[first:last]
                begin, signal = _together(performance, gyro[gyro["code"] == accel["code"][first]], wanted)
                recording = (CODES.index(code), done[code])
                cutter.add(person, CODES.index(code), recording, begin, signal, device)
                done[code] += 1


def _records(tree: Tree, place: Place, cutter: Cutter) -> Array:
    records, broken = read_records(tree, place, _RECORD, _LINE, range(1, 6))
    known = np.isin(records["code"], [code.encode() for code in CODES])
    cutter.leave_out("lines that are no record, left out", broken + np.sum(~known))
    return records[known]


def _together(accel: Array, gyro: Array, wanted: Wanted) -> tuple[int, Array]:
    """Both sensors on one clock that begins with the first sample of the accelerometer."""
    origin = accel["time"].min()
    sensors = []
    for records in (accel, gyro):
        records = records[np.argsort(records["time"], kind="stable")]
        sensors.append((records["time"] - origin, np.stack([records[axis] for axis in "xyz"], axis=1)))
    begin, signal = on_grid(sensors, _STEP, wanted.gap * _STEP)
    return begin, signal[:, wanted.picked]
