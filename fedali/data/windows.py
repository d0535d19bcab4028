"""Cutting long recordings into windows."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fedali.errors import SettingsError


def check_window(window: int, stride: int) -> None:
    """Raise ``SettingsError`` unless ``window`` and ``stride`` are whole numbers of at least one."""
    for name, value in (("window", window), ("stride", stride)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise SettingsError(f"{name} must be a whole number of raw samples, at least 1; it is {value!r}")


def window_starts(samples: int, window: int, stride: int) -> npt.NDArray[np.int64]:
    """First raw sample of each whole window in a recording of ``samples``.

    >>> window_starts(10, 4, 2)
    array([0, 2, 4, 6])
    >>> window_starts(3, 4, 2)
    array([], dtype=int64)
    """
    return np.arange(0, samples - window + 1, stride, dtype=np.int64)


def cut_windows(signal: npt.NDArray[Any], window: int, stride: int) -> npt.NDArray[Any]:
    """Whole windows [n, window, c] of one recording ``signal`` [t, c]; an incomplete end is left out.

    >>> cut_windows(np.arange(5.0)[:, None], 3, 2)[:, :, 0]
    array([[0., 1., 2.],
           [2., 3., 4.]])
    """
    starts = window_starts(len(signal), window, stride)
    windows: npt.NDArray[Any] = signal[starts[:, None] + np.arange(window)]
    return windows
