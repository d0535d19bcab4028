"""A bundle as an archive: what other programs would open, and what is refused of entries and files."""

from __future__ import annotations

import io
import struct
import zipfile

import pytest

from fedali.bundle import archive
from fedali.bundle.file import LARGEST, read_bundle
from fedali.errors import BundleError
from tests.unit.bundle.altered import TRUSTED, entries_of, refused, zipped


def test_any_zip_program_opens_it(good):
    with zipfile.ZipFile(io.BytesIO(good["head"])) as file:
        assert file.testzip() is None
        infos = file.infolist()
    assert [i.filename for i in infos] == [
        "manifest.json", "manifest.sig", "train.onnx", "infer.onnx", "embed.onnx", "state.safetensors",
    ]  # fmt: skip
    assert {(i.compress_type, i.date_time, i.external_attr >> 16) for i in infos} == {
        (zipfile.ZIP_STORED, (1980, 1, 1, 0, 0, 0), 0o100644)
    }


@pytest.mark.parametrize(
    "name",
    [
        "../../evil.sh",
        "/etc/passwd",
        "C:\\evil",
        "model.py",
        "train.onnx/",
        "TRAIN.ONNX",
        "manifest.json\0",
        "x" * 300,
    ],
)
def test_names_that_no_bundle_has(good, name):
    entries = entries_of(good["full"])
    kept = archive.pack({**entries, "n" * len(name): b""})
    refused(kept.replace(b"n" * len(name), name.encode()), "has no entry")


def test_entries_out_of_place_or_twice(good):
    entries = entries_of(good["full"])
    refused(archive.pack(dict(reversed(entries.items()))), "not in this place")
    with pytest.warns(UserWarning, match="Duplicate"):
        twice = zipped({**entries, zipfile.ZipInfo("state.safetensors"): b"other"})
    refused(twice, "'state.safetensors' twice")
    refused(archive.pack({**entries, "embed.onnx": b""}), "not in this place")
    refused(archive.pack({}), "no manifest.json")
    del entries["manifest.json"]
    refused(archive.pack(entries), "no manifest.json")


def test_compressed_entries_and_bombs(good):
    entries = entries_of(good["full"])
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", method) as file:
            for name, data in entries.items():
                file.writestr(name, data)
        refused(stream.getvalue(), "'manifest.json' is compressed")
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("manifest.json", bytes(100_000_000))
    assert len(stream.getvalue()) < 200_000
    refused(stream.getvalue(), "'manifest.json' is compressed")
    claims = bytearray(good["full"])
    claims[18:26] = struct.pack("<2I", 1 << 31, 1 << 31)
    refused(bytes(claims), "cut short: entry 'manifest.json'")


def test_encrypted_streamed_and_linked_entries(good):
    encrypted = bytearray(good["full"])
    encrypted[6] |= 1
    refused(bytes(encrypted), "'manifest.json' is encrypted")
    streamed = bytearray(good["full"])
    streamed[6] |= 8
    refused(bytes(streamed), "damaged")
    link = bytearray(good["full"])
    where = good["full"].index(b"PK\x01\x02") + 38
    link[where : where + 4] = struct.pack("<I", 0o120777 << 16)
    refused(bytes(link), "damaged: its directory")


def test_what_hides_between_entries_or_in_the_directory(good):
    data = good["full"]
    second, directory = data.index(b"PK\x03\x04", 4), data.index(b"PK\x01\x02")
    refused(data[:second] + b"hidden" + data[second:], "damaged")
    refused(data[:directory] + b"hidden" + data[directory:], "damaged")
    refused(data[:-2] + struct.pack("<H", 6) + b"hidden", "damaged")
    refused(zipped(entries_of(data)), "damaged")  # another date: not what is written here


def test_files_that_are_none_or_too_large(tmp_path):
    with pytest.raises(BundleError, match="nowhere: No such file"):
        read_bundle(tmp_path / "nowhere", TRUSTED)
    with pytest.raises(BundleError, match="Is a directory"):
        read_bundle(tmp_path, TRUSTED)
    with pytest.raises(BundleError, match="is no file"):
        read_bundle("/dev/zero", TRUSTED)
    with (tmp_path / "large").open("wb") as stream:
        stream.truncate(LARGEST + 1)  # a hole: takes no disk
    with pytest.raises(BundleError, match="larger than 512 MiB"):
        read_bundle(tmp_path / "large", TRUSTED)
