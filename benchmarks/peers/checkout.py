"""Where the peer's code is: a checkout that the user names, or one that is brought here; nothing of it is part of FedAli."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from fedali.errors import FedaliError

ADDRESS = "https://github.com/TsingZ0/PFLlib"
COMMIT = "d832e76f6a23b833038949ec1e4fdefe63a4d350"
FOLDER = Path(__file__).parent.parent.parent / ".peers" / "PFLlib"
GIVEN = "FEDALI_PEERS"
"""Environment variable: a checkout of the peer."""

# Imported by its servers, to write results and to mix heads in FedPAC: neither is done here.
_UNUSED = ("h5py", "cvxpy")


def find_peer(
    environment: Mapping[str, str] = os.environ, folder: Path = FOLDER, address: str = ADDRESS
) -> Path:
    """The folder of the peer's checkout; it is brought to ``folder`` where there is none.

    Raises ``FedaliError`` when it cannot be had, or is another commit.
    """
    given = environment.get(GIVEN)
    place = Path(given).expanduser() if given else folder
    if not given and not place.exists():
        _bring(place, address)
    if not (place / "system" / "flcore").is_dir():
        source = f"{GIVEN} is {given}" if given else str(place)
        raise FedaliError(f"{source}: no checkout of PFLlib, there is no system/flcore in it")
    found = _git("rev-parse", "HEAD", within=place)
    if found != COMMIT:
        raise FedaliError(
            f"{place} is PFLlib at {found[:7]}, and the table is of {COMMIT[:7]}: git -C {place} checkout {COMMIT[:7]}"
        )
    return place


def _bring(place: Path, address: str) -> None:
    """Its code at the one commit, complete or not at all."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent) as folder:
        made = Path(folder) / "made"
        try:
            _git("clone", "--quiet", "--filter=blob:none", "--sparse", "--no-checkout", address, str(made))
            _git("sparse-checkout", "set", "system", within=made)  # its data sets stay away
            _git("checkout", "--quiet", COMMIT, within=made)
        except FedaliError as error:
            raise FedaliError(
                f"PFLlib is not here and cannot be had ({error}): give a checkout of {ADDRESS} at {COMMIT[:7]} by {GIVEN}=FOLDER"
            ) from None
        made.rename(place)


def _git(*words: str, within: Path | None = None) -> str:
    where = ("-C", str(within)) if within else ()
    try:
        done = subprocess.run(("git", *where, *words), capture_output=True, text=True, check=True)
    except FileNotFoundError:
        raise FedaliError("there is no git") from None
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines() or [f"git {words[0]} failed"]
        raise FedaliError(lines[0]) from None
    return done.stdout.strip()


class Absent(ModuleType):
    """Stands for a package that the peer imports and that is not used here."""

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        raise FedaliError(f"PFLlib asks for {self.__name__}.{name}: install {self.__name__} for it")


def open_peer(place: Path) -> None:
    """Let ``flcore`` and ``utils`` be imported from the peer's checkout."""
    for name in _UNUSED:
        try:
            __import__(name)
        except ModuleNotFoundError:
            sys.modules[name] = Absent(name)
    sys.path.insert(0, str(place / "system"))


def peer_module(name: str) -> Any:
    """A module of the peer, ``flcore.servers.serveravg`` for example."""
    from importlib import import_module

    return import_module(name)
