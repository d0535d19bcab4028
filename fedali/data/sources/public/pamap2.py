"""PAMAP2: nine people, twelve activities of its protocol, three inertial sensors at hand, chest and ankle at 100 Hz [1].

``Protocol/subject101.dat``: 54 columns with blanks between: time [s], activity, heart rate, then of hand, chest and ankle 17 each:
temperature, acceleration to 16 g and to 6 g [m/s²], angular rate [rad/s], magnetic field [µT], orientation (invalid, say its owners).
Lost packets are ``NaN``; activity 0 is what lies between activities. The heart rate has 9 values a second, NaN between, and is not read,
nor is ``Optional/``, whose six other activities few people did. Its owners advise the 16 g scale, as the other saturates.

[1] Reiss, Stricker: Introducing a New Benchmarked Dataset for Activity Monitoring. ISWC 2012.
"""

from __future__ import annotations

import numpy as np

from fedali.data.sources.public.archive import Tree
from fedali.data.sources.public.cutting import BRIDGED, Cutter, bridge, pauses, runs
from fedali.data.sources.public.facts import UCI, PublicSet, Wanted, axes, numbers
from fedali.data.sources.public.tables import read_table
from fedali.errors import DataError

ACTIVITIES = {
    **{1: "lying", 2: "sitting", 3: "standing", 4: "walking", 5: "running", 6: "cycling"},
    **{7: "Nordic walking", 12: "ascending stairs", 13: "descending stairs", 16: "vacuum cleaning"},
    **{17: "ironing", 24: "rope jumping"},
}
_PLACES = ("hand", "chest", "ankle")
_SENSORS = {"acc": 1, "acc6": 4, "gyro": 7, "mag": 10}  # their first column of a place's 17
_COLUMN = {
    f"{place}_{sensor}_{axis}": 3 + 17 * number + first + k
    for number, place in enumerate(_PLACES)
    for sensor, first in _SENSORS.items()
    for k, axis in enumerate("xyz")
}
_UNITS = {"acc": "m/s²", "acc6": "m/s²", "gyro": "rad/s", "mag": "µT"}

FACTS = PublicSet(
    name="pamap2",
    title="PAMAP2",
    people=numbers(101, 109),
    classes=tuple(ACTIVITIES.values()),
    channels=tuple(_COLUMN),
    units=tuple(_UNITS[name.split("_")[1]] for name in _COLUMN),
    default=axes(*(f"{place}_{sensor}" for place in _PLACES for sensor in ("acc", "gyro", "mag"))),
    rate=100.0,
    licence=UCI,
    citation="Reiss, Stricker: Introducing a New Benchmarked Dataset for Activity Monitoring. ISWC 2012. "
    "doi:10.1109/ISWC.2012.13, doi:10.24432/C5NW2H",
    home="https://archive.ics.uci.edu/dataset/231",
    archives=("PAMAP2_Dataset.zip", "pamap2+physical+activity+monitoring.zip", "PAMAP2_Dataset"),
    url="https://archive.ics.uci.edu/static/public/231/pamap2+physical+activity+monitoring.zip",
    most_bytes=800_000_000,
)


def read(tree: Tree, wanted: Wanted, cutter: Cutter) -> None:
    """The labelled stretches of each person, one person after the other."""
    files = tree.find(r"(?:^|/)Protocol/subject(\d+)\.dat$", "Protocol/subject101.dat")
    codes = list(ACTIVITIES)
    for person in wanted.people:
        if (person,) not in files:
            continue
        place = files[person,]
        table = read_table(tree, place, [0, 1, *(_COLUMN[name] for name in wanted.channels)])
        time, activity, signal = table[:, 0], table[:, 1], table[:, 2:]
        cutter.leave_out("samples of activity 0, between activities, left out", np.sum(activity == 0))
        for first, last in runs(activity, pauses(time, wanted.gap / wanted.facts.rate)):
            if activity[first] == 0:
                continue
            if activity[first] not in codes:
                raise DataError(
                    f"{tree.where(place)}:{first + 1}: activity {activity[first]:g} is none of PAMAP2's protocol; {tree.get}"
                )
            stretch, filled = bridge(signal[first:last], round(BRIDGED * wanted.facts.rate))
            cutter.leave_out(
                f"values in holes of up to {BRIDGED:g} s, put on a straight line between neighbours", filled
            )
            cutter.add(person, codes.index(int(activity[first])), (0,), first, stretch)
