"""The bundles that a gateway holds for its devices."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedali.bundle.file import parse_bundle, read_bundle
from fedali.bundle.keys import PublicKey
from fedali.bundle.manifest import Manifest
from fedali.errors import SettingsError
from fedali.methods.base import Layouts
from fedali.slots import PrototypeUpload
from fedali.support.files import flush_folder, write_bytes

_KEPT = 3  # bundles: those of the runs that may still go on


@dataclass(frozen=True, eq=False)
class RoundModel:
    """What a round needs to know of its bundle.

    Args:
        sha256: of the bundle's file.
        size: bytes of it.
        prototypes: how they travel up; None where they stay.
        layouts: of theta [P] and prototypes [L].
        shared: [S] what of a client's vector is not personal.
        input_shape: of a sample.
        late: whether a client knows what it answers only when it has heard of the model that the round made.
    """

    sha256: bytes
    size: int
    prototypes: PrototypeUpload | None
    layouts: Layouts
    shared: npt.NDArray[np.int64]
    input_shape: tuple[int, ...]
    late: bool = False

    @property
    def sizes(self) -> tuple[int, int]:
        """(S, L): numbers that go to a device and back."""
        return self.shared.size, self.layouts.prototypes.size


class Bundles:
    """Files in ``folder``, named by the SHA-256 of what is in them."""

    def __init__(self, folder: Path, trusted: PublicKey) -> None:
        self.folder, self._trusted = folder, trusted
        folder.mkdir(parents=True, exist_ok=True)
        self._model: RoundModel | None = None

    def path(self, sha256: bytes) -> Path:
        """Where the bundle is, if it is here."""
        return self.folder / f"{sha256.hex()}.fedali"

    def held(self, sha256: bytes) -> bool:
        """Whether it is here."""
        return len(sha256) == 32 and self.path(sha256).is_file()

    def put(self, data: bytes) -> bytes:
        """Keep a bundle, durably: its SHA-256. ``BundleError`` unless it is sound and signed by the federation's key."""
        parse_bundle(data, [self._trusted])
        sha256 = hashlib.sha256(data).digest()
        if not self.held(sha256):
            write_bytes(self.path(sha256), data)
            flush_folder(self.folder)
        return sha256

    def model(self, sha256: bytes) -> RoundModel:
        """What a round needs to know of a bundle; ``BundleError`` or ``SettingsError`` when it cannot be trained here."""
        if self._model is None or self._model.sha256 != sha256:
            path = self.path(sha256)
            manifest = read_bundle(path, [self._trusted]).manifest
            self._model = _model(manifest, sha256, path.stat().st_size)
        return self._model

    def prune(self, used: bytes) -> None:
        """Remove all but the newest few; ``used`` stays, as the newest."""
        self.path(used).touch()
        files = [path for path in self.folder.iterdir() if re.fullmatch(r"[0-9a-f]{64}\.fedali", path.name)]
        for path in sorted(files, key=lambda path: path.stat().st_mtime)[:-_KEPT]:
            path.unlink()


def _model(manifest: Manifest, sha256: bytes, size: int) -> RoundModel:
    prototypes = manifest.prototypes
    if prototypes is not None and prototypes.masses != "uniform":
        raise SettingsError(
            "masses 'occupancy' cannot be trained on devices: they do not tell how often a prototype answered; use 'uniform'"
        )
    layouts = Layouts(manifest.layouts.parameters, manifest.layouts.prototypes)
    shared = np.ones(layouts.parameters.size, bool)
    for first, end in manifest.personal:
        shared[first:end] = False
    late = manifest.answers_by == "gate"
    return RoundModel(sha256, size, prototypes, layouts, np.flatnonzero(shared), manifest.input_shape, late)
