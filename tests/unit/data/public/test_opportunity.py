import numpy as np
import pytest

from fedali.data import load_public
from fedali.errors import DataError
from tests.unit.data.public.forms import FORMS, blanks, put, signal, windows

STRETCHES = [(0, 0, 10), (1, 0, 40), (2, 406516, 30), (0, 404516, 30), (5, 0, 20)]
"""Locomotion, gesture, rows."""
IMUS = [37 + 13 * k + c for k in range(5) for c in range(9)]


def table(seed):
    """250 columns: time [ms], 242 of sensors, seven tracks of labels."""
    rows = sum(count for *_, count in STRETCHES)
    values = np.round(1000 * signal(seed, rows, 250))
    values[:, 0] = np.round(np.arange(rows) * 1000 / 30)
    values[:, 243:] = 0
    values[:, 243] = np.concatenate([np.full(n, a) for a, _, n in STRETCHES])
    values[:, 249] = np.concatenate([np.full(n, g) for _, g, n in STRETCHES])
    values[:, 1:4] = np.nan  # an accelerometer that lost everything
    return values


def files(tables):
    found = {
        f"OpportunityUCIDataset/dataset/{run}.dat": blanks(rows, "{:.0f}") for run, rows in tables.items()
    }
    found["OpportunityUCIDataset/dataset/column_names.txt"] = "Column: 1 MILLISEC"
    return {"OpportunityUCIDataset.zip": found}


@pytest.mark.parametrize("form", FORMS)
def test_locomotion_by_the_inertial_sensors(tmp_path, form):
    tables = {"S1-Drill": table(1), "S1-ADL2": table(2), "S3-ADL1": table(3)}
    data = load_public("opportunity", put(tmp_path, files(tables), form), window=20, stride=10)
    cuts = ((10, 50), (50, 80), (110, 130))
    order = ("S1-ADL2", "S1-Drill", "S3-ADL1")
    assert np.array_equal(
        data.x, np.concatenate([windows(tables[run][a:b, IMUS], 20, 10) for run in order for a, b in cuts])
    )
    assert [data.class_names[y] for y in data.y[:6]] == ["Stand"] * 3 + ["Walk"] * 2 + ["Lie"]
    assert data.client_names == ("subject-1", "subject-3")
    assert data.recording.tolist() == [0] * 6 + [1] * 6 + [2] * 6
    assert data.start.tolist()[:6] == [10, 20, 30, 50, 60, 110]
    assert len(data.channel_names) == 45
    assert data.channel_names[9] == "IMU_RUA_acc_x"
    assert "samples without a label, left out: 120" in data.notes


def test_gestures_and_other_sensors(tmp_path):
    tables = {"S1-Drill": table(1)}
    path = put(tmp_path, files(tables), "unpacked")
    data = load_public(
        "opportunity-gestures",
        path,
        window=10,
        stride=10,
        channels=["R-SHOE_Compass", "RH_acc_z", "L-SHOE_Eu_x"],
    )
    assert [data.class_names[y] for y in data.y] == ["Open Door 1"] * 3 + ["Close Door 1"] * 3
    assert np.array_equal(data.x[:3], windows(tables["S1-Drill"][50:80, [133, 36, 102]], 10, 10))
    with pytest.raises(
        DataError, match="opportunity gives no window: samples with missing values, left out: 90"
    ):
        load_public("opportunity", path, window=10, stride=10, channels=["RKN^_acc_x"])


def test_short_holes_are_bridged_longer_ones_end_a_stretch(tmp_path):
    rows = table(1)
    rows[12:15, 37] = np.nan
    rows[30:34, 38] = np.nan
    data = load_public(
        "opportunity", put(tmp_path, files({"S1-ADL1": rows}), "unpacked"), window=15, stride=15
    )
    assert "values in holes of up to 0.1 s, put on a straight line between neighbours: 3" in data.notes
    assert data.start.tolist() == [10, 34, 50, 65, 110]
    assert np.isclose(data.x[0, 3, 0], (rows[11, 37] + rows[15, 37]) / 2)


def test_a_file_that_is_missing_or_broken_is_one_line(tmp_path):
    with pytest.raises(
        DataError, match=r"holds no dataset/S1-ADL1\.dat; get OpportunityUCIDataset\.zip from https"
    ):
        load_public("opportunity", put(tmp_path / "a", {"x.txt": ""}, "outer unpacked"))
    odd = table(1)
    odd[50:, 243] = 3
    with pytest.raises(DataError, match=r"S2-ADL1\.dat:51: label 3 is none of Opportunity's"):
        load_public("opportunity", put(tmp_path / "b", files({"S2-ADL1": odd}), "unpacked"), window=20)
