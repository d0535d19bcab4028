"""The same measurements, however loggers and spreadsheets write them, give the same windows."""

import codecs
import gzip

import numpy as np
import pandas as pd
import pytest

from fedali.data import load_own
from fedali.data.sources.reading import Columns, Reading
from fedali.errors import DataError

HEAD = ["client", "label", "time", "x", "y"]
ROWS = [
    [
        client,
        label,
        f"{0.02 * (i + 40 * k):.2f}",
        *(f"{v:.3f}" for v in np.random.default_rng(i + 50 * k + 1000 * (client == "bob")).normal(size=2)),
    ]
    for client in ("ann", "bob")
    for k, label in enumerate(("sit", "wälk"))
    for i in range(40)
]


def text(rows=ROWS, head=HEAD, separator=",", newline="\n"):
    return newline.join(separator.join(row) for row in [head, *rows]) + newline


def comma(rows=ROWS, begin=3):
    return [[*row[:begin], *(cell.replace(".", ",") for cell in row[begin:])] for row in rows]


def load(folder, content, name="log.csv", **reading):
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return load_own(path, window=8, stride=4, reading=Reading(**reading))


@pytest.fixture
def plain(tmp_path):
    data = load(tmp_path, text())
    assert not data.notes
    return data


def same(one, other):
    return (
        all(
            np.array_equal(getattr(one, f), getattr(other, f))
            for f in ("x", "y", "client", "recording", "start")
        )
        and one.channel_names == other.channel_names
        and one.class_names == other.class_names
        and one.client_names == other.client_names
    )


UNITS = ["", "", "s", "m/s2", "m/s²"]


@pytest.mark.parametrize(
    ("content", "notes"),
    [
        (text(separator=";"), ()),
        (text(separator="\t"), ()),
        (text(separator="|"), ()),
        (text(comma(), separator=";"), ()),
        (text(comma(begin=2), separator="\t"), ()),
        (text([[*row[:3], *(f'"{cell}"' for cell in row[3:])] for row in comma()]), ()),
        ("sep=;\r\n" + text(separator=";", newline="\r\n"), ()),
        (text(newline="\r"), ()),
        (codecs.BOM_UTF8 + text().encode(), ()),
        (text().encode("utf-16"), ()),
        (codecs.BOM_UTF16_BE + text().encode("utf-16-be"), ()),
        (text().encode("utf-32"), ()),
        ("# logger 1.2\n#\n" + text() + "# end\n\n", ()),
        ("# " + text(), ()),
        ("Logger 1.2\nserial,7\n\n" + text(), ("2 lines above the header are passed over",)),
        (text([UNITS, *ROWS]), ("line 2 is passed over, it has units: m/s2, m/s²",)),
        (text([["-", "-", "s", "g", "[g]"], *ROWS]), ("line 2 is passed over, it has units: g, [g]",)),
        (text([*ROWS, [""] * 5]), ()),
        (text([[*row, ""] for row in ROWS], [*HEAD, ""]), ("column 6 is left out: it has no name and is empty",)),
        (text([[*row, ""] for row in ROWS]), ()),
        (text(ROWS, [*HEAD, ""]), ("column 6 is left out: it has no name and is empty",)),
        (text([[*(f"'{cell}'" for cell in row)] for row in ROWS], [f"'{name}'" for name in HEAD]), ()),
        (gzip.compress(text().encode()), ()),
    ],
)  # fmt: skip
def test_what_is_certain_is_read(tmp_path, plain, content, notes):
    found = load(tmp_path, content)
    assert same(found, plain)
    assert found.notes == notes


@pytest.mark.parametrize(
    ("content", "message", "reading"),
    [
        (text().encode("latin-1"), r'not UTF-8 text.*data\.encoding = "cp1252"', {"encoding": "latin-1"}),
        (text().encode("utf-16-le"), r'data\.encoding = "utf-16-le"', {"encoding": "utf-16-le"}),
        (
            text(separator="~"),
            r'say so: data\.separator = "~"',
            {"separator": "~"},
        ),
        (text(separator="  "), r'say so: data\.separator = " "', {"separator": " "}),
        (
            text([[*row[:3], row[3].replace(".", ","), row[4]] for row in ROWS], separator=";"),
            r"numbers have a comma .* and there is .*data\.decimal",
            None,
        ),
        (
            text([[*row[:3], "9,812", "1,024"] for row in ROWS], separator=";"),
            "may be a decimal sign or thousands",
            None,
        ),
        (
            text([*ROWS, ["bob", "sit", "9", "1_0", "1"]]),
            "line 162: column 'x' is '1_0', not a finite number",
            None,
        ),
        (text([*ROWS, ["bob", "sit", "9", '"1,5"', "1"]]), r"numbers have a comma .*data\.decimal", None),
    ],
)
def test_what_is_not_certain_is_refused_with_the_setting_that_reads_it(
    tmp_path, plain, content, message, reading
):
    with pytest.raises(DataError, match=message) as caught:
        load(tmp_path, content)
    assert "\n" not in str(caught.value)
    if reading is not None:
        assert same(load(tmp_path, content, **reading), plain)


def test_a_decimal_sign_that_was_said(tmp_path, plain):
    whole = [["ann", "sit", str(i), str(i * 7 % 40), str(i * 11 % 40)] for i in range(300)]
    with pytest.raises(DataError, match=r'line 302: column .x. is .*data\.decimal = ","'):
        load(tmp_path, text([*whole, ["ann", "sit", "300", "1,5", "2"]], separator=";"))
    with pytest.raises(DataError, match=r'line 302: column .time. is .*data\.decimal = ","'):
        load(tmp_path, text([*whole, ["ann", "sit", "300,5", "1", "2"]], separator=";"))
    assert same(load(tmp_path, text(comma(), separator=";"), decimal=","), plain)


def test_dates_by_their_format(tmp_path, plain):
    rows = [[*row[:2], f"31/03/2024 01:59:{float(row[2]):05.2f}", *row[3:]] for row in ROWS]
    with pytest.raises(
        DataError, match=r"line 2: column 'time' is '31/03/2024 01:59:00\.00'.*data\.time_format"
    ):
        load(tmp_path, text(rows))
    assert same(load(tmp_path, text(rows), time_format="%d/%m/%Y %H:%M:%S.%f"), plain)
    with pytest.raises(DataError, match=r"line 2: .* not as data\.time_format"):
        load(tmp_path, text(rows), time_format="%m/%d/%Y %H:%M:%S.%f")


@pytest.mark.parametrize("hole", ["-999", "-999.0", "NA", "?", "", "nan"])
def test_windows_with_a_missing_value_are_left_out_and_counted(tmp_path, plain, hole):
    rows = [list(row) for row in ROWS]
    rows[18][3] = rows[130][4] = hole
    with pytest.raises(DataError, match=r"data\.missing = \["):
        load(tmp_path, text(rows))
    data = load(tmp_path, text(rows), missing=("-999", "na", "?", "", "nan"))
    whose, start = np.array([18, 130]) // 80, np.array([18, 130]) % 80
    holed = np.zeros(len(plain.y), bool)
    for client, row in zip(whose, start, strict=True):
        holed |= (plain.client == client) & (plain.start <= row) & (row < plain.start + 8)
    assert np.array_equal(data.x, plain.x[~holed])
    assert data.notes == ("4 of 36 windows are left out: they hold one of 2 missing values (data.missing)",)


def test_a_code_that_was_measured_and_samples_with_one(tmp_path):
    rows = [[*row[:3], "-999" if i % 40 == 3 else row[3], row[4]] for i, row in enumerate(ROWS)]
    assert load(tmp_path, text(rows), missing=()).x.min() == -999
    x = np.random.default_rng(0).normal(size=(20, 4))
    x[3, 1] = -999
    x[5, 0] = np.nan
    np.savez(tmp_path / "a.npz", x=x, y=np.arange(20) % 2, client=np.arange(20) // 10)
    with pytest.raises(DataError, match=r"a\.npz"):
        load_own(tmp_path / "a.npz")
    data = load_own(tmp_path / "a.npz", reading=Reading(missing=("-999", "nan")))
    assert np.array_equal(data.x, np.delete(x, [3, 5], axis=0).astype(np.float32))
    assert data.notes == ("2 of 20 samples are left out: they hold missing values (data.missing)",)


def test_folders_have_litter_and_endings_in_capitals(tmp_path, plain):
    def place(name, content):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    of = {client: text([row[1:] for row in ROWS if row[0] == client], HEAD[1:]) for client in ("ann", "bob")}
    place("all/ann.CSV", of["ann"])
    place("all/bob.csv.gz", gzip.compress(of["bob"].encode()))
    for litter in (".DS_Store", "Thumbs.db", "desktop.ini", "README", "~$ann.csv", "readme.txt"):
        place(f"all/{litter}", b"\0")
    (tmp_path / "all" / "__MACOSX").mkdir()
    data = load_own(tmp_path / "all", window=8, stride=4)
    assert same(data, plain)
    assert not data.notes
    place("all/cyd.txt", of["bob"])
    assert load_own(tmp_path / "all", window=8, stride=4).notes == (
        "passed over in the folder, by their endings: cyd.txt",
    )


def test_rows_of_clients_that_alternate_are_put_together(tmp_path, plain):
    mixed = [row for pair in zip(ROWS[:80], ROWS[80:], strict=True) for row in pair]
    found = load(tmp_path, text(mixed))
    assert same(found, plain)
    assert found.notes == (
        "rows of several recordings alternate, and are put together by client and recording",
    )
    rng = np.random.default_rng(0)  # and rows of others change nothing
    whose = rng.permutation([0] * 80 + [1] * 80)
    of = [iter(ROWS[:80]), iter(ROWS[80:])]
    mixed = [next(of[k]) for k in whose]
    data = load(tmp_path, text(mixed))
    for client in ("ann", "bob"):
        one, other = (d.x[d.client == d.client_names.index(client)] for d in (data, plain))
        assert np.array_equal(one, other)


FRAME = pd.DataFrame(ROWS, columns=HEAD).astype({"time": float, "x": float, "y": float})


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"index": True},
        {"index": True, "index_label": "index"},
        {"sep": ";"},
        {"sep": "\t", "decimal": ","},
        {"quotechar": "'", "quoting": 1},
        {"decimal": ","},
        {"quoting": 1},
        {"quoting": 2},
        {"lineterminator": "\r\n"},
        {"encoding": "utf-16"},
        {"encoding": "utf-8-sig"},
        {"compression": "gzip"},
        {"float_format": "%.6e"},
        {"columns": ["y", "x", "label", "time", "client"]},
    ],
)
def test_what_pandas_writes(tmp_path, plain, options):
    path = tmp_path / "log.csv"
    FRAME.to_csv(path, **{"index": False, **options})
    data = load_own(
        path,
        window=8,
        stride=4,
        reading=Reading(columns=Columns(channels=("x", "y")) if "columns" in options else Columns()),
    )
    assert same(data, plain)


def test_what_pandas_writes_after_filtering_keeps_its_index_out(tmp_path):
    frame = pd.concat([FRAME, FRAME[:80].assign(client="cyd")])[lambda f: f.index % 3 > 0]
    frame.to_csv(tmp_path / "log.csv")
    frame.to_csv(tmp_path / "plain.csv", index=False)
    found, plain = (load_own(tmp_path / f"{name}.csv", window=8, stride=4) for name in ("log", "plain"))
    assert same(found, plain)
