"""The zip that a bundle is: any program opens it, and there is one way alone to write given entries.

Entries are stored, not compressed, with fixed times, so that the same entries are the same bytes. A reader that
knows this needs no leniency: what is not byte for byte what ``pack`` writes is refused, be it compressed, encrypted,
hidden between entries or listed twice.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence

from fedali.errors import BundleError

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_VERSION, _MADE_BY = 20, 3 << 8 | 20  # 2.0; Unix
_TIME, _DATE = 0, 1 << 5 | 1  # 1980-01-01
_MODE = 0o100644 << 16


def pack(entries: Mapping[str, bytes]) -> bytes:
    """A zip of ``entries`` in their order; names are plain ASCII file names."""
    parts: list[bytes] = []
    central: list[bytes] = []
    offset = 0
    for name, data in entries.items():
        numbers = (zlib.crc32(data), len(data), len(data))
        parts += [_local(name, numbers), data]
        central.append(_listed(name, numbers, offset))
        offset += len(parts[-2]) + len(data)
    return b"".join([*parts, *central, _end(central, offset)])


def unpack(data: bytes, allowed: Sequence[str], where: str) -> dict[str, bytes]:
    """Entries of a zip that ``pack`` wrote, in its order.

    Args:
        data: the whole file.
        allowed: names an entry may have, each once, in this order.
        where: what messages call the file.

    Raises ``BundleError``, saying what is odd.
    """
    found: dict[str, bytes] = {}
    central: list[bytes] = []
    at, left = 0, list(allowed)
    if not data.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        raise BundleError(f"{where} is no bundle: it does not begin as a zip does")
    while data[at : at + 4] == b"PK\x03\x04":
        start = at
        name, size, at = _entry(data, at, left, found, where)
        content = data[at : at + size]
        numbers = (zlib.crc32(content), size, size)
        header = _local(name, numbers)
        if data[start:at] != header:
            raise BundleError(f"{where} is damaged: entry {name!r} is not what its header says")
        found[name] = content
        central.append(_listed(name, numbers, start))
        at += size
    if data[at:] != b"".join([*central, _end(central, at)]):
        raise BundleError(f"{where} is damaged: its directory does not list its entries, and nothing else")
    return found


def _entry(
    data: bytes, at: int, left: list[str], found: Mapping[str, bytes], where: str
) -> tuple[str, int, int]:
    """Name and size of the entry whose header is at ``at``, and where its content begins."""
    if len(data) - at < _LOCAL.size:
        raise BundleError(f"{where} is cut short")
    _, _, flags, method, _, _, _, packed, size, name_size, _ = _LOCAL.unpack_from(data, at)
    at += _LOCAL.size
    name = data[at : at + name_size].decode("ascii", "backslashreplace")
    shown = name if len(name) <= 60 else f"{name[:60]}..."
    if name in found:
        raise BundleError(f"{where} is refused: it has the entry {shown!r} twice")
    if name not in left:
        raise BundleError(f"{where} is refused: a bundle has no entry {shown!r}, or not in this place")
    del left[: left.index(name) + 1]
    if flags & 1:
        raise BundleError(f"{where} is refused: entry {shown!r} is encrypted")
    if method != 0 or packed != size:
        raise BundleError(
            f"{where} is refused: entry {shown!r} is compressed; entries of a bundle are stored"
        )
    at += name_size
    if size > len(data) - at:
        raise BundleError(f"{where} is cut short: entry {shown!r} has {len(data) - at} of {size} bytes")
    return name, size, at


def _local(name: str, numbers: tuple[int, int, int]) -> bytes:
    encoded = name.encode("ascii")
    header = _LOCAL.pack(b"PK\x03\x04", _VERSION, 0, 0, _TIME, _DATE, *numbers, len(encoded), 0)
    return header + encoded


def _listed(name: str, numbers: tuple[int, int, int], offset: int) -> bytes:
    encoded = name.encode("ascii")
    fixed = (b"PK\x01\x02", _MADE_BY, _VERSION, 0, 0, _TIME, _DATE)
    return _CENTRAL.pack(*fixed, *numbers, len(encoded), 0, 0, 0, 0, _MODE, offset) + encoded


def _end(central: Sequence[bytes], offset: int) -> bytes:
    count = len(central)
    return _END.pack(b"PK\x05\x06", 0, 0, count, count, sum(map(len, central)), offset, 0)
