"""Data that a function of the user's gives, by its name."""

from __future__ import annotations

import numpy as np
import pytest

from fedali.data.sources.named import absolute_source, load_named
from fedali.errors import DataError, SettingsError

FILE = """
import numpy as np
from beside import CLIENTS


def load(samples=40):
    x = np.arange(samples * 3, dtype=np.float32).reshape(samples, 3)
    return x, np.arange(samples) % 2, np.arange(samples) % CLIENTS


def fails():
    raise KeyError("sensor")


other = 5
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "given_here.py").write_text(FILE)
    (tmp_path / "beside.py").write_text("CLIENTS = 4\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_a_function_of_the_current_folder_or_by_its_path(folder):
    by_name = load_named("given_here:load", options={"samples": 20})
    by_path = load_named(f"{folder}/given_here.py:load")
    assert (len(by_name.x), len(by_path.x)) == (20, 40)
    assert by_name.client_names == ("0", "1", "2", "3")
    assert absolute_source("given_here:load") == f"{folder}/given_here.py:load"
    assert np.array_equal(load_named(absolute_source("given_here:load")).x, by_path.x)


@pytest.mark.parametrize(
    ("source", "settings", "kind", "message"),
    [
        ("given_here:fails", {}, DataError, "'given_here:fails' failed: KeyError: 'sensor'"),
        ("given_here:other", {}, SettingsError, "'given_here:other' is int, and no function"),
        ("given_here:lod", {}, SettingsError, "module 'given_here' has no 'lod'"),
        ("nowhere.py:load", {}, SettingsError, "there is no file nowhere.py"),
        ("given_here:load", {"options": {"size": 1}}, SettingsError, "cannot be called with data.options"),
        ("given_here:load", {"window": 32}, SettingsError, "is not cut by data.window"),
        ("digits", {"options": {"size": 1}}, SettingsError, "data.options does nothing with digits"),
    ],
)
def test_what_is_wrong_with_it_is_said(folder, source, settings, kind, message):
    with pytest.raises(kind) as caught:
        load_named(source, **settings)
    assert message in str(caught.value)
