"""Reading .npz files from outside, without ever unpickling."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedali.errors import DataError
from fedali.support.memory import free_memory

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0}


def read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """All arrays of a .npz by name.

    Raises ``DataError`` when it cannot be read, is larger than the memory that is free, or holds Python objects, which only unpickling
    could read.
    """
    _check_size(path)
    arrays: dict[str, npt.NDArray[Any]] = {}
    name = ""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            for name in archive.files:
                if isinstance(array := archive[name], np.ndarray):  # other files in a zip are bytes
                    arrays[name] = array
    except MemoryError:
        raise _too_large(path, f"array {name!r}" if name else "it", None) from None
    except Exception as error:  # numpy lets through whatever zipfile, zlib or its header parser raise
        if name and "allow_pickle" in str(error):
            raise DataError(
                f"{path}: array {name!r} holds Python objects, which are refused because reading them can run code; "
                "save plain numbers or strings (samples of equal shape)"
            ) from error
        raise _broken(path, error) from error
    return arrays


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of all arrays of a .npz by name, without reading the arrays. Raises ``DataError`` as ``read_arrays`` does."""
    shapes: dict[str, tuple[int, ...]] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.namelist():
                with archive.open(entry) as stream:
                    version = np.lib.format.read_magic(stream)
                    read = _HEADERS.get(version, np.lib.format.read_array_header_2_0)
                    shapes[entry.removesuffix(".npy")] = read(stream)[0]
    except Exception as error:  # see read_arrays
        raise _broken(path, error) from error
    return shapes


def _check_size(path: Path) -> None:
    """Raise ``DataError`` where the arrays need more memory than there is. What cannot be looked at is for who reads it."""
    try:
        with zipfile.ZipFile(path) as archive:
            need = sum(entry.file_size for entry in archive.infolist())
    except (OSError, ValueError, zipfile.BadZipFile):
        return
    free = free_memory()
    if free is not None and need > free:
        raise _too_large(path, f"{need / 1e9:.2g} GB of arrays", free)


def _too_large(path: Path, what: str, free: int | None) -> DataError:
    have = "" if free is None else f", of which {free / 1e9:.2g} GB are free"
    return DataError(
        f"{path}: {what} do not fit in this machine's memory{have}; use fewer samples, or a smaller "
        "type such as float16 or int16"
    )


def _broken(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path} is broken and cannot be read as .npz ({type(error).__name__}); fetch or save it again"
    )
