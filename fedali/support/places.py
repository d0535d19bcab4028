"""Where things are kept that nobody gave a place: below the user's home folder, or where there is none, or none to write to, elsewhere."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from functools import lru_cache
from pathlib import Path

from fedali.errors import FedaliError, MissingExtraError, SettingsError

CACHE = "FEDALI_CACHE"
"""Environment variable: the folder for what is made once and can be made again."""


def user_path(path: Path | str, option: str = "") -> Path:
    """``path`` with ``~`` replaced. Raises ``SettingsError`` where this user has no home folder; it names the ``option`` that gives a place.

    >>> user_path("a/b") == Path("a/b")
    True
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        instead = f"give one with {option}" if option else "give a path without ~"
        raise SettingsError(f"{path}: this user has no home folder; {instead}") from None


def cache_folder(name: str) -> Path:
    """The folder ``name`` for what is made once: in ``$FEDALI_CACHE``, else in the user's cache folder, else a temporary one of this user's.

    The last is said, once. The folder is there, and may be written to.

    Raises ``FedaliError`` when there is no such place.
    """
    return _folder(os.environ.get(CACHE) or "") / name


def place_matplotlib() -> None:
    """Give matplotlib, before it is imported, a folder where the user's own cannot be written; it would make one anew each time."""
    if "MPLCONFIGDIR" not in os.environ and CACHE in os.environ:
        os.environ["MPLCONFIGDIR"] = str(cache_folder("matplotlib"))


@lru_cache(maxsize=4)
def _folder(given: str) -> Path:
    if given:
        path = user_path(given, CACHE)
        why = _unusable(path)
        if why:
            raise SettingsError(f"{CACHE} is {given}: {why}; set it to a folder that can be written")
        return path.absolute()
    try:
        from platformdirs import user_cache_path
    except ModuleNotFoundError as error:
        raise MissingExtraError("platformdirs", "sim") from error
    try:
        path = user_cache_path("fedali")
        why = _unusable(path)
    except RuntimeError:
        path, why = Path("~"), "this user has no home folder"
    if not why:
        return path
    other = Path(tempfile.gettempdir()) / f"fedali-{os.getuid()}"
    if _unusable(other) or not _ours(other):
        raise FedaliError(
            f"no cache folder: {path}: {why}, and {other} is no folder of this user's; set {CACHE}=DIR"
        )
    os.environ[CACHE] = str(other)  # of the processes that this one starts, too: it is said once
    sys.stderr.write(f"fedali: no cache in {path}: {why}; using {other}. {CACHE}=DIR gives another place\n")
    return other


def _unusable(folder: Path) -> str:
    """Why nothing can be written to ``folder``, which is made; empty where it can."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return error.strerror or str(error)


def _ours(folder: Path) -> bool:
    """Whether nobody else can put something there: what is in it is run."""
    facts = folder.lstat()
    return stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.getuid() and not facts.st_mode & 0o022
