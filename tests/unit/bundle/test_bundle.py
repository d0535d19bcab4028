"""Bundles: what is written is read, and everything else is refused, each thing by really trying it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from fedali.bundle import archive
from fedali.bundle.file import parse_bundle, read_bundle, write_bundle
from fedali.bundle.keys import public_of
from fedali.bundle.manifest import PARTS
from fedali.bundle.manifest_reader import read_manifest
from fedali.errors import BundleError
from tests import small_bundles as bundles
from tests.unit.bundle.altered import KEY, OTHER, TRUSTED, altered, entries_of, refused, signed


@pytest.mark.parametrize("mode", ["full", "head"])
def test_what_is_written_is_read(tmp_path, mode):
    path, fields, parts = tmp_path / "model.fedali", bundles.fields(mode), bundles.parts(mode)
    written = write_bundle(path, fields, parts, KEY)
    found = read_bundle(path, TRUSTED)
    assert found.parts == parts == written.parts
    assert found.signed_by == written.signed_by == TRUSTED[0].fingerprint
    assert found.digest == hashlib.sha256(entries_of(path.read_bytes())["manifest.json"]).hexdigest()
    for name, value in fields.items():
        if name != "normalisation":
            assert getattr(found.manifest, name) == value, name
    assert found.manifest.normalisation.mean.tolist() == [0, 0]
    assert found.manifest.trained == (slice(0, 78) if mode == "full" else slice(60, 78))
    assert found.manifest.minimum_onnxruntime == (1, 19)
    assert read_manifest(found.manifest.to_json()).to_json() == found.manifest.to_json()
    state = found.state()
    assert {name: value.shape for name, value in state.items()} == {
        "theta": (78,),
        "shared_theta": (78,),
        "local_prototypes": (10,),
        "shared_prototypes": (10,),
    }


def test_the_same_inputs_are_the_same_bytes_in_another_process(tmp_path, good):
    program = (
        "import sys; from tests import small_bundles as bundles; from tests.unit.bundle.altered import KEY; from fedali.bundle.file import *; "
        "write_bundle(sys.argv[1], bundles.fields(), dict(reversed(bundles.parts().items())), KEY)"
    )
    subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "again")], check=True, env={**os.environ, "PYTHONHASHSEED": "7"}
    )  # fmt: skip
    assert (tmp_path / "again").read_bytes() == good["full"]


def test_only_what_can_be_read_is_written(tmp_path):
    path = tmp_path / "model.fedali"
    path.write_bytes(b"the last one")
    for fields, parts, words in (
        (bundles.fields(batch=0), bundles.parts(), "batch cannot be 0"),
        (bundles.fields(), bundles.parts(**{"state.safetensors": b""}), "state.safetensors cannot be read"),
        (bundles.fields(), bundles.parts(**{"more.txt": b""}), "no part 'more.txt'"),
        (bundles.fields(), bundles.graphs(), "lack 'state.safetensors'"),
    ):
        with pytest.raises(BundleError, match=words):
            write_bundle(path, fields, parts, KEY)
    assert path.read_bytes() == b"the last one"
    assert [p.name for p in tmp_path.iterdir()] == ["model.fedali"]


def test_a_state_says_once_what_is_the_same_twice(good):
    theta, local = np.arange(78, dtype=np.float32), np.ones(10, np.float32)
    short = save({"theta": theta, "local_prototypes": local})
    found = parse_bundle(altered(good["full"], lambda _: None, ("state.safetensors", short)), TRUSTED).state()
    assert (found["shared_theta"] == theta).all()
    assert (found["shared_prototypes"] == local).all()
    found["theta"][0] = 7
    assert found["shared_theta"][0] == 0


@given(data=st.data())
def test_any_byte_changed_is_refused(good, data):
    mode = data.draw(st.sampled_from(["full", "head"]))
    position = data.draw(st.integers(0, len(good[mode]) - 1))
    broken = bytearray(good[mode])
    broken[position] ^= data.draw(st.integers(1, 255))
    refused(bytes(broken), ".")


@given(data=st.data())
def test_accidents_are_found_in_unsigned_bundles_too(good, data):
    entries = entries_of(good["full"])
    del entries["manifest.sig"]
    whole = archive.pack(entries)
    parse_bundle(whole, None, allow_unsigned=True)
    broken = bytearray(whole)
    broken[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    refused(bytes(broken), ".", None, allow_unsigned=True)


@given(st.data())
def test_cut_short_or_longer_is_refused(good, data):
    whole = good["full"]
    refused(whole[: data.draw(st.integers(0, len(whole) - 1))], ".")
    refused(whole + data.draw(st.binary(min_size=1, max_size=40)), "directory")
    refused(data.draw(st.binary(min_size=1, max_size=40)) + whole, ".")


@given(st.binary(max_size=300))
def test_anything_else_is_refused(data):
    refused(data, ".")
    refused(b"PK\x03\x04" + data, ".")


def test_an_unsigned_bundle_needs_leave(good):
    entries = entries_of(good["full"])
    del entries["manifest.sig"]
    data = archive.pack(entries)
    refused(data, "it is not signed")
    refused(data, "it is not signed", None)
    assert parse_bundle(data, TRUSTED, allow_unsigned=True).signed_by is None


def test_a_signed_bundle_needs_a_key_that_is_trusted(good):
    data = good["full"]
    refused(data, "no trusted key was given", None)
    refused(data, "no trusted key was given", [])
    refused(data, r"not one of a trusted key \(other .{8}\)", [public_of(OTHER, "other")])
    refused(data, "not one of a trusted key", [public_of(OTHER, "other")], allow_unsigned=True)
    assert parse_bundle(data, None, allow_unsigned=True).signed_by is None  # not verified, and it says so
    both = [public_of(OTHER), *TRUSTED]
    assert parse_bundle(data, both).signed_by == TRUSTED[0].fingerprint


def test_what_was_altered_and_packed_again_is_refused(good):
    entries = entries_of(good["full"])
    manifest = entries["manifest.json"].replace(b'"round":7', b'"round":8')
    assert manifest != entries["manifest.json"]
    refused(archive.pack({**entries, "manifest.json": manifest}), "altered since")
    refused(archive.pack({**entries, "manifest.sig": bytes(64)}), "altered since")
    refused(archive.pack({**entries, "manifest.sig": b""}), "altered since")
    refused(archive.pack({**entries, "manifest.sig": entries["manifest.sig"] + b"x"}), "altered since")
    refused(archive.pack({**entries, "manifest.sig": KEY.sign(entries["manifest.json"])}), "altered since")
    refused(archive.pack(signed(entries, OTHER)), "altered since")
    for name in ("train.onnx", "infer.onnx", "state.safetensors"):
        refused(archive.pack({**entries, name: bundles.state(1)}), f"{name} is not what the manifest says")
        without = {key: value for key, value in entries.items() if key != name}
        refused(archive.pack(without), f"{name} is missing")
    swapped = {**entries, "train.onnx": entries["infer.onnx"], "infer.onnx": entries["train.onnx"]}
    refused(archive.pack(swapped), "not what the manifest says")


def test_reading_loads_neither_torch_nor_onnxruntime_nor_onnx(tmp_path, good):
    (tmp_path / "model").write_bytes(good["full"])
    program = (
        "import sys; from fedali.bundle.file import read_bundle; read_bundle(sys.argv[1], None, allow_unsigned=True); "
        "print([m for m in ('torch', 'onnx', 'onnxruntime', 'google', 'scipy') if m in sys.modules])"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "model")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"


def test_parts_are_all_that_a_bundle_may_hold():
    assert set(PARTS) == {
        "train.onnx", "infer.onnx", "embed.onnx", "adapt.onnx", "begin.onnx", "measure.onnx", "finish.onnx",
        "infer_int8.onnx", "embed_int8.onnx", "state.safetensors",
    }  # fmt: skip
