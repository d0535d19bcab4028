"""A public data set by its name: found where the user has it, or downloaded; read; people and windows chosen."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Literal

import numpy as np

from fedali.data.dataset import Dataset
from fedali.data.sources.download import Progress, download, locked
from fedali.data.sources.public.archive import Tree
from fedali.data.sources.public.cutting import Cutter
from fedali.data.sources.public.facts import PublicSet, Wanted, wanted
from fedali.data.sources.public.kept import kept
from fedali.data.sources.reading import GAP
from fedali.data.windows import check_window
from fedali.errors import DataError, SettingsError
from fedali.schema import Schema
from fedali.support.places import cache_folder

_HOMES = {  # module, and the name of the facts in it
    "uci-har": ("uci_har", "FACTS"),
    "hapt": ("hapt", "FACTS"),
    "wisdm-2011": ("wisdm_2011", "FACTS"),
    "wisdm-2019": ("wisdm_2019", "FACTS"),
    "pamap2": ("pamap2", "FACTS"),
    "hhar": ("hhar", "FACTS"),
    "realworld": ("realworld", "FACTS"),
    "opportunity": ("opportunity", "FACTS"),
    "opportunity-gestures": ("opportunity", "GESTURES"),
}
PUBLIC = tuple(_HOMES)
Clients = Literal["people", "devices"]
_ENDINGS = ("", ".zip", ".tar.gz", ".tgz", ".tar")
_Reader = Callable[[Tree, Wanted, Cutter], None]


def facts_of(name: str) -> PublicSet:
    """What is known of a set without its data."""
    return _home(name)[0]


def schema_of(name: str, window: int) -> Schema:
    """What samples of a set are, with its usual channels, without its data; ``SettingsError`` for windows that it does not have."""
    facts = facts_of(name)
    if facts.window is not None and window != facts.window[0]:
        raise SettingsError(
            f"{name} comes in windows of {facts.window[0]}, not {window}: leave the window out"
        )
    units = tuple(facts.units[facts.channels.index(channel)] for channel in facts.usual)
    return Schema(name, (window, len(facts.usual)), facts.classes, facts.usual, units, rate=facts.rate)


def load_public(
    name: str,
    path: Path | None = None,
    *,
    window: int = 128,
    stride: int = 64,
    gap: float = GAP,
    channels: Sequence[str] | None = None,
    subjects: Sequence[int | str] | None = None,
    devices: Sequence[str] | None = None,
    clients: Clients = "people",
    windows_per_client: int | None = None,
    seed: int = 0,
    cache: Path | None = None,
    url: str | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """A public data set, one of ``PUBLIC``, one client per person: ``x`` [N, window, channels] float32.

    Looked for at ``path``, a folder or an archive as downloaded; without it, in the folder that the environment variable
    ``FEDALI_DATA`` names; without either, in ``cache`` (the user's cache folder), where it is downloaded to if its licence and address allow
    that. Windows never cross a recording, an activity, a hole, or a pause longer than ``gap`` samples. ``channels``,
    ``subjects`` and ``devices`` choose, see ``facts_of``; with ``clients="devices"`` each person with each device is a client.
    ``windows_per_client`` keeps a random subset, drawn from ``seed`` and the client alone. Notes say what is left out.

    Raises ``DataError`` for data that are missing or broken, ``SettingsError`` for a choice that the set does not have, and
    ``MissingExtraError`` without requests or platformdirs when they are needed.
    """
    facts, read = _home(name)
    check_window(window, stride)
    if facts.window is not None and facts.window != (window, stride):
        raise SettingsError(
            f"{name} comes in windows of {facts.window[0]} every {facts.window[1]} samples, not {window} every {stride}: leave "
            "data.window and data.stride out"
        )
    if windows_per_client is not None and windows_per_client < 1:
        raise SettingsError(f"windows_per_client must be at least 1, not {windows_per_client}")
    choice = wanted(
        facts,
        subjects=subjects,
        channels=channels,
        devices=devices,
        by_device=clients == "devices",
        gap=gap,
    )
    found, notes = _find(facts, path, cache, url or facts.url, progress)

    def cut() -> Dataset:
        cutter = Cutter(choice, window, stride)
        with Tree(found, facts.get) as tree:
            read(tree, choice, cutter)
        return cutter.dataset(notes)

    return fewer(kept(found, choice, window, stride, cache, cut), windows_per_client, seed)


def fewer(dataset: Dataset, windows_per_client: int | None, seed: int) -> Dataset:
    """A random choice of so many windows of each client, drawn from ``seed`` and the client's name alone."""
    if windows_per_client is None:
        return dataset
    chosen = []
    for place, client in enumerate(dataset.client_names):
        rows = np.flatnonzero(dataset.client == place)
        if windows_per_client < len(rows):
            known = int.from_bytes(hashlib.sha256(client.encode()).digest()[:8], "little")
            rng = np.random.default_rng(np.random.SeedSequence([seed, known]))
            rows = rng.choice(rows, windows_per_client, replace=False)
        chosen.append(rows)
    return dataset.take(np.sort(np.concatenate(chosen)))


def _home(name: str) -> tuple[PublicSet, _Reader]:
    module, constant = _HOMES[name]
    home = import_module(f"fedali.data.sources.public.{module}")
    facts: PublicSet = getattr(home, constant)
    read: _Reader = home.read
    return facts, read


def _find(
    facts: PublicSet, path: Path | None, cache: Path | None, url: str | None, progress: Progress | None
) -> tuple[Path, tuple[str, ...]]:
    """Where the data are, and what has to be said about it."""
    if path is not None:
        return path, ()
    base, stem = os.environ.get("FEDALI_DATA"), facts.name.removesuffix("-gestures")
    if base:
        names = (*(f"{stem}{ending}" for ending in _ENDINGS), *facts.archives)
        here = next((Path(base) / name for name in names if (Path(base) / name).exists()), None)
        if here is None:
            raise DataError(
                f"{base} (FEDALI_DATA) holds neither {stem}/ nor {' nor '.join(facts.archives)}; {facts.get}"
            )
        return here, ()
    if url is None:
        raise DataError(
            f"{facts.name} is not downloaded, as its licence is {facts.licence}: {facts.get}, or set FEDALI_DATA to the folder it lies in"
        )
    cache = Path(cache) if cache is not None else cache_folder("")
    archive = cache / f"{stem}.zip"
    with locked(cache):
        if not archive.exists():
            _download(facts, url, archive, progress)
    checked = "" if facts.sha256 else "; no checksum of it is known, and it is not verified"
    return archive, (f"downloaded from {url}{checked}",)


def _download(facts: PublicSet, url: str, archive: Path, progress: Progress | None) -> None:
    """Fetch the archive; it has its name when it is whole, and the known one where a checksum of that is known."""
    fresh = archive.with_name(f"{archive.name}.new")
    try:
        if not fresh.exists():
            download(url, fresh, max_bytes=facts.most_bytes, progress=progress)
    except DataError as error:
        raise DataError(f"{error}; or {facts.get}") from error
    known = hashlib.sha256()
    with fresh.open("rb") as stream:
        while block := stream.read(1 << 20):
            known.update(block)
    if facts.sha256 not in (None, known.hexdigest()):
        fresh.unlink()
        raise DataError(
            f"refused and removed what {url} sent: its SHA-256 is {known.hexdigest()}, not {facts.sha256}; try again, or {facts.get}"
        )
    fresh.replace(archive)
