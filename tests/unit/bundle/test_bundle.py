"""Bundles: what is written is read, and everything else is refused, each thing by really trying it."""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from fedali.bundle import archive
from fedali.bundle.file import LARGEST, SIGNED_PREFIX, parse_bundle, read_bundle, write_bundle
from fedali.bundle.keys import public_of
from fedali.bundle.manifest import PARTS
from fedali.bundle.manifest_reader import read_manifest
from fedali.errors import BundleError
from tests import small_bundles as bundles

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
TRUSTED = [public_of(KEY, "site")]
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32))


def signed(entries, key=KEY):
    """Entries in a bundle with a manifest that is signed as it is, whatever it says."""
    entries = {name: data for name, data in entries.items() if name != "manifest.sig"}
    manifest = entries.pop("manifest.json")
    signature = {"manifest.sig": key.sign(SIGNED_PREFIX + manifest)} if key else {}
    return {"manifest.json": manifest, **signature, **entries}


def entries_of(data):
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        return {name: file.read(name) for name in file.namelist()}


def zipped(entries, **options):
    """The same by Python's own zip writer, for files that ``fedali.bundle.archive`` would not write."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", **options) as file:
        for name, data in entries.items():
            file.writestr(name if isinstance(name, zipfile.ZipInfo) else zipfile.ZipInfo(name), data)
    return stream.getvalue()


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """The bytes of a good bundle by mode."""
    folder = tmp_path_factory.mktemp("bundles")
    found = {}
    for mode in ("full", "head"):
        write_bundle(folder / mode, bundles.fields(mode), bundles.parts(mode), KEY)
        found[mode] = (folder / mode).read_bytes()
    return found


def refused(data, words, trusted=TRUSTED, **options):
    with pytest.raises(BundleError, match=words) as caught:
        parse_bundle(data, trusted, **options)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def altered(data, change, part=None):
    """A bundle whose manifest was changed and signed by the trusted key: only what comes after the signature sees it."""
    entries = entries_of(data)
    if part is not None:
        name, content = part
        entries[name] = content
        facts = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    manifest = json.loads(entries["manifest.json"])
    if part is not None:
        manifest["parts"][name] = facts
    found = change(manifest)
    manifest = manifest if found is None else found
    entries["manifest.json"] = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
    return archive.pack(signed(entries))


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
        "import sys; from tests import small_bundles as bundles; from tests.unit.bundle.test_bundle import KEY; from fedali.bundle.file import *; "
        "write_bundle(sys.argv[1], bundles.fields(), dict(reversed(bundles.parts().items())), KEY)"
    )
    subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "again")], check=True, env={**os.environ, "PYTHONHASHSEED": "7"}
    )  # fmt: skip
    assert (tmp_path / "again").read_bytes() == good["full"]


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


def test_a_manifest_that_is_too_large_or_no_json(good):
    for text, words in (
        (b" " * (1 << 20) + b"{}", "manifest is larger"),
        (b"", "not JSON"),
        (b"\xff{}", "not JSON"),
        (b"[]", "no JSON object"),
        (b"[" * 100_000, "not JSON"),
        (b'{"format": 1, "format": 1}', "a key is given twice"),
        (b'{"format": NaN}', "NaN is no number"),
        (b'{"format": ' + b"9" * 5000 + b"}", "not JSON"),
        (b'{"format": 2}', "another format than 1"),
        (b'{"format": true}', "format cannot be True"),
    ):
        refused(altered(good["full"], lambda _, text=text: text), words)


@pytest.mark.parametrize("name", sorted(bundles.fields().keys() | {"format", "fedali", "parts"}))
def test_every_key_has_to_be_there_and_of_its_kind(good, name):
    refused(altered(good["full"], lambda m: m.__delitem__(name)), f"has no '{name}'|parts")
    for wrong in ([[[]]], 3.5, "", -1, True, {"more": 1}, "two\nlines", "\x1b[2J"):
        if name in ("int8", "keeps_local_prototypes") and wrong in (True, {"more": 1}):
            continue
        refused(altered(good["full"], lambda m, wrong=wrong: m.update({name: wrong})), ".")


def _set(*path):
    *path, last, value = path

    def change(manifest):
        for key in path:
            manifest = manifest[key]
        manifest[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_set("hidden", 1), "unknown key 'hidden'"),
        (_set("model", "hidden", 1), "model has an unknown key 'hidden'"),
        (_set("method", "alp", None), "method has an unknown key 'alp'"),
        (_set("created", "yesterday"), "created cannot be 'yesterday'"),
        (_set("created", "2026-01-02T03:04:05"), "created cannot be"),
        (_set("mode", "both"), "mode cannot be 'both'"),
        (_set("batch", 1 << 20), "batch cannot be"),
        (_set("input_shape", [0, 2]), "input_shape cannot be"),
        (_set("input_shape", [1] * 7), "input_shape cannot be"),
        (_set("input_shape", [6, 3]), r"mean cannot be|broadcast"),
        (_set("classes", ["walk"]), "classes cannot be"),
        (_set("classes", ["walk", "walk", "run"]), "classes cannot be"),
        (_set("classes", ["walk", "a\tb", "run"]), "classes cannot be"),
        (_set("classes", ["walk", "run"]), "logits is"),
        (_set("normalisation", "std", [1, 0]), "std cannot be"),
        (_set("normalisation", "std", [1, 1e60]), "std cannot be"),
        (_set("normalisation", "mean", [1, "a"]), "mean cannot be"),
        (_set("normalisation", "mean", [[1], [1, 2]]), "mean cannot be"),
        (_set("normalisation", "kind", "some"), "kind cannot be"),
        (_set("layouts", "trained", []), "trained is not what mode 'full' trains"),
        (_set("layouts", "parameters", [["a", [-1]]]), "parameters cannot be"),
        (_set("layouts", "parameters", [["a", [1 << 40]]]), "parameters cannot be"),
        (_set("layouts", "prototypes", [["alp.0", [3, 5]]]), r"local_prototypes is .*the manifest says"),
        (_set("personal", [[5, 4]]), "personal cannot be"),
        (_set("personal", [[0, 5], [4, 6]]), "personal cannot be"),
        (_set("personal", [[0, 79]]), "personal cannot be"),
        (_set("personal", [[0, 1.5]]), "personal cannot be"),
        (_set("optimizer", "name", "rprop"), "name cannot be 'rprop'"),
        (_set("optimizer", {"name": "sgd", "learning_rate": 0.1, "momentum": 0.9}), "second_moment is"),
        (_set("optimizer", "beta1", 2), "beta1 cannot be 2"),
        (_set("optimizer", "momentum", 0.9), "unknown key 'momentum'"),
        (_set("hyper", "influence", 1.5), "influence cannot be 1.5"),
        (_set("round", -1), "round cannot be -1"),
        (_set("opset", 99), "opset cannot be 99"),
        (_set("opset", 19), "of operator set 18, the manifest says 19"),
        (_set("onnxruntime", "1.19"), "onnxruntime cannot be"),
        (_set("parts", "train.onnx", "sha256", "0" * 63), "sha256 cannot be"),
        (_set("parts", "train.onnx", "sha256", "0" * 64), "train.onnx is not what the manifest says"),
        (_set("parts", "train.onnx", "bytes", 3), "train.onnx is not what the manifest says"),
        (_set("parts", "embed.onnx", {"sha256": "0" * 64, "bytes": 3}), "'embed.onnx', or should not"),
        (_set("parts", "../x", {"sha256": "0" * 64, "bytes": 3}), r"'\.\./x', or should not"),
        (_set("parity", "embed", {"error": 0.0, "what": "x"}), "parity has to say"),
        (_set("parity", "train", "error", -1), "error cannot be"),
        (_set("int8", {}), "int8 goes with"),
    ],
)  # fmt: skip
def test_manifests_that_make_no_sense(good, change, words):
    refused(altered(good["full"], change), words)


def test_a_head_is_one_stretch_and_trained_alone(good):
    for layout in ([["body.weight", [5, 12]]], [["head.weight", [3, 5]]]):
        refused(altered(good["head"], _set("layouts", "trained", layout)), "trained is not what mode 'head'")
    apart = [["head.weight", [3, 5]], ["body.weight", [5, 12]], ["head.bias", [3]]]
    refused(altered(good["head"], _set("layouts", "parameters", apart)), "not one stretch")


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (b"", "cannot be read"),
        (b"\xff" * 8 + b"{}", "cannot be read"),
        (bundles.state()[:-1], "cannot be read"),
        (bundles.state(more=np.zeros(3, np.float32)), "holds .*more"),
        (save({"theta": np.zeros(78, np.float32)}), "state.safetensors holds shared_theta, theta, not"),
        (bundles.state(theta=np.zeros(77, np.float32)), r"theta is float32 \[77\], not float32 \[78\]"),
        (bundles.state(theta=np.zeros((78, 1), np.float32)), r"theta is float32 \[78, 1\]"),
        (bundles.state(theta=np.zeros(78, np.float64)), "theta is float64"),
        (bundles.state(shared_theta=np.full(78, np.nan, np.float32)), "shared_theta has values that are not finite"),
        (bundles.state(shared_prototypes=np.full(10, np.inf, np.float32)), "not finite"),
    ],
)  # fmt: skip
def test_states_that_do_not_fit(good, state, words):
    refused(altered(good["full"], lambda _: None, ("state.safetensors", state)), words)


def _renamed(model):
    model.graph.input[0].name = "Theta"


def _reshaped(model):
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 5


def _open_batch(model):
    for value in model.graph.input:
        if value.name == "x":
            value.type.tensor_type.shape.dim[0].dim_param = "batch"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_renamed, r"train\.onnx has the inputs Theta,"),
        (_reshaped, r"train\.onnx: theta is .*5.*the manifest says"),
        (_open_batch, r"train\.onnx: x is .*None"),
        (lambda model: model.graph.output.pop(), r"train\.onnx has the outputs"),
        (lambda model: model.graph.node.add(op_type="Evil", domain="evil"), r"train\.onnx is refused"),
    ],
)  # fmt: skip
def test_graphs_are_what_the_manifest_says(good, change, words):
    graph = bundles.changed(bundles.graphs()["train.onnx"], change)
    refused(altered(good["full"], lambda _: None, ("train.onnx", graph)), words)


def test_inference_may_leave_the_batch_open(good):
    def change(model):
        for value in (model.graph.input[2], model.graph.output[0]):
            value.type.tensor_type.shape.dim[0].dim_param = "batch"

    graph = bundles.changed(bundles.graphs()["infer.onnx"], change)
    data = altered(good["full"], lambda _: None, ("infer.onnx", graph))
    assert parse_bundle(data, TRUSTED).parts["infer.onnx"] == graph


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
        "train.onnx", "infer.onnx", "embed.onnx", "adapt.onnx",
        "infer_int8.onnx", "embed_int8.onnx", "state.safetensors",
    }  # fmt: skip
