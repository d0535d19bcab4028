"""Bundles that answer by the gate: what they say, hold and compute has to fit, or they are refused."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import save

from fedali.answers import PROTOTYPES
from fedali.bundle.file import parse_bundle, write_bundle
from fedali.bundle.manifest import BundleLayouts, Parity
from fedali.layout import Layout
from tests import small_bundles as small
from tests.small_bundles import CLASSES, EMBEDDING, SHAPE, value
from tests.unit.bundle.altered import KEY, TRUSTED, altered, refused

MODEL = small.PARAMETERS.size
WHOLE = Layout.of({**{e.name: e.shape for e in small.PARAMETERS.entries}, "gate/": (PROTOTYPES, EMBEDDING)})


def infer():
    size, local, centres = small.PARAMETERS.size, small.PROTOTYPES.size, (PROTOTYPES, EMBEDDING)
    names = [("theta", (size,)), ("shared_theta", (size,)), ("own", centres), ("everyone", centres)]
    names += [("middle", ()), ("spread", ()), ("local_prototypes", (local,)), ("shared_prototypes", (local,))]
    names += [("x", (1, *SHAPE)), ("influence", ())]
    outputs = [value("logits", (1, len(CLASSES))), value("weight", (1,))]
    return small.model([value(*pair) for pair in names], outputs).SerializeToString()


def state(**more):
    rng = np.random.default_rng(0)
    sizes = {"theta": WHOLE.size, "local_prototypes": small.PROTOTYPES.size}
    sizes |= {"shared_theta": WHOLE.size, "shared_prototypes": small.PROTOTYPES.size}
    return save({**{n: rng.standard_normal(s).astype(np.float32) for n, s in sizes.items()}, **more})


def of_a_client(own=None, spread=0.5):
    own = np.ones((PROTOTYPES, EMBEDDING), np.float32) if own is None else own
    return state(own=own, gate=np.array([0.1, spread], np.float32))


@pytest.fixture(scope="module")
def gated(tmp_path_factory):
    path = tmp_path_factory.mktemp("bundle") / "gated.fedali"
    graphs = {**small.graphs(), "infer.onnx": infer(), "embed.onnx": small.graphs("head")["embed.onnx"]}
    fields = small.fields(
        layouts=BundleLayouts(WHOLE, small.PROTOTYPES, small.PARAMETERS),
        parity={name: Parity(0.0, "nothing") for name in ("train", "infer", "embed")},
        answers_by="gate",
    )
    write_bundle(path, fields, {**graphs, "state.safetensors": state()}, KEY)
    return path.read_bytes()


def test_it_comes_back_and_training_does_not_know_of_the_slot(gated):
    bundle = parse_bundle(gated, TRUSTED)
    assert bundle.manifest.answers_by == "gate"
    assert (bundle.manifest.known, bundle.manifest.layouts.parameters.size) == (MODEL, WHOLE.size)
    plain = small.fields()
    assert "answers_by" not in plain
    found = parse_bundle(altered(gated, lambda _: None, ("state.safetensors", of_a_client())), TRUSTED)
    assert found.state()["own"].shape == (PROTOTYPES, EMBEDDING)


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (("state.safetensors", of_a_client(np.ones((3, EMBEDDING), np.float32))), r"own is float32 \[3, 5\]"),
        (("state.safetensors", of_a_client(spread=0.0)), "the gate's spread is 0; it has to be above 0"),
        (("state.safetensors", state(own=np.ones((PROTOTYPES, EMBEDDING), np.float32))), "holds .*own"),
        (("infer.onnx", small.graphs()["infer.onnx"]), r"infer\.onnx has the inputs theta, local_prototypes"),
    ],
)  # fmt: skip
def test_parts_that_do_not_fit(gated, part, words):
    refused(altered(gated, lambda _: None, part), words)


def _layout(*entries):
    def change(manifest):
        manifest["layouts"]["parameters"] = [[name, list(shape)] for name, shape in entries]

    return change


PLAIN = [(entry.name, entry.shape) for entry in small.PARAMETERS.entries]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m.pop("answers_by"), "'embed.onnx', or should not"),
        (lambda m: m.update(answers_by="between"), "answers_by cannot be 'between'"),
        (_layout(*PLAIN), "who answers by the gate has a slot 'gate', and nobody else"),
        (_layout(*PLAIN, ("gate/", (3, EMBEDDING))), "has to be the last, of 64 prototypes"),
        (_layout(*PLAIN, ("gate/", (PROTOTYPES, 4))), "embedding is .*the manifest says|everyone|own is"),
        (_layout(*PLAIN, ("gate/", (PROTOTYPES, 5)), ("own/", (3,))), "has to be the last"),
        (lambda m: m.update(answer=[10, 10 + MODEL]), "lie before the slot 'gate'"),
    ],
)  # fmt: skip
def test_manifests_that_make_no_sense(gated, change, words):
    def without_result(manifest):
        change(manifest)

    refused(altered(gated, without_result), words)


def test_a_slot_of_the_gate_needs_the_answer(tmp_path):
    path = tmp_path / "plain.fedali"
    write_bundle(path, small.fields(), small.parts(), KEY)
    refused(
        altered(path.read_bytes(), _layout(*PLAIN, ("gate/", (PROTOTYPES, EMBEDDING)))),
        "who answers by the gate has a slot 'gate', and nobody else",
    )
