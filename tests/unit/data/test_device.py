"""A device's file gives the samples that a simulation makes of it, whatever it looks like; what differs is said or refused in a line."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from fedali.data import Columns, Reading, load_own
from fedali.data.device import SHARES, UNLABELLED, read_file, read_parts
from fedali.data.facts import NO_FACTS, DataFacts
from fedali.data.sources.settings import parse_settings
from fedali.data.split import split
from fedali.errors import DataError, MisfitError, SettingsError
from fedali.targets import Targets

LABELS, HEAD = ("run", "sit", "walk"), ("client", "label", "recording", "time", "x", "y", "z")
FACTS = DataFacts(channels=("x", "y", "z"), stride=4, interval=0.02)


def rows(each=40, labels=LABELS, gap=0.0):
    """Of one client at 50 Hz; ``gap`` seconds of pause in the middle of each label."""
    random, time = np.random.default_rng(0), 0.0
    for label in labels:
        for i in range(each):
            time += 0.02 + gap * (i == each // 2)
            yield "ann", label, "r1", round(time, 2), *random.normal(0, 1, 3).round(4).tolist()


def write(path, table, head=HEAD, sep=",", encoding="utf-8", comma=False):
    lines = [[str(cell) for cell in row] for row in table]
    if comma:
        lines = [[*row[:4], *(cell.replace(".", ",") for cell in row[4:])] for row in lines]
    path.write_text("\n".join(sep.join(row) for row in [list(head), *lines]) + "\n", encoding=encoding)
    return path


def manifest(facts=FACTS, shape=(8, 3), classes=LABELS, mean=(0.0, 0.0, 0.0)):
    normalisation = SimpleNamespace(mean=np.array(mean, np.float32))
    targets = Targets(classes)
    return SimpleNamespace(
        input_shape=shape, classes=classes, targets=targets, data=facts, normalisation=normalisation
    )


@pytest.fixture
def simulated(tmp_path):
    """What a simulation makes of the plain file."""
    return load_own(write(tmp_path / "plain.csv", rows()), window=8, stride=4)


def without(*left_out):
    keep = [i for i, name in enumerate(HEAD) if name not in left_out]
    return [HEAD[i] for i in keep], [[row[i] for i in keep] for row in rows()]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("plain", ()),
        ("no client", ()),
        ("no client, no recording", ()),
        ("no times", ()),
        ("other order", ()),
        ("index and more", ()),
        ("semicolons and commas", ()),
        ("utf-16", ()),
        ("tabs", ()),
        ("pipes of its own", ("data.separator=~",)),
        ("other names", ("data.columns.label=activity", "data.columns.channels=ax,ay,az")),
        ("packets", ()),
    ],
)
def test_windows_are_those_of_the_simulation(tmp_path, simulated, kind, words):
    path, table = tmp_path / "mine.csv", list(rows())
    notes = 0
    if kind == "no client":
        head, table = without("client")
        write(path, table, head)
    elif kind == "no client, no recording":
        head, table = without("client", "recording")
        write(path, table, head)
    elif kind == "no times":
        head, table = without("time")
        write(path, table, head)
        notes = 1
    elif kind == "other order":
        write(path, [(*row[6:3:-1], *row[:4]) for row in table], (*HEAD[6:3:-1], *HEAD[:4]))
    elif kind == "index and more":
        more = [(i, *row, 7 * i % 5) for i, row in enumerate(table)]
        write(path, more, ("", *HEAD, "magnet"))
        notes = 1
    elif kind == "semicolons and commas":
        write(path, table, sep=";", comma=True)
    elif kind == "utf-16":
        write(path, table, encoding="utf-16")
    elif kind == "tabs":
        path = write(tmp_path / "mine.tsv", table, sep="\t")
    elif kind == "pipes of its own":
        write(path, table, sep="~")
    elif kind == "other names":
        write(path, table, ("client", "activity", "recording", "time", "ax", "ay", "az"))
    elif kind == "packets":
        write(path, [(*row[:3], round(row[3] // 0.06 * 0.06, 2), *row[4:]) for row in table])
    else:
        write(path, table)
    found = read_file(path, manifest(), parse_settings(words))
    assert np.array_equal(found.x, simulated.x)
    assert np.array_equal(found.y, simulated.y)
    assert len(found.notes) == notes, found.notes
    assert found.rows.tolist() == [40 * k + 4 * i for k in range(3) for i in range(9)]


def test_the_bundle_knows_columns_gap_and_what_is_missing(tmp_path):
    head = ("who", "what", "trial", "t", "x", "y", "z")
    table = [list(row) for row in rows(gap=0.3)]
    for i in (3, 50):
        table[i][4] = -999
    table[100:110] = [[row[0], "none", *row[2:]] for row in table[100:110]]
    path = write(tmp_path / "mine.csv", table, head)
    columns = Columns(client="who", label="what", recording="trial", time="t")
    reading = Reading(columns=columns, gap=5.0, missing=("-999",), unlabelled=("none",))
    expected = load_own(path, window=8, stride=4, reading=reading)
    found = read_file(path, manifest(DataFacts(channels=("x", "y", "z"), stride=4, reading=reading)))
    assert np.array_equal(found.x, expected.x)
    assert np.array_equal(found.y, expected.y)
    assert found.notes == expected.notes
    assert len(expected.notes) == 3
    # a setting of the device's own goes before
    wide = read_file(path, manifest(DataFacts(FACTS.channels, 4, reading=reading)), {"gap": 100.0})
    assert len(wide.x) > len(found.x)


def test_columns_that_the_bundle_names_may_be_missing_but_for_labels_and_channels(tmp_path):
    columns = Columns(client="who", label="what", recording="trial", time="t")
    model = manifest(DataFacts(FACTS.channels, 4, reading=Reading(columns=columns)))
    head, table = without("client", "recording", "time")
    path = write(tmp_path / "mine.csv", table, ("what", *head[1:]))
    found = read_file(path, model)
    assert [note.partition(":")[0] for note in found.notes] == [
        "there is no column 'trial'",
        "there is no column 't'",
    ]
    with pytest.raises(DataError, match=r"lacks the column 't' that data.columns.time names"):
        read_file(path, model, {"columns.time": "t"})
    write(path, table, ("activity", *head[1:]))
    with pytest.raises(DataError, match="lacks the column 'what'"):
        read_file(path, model)


def test_a_missing_channel_is_one_line_that_says_what_to_do(tmp_path):
    path = write(tmp_path / "mine.csv", rows(), (*HEAD[:6], "Z"))
    with pytest.raises(
        MisfitError, match=r"lacks the channel 'z' that the model takes; .*'?Z.*data.columns.channels"
    ) as error:
        read_file(path, manifest())
    assert "\n" not in str(error.value)
    assert error.value.public == "this device's data lack a channel that the federation's have"
    with pytest.raises(SettingsError, match="names 2 columns, and the model takes 3: x, y, z"):
        read_file(path, manifest(), {"columns.channels": ("x", "y")})


def test_labels_mean_what_they_mean_in_the_simulation(tmp_path):
    numbers = {"run": 1, "sit": 2, "walk": 3}
    path = write(tmp_path / "mine.csv", [(row[0], numbers[row[1]], *row[2:]) for row in rows()])
    by_name = manifest(classes=("1", "2", "3"))
    assert read_file(path, by_name).y.tolist() == [0] * 9 + [1] * 9 + [2] * 9
    write(path, [(row[0], f"{numbers[row[1]] - 1}.0", *row[2:]) for row in rows()])
    assert read_file(path, manifest()).y.tolist() == [0] * 9 + [1] * 9 + [2] * 9
    with pytest.raises(MisfitError, match="1 is class '1' by name and '2' by place"):
        read_file(path, by_name)
    write(path, [(row[0], "jump", *row[2:]) for row in rows()])
    with pytest.raises(MisfitError, match="'jump', no class of this model"):
        read_file(path, manifest())


def test_samples_without_a_label_are_predicted_and_observed(tmp_path):
    head, table = without("client", "label")
    path = write(tmp_path / "new.csv", table, head)
    found = read_file(path, manifest(), labels="none")
    assert len(found.x) == 29  # across labels, of which nothing is known
    assert found.rows.tolist() == list(range(0, 113, 4))
    assert [found.moment(k) for k in (0, 1)] == [0.02, 0.1]
    with pytest.raises(DataError, match="lacks the column 'label'"):
        read_file(path, manifest())
    part = [(row[0], "" if i < 40 else row[1], *row[2:]) for i, row in enumerate(rows())]
    write(path, part)
    assert len(read_file(path, manifest(), labels="none").x) == 27
    known = read_file(path, manifest(), {"unlabelled": ("",)}, labels="known")
    assert known.y.tolist() == [UNLABELLED] * 9 + [1] * 9 + [2] * 9
    trained = read_file(path, manifest(), {"unlabelled": ("",)})
    assert trained.y.tolist() == [1] * 9 + [2] * 9


def test_dates_are_told_as_dates(tmp_path):
    table = [(*row[:3], f"2024-03-31 01:00:{row[3]:05.2f}", *row[4:]) for row in rows()]
    found = read_file(write(tmp_path / "new.csv", table), manifest(), labels="none")
    assert found.moment(1) == "2024-03-31T01:00:00.100000+00:00"


def test_another_rate_is_warned_of_and_packets_are_none(tmp_path):
    for factor, warned in ((1.0, False), (1.15, False), (1.3, True), (0.5, True), (1000, True)):
        table = [(*row[:3], row[3] * factor, *row[4:]) for row in rows()]
        found = read_file(write(tmp_path / "mine.csv", table), manifest())
        assert (
            any("WARNING: rows are" in note and "0.02 in the data" in note for note in found.notes) == warned
        )


def test_a_constant_channel_that_moves_is_named(tmp_path):
    model = manifest(DataFacts(("x", "y", "z"), 4, constant=(2,)), mean=(0, 0, 0.5))
    for value, said in ((0.5, None), (0.501, "is 0.501 here"), (None, "0.5 to 0.6 here")):
        table = [(*row[:6], value or 0.5 + (i % 2) / 10) for i, row in enumerate(rows())]
        notes = [n for n in read_file(write(tmp_path / "mine.csv", table), model).notes if "constant" in n]
        assert len(notes) == (said is not None)
        assert all("channel 'z' was constant in training (0.5)" in note and said in note for note in notes)


def test_a_channel_that_stands_still_here_alone_is_named(tmp_path):
    table = [
        ("nan", *row[1:4], 0.25, *row[5:]) for row in rows()
    ]  # whoever the client is: it is this device's file
    (note,) = read_file(write(tmp_path / "mine.csv", table), manifest()).notes
    assert note.startswith("channel 'x' is 0.25 all the time here, which it was not in training")


def test_rows_of_several_clients_are_said_and_never_share_a_window(tmp_path):
    table = [(("ann", "bob")[i % 40 >= 20], *row[1:]) for i, row in enumerate(rows())]
    path = write(tmp_path / "mine.csv", sorted(table))
    found = read_file(path, manifest())
    assert len(found.x) == 24
    assert "of 2 clients (ann, bob); all are taken for this device's" in found.notes[-1]


def test_too_short_is_one_line_with_the_longest_stretch(tmp_path):
    path = write(tmp_path / "mine.csv", rows(each=7))
    with pytest.raises(DataError, match=r"a window needs 8 rows in a row .* its longest stretch has 7"):
        read_file(path, manifest())
    images = manifest(NO_FACTS, shape=(1, 8, 8))
    with pytest.raises(MisfitError, match=r"this model takes \[1, 8, 8\]: save .npz"):
        read_file(path, images)
    with pytest.raises(SettingsError, match=r"data.window is 16, and the model takes windows of 8 rows"):
        read_file(path, manifest(), {"window": 16})


def test_a_bundle_without_names_takes_columns_as_they_come_and_says_so(tmp_path):
    found = read_file(write(tmp_path / "mine.csv", rows()), manifest(NO_FACTS))
    assert found.notes == ("the bundle names no channels; taken in this order: x, y, z",)
    assert len(found.x) == 27  # every half window


def test_arrays_go_by_names_of_channels_and_by_the_shape_that_the_model_takes(tmp_path):
    x, y = np.random.default_rng(0).normal(size=(12, 8, 3)).astype(np.float32), np.arange(12) % 3
    path = tmp_path / "mine.npz"
    np.savez(path, x=x[..., ::-1], y=y, channel_names=["z", "y", "x"], client=np.zeros(12, int))
    found = read_file(path, manifest())
    assert np.array_equal(found.x, x)
    assert found.y.tolist() == y.tolist()
    np.savez(path, x=x.transpose(0, 2, 1), y=y)
    found = read_file(path, manifest())
    assert np.array_equal(found.x, x)
    assert "samples [3, 8] are taken as windows of 8 with 3 channels" in found.notes[0]
    np.savez(path, x=x, y=y, channel_names=["x", "y", "w"])
    with pytest.raises(MisfitError, match="takes x, y, z: w, z are missing, or too many"):
        read_file(path, manifest())
    square = x[:, :3]
    np.savez(path, x=square, y=y)
    for layout, expected in ((None, square), ("ct", square.transpose(0, 2, 1))):
        facts = DataFacts(("x", "y", "z"), reading=Reading(layout=layout))
        assert np.array_equal(read_file(path, manifest(facts, shape=(3, 3))).x, expected)
    facts = DataFacts(("x", "y", "z"), reading=Reading(layout="ct"))
    assert np.array_equal(read_file(path, manifest(facts, (3, 3)), {"layout": "tc"}).x, square)


def test_images_of_a_device_are_read_as_those_of_the_simulation(tmp_path):
    x, y = np.random.default_rng(0).integers(0, 255, (12, 9, 9, 3), np.uint8), np.arange(12) % 3
    for name, array, shape in (("hwc", x, (3, 9, 9)), ("grey", x[..., 0], (1, 9, 9))):
        np.savez(tmp_path / f"{name}.npz", x=array, y=y, client=y)
        simulated = load_own(tmp_path / f"{name}.npz")
        found = read_file(tmp_path / f"{name}.npz", manifest(NO_FACTS, shape, simulated.class_names))
        assert np.array_equal(found.x, simulated.x)
        np.save(tmp_path / "new.npy", array)
        new = read_file(tmp_path / "new.npy", manifest(NO_FACTS, shape), labels="none")
        assert np.array_equal(new.x, simulated.x)


def test_one_file_for_all_is_split_as_a_simulation_splits_it(tmp_path):
    path = write(tmp_path / "mine.csv", rows(each=200))
    data = load_own(path, window=8, stride=4)
    expected = split(data.y, data.recording, data.start, data.length, fractions=SHARES, order="time")
    parts, notes = read_parts(path, manifest())
    for name in ("train", "validation", "test"):
        x, y = parts[name]
        assert np.array_equal(x, data.x[getattr(expected, name)])
        assert np.array_equal(y, data.y[getattr(expected, name)])
    assert notes == ()
    write(path, rows(each=100))  # replaced
    assert len(read_parts(path, manifest())[0]["train"][0]) < len(parts["train"][0])
