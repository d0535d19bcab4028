"""HAPT (SBHAR): the recordings UCI HAR was cut from, with six postural transitions: 30 people, a phone at the waist at 50 Hz [1].

``RawData/acc_exp01_user01.txt`` [g] and ``gyro_exp01_user01.txt`` [rad/s]: x, y, z in each row, blanks between. ``RawData/labels.txt``:
experiment, user, activity 1..12, first and last row of a stretch, counted from 1. Other rows have no label.

[1] Reyes-Ortiz, Oneto, Samà, Parra, Anguita: Transition-Aware Human Activity Recognition Using Smartphones. Neurocomputing 171, 2016.
"""

from __future__ import annotations

import numpy as np

from fedali.data.sources.public.archive import Tree
from fedali.data.sources.public.cutting import Cutter
from fedali.data.sources.public.facts import UCI, PublicSet, Wanted, axes, numbers
from fedali.data.sources.public.tables import read_table
from fedali.errors import DataError

FACTS = PublicSet(
    name="hapt",
    title="HAPT (SBHAR)",
    people=numbers(1, 30),
    classes=(
        *("WALKING", "WALKING_UPSTAIRS", "WALKING_DOWNSTAIRS", "SITTING", "STANDING", "LAYING"),
        *("STAND_TO_SIT", "SIT_TO_STAND", "SIT_TO_LIE", "LIE_TO_SIT", "STAND_TO_LIE", "LIE_TO_STAND"),
    ),
    channels=axes("acc", "gyro"),
    units=("g",) * 3 + ("rad/s",) * 3,
    rate=50.0,
    licence=f"{UCI} at the UCI repository; its README asks for the citation and allows no commercial use",
    citation="Reyes-Ortiz, Oneto, Samà, Parra, Anguita: Transition-Aware Human Activity Recognition Using Smartphones. "
    "Neurocomputing 171, 2016. doi:10.1016/j.neucom.2015.07.085",
    home="https://archive.ics.uci.edu/dataset/341",
    archives=(
        "HAPT Data Set.zip",
        "smartphone+based+recognition+of+human+activities+and+postural+transitions.zip",
        "HAPT Data Set",
    ),
    url="https://archive.ics.uci.edu/static/public/341/"
    "smartphone+based+recognition+of+human+activities+and+postural+transitions.zip",
    most_bytes=90_000_000,
    sha256="4ac4ae064227c07045a99551876b54d204837e995e298b6488559e209b3deb09",
)


def read(tree: Tree, wanted: Wanted, cutter: Cutter) -> None:
    """The labelled stretches of each experiment."""
    files = tree.find(r"(?:^|/)RawData/(acc|gyro)_exp(\d+)_user(\d+)\.txt$", "RawData/acc_exp01_user01.txt")
    place = tree.find(r"(?:^|/)RawData/labels\.txt$", "RawData/labels.txt")[()]
    labels = read_table(tree, place, range(5), np.int64)
    known = (labels[:, 2] >= 1) & (labels[:, 2] <= len(wanted.facts.classes)) & (labels[:, 3] >= 1)
    if not known.all():
        row = int(np.argmin(known))
        stretch = " ".join(map(str, labels[row].tolist()))
        raise DataError(
            f"{tree.where(place)}:{row + 1}: {stretch!r} is no stretch of an activity 1..12, from 1 on; {tree.get}"
        )
    for sensor, experiment, user in files:
        person, number = str(int(user)), int(experiment)
        if sensor != "acc" or person not in wanted.people:
            continue
        if ("gyro", experiment, user) not in files:
            raise DataError(f"{tree.root} holds no RawData/gyro_exp{experiment}_user{user}.txt; {tree.get}")
        both = [read_table(tree, files[kind, experiment, user], range(3)) for kind in ("acc", "gyro")]
        length = min(map(len, both))
        signal = np.concatenate([values[:length] for values in both], axis=1)[:, wanted.picked]
        own = labels[(labels[:, 0] == number) & (labels[:, 1] == int(user))]
        covered = np.zeros(length, bool)
        for _, _, activity, first, last in own[np.argsort(own[:, 3], kind="stable")].tolist():
            covered[first - 1 : last] = True
            cutter.add(person, activity - 1, (number,), first - 1, signal[first - 1 : last])
        cutter.leave_out("samples without a label, left out", np.count_nonzero(~covered))
