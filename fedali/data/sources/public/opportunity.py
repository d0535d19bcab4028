"""Opportunity: four people in a kitchen, five runs of daily activities and a drill each, sensors on the body at 30 Hz [1].

``dataset/S1-ADL1.dat`` to ``S4-Drill.dat``: 250 columns with blanks between, of which ``column_names.txt`` counts from 1: time [ms],
2..37 twelve accelerometers, 38..102 five inertial sensors of 13 (acceleration, angular rate, magnetic field, orientation), 103..134 two
shoes, 244 locomotion, 250 gestures of both arms. Acceleration is in mg; the file gives no unit for angular rate and field, which are
1000 times the sensor's. Lost packets are ``NaN``, label 0 is none. The twelve accelerometers lose many packets and are read when chosen alone.

[1] Roggen et al.: Collecting complex activity datasets in highly rich networked sensor environments. INSS 2010.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fedali.data.sources.public.archive import Tree
from fedali.data.sources.public.cutting import BRIDGED, Cutter, bridge, pauses, runs
from fedali.data.sources.public.facts import UCI, PublicSet, Wanted, axes, numbers
from fedali.data.sources.public.tables import read_table
from fedali.errors import DataError

_LOCOMOTION = {1: "Stand", 2: "Walk", 4: "Sit", 5: "Lie"}
_GESTURES = {
    **{406516: "Open Door 1", 406517: "Open Door 2", 404516: "Close Door 1", 404517: "Close Door 2"},
    **{406520: "Open Fridge", 404520: "Close Fridge", 406505: "Open Dishwasher", 404505: "Close Dishwasher"},
    **{406519: "Open Drawer 1", 404519: "Close Drawer 1", 406511: "Open Drawer 2", 404511: "Close Drawer 2"},
    **{406508: "Open Drawer 3", 404508: "Close Drawer 3", 408512: "Clean Table", 407521: "Drink from Cup"},
    **{405506: "Toggle Switch"},
}
_LOOSE = (
    *("RKN^", "HIP", "LUA^", "RUA_", "LH", "BACK", "RKN_", "RWR", "RUA^", "LUA_", "LWR", "RH"),
)  # accelerometers, from column 2 on
_IMUS = ("BACK", "RUA", "RLA", "LUA", "LLA")  # from column 38 on, 13 each
_SHOE = axes("Eu", "Nav_A", "Body_A", "AngVelBody", "AngVelNav")
_COLUMN = {
    **{name: 1 + place for place, name in enumerate(axes(*(f"{where}_acc" for where in _LOOSE)))},
    **{
        f"IMU_{where}_{name}": 37 + 13 * number + k
        for number, where in enumerate(_IMUS)
        for k, name in enumerate(axes("acc", "gyro", "mag"))
    },
    **{
        f"{shoe}_{name}": 102 + 16 * number + k
        for number, shoe in enumerate(("L-SHOE", "R-SHOE"))
        for k, name in enumerate((*_SHOE, "Compass"))
    },
}

FACTS = PublicSet(
    name="opportunity",
    title="Opportunity, locomotion",
    people=numbers(1, 4),
    classes=tuple(_LOCOMOTION.values()),
    channels=tuple(_COLUMN),
    units=tuple("mg" if "acc" in name or "_A_" in name else "" for name in _COLUMN),
    default=tuple(name for name in _COLUMN if name.startswith("IMU_")),
    rate=30.0,
    licence=UCI,
    citation="Roggen et al.: Collecting complex activity datasets in highly rich networked sensor environments. INSS 2010. "
    "doi:10.1109/INSS.2010.5573462, doi:10.24432/C5M027",
    home="https://archive.ics.uci.edu/dataset/226",
    archives=(
        "OpportunityUCIDataset.zip",
        "opportunity+activity+recognition.zip",
        "OpportunityUCIDataset",
    ),
    url="https://archive.ics.uci.edu/static/public/226/opportunity+activity+recognition.zip",
    most_bytes=400_000_000,
)
GESTURES = replace(
    FACTS, name="opportunity-gestures", title="Opportunity, gestures", classes=tuple(_GESTURES.values())
)
_RUNS = ("ADL1", "ADL2", "ADL3", "ADL4", "ADL5", "Drill")


def read(tree: Tree, wanted: Wanted, cutter: Cutter) -> None:
    """The labelled stretches of each run, one run after the other."""
    files = tree.find(r"(?:^|/)S(\d)-(ADL[1-5]|Drill)\.dat$", "dataset/S1-ADL1.dat")
    codes, column = (list(_LOCOMOTION), 243) if wanted.facts.name == FACTS.name else (list(_GESTURES), 249)
    for (person, name), place in files.items():
        if person not in wanted.people:
            continue
        table = read_table(tree, place, [0, column, *(_COLUMN[channel] for channel in wanted.channels)])
        time, label, signal = table[:, 0], np.nan_to_num(table[:, 1]), table[:, 2:]
        cutter.leave_out("samples without a label, left out", np.sum(label == 0))
        for first, last in runs(label, pauses(time, wanted.gap / wanted.facts.rate * 1e3)):
            if label[first] == 0:
                continue
            if label[first] not in codes:
                raise DataError(
                    f"{tree.where(place)}:{first + 1}: label {label[first]:g} is none of Opportunity's; {tree.get}"
                )
            stretch, filled = bridge(signal[first:last], round(BRIDGED * wanted.facts.rate))
            cutter.leave_out(
                f"values in holes of up to {BRIDGED:g} s, put on a straight line between neighbours", filled
            )
            cutter.add(person, codes.index(int(label[first])), (_RUNS.index(name),), first, stretch)
