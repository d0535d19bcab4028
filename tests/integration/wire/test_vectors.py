"""The recorded session of ``proto/vectors``: today's gateway says the same bytes, and a stranger's client makes the same updates."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fedali.v1 import federation_pb2 as pb
from fedali.wire import tensors
from tests.vectors import reader
from tests.vectors.order import Generator, seed_words
from tests.vectors.record import FOLDER, record

TRAININGS = (
    "train in float32",
    "train in float16",
    "train in float16 with feedback",
    "train in int8 with feedback",
    "train in int8 with feedback again",
)


@pytest.fixture(scope="module")
def vectors():
    return reader.Vectors(FOLDER)


def copied(tmp_path):
    for name in ("model.fedali",):
        (tmp_path / name).write_bytes((FOLDER / name).read_bytes())
    return tmp_path


def files(folder):
    names = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {str(name): (folder / name).read_bytes() for name in names if str(name) != "training.json"}


def test_a_gateway_of_today_answers_the_recorded_requests_with_the_recorded_bytes(vectors, tmp_path):
    record(copied(tmp_path), vectors.uploaded)
    assert files(tmp_path) == files(FOLDER)


def test_what_fedalis_own_client_trains_is_what_was_recorded(vectors, tmp_path):
    """But for rounding, where this machine's onnxruntime is another."""
    record(copied(tmp_path))
    again = reader.Vectors(tmp_path)
    assert [one["says"] for one in again.session["messages"]] == [
        one["says"] for one in vectors.session["messages"]
    ]
    for step in TRAININGS:
        close(update(again, step), update(vectors, step))


def update(vectors, step):
    return pb.Update.FromString(vectors.uploaded(step))


def close(found, recorded):
    """Two updates, within what another machine's rounding makes of the same training: a step of the encoding."""
    assert (found.task, found.bundle, found.samples, found.delta) == (
        recorded.task,
        recorded.bundle,
        recorded.samples,
        recorded.delta,
    )
    assert dict(found.metrics) == pytest.approx(dict(recorded.metrics), abs=1e-5)
    for one, other in ((found.theta, recorded.theta), (found.prototypes, recorded.prototypes)):
        assert (one.encoding, one.size, len(one.data), len(one.scales)) == (
            other.encoding,
            other.size,
            len(other.data),
            len(other.scales),
        )
        numbers = reader.decoded(other)
        step = {1: 0.0, 2: np.abs(numbers) / 512, 3: 1.5 * max(other.scales, default=0.0)}[one.encoding]
        assert (np.abs(reader.decoded(one) - numbers) <= step + 1e-5).all()


def test_a_client_written_from_the_documents_alone_makes_the_recorded_updates(vectors):
    residual = None
    for step in TRAININGS:
        task, state = reader.task_of(vectors, step)
        trained = reader.Trained(vectors, task, state)
        found, residual = reader.update_of(vectors, task, state, trained, residual)
        close(found, update(vectors, step))
        if step == TRAININGS[0]:
            known = json.loads((FOLDER / "training.json").read_text())["steps"]
            assert len(trained.steps) == len(known) == 6  # two epochs of 8, 8 and 4 samples
            for one, other in zip(trained.steps, known, strict=True):
                assert one == pytest.approx(other, rel=1e-5)
            assert [one["weight"] for one in known] == [8, 8, 4, 8, 8, 4]


def test_a_wrong_order_or_wrong_adam_is_noticed(vectors, monkeypatch):
    """The vectors would not do if they fitted any training."""
    step = TRAININGS[0]
    task, state = reader.task_of(vectors, step)
    task.entropy[0] += 1
    with pytest.raises(AssertionError):
        close(
            reader.update_of(vectors, task, state, reader.Trained(vectors, task, state), None)[0],
            update(vectors, step),
        )
    task.entropy[0] -= 1
    monkeypatch.setitem(vectors.manifest["optimizer"], "beta2", 0.99)
    with pytest.raises(AssertionError):
        close(
            reader.update_of(vectors, task, state, reader.Trained(vectors, task, state), None)[0],
            update(vectors, step),
        )


def test_encodings_of_the_stranger_are_those_of_fedali(vectors):
    numbers = np.concatenate([reader.decoded(update(vectors, TRAININGS[0]).theta), np.zeros(300, np.float32)])
    for encoding in tensors.Encoding:
        sent, _ = tensors.encode(numbers, encoding)
        assert reader.encoded(numbers, int(encoding)) == sent
        np.testing.assert_array_equal(reader.decoded(sent), tensors.decode(sent, numbers.size))


def test_an_evaluation_and_statistics_are_what_was_recorded(vectors):
    task, state = reader.task_of(vectors, "evaluate")
    theta, prototypes = reader.decoded(state.theta), reader.decoded(state.prototypes)
    found = update(vectors, "evaluate")
    assert dict(found.metrics) == reader.tested(vectors, "global", theta, prototypes, task)
    assert (found.samples, found.HasField("theta")) == (11, False)
    sums = update(vectors, "statistics").statistics
    x = vectors.data("train.x").astype(np.float64)
    assert sums.count == 20 * 24
    np.testing.assert_allclose(sums.sums, x.sum((0, 1)), rtol=1e-12)
    np.testing.assert_allclose(sums.squares, (x * x).sum((0, 1)), rtol=1e-12)


def test_the_order_of_samples_needs_integers_alone(vectors):
    for one in vectors.vectors["order"]:
        assert [f"{word:016x}" for word in seed_words(one["entropy"])] == one["seed_words"]
        raw, random = Generator(one["entropy"]), Generator(one["entropy"])
        assert [f"{raw.next64():016x}" for _ in range(3)] == one["first_outputs"]
        assert [random.permutation(len(each)) for each in one["permutations"]] == one["permutations"]
    for step in vectors.vectors["adam"]["steps"]:
        assert step["step_size"] == pytest.approx(1e-3 / (1 - 0.9 ** step["t"]), rel=1e-15)
        assert step["correction"] == pytest.approx(1 / np.sqrt(1 - 0.999 ** step["t"]), rel=1e-15)


def test_the_bundle_came_whole_and_is_signed(vectors):
    chunks = b"".join(chunk.data for chunk in vectors.of("statistics", "Chunk"))
    assert chunks == (FOLDER / "model.fedali").read_bytes()
    assert reader.digest(chunks) == reader.task_of(vectors, "train in float32")[0].bundle.sha256
    kind, key, _ = (FOLDER / "vectors.pub").read_text().split()
    assert kind == "fedali-ed25519"
    message = b"fedali bundle v1\n" + vectors.parts["manifest.json"]
    Ed25519PublicKey.from_public_bytes(base64.b64decode(key)).verify(vectors.parts["manifest.sig"], message)


def test_the_session_has_each_call_verdict_and_error(vectors):
    messages = vectors.session["messages"]
    verdicts = {
        r.verdict for e in messages if e.get("message") == "UploadReply" for r in [vectors.message(e)]
    }
    assert verdicts == {pb.VERDICT_COUNTED, pb.VERDICT_INCOMPLETE, pb.VERDICT_LATE, pb.VERDICT_REFUSED}
    assert {e["call"] for e in messages} == {
        each.name for each in pb.DESCRIPTOR.services_by_name["Federation"].methods
    }
    assert {e["status"] for e in messages if "status" in e} == {
        "FAILED_PRECONDITION",
        "INVALID_ARGUMENT",
        "NOT_FOUND",
    }
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 1 << 20
