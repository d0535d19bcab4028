"""What holds for every table: however pandas writes it, whoever else is in it, and wherever their rows stand."""

from __future__ import annotations

import csv

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from fedali.data import load_own
from fedali.data.sources.reading import Columns, Reading
from fedali.errors import DataError

MANY = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking takes minutes
    report_multiple_bugs=False,
)
NAMES = st.text(
    st.characters(exclude_categories=("C", "Z"), include_characters=" ", codec="utf-8"),
    min_size=1,
    max_size=12,
).filter(lambda name: name == name.strip() and not name.startswith("#"))
LABELS = NAMES.filter(lambda name: not is_number(name))  # 1 and 1.0 are one class
WINDOW = 4


def is_number(text):
    try:
        float(text.replace(",", "."))
    except ValueError:
        return False
    return True


def frame_of(clients, labels, rows, seed, dated):
    """A table of clients with every label, ``rows`` in a row of each."""
    rng = np.random.default_rng(seed)
    blocks = []
    for k, client in enumerate(clients):
        for j, label in enumerate(labels):
            at = 40.0 * (k * len(labels) + j) + 0.02 * np.arange(rows)
            time = pd.Timestamp("2024-03-01") + pd.to_timedelta(at, unit="s") if dated else at
            values = rng.normal(size=(rows, 2)).round(3)
            blocks.append(
                pd.DataFrame(
                    {"client": client, "label": label, "time": time, "x": values[:, 0], "y": values[:, 1]}
                )
            )
    return pd.concat(blocks, ignore_index=True)


def cut(frame, labels):
    """Windows as they have to be: (client, label, values) in the order of clients, by another way than the reader's."""
    found = []
    for (client, label), block in frame.groupby(["client", "label"], sort=False):
        values = block[["x", "y"]].to_numpy(np.float32)
        found += [
            (client, label, values[i : i + WINDOW].tobytes())
            for i in range(0, len(values) - WINDOW + 1, 2)
            if not np.isnan(values[i : i + WINDOW]).any()
        ]
    return sorted(found)


def windows_of(data):
    return sorted(
        (
            data.client_names[data.client[i]],
            data.class_names[data.y[i]],
            np.ascontiguousarray(data.x[i]).tobytes(),
        )
        for i in range(len(data.x))
    )


OPTIONS = st.fixed_dictionaries(
    {
        "sep": st.sampled_from([",", ";", "\t", "|", ":", "~", "^"]),
        "decimal": st.sampled_from([".", ","]),
        "encoding": st.sampled_from(
            ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp1252", "latin-1"]
        ),
        "index": st.booleans(),
        "index_label": st.sampled_from([None, "index", "number", "label_row"]),
        "header": st.sampled_from([True, False]),
        "quoting": st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC, csv.QUOTE_NONE]),
        "quotechar": st.sampled_from(['"', "'", "$"]),
        "escapechar": st.sampled_from([None, "\\"]),
        "doublequote": st.booleans(),
        "na_rep": st.sampled_from(["", "NA", "nan", "-999", "?", "null"]),
        "lineterminator": st.sampled_from(["\n", "\r\n", "\r"]),
        "float_format": st.sampled_from([None, "%.3f", "%.6e", "%10.4f", "%+.3f"]),
        "columns": st.permutations(["client", "label", "time", "x", "y"]),
        "compression": st.sampled_from([None, "gzip", "bz2", "xz", "zip"]),
        "date_format": st.sampled_from([None, "%Y-%m-%dT%H:%M:%S.%f", "%d/%m/%Y %H:%M:%S.%f"]),
    }
)


@MANY
@given(
    options=OPTIONS,
    clients=st.lists(NAMES, min_size=2, max_size=3, unique=True),
    labels=st.lists(LABELS, min_size=2, max_size=3, unique=True),
    dated=st.booleans(),
    holes=st.booleans(),
    seed=st.integers(0, 9),
)
def test_a_table_that_pandas_writes_is_read_equal_or_refused_with_the_setting_that_reads_it(
    tmp_path, options, clients, labels, dated, holes, seed
):
    frame = frame_of(clients, labels, 12, seed, dated)
    if holes:
        frame.loc[[3, 14], ["x"]] = np.nan
    path = tmp_path / "table.csv"
    try:
        frame.to_csv(path, **options)
    except (
        ValueError,
        UnicodeWarning,
        csv.Error,
    ):  # a name that the encoding has not, or that has to be escaped
        assume(False)
    settings_ = needed(frame, options, dated)
    try:
        data = load_own(path, window=WINDOW, stride=2)
    except DataError as error:
        refused = str(error)
        assert "\n" not in refused
        assert any(f"data.{name}" in refused for name in settings_), (refused, options)
        data = load_own(path, window=WINDOW, stride=2, reading=Reading(**settings_))
    assert data.channel_names in (("x", "y"), ("y", "x"))
    if data.channel_names == ("y", "x"):
        data.x[...] = data.x[:, :, ::-1]
    assert windows_of(data) == cut(frame, labels)


def needed(frame, options, dated):
    """The settings that say all that a file's writer knew."""
    columns = [*([options["index_label"] or ""] if options["index"] else []), *options["columns"]]
    found = {
        "separator": options["sep"],
        "decimal": options["decimal"],
        "encoding": options["encoding"].removesuffix("-sig"),
        "unlabelled": (),
        "missing": (options["na_rep"],) if frame.isna().any(axis=None) else (),
        "quote": options["quotechar"],
        "escape": options["escapechar"],
        "columns": Columns(channels=tuple(name for name in columns if name in "xy" and name)),
    }
    if dated and options["date_format"]:
        found["time_format"] = options["date_format"]
    if not options["header"]:
        found["header"] = tuple(name or "index" for name in columns)
    return found


@MANY
@given(
    seed=st.integers(0, 10_000),
    others=st.integers(1, 3),
    blocks=st.booleans(),
)
def test_rows_of_other_clients_change_nothing(tmp_path, seed, others, blocks):
    """Neither how many there are, nor where they stand, nor what they hold."""
    rng = np.random.default_rng(seed)
    own = frame_of(["me"], ["sit", "walk"], 30, seed, dated=False)
    more = frame_of([f"other-{k}" for k in range(others)], ["sit", "walk"], 25, seed + 1, dated=False)
    more = more.iloc[rng.permutation(len(more))] if not blocks else more
    more = more.sort_values(["client", "time"], kind="stable")
    whose = np.repeat(["own", "more"], [len(own), len(more)])
    whose = rng.permutation(whose) if not blocks else whose[::-1] if seed % 2 else whose
    rows = {"own": own.iterrows(), "more": more.iterrows()}
    mixed = pd.DataFrame([next(rows[who])[1] for who in whose])
    mixed.to_csv(tmp_path / "mixed.csv", index=False)
    own.assign(client="me").to_csv(tmp_path / "alone.csv", index=False)
    alone, among = (
        load_own(tmp_path / f"{name}.csv", window=WINDOW, stride=2) for name in ("alone", "mixed")
    )
    mine = among.client == among.client_names.index("me")
    assert np.array_equal(among.x[mine], alone.x)
    assert np.array_equal(among.start[mine], alone.start)
    names = [[data.class_names[k] for k in y] for data, y in ((alone, alone.y), (among, among.y[mine]))]
    assert names[0] == names[1]


@pytest.mark.parametrize("recording", [False, True])
def test_shuffled_rows_are_put_in_the_order_of_their_times(tmp_path, recording):
    """All rows, or those of others alone."""
    frame = frame_of(["ann", "bob", "cyd"], ["sit", "walk"], 30, 0, dated=False)
    if recording:
        frame.insert(0, "recording", frame.client + frame.label)
    frame.to_csv(tmp_path / "plain.csv", index=False)
    mine = frame[frame.client == "bob"]
    others = frame[frame.client != "bob"].sample(frac=1, random_state=1)
    pd.concat([others[:50], mine, others[50:]]).to_csv(tmp_path / "others.csv", index=False)
    frame.sample(frac=1, random_state=2).to_csv(tmp_path / "all.csv", index=False)
    plain = load_own(tmp_path / "plain.csv", window=WINDOW, stride=2)
    for name in ("others", "all"):
        found = load_own(tmp_path / f"{name}.csv", window=WINDOW, stride=2)
        assert windows_of(found) == windows_of(plain)
        assert any("stand in no order, and are put in that of their times" in note for note in found.notes)


def test_a_clock_that_is_set_back_is_no_shuffled_recording(tmp_path):
    frame = frame_of(["ann", "bob"], ["sit", "walk"], 30, 0, dated=False)
    frame.loc[40:59, "time"] -= 100
    frame.to_csv(tmp_path / "table.csv", index=False)
    with pytest.raises(DataError, match="time does not increase, it goes back; sort the rows"):
        load_own(tmp_path / "table.csv", window=WINDOW, stride=2)


@pytest.mark.parametrize("ending", ["gz", "bz2", "xz", "zip"])
def test_a_packed_file_that_breaks_off_says_so(tmp_path, ending):
    frame = frame_of(["ann", "bob"], ["sit", "walk"], 400, 0, dated=False)
    path = tmp_path / f"table.csv.{ending}"
    frame.to_csv(path, index=False)
    assert len(load_own(path, window=WINDOW, stride=2).x) == 4 * 199
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=r"table\.csv\.\w+ (cannot be|ends too early to be) (read|unpacked)"):
        load_own(path, window=WINDOW, stride=2)
