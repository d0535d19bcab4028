"""A site's data from a function of its owner, in the place of files: called once, when the site starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import structlog

from fedali.bundle.manifest import Manifest
from fedali.data.dataset import Dataset
from fedali.data.device import PARTS, SHARES, Pair
from fedali.data.samples import check_labels, check_samples, named_labels
from fedali.data.sources.functions import load_function
from fedali.data.split import Split, split
from fedali.errors import DataError, did_you_mean

log = structlog.get_logger("fedali.site")


@dataclass(frozen=True, eq=False)
class GivenClient:
    """A client's samples; it is to a round what ``fedali_server.site.files.ClientFiles`` is.

    Args:
        name: of its device.
        dataset: of all clients, by the names of their devices.
        parts: rows of ``dataset`` for training, validation and tests; None where nothing is of this device.
    """

    name: str
    dataset: Dataset
    parts: Split | None

    @property
    def there(self) -> bool:
        """Whether the client has data here."""
        return self.parts is not None

    def stamp(self) -> tuple[str, int, int]:
        """The same for as long as the site runs."""
        return "", 0, 0 if self.parts is None else len(self.parts.train)

    def train(self, manifest: Manifest) -> Pair:
        """As ``ClientFiles.train``."""
        found = self._part("train", manifest)
        if found is None:
            raise DataError(f"{self.name} has nothing to train on")
        return found

    def validation(self, manifest: Manifest) -> Pair | None:
        """As ``train``; None where there are none."""
        return self._part("validation", manifest)

    def test(self, manifest: Manifest) -> Pair | None:
        """As ``train``; None where there are none."""
        return self._part("test", manifest)

    def _part(self, part: str, manifest: Manifest) -> Pair | None:
        rows = np.empty(0, np.int64) if self.parts is None else getattr(self.parts, part)
        if not len(rows):
            return None
        x = check_samples(self.dataset.x[rows], manifest.input_shape, f"{self.name}: x")
        called, where = self.dataset.class_names, f"{self.name}: y"
        numbers = all(map(str.isdecimal, called))  # which may be names of classes, or their places
        labels = [int(called[k]) if numbers else called[k] for k in self.dataset.y[rows].tolist()]
        named = named_labels(labels, manifest.classes, where)
        return x, check_labels(np.array(named), manifest.classes, len(rows), where)


def open_function(source: str, names: Sequence[str]) -> dict[str, GivenClient]:
    """The clients that a function gives, of the devices ``names``, by those; what is of nobody is warned of.

    What it does not divide into parts is split by class, in its order. Raises ``DataError`` or ``SettingsError`` where it fails, or gives
    data of no device.
    """
    dataset = load_function(source, {})  # of classes: what a federation learns is known with its bundle
    strangers = [name for name in dataset.client_names if name not in names]
    if len(strangers) == len(dataset.client_names):
        raise DataError(
            f"--data {source} gives data of no device of this site; it has {strangers[0]!r} ({did_you_mean(strangers[0], names)})"
        )
    if strangers:
        log.warning(
            "data of no device of this site are not used", data=source, names=", ".join(strangers[:3])
        )
    found = {name: GivenClient(name, dataset, None) for name in names}
    for place, name in enumerate(dataset.client_names):
        if name in found:
            found[name] = GivenClient(name, dataset, _parts(dataset, np.flatnonzero(dataset.client == place)))
    return found


def _parts(dataset: Dataset, rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Split:
    if dataset.part is not None:
        part = dataset.part[rows]
        train, validation, test = (rows[part == number] for number in range(len(PARTS)))
        return Split(train, validation, test, 0)
    places = dataset.recording[rows], dataset.start[rows], dataset.length
    inner = split(dataset.y[rows], *places, fractions=SHARES, order="time")
    return Split(rows[inner.train], rows[inner.validation], rows[inner.test], inner.dropped)
