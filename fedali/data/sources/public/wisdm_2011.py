"""WISDM 2011 (``WISDM_ar_v1.1``): 36 people, six activities, a phone in the front pocket at 20 Hz [1].

``WISDM_ar_v1.1_raw.txt``: ``33,Jogging,49105962326000,-0.6946377,12.680544,0.50395286;`` is person, activity, time [ns], acceleration
[m/s²]. As downloaded, some lines have two such records, a comma before the semicolon, or no last number; some times are 0; some
moments are there several times. Incomplete lines and times of 0 are left out, of equal moments the first stays.

[1] Kwapisz, Weiss, Moore: Activity Recognition using Cell Phone Accelerometers. SensorKDD 2010.
"""

from __future__ import annotations

import numpy as np

from fedali.data.sources.public.archive import Tree
from fedali.data.sources.public.cutting import Cutter, pauses, runs
from fedali.data.sources.public.facts import PublicSet, Wanted, axes, numbers
from fedali.data.sources.public.tables import read_records

FACTS = PublicSet(
    name="wisdm-2011",
    title="WISDM 2011 (v1.1)",
    people=numbers(1, 36),
    classes=("Walking", "Jogging", "Upstairs", "Downstairs", "Sitting", "Standing"),
    channels=axes("acc"),
    units=("m/s²",) * 3,
    rate=20.0,
    licence="not stated by its owners; they ask for the citation",
    citation="Kwapisz, Weiss, Moore: Activity Recognition using Cell Phone Accelerometers. SensorKDD 2010. "
    "doi:10.1145/1964897.1964918",
    home="https://www.cis.fordham.edu/wisdm/dataset.php",
    archives=("WISDM_ar_latest.tar.gz", "WISDM_ar_v1.1", "WISDM_ar_v1.1_raw.txt"),
)

_RECORD = np.dtype(
    [("person", "i4"), ("activity", "S16"), ("time", "i8"), ("x", "f4"), ("y", "f4"), ("z", "f4")]
)
_NUMBER = rb"-?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_LINE = rb" *\d+ *,[A-Za-z]+, *\d+ *" + (rb", *" + _NUMBER + rb" *") * 3


def read(tree: Tree, wanted: Wanted, cutter: Cutter) -> None:
    """The stretches in which person and activity stay the same and time goes on."""
    place = tree.find(r"(?:^|/)WISDM_ar_v1\.1_raw\.txt$", "WISDM_ar_v1.1_raw.txt")[()]
    records, broken = read_records(tree, place, _RECORD, _LINE)
    cutter.leave_out("lines that are no record, left out", broken)
    names = [name.encode() for name in wanted.facts.classes]
    activity = records["activity"]
    known = np.isin(activity, names)
    cutter.leave_out("records of other activities, left out", np.count_nonzero(~known))
    cutter.leave_out("records at time 0, left out", np.count_nonzero(records["time"] == 0))
    keep = known & (records["time"] != 0)
    records, activity = records[keep], activity[keep]
    again = np.zeros(len(records), bool)
    again[1:] = (np.diff(records["time"]) == 0) & (np.diff(records["person"]) == 0)
    cutter.leave_out("records of a moment that was there before, left out", np.count_nonzero(again))
    records, activity = records[~again], activity[~again]
    signal = np.stack([records[axis] for axis in "xyz"], axis=1)[:, wanted.picked]
    longest = wanted.gap / wanted.facts.rate * 1e9
    for number, (first, last) in enumerate(
        runs(records["person"], activity, pauses(records["time"], longest))
    ):
        person = str(records["person"][first])
        if person in wanted.people:
            label = names.index(bytes(activity[first]))
            cutter.add(person, label, (number,), 0, signal[first:last])
