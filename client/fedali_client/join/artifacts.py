"""Files by what is in them: downloads that go on where they were, and count once their checksum is right."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from fedali.errors import FedaliError
from fedali.support.files import flush_folder, reporting
from fedali.v1 import federation_pb2
from fedali_client.join.connection import GatewayConnection
from fedali_client.join.signals import AwayError

_PIECE = 1 << 20
_PART = ".part"


class Artifacts:
    """Downloads in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def fetch(
        self, gateway: GatewayConnection, artifact: federation_pb2.Artifact, what: str, largest: int
    ) -> Path:
        """The file of an artifact, downloaded as far as it is not here yet.

        Args:
            gateway: has it.
            artifact: digest and size.
            what: it is, for messages.
            largest: bytes that it may have.

        Raises ``AwayError`` when the connection broke, ``GoneError`` when the gateway has it no longer, and ``FedaliError``
        for one that is too large or when the disk is full.
        """
        if len(artifact.sha256) != hashlib.sha256().digest_size or not 0 < artifact.size <= largest:
            raise FedaliError(f"{what} is refused: it has {artifact.size} bytes; 1 to {largest} are expected")
        path = self._folder / artifact.sha256.hex()
        if digest(path) == artifact.sha256:
            return path
        part = path.with_suffix(_PART)
        with reporting(part):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with part.open("ab") as stream:
                if stream.tell() > artifact.size:
                    stream.truncate(0)
                if stream.tell() < artifact.size:
                    for data in gateway.download(artifact, stream.tell()):
                        stream.write(data)
                        if stream.tell() > artifact.size:
                            break
                length = stream.tell()
                stream.flush()
                if length == artifact.size:
                    os.fsync(stream.fileno())
        if length < artifact.size:
            raise AwayError(f"the download of {what} ended early")
        if digest(part) != artifact.sha256:
            part.unlink()
            raise AwayError(f"{what} arrived damaged; it is fetched again")
        with reporting(path):
            part.replace(path)
        flush_folder(self._folder)
        return path

    def keep(self, *wanted: bytes) -> None:
        """Remove all but the artifacts of the digests ``wanted``, and what was downloaded of them."""
        names = {sha256.hex() for sha256 in wanted}
        for path in self._folder.glob("*"):
            if path.stem not in names:
                path.unlink(missing_ok=True)


def digest(path: Path) -> bytes:
    """SHA-256 of a file; none where there is no file."""
    known = hashlib.sha256()
    if not path.is_file():
        return b""
    with reporting(path, "read"), path.open("rb") as stream:
        while piece := stream.read(_PIECE):
            known.update(piece)
    return known.digest()
