"""UCI HAR: 30 people, six activities, a phone at the waist at 50 Hz [1].

``train/Inertial Signals/total_acc_x_train.txt`` and its like (``total_acc``, ``body_acc``, ``body_gyro``; x, y, z; ``train``,
``test``): a window of 128 numbers in each row; ``y_train.txt`` and ``subject_train.txt`` have its activity 1..6 and person. Windows
overlap by half and stand in the order of time. Which follow each other without a break is seen in the numbers: the second half of the
one is the first half of the next. Those are a recording; the owners took windows of transitions out, and there a new one begins.

[1] Anguita, Ghio, Oneto, Parra, Reyes-Ortiz: A Public Domain Dataset for Human Activity Recognition Using Smartphones. ESANN 2013.
"""

from __future__ import annotations

import numpy as np

from fedali.data.sources.public.archive import Tree
from fedali.data.sources.public.cutting import Cutter
from fedali.data.sources.public.facts import UCI, PublicSet, Wanted, axes, numbers
from fedali.data.sources.public.tables import read_table
from fedali.errors import DataError

WINDOW, STRIDE = 128, 64

FACTS = PublicSet(
    name="uci-har",
    title="UCI HAR",
    people=numbers(1, 30),
    classes=("WALKING", "WALKING_UPSTAIRS", "WALKING_DOWNSTAIRS", "SITTING", "STANDING", "LAYING"),
    channels=axes("total_acc", "body_gyro", "body_acc"),
    units=("g",) * 3 + ("rad/s",) * 3 + ("g",) * 3,
    default=axes("total_acc", "body_gyro"),
    rate=50.0,
    window=(WINDOW, STRIDE),
    licence=f"{UCI} at the UCI repository; its README asks for the citation and allows no commercial use",
    citation="Anguita, Ghio, Oneto, Parra, Reyes-Ortiz: A Public Domain Dataset for Human Activity Recognition Using Smartphones. "
    "ESANN 2013. doi:10.24432/C54S4K",
    home="https://archive.ics.uci.edu/dataset/240",
    archives=("UCI HAR Dataset.zip", "human+activity+recognition+using+smartphones.zip", "UCI HAR Dataset"),
    url="https://archive.ics.uci.edu/static/public/240/human+activity+recognition+using+smartphones.zip",
    most_bytes=70_000_000,
    sha256="c00b803081a5c797cd5e4b83700a9810b38d53d9d84e01917e090e1fdbc81031",
)


def read(tree: Tree, wanted: Wanted, cutter: Cutter) -> None:
    """All windows of the wanted people."""
    signals = tree.find(
        r"(?:^|/)(train|test)/Inertial Signals/(\w+)_\1\.txt$",
        "train/Inertial Signals/total_acc_x_train.txt",
    )
    rows = tree.find(r"(?:^|/)(?:train|test)/(y|subject)_(train|test)\.txt$", "train/y_train.txt")
    for part in ("train", "test"):
        names = [(part, channel) for channel in wanted.channels]
        lacking = [
            f"{part}/Inertial Signals/{name}_{part}.txt" for _, name in names if (part, name) not in signals
        ]
        lacking += [f"{part}/{what}_{part}.txt" for what in ("y", "subject") if (what, part) not in rows]
        if lacking:
            raise DataError(f"{tree.root} holds no {lacking[0]}; {tree.get}")
        y, subject = (read_table(tree, rows[what, part], dtype=np.int64)[:, 0] for what in ("y", "subject"))
        x = np.stack([read_table(tree, signals[name], dtype=np.float32) for name in names], axis=2)
        if not len(x) == len(y) == len(subject) or x.shape[1] != WINDOW:
            raise DataError(
                f"{tree.root}: {part} has {len(x)} windows of {x.shape[1]}, {len(y)} labels and {len(subject)} subjects; there have to "
                f"be as many, of {WINDOW}; {tree.get}"
            )
        if not np.isin(y, range(1, len(wanted.facts.classes) + 1)).all():
            raise DataError(f"{tree.where(rows['y', part])} has a label that is none of 1..6; {tree.get}")
        follows = (subject[1:] == subject[:-1]) & (x[:-1, STRIDE:] == x[1:, :-STRIDE]).all(axis=(1, 2))
        recording = np.concatenate([[0], np.cumsum(~follows)])
        for person in wanted.people:
            for row in np.flatnonzero(subject == int(person)):
                first = int(np.searchsorted(recording, recording[row]))
                start = np.array([(row - first) * STRIDE])
                place = (part == "test", int(recording[row]))
                cutter.add_windows(person, int(y[row]) - 1, place, start, x[row : row + 1])
