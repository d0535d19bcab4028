"""RealWorld (2016): 15 people, eight activities, phones and a watch at seven places on the body at 50 Hz [1].

``proband1/data/acc_walking_csv.zip`` holds ``acc_walking_chest.csv`` and the other places, ``gyr_walking_csv.zip`` holds
``Gyroscope_walking_chest.csv``: a header ``id,attr_time,attr_x,attr_y,attr_z``, time [ms since 1970], [m/s² or rad/s]. Where an activity was
done in parts, files are called ``acc_climbingup_2_chest.csv``, and some lie in a zip of their own within. Both sensors lie on a clock
of 50 Hz here, by straight lines between their own moments.

[1] Sztyler, Stuckenschmidt: On-body Localization of Wearable Devices: An Investigation of Position-Aware Activity Recognition. PerCom 2016.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from fedali.data.sources.public.archive import Place, Tree
from fedali.data.sources.public.cutting import Cutter, Indices, on_grid
from fedali.data.sources.public.facts import PublicSet, Wanted, axes, numbers
from fedali.data.sources.public.tables import Array, read_columns

FACTS = PublicSet(
    name="realworld",
    title="RealWorld (2016)",
    people=numbers(1, 15),
    classes=("climbingdown", "climbingup", "jumping", "lying", "running", "sitting", "standing", "walking"),
    channels=axes("acc", "gyr"),
    units=("m/s²",) * 3 + ("rad/s",) * 3,
    rate=50.0,
    devices=("chest", "forearm", "head", "shin", "thigh", "upperarm", "waist"),
    licence="not stated by its owners; they ask for the citation",
    citation="Sztyler, Stuckenschmidt: On-body Localization of Wearable Devices: An Investigation of Position-Aware Activity "
    "Recognition. PerCom 2016. doi:10.1109/PERCOM.2016.7456521",
    home="https://www.uni-mannheim.de/dws/research/projects/activity-recognition/dataset/dataset-realworld/",
    archives=("realworld2016_dataset.zip", "realworld2016_dataset"),
)

_STEP = round(1e9 / FACTS.rate)
_FILE = rf"proband(\d+)/data/(?:.*/)?(acc|Gyroscope)_({'|'.join(FACTS.classes)})(?:_(\d))?_({'|'.join(FACTS.devices)})\.csv$"


def read(tree: Tree, wanted: Wanted, cutter: Cutter) -> None:
    """Each activity, each part of it, at each place."""
    files = tree.find(_FILE, "proband1/data/acc_walking_csv.zip", inside=r"(?:^|/)(?:acc|gyr)_[^/]*\.zip$")
    performances: dict[tuple[str, str, str], list[tuple[Place, str, str]]] = defaultdict(list)
    for (person, sensor, activity, part, device), place in files.items():
        if person in wanted.people and device in wanted.devices:
            performances[person, activity, part or "1"].append((place, device, sensor))
    for (person, activity, part), places in performances.items():
        label = wanted.facts.classes.index(activity)
        found = {(device, sensor): _sensor(tree, place) for place, device, sensor in sorted(places)}
        for device in sorted({device for _, device, _ in places}):
            sensors = [found[device, name] for name in ("acc", "Gyroscope") if (device, name) in found]
            if len(sensors) < 2:
                cutter.leave_out("recordings without accelerometer or gyroscope, left out", 1)
                continue
            begin, signal = on_grid(sensors, _STEP, wanted.gap * _STEP)
            cutter.add(person, label, (label, int(part)), begin, signal[:, wanted.picked], device)


def _sensor(tree: Tree, place: Place) -> tuple[Indices, Array]:
    """Times [n] in ns, and values [n, 3]."""
    table = read_columns(tree, place, ("attr_time", "attr_x", "attr_y", "attr_z"))
    table = table[np.argsort(table[:, 0], kind="stable")]
    return np.rint(table[:, 0]).astype(np.int64) * 1_000_000, table[:, 1:]
