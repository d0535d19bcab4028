"""Reading .npz files from outside, without ever unpickling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedali.errors import DataError


def read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """All arrays of a .npz by name.

    Raises ``DataError`` when it cannot be read, or holds Python objects, which only unpickling could read.
    """
    arrays: dict[str, npt.NDArray[Any]] = {}
    name = ""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            for name in archive.files:
                arrays[name] = archive[name]
    except Exception as error:  # numpy lets through whatever zipfile, zlib or its header parser raise
        if name and "allow_pickle" in str(error):
            raise DataError(
                f"{path}: array {name!r} holds Python objects, which are refused because reading them can run code; "
                "save plain numbers or strings (samples of equal shape)"
            ) from error
        raise DataError(
            f"{path} is broken and cannot be read as .npz ({type(error).__name__}); fetch or save it again"
        ) from error
    return arrays
