"""Axes of the user's own .npz: by the setting, where they are certain with a note, and refused where they are not."""

from __future__ import annotations

import numpy as np
import pytest

from fedali.data import Reading, load_own
from fedali.errors import DataError, SettingsError


def load(tmp_path, shape, dtype=np.float32, layout=None, **more):
    x = np.random.default_rng(0).integers(0, 200, (12, *shape)).astype(dtype)
    np.savez(tmp_path / "own.npz", x=x, y=np.arange(12) % 3, client=np.arange(12) // 6, **more)
    return x, load_own(tmp_path / "own.npz", reading=Reading(layout=layout))


def named(count):
    return {"channel_names": np.array([f"c{k}" for k in range(count)])}


@pytest.mark.parametrize(
    ("shape", "layout", "order"),
    [
        ((10, 12, 3), "hwc", (0, 3, 1, 2)),
        ((12, 12, 12), "hwc", (0, 3, 1, 2)),
        ((12, 12, 12), "chw", (0, 1, 2, 3)),
        ((10, 12, 6), "chw", (0, 1, 2, 3)),
        ((6, 40), "ct", (0, 2, 1)),
        ((6, 40), "tc", (0, 1, 2)),
        ((12, 12), "ct", (0, 2, 1)),
    ],
)
def test_a_setting_says_what_axes_are(tmp_path, shape, layout, order):
    x, data = load(tmp_path, shape, layout=layout)
    assert np.array_equal(data.x, x.transpose(order))
    assert not data.notes


def test_grey_images_get_an_axis_for_their_channel(tmp_path):
    x, data = load(tmp_path, (12, 10), layout="hw")
    assert np.array_equal(data.x, x[:, None])
    assert data.channel_names == ("channel-1",)


@pytest.mark.parametrize(
    ("shape", "dtype", "names", "order", "said"),
    [
        ((16, 16, 3), np.uint8, None, (0, 3, 1, 2), "images of 16 x 16 with 3 channels"),
        ((24, 32, 3), np.float32, None, (0, 3, 1, 2), "images of 24 x 32 with 3 channels"),
        ((28, 28, 1), np.float32, None, (0, 3, 1, 2), "images of 28 x 28 with 1 channel:"),
        ((6, 5, 2), np.float32, 2, (0, 3, 1, 2), "images of 6 x 5 with 2 channels"),
        ((6, 40), np.float32, 6, (0, 2, 1), "windows of 40 with 6 channels"),
        ((1, 40), np.float32, None, (0, 2, 1), "windows of 40 with 1 channel:"),
        ((40, 33), np.float32, None, (0, 1, 2), "windows of 40 with 33 channels"),
        ((12, 33, 65), np.float32, None, (0, 1, 2, 3), "images of 33 x 65 with 12 channels"),
    ],
)
def test_what_is_certain_is_taken_and_said(tmp_path, shape, dtype, names, order, said):
    x, data = load(tmp_path, shape, dtype, **(named(names) if names else {}))
    assert np.array_equal(data.x, x.transpose(order))
    assert len(data.notes) == 1
    assert said in data.notes[0]


def test_grey_pictures_are_certain_by_their_bytes(tmp_path):
    x, data = load(tmp_path, (16, 16), np.uint8)
    assert np.array_equal(data.x, x[:, None])
    assert "images of 16 x 16 with 1 channel: [height, width], grey" in data.notes[0]


@pytest.mark.parametrize(
    ("shape", "names"), [((40, 6), None), ((40, 6), 6), ((3, 10, 12), None), ((6, 40), 40), ((1, 8, 8), None)]
)
def test_what_was_right_stays_as_it_is_without_a_word(tmp_path, shape, names):
    x, data = load(tmp_path, shape, **(named(names) if names else {}))
    assert np.array_equal(data.x, x)
    assert not data.notes


@pytest.mark.parametrize(
    ("shape", "dtype", "line"),
    [
        (
            (6, 40),
            np.float32,
            "windows of 6 with 40 channels, or windows of 40 with 6 channels; say which: data.layout = "
            '"tc" for [time, channels] or "ct" for [channels, time]',
        ),
        (
            (28, 28),
            np.float32,
            'windows of 28 with 28 channels, or images of 28 x 28 with 1 channel; say which: data.layout = "tc" for '
            '[time, channels] or "ct" for [channels, time] or "hw" for [height, width], grey',
        ),
        ((32, 24), np.uint8, "windows of 32 with 24 channels, or images of 32 x 24 with 1 channel"),
        ((12, 12, 6), np.float32, "images of 12 x 12 with 6 channels, or images of 12 x 6 with 12 channels"),
        ((6, 7, 3), np.float32, '"hwc" for [height, width, channels] or "chw" for [channels, height, width]'),
    ],
)
def test_what_is_not_certain_is_refused_with_the_setting_that_reads_it(tmp_path, shape, dtype, line):
    with pytest.raises(DataError) as error:
        load(tmp_path, shape, dtype)
    assert line in str(error.value)
    assert f"own.npz: x has shape [12, {', '.join(map(str, shape))}]" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_layout_that_does_not_fit_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"data.layout is 'hwc', \[height, width, channels\] of each sample"):
        load(tmp_path, (40, 6), layout="hwc")
    with pytest.raises(DataError, match=r"leave data\.layout away"):
        load(tmp_path, (40,), layout="tc")
    with pytest.raises(SettingsError, match=r"data.layout is 'whc'; did you mean 'hwc'\?"):
        Reading(layout="whc")


def test_missing_values_and_recordings_go_by_the_axes_as_stored(tmp_path):
    x = np.random.default_rng(0).normal(size=(12, 3, 40))
    x[4, 1, 7] = -999
    more = {"recording": np.zeros(12, int), "start": np.arange(12) * 20}
    np.savez(tmp_path / "own.npz", x=x, y=np.arange(12) % 3, client=np.zeros(12, int), **more)
    with pytest.raises(DataError, match="column 'channel-2' holds -999 1 times"):
        load_own(tmp_path / "own.npz", reading=Reading(layout="ct"))
    data = load_own(tmp_path / "own.npz", reading=Reading(layout="ct", missing=("-999",)))
    assert (data.length, data.x.shape) == (40, (11, 40, 3))
