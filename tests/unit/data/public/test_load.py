import hashlib
from dataclasses import replace

import numpy as np
import pytest

from fedali.data import Reading, load_public
from fedali.data.sources.named import SOURCES, absolute_source, known_schema, load_named
from fedali.data.sources.public import hapt, kept, pamap2
from fedali.data.sources.public.load import PUBLIC, facts_of
from fedali.data.sources.reading import Columns
from fedali.data.split import split
from fedali.errors import DataError, SettingsError
from fedali.schema import Schema
from tests.unit.data.public import test_hapt, test_hhar, test_pamap2
from tests.unit.data.public.forms import put, same, zipped


def pamap2_files():
    return test_pamap2.files({101: test_pamap2.table(101), 102: test_pamap2.table(102)})


def test_a_set_lies_in_the_folder_that_the_environment_names(tmp_path, monkeypatch):
    plain = load_public("pamap2", put(tmp_path / "a", pamap2_files(), "unpacked"), window=20, stride=10)
    monkeypatch.setenv("FEDALI_DATA", str(tmp_path / "b"))
    for name in ("pamap2.zip", "PAMAP2_Dataset.zip", "pamap2+physical+activity+monitoring.zip"):
        path = put(tmp_path / "b", pamap2_files(), "as downloaded", name)
        assert same(load_public("pamap2", window=20, stride=10), plain)
        path.unlink()
    put(tmp_path / "b", pamap2_files(), "outer unpacked").rename(tmp_path / "b" / "pamap2")
    assert same(load_public("pamap2", window=20, stride=10), plain)
    monkeypatch.setenv("FEDALI_DATA", str(tmp_path / "c"))
    with pytest.raises(
        DataError, match=r"c \(FEDALI_DATA\) holds neither pamap2/ nor PAMAP2_Dataset\.zip nor"
    ):
        load_public("pamap2")
    with pytest.raises(
        DataError, match=r"none\.zip does not exist; get PAMAP2_Dataset\.zip from https://archive"
    ):
        load_public("pamap2", tmp_path / "none.zip")


def test_a_set_is_downloaded_once(tmp_path, serve):
    server = serve(zipped(pamap2_files()), break_after=[1000])
    first = load_public("pamap2", cache=tmp_path, url=server.url, window=20, stride=10)
    asked = len(server.asked)
    again = load_public("pamap2", cache=tmp_path, url=server.url, window=20, stride=10)
    assert same(first, again)
    assert len(server.asked) == asked == 2
    assert f"downloaded from {server.url}; no checksum of it is known, and it is not verified" in first.notes
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "pamap2.zip"]


def test_another_download_than_the_known_one_is_refused(tmp_path, serve, monkeypatch):
    content = zipped(test_hapt.files())
    with pytest.raises(
        DataError,
        match=rf"refused and removed what http.* its SHA-256 is {hashlib.sha256(content).hexdigest()}, not 4ac4",
    ):
        load_public("hapt", cache=tmp_path, url=serve(content).url)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    known = replace(hapt.FACTS, sha256=hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(hapt, "FACTS", known)
    url = serve(content).url
    data = load_public("hapt", cache=tmp_path, url=url, window=20, stride=10)
    assert f"downloaded from {url}" in data.notes
    assert len(data.y) == 17


def test_a_download_that_is_too_large_or_fails_says_what_else_to_do(tmp_path, serve, monkeypatch):
    monkeypatch.setattr(pamap2, "FACTS", replace(pamap2.FACTS, most_bytes=100))
    with pytest.raises(
        DataError, match=r"larger than the 100 bytes.*; or get PAMAP2_Dataset\.zip from https://arch"
    ):
        load_public("pamap2", cache=tmp_path, url=serve(zipped(pamap2_files())).url)


def test_a_source_is_named_with_or_without_a_path(tmp_path, monkeypatch):
    path = put(tmp_path, pamap2_files(), "as downloaded")
    data = load_named(f"pamap2:{path}", window=20, stride=10, subjects=[102], seed=1)
    assert data.client_names == ("subject-102",)
    reading = Reading(columns=Columns(channels=("hand_acc_x", "hand_acc_y")), gap=5)
    assert load_named(f"pamap2:{path}", window=20, reading=reading).x.shape[1:] == (20, 2)
    monkeypatch.chdir(tmp_path)
    assert absolute_source("pamap2:set.zip") == f"pamap2:{path}"
    assert absolute_source("set.zip") == str(path)
    assert absolute_source("hapt") == "hapt"
    with pytest.raises(
        SettingsError, match=r"data\.source 'pamap' is no file or folder; did you mean 'pamap2'"
    ):
        load_named("pamap")


@pytest.mark.parametrize(
    ("source", "settings", "said"),
    [
        (
            "pamap2",
            {"reading": Reading(separator=";")},
            r"data\.separator is for own data, and does nothing with pamap2",
        ),
        (
            "pamap2",
            {"reading": Reading(columns=Columns(label="y"))},
            r"data\.columns, but for data\.columns\.channels,",
        ),
        (
            "motionsense",
            {"reading": Reading(gap=5)},
            r"data\.gap is for own data, and does nothing with motionsense",
        ),
        ("motionsense", {"window": 64}, r"motionsense is not cut by data\.window and data\.stride"),
        ("motionsense", {"devices": ["phone"]}, r"data\.devices does nothing with motionsense"),
        ("motionsense", {"subjects": ["a"]}, "no such MotionSense subjects: a"),
        ("digits", {"subjects": [1]}, r"data\.subjects does nothing with digits"),
        ("pamap2", {"devices": ["hand"]}, r"data\.devices: pamap2 has no devices to choose from"),
        ("hapt", {"clients": "devices"}, r"data\.clients: hapt has no devices to choose from"),
        ("hapt", {"subjects": [31]}, r"data\.subjects: hapt has no '31'; "),
        ("hapt", {"subjects": []}, r"data\.subjects is empty; choose from 1\.\.30"),
        ("hapt", {"windows_per_client": 0}, "windows_per_client must be at least 1"),
    ],
)
def test_a_setting_that_would_do_nothing_is_refused(tmp_path, source, settings, said):
    path = put(tmp_path, test_hapt.files(), "unpacked")
    with pytest.raises(SettingsError, match=said):
        load_named(source if source == "digits" else f"{source}:{path}", **{"window": 128} | settings)


def test_a_choice_of_windows_depends_on_seed_and_client_alone(tmp_path):
    path = put(tmp_path, pamap2_files(), "as downloaded")

    def chosen(**settings):
        data = load_public("pamap2", path, window=20, stride=10, windows_per_client=4, **settings)
        return data, data.start[data.client == len(data.client_names) - 1].tolist()

    both, starts = chosen(seed=3)
    assert np.bincount(both.client).tolist() == [4, 4]
    assert chosen(seed=3, subjects=[102])[1] == starts
    assert any(chosen(seed=seed)[1] != starts for seed in range(4, 9))


def test_a_large_set_is_cut_once_until_a_file_or_a_setting_changes(tmp_path, monkeypatch):
    path = put(tmp_path, pamap2_files(), "unpacked")
    cache, read, true = tmp_path / "cache", [], pamap2.read
    monkeypatch.setattr(pamap2, "read", lambda *what: (read.append(1), true(*what)))

    def load(**settings):
        found = load_public("pamap2", path, cache=cache, **{"window": 20, "stride": 10} | settings)
        return found, len(read)

    plain, _ = load()
    assert not cache.exists()
    monkeypatch.setattr(kept, "LARGE", 0)
    first, again = load(), load()
    assert (first[1], again[1]) == (2, 2)
    assert same(plain, first[0])
    assert same(plain, again[0])
    assert again[0].notes == plain.notes
    assert load(stride=5)[1] == 3
    assert load(subjects=[102])[1] == 4
    assert load(subjects=[102], windows_per_client=3)[1] == 4
    for file in (cache / "cut").iterdir():
        file.write_bytes(file.read_bytes()[:500])
    assert load()[1] == 5
    file = path / "PAMAP2_Dataset" / "Protocol" / "subject102.dat"
    file.write_text(file.read_text().replace(" 24 ", " 0 "))
    changed, count = load()
    assert count == 6
    assert len(changed.y) < len(plain.y)
    for stride in range(11, 17):
        load(stride=stride)
    assert len(list((cache / "cut").iterdir())) == 4


@pytest.mark.parametrize("name", PUBLIC)
def test_what_is_known_without_data_makes_sense(name):
    facts = facts_of(name)
    assert name in SOURCES
    assert facts.name == name
    assert len(facts.units) == len(facts.channels) == len(set(facts.channels))
    assert set(facts.usual) <= set(facts.channels)
    assert len(set(facts.people)) == len(facts.people)
    assert len(set(facts.classes)) == len(facts.classes)
    assert facts.citation
    assert facts.licence
    assert facts.home.startswith("https://")
    assert facts.url is None or ("CC BY 4.0" in facts.licence and facts.most_bytes)


def test_its_schema_is_known_without_its_data(tmp_path):
    data = load_public("pamap2", put(tmp_path, pamap2_files(), "unpacked"), window=20, stride=10)
    known = known_schema("pamap2", 20)
    found = Schema.of(data, rate=100.0)
    assert (known.shape, known.classes, known.channels) == (found.shape, found.classes, found.channels)
    assert known.units[:7] == ("m/s²",) * 3 + ("rad/s",) * 3 + ("µT",)
    assert known.rate == 100
    assert known_schema("mine.csv") is None
    assert (data.interval, data.stride) == (0.01, 10)
    with pytest.raises(SettingsError, match="uci-har comes in windows of 128, not 20"):
        known_schema("uci-har", 20)


def test_no_split_has_one_moment_in_two_parts_though_devices_saw_it(tmp_path):
    data = load_public("hhar", put(tmp_path, test_hhar.files(), "unpacked"), window=10, stride=5)
    for client in range(2):
        rows = np.flatnonzero(data.client == client)
        recording, start = data.recording[rows], data.start[rows]
        parts = split(data.y[rows], recording, start, data.length, fractions=(0.5, 0.0, 0.5))
        apart = [
            abs(int(start[one]) - int(start[other]))
            for one in parts.train
            for other in parts.test
            if recording[one] == recording[other]
        ]
        assert apart
        assert min(apart) >= data.length
        assert len(parts.train)
        assert len(np.unique(start[parts.train])) < len(parts.train)
