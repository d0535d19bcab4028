"""States and updates of the wire: there and back, the same bytes for ever, and what is refused."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedali.errors import FedaliError, WireError
from fedali.v1 import federation_pb2 as pb
from fedali.wire.messages import (
    LARGEST_METRIC_NAME,
    LARGEST_METRICS,
    LARGEST_SAMPLES,
    ClientUpdate,
    check_run_name,
    decode_state,
    decode_update,
    encode_state,
    encode_update,
    largest_update,
    task_id,
)
from fedali.wire.tensors import Encoding
from tests.unit.wire.messages import BUNDLE, LARGE, SIZES, TASK, a_message, an_update, lossy, noise, vectors

DOCUMENT = Path(__file__).parents[3] / "docs/wire.md"


@given(vectors(), vectors())
def test_a_state_comes_back_bit_by_bit(theta, prototypes):
    data = encode_state(theta, prototypes)
    assert data == encode_state(theta, prototypes)
    found = decode_state(data, (theta.size, prototypes.size))
    assert [v.tobytes() for v in found] == [theta.tobytes(), prototypes.tobytes()]


def test_a_state_says_which_part_is_wrong():
    data = encode_state(noise(0, 5), noise(1, 4))
    with pytest.raises(WireError, match=r"^the shared state's theta has 5 numbers, not 6$"):
        decode_state(data, (6, 4))
    with pytest.raises(WireError, match=r"^the shared state's prototypes has 4 numbers, not 3$"):
        decode_state(data, (5, 3))
    with pytest.raises(WireError, match="the shared state cannot be read"):
        decode_state(data[:-1], (5, 4))


@given(vectors(size=SIZES[0]), vectors(size=SIZES[1]))
def test_an_update_in_float32_comes_back_bit_by_bit(theta, prototypes):
    update = an_update(theta=theta, prototypes=prototypes)
    data, lost = encode_update(update, noise(5, SIZES[0]))
    assert lost is None
    found = decode_update(data, SIZES, noise(5, SIZES[0]))
    assert found.theta.tobytes() == theta.tobytes()
    assert found.prototypes.tobytes() == prototypes.tobytes()
    assert (found.task, found.bundle, found.samples) == (TASK, BUNDLE, 120)
    assert found.metrics == {"train_loss": 0.25, "validation": 1.0}


@pytest.mark.parametrize("encoding", [Encoding.FLOAT16, Encoding.INT8])
def test_an_update_is_the_difference_to_the_task_s_theta(encoding):
    reference = noise(7, SIZES[0], 10)
    update = an_update(theta=reference + noise(8, SIZES[0], 1e-3))
    data, lost = encode_update(update, reference, encoding)
    found = decode_update(data, SIZES, reference)
    changed = np.abs(update.theta - reference).max()
    assert lost.shape == (sum(SIZES),)
    np.testing.assert_allclose(found.theta, update.theta, rtol=0, atol=changed / 127)
    np.testing.assert_allclose(found.theta + lost[: SIZES[0]], update.theta, rtol=0, atol=2e-6)
    np.testing.assert_allclose(found.prototypes + lost[SIZES[0] :], update.prototypes, rtol=0, atol=1e-6)
    assert len(data) < largest_update(SIZES)
    assert len(data) < (0.60 if encoding is Encoding.FLOAT16 else 0.35) * 4 * sum(SIZES)


@given(lossy, st.integers(0, 2**32 - 1))
def test_over_rounds_a_device_s_updates_lose_nothing(encoding, seed):
    """The server adds what arrives to its theta; after any round it is within one rounding of what was trained."""
    server, trained, residual = noise(seed, SIZES[0]), noise(seed, SIZES[0]).astype(np.float64), None
    for round_ in range(20):
        step = noise([seed, round_], SIZES[0], 0.01)
        trained += step
        data, residual = encode_update(an_update(theta=server + step), server, encoding, residual)
        server = decode_update(data, SIZES, server).theta
        assert np.abs(server + residual[: SIZES[0]] - trained).max() < 1e-5
    assert np.abs(server - trained).max() < 0.06 / 127


def test_what_int8_still_owes_is_sent_when_a_run_goes_on_in_float32():
    reference, update = noise(1, SIZES[0]), an_update()
    _, lost = encode_update(update, reference, Encoding.INT8)
    data, owed = encode_update(update, reference, Encoding.FLOAT32, lost)
    assert owed is None
    found = decode_update(data, SIZES)
    np.testing.assert_array_equal(found.theta, update.theta + lost[: SIZES[0]])
    np.testing.assert_array_equal(found.prototypes, update.prototypes + lost[SIZES[0] :])


def test_an_evaluation_has_metrics_alone():
    update = an_update(theta=None, prototypes=None, metrics={"global": 0.5, "global_f1": 0.25})
    data, lost = encode_update(update, None, Encoding.INT8)
    assert lost is None
    found = decode_update(data, SIZES)
    assert found.theta is None
    assert found.prototypes is None
    assert found.metrics == {"global": 0.5, "global_f1": 0.25}


def test_models_without_prototypes_or_without_a_shared_part():
    for sizes in ((5, 0), (0, 0), (0, 5)):
        update = an_update(theta=noise(0, sizes[0]), prototypes=noise(1, sizes[1]))
        for encoding in Encoding:
            data, _ = encode_update(update, noise(2, sizes[0]), encoding)
            found = decode_update(data, sizes, noise(2, sizes[0]))
            assert (found.theta.size, found.prototypes.size) == sizes
    data, _ = encode_update(an_update(theta=noise(0, 5), prototypes=None))
    assert decode_update(data, (5, 0)).prototypes.size == 0


def test_the_same_update_is_the_same_bytes():
    """A device that was killed sends again what it sent; metrics are a map, whose order must not show."""
    metrics = {f"m{i}": float(i) for i in range(LARGEST_METRICS)}
    one = an_update(metrics=metrics)
    other = an_update(metrics=dict(reversed(metrics.items())))
    assert encode_update(one)[0] == encode_update(other)[0]


def test_a_fixed_update_has_these_bytes():
    """What devices in the field send must be understood by every later gateway of this version; docs/wire.md shows it."""
    update = ClientUpdate(
        TASK,
        bytes(32),
        7,
        np.array([1.5, -2.0], np.float32),
        np.array([0.25], np.float32),
        {"validation": 0.5},
    )
    reference = np.array([1.0, -1.0], np.float32)
    data, _ = encode_update(update, reference, Encoding.INT8)
    head = "0a20" + TASK.encode().hex() + "1220" + "00" * 32 + "1807" + "2001"
    theta = "2a0e" + "0803" + "1002" + "1a02" + "4081" + "2204" + struct.pack("<f", 1 / 127).hex()
    prototypes = "320d" + "0803" + "1001" + "1a017f" + "2204" + struct.pack("<f", 0.25 / 127).hex()
    metrics = "3a15" + "0a0a" + b"validation".hex() + "11" + struct.pack("<d", 0.5).hex()
    assert data.hex() == head + theta + prototypes + metrics
    shown = re.findall(r"^((?:[0-9a-f]+ )+) +\w", DOCUMENT.read_text(), re.MULTILINE)
    assert "".join(shown).replace(" ", "") == data.hex()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"task": ""}, "task is not 32"),
        ({"task": TASK.upper()}, "task is not 32"),
        ({"task": TASK + "\n"}, "task is not 32"),
        ({"bundle": b"x" * 31}, "bundle is 31 bytes"),
        ({"samples": 0}, "of 0 samples"),
        ({"samples": LARGEST_SAMPLES + 1}, "of 1000000001 samples"),
        ({"samples": 2**64 - 1}, "samples"),
        ({"delta": True}, "no theta to add it to"),
    ],
)
def test_an_update_that_is_not_sound_is_refused(changes, words):
    with pytest.raises(WireError, match=words) as caught:
        decode_update(a_message(**changes).SerializeToString(), SIZES)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("", 1.0, "is not named by"),
        ("Loss", 1.0, "is not named by"),
        ("loss\n", 1.0, "is not named by"),
        ("x" * (LARGEST_METRIC_NAME + 1), 1.0, "is not named by"),
        ("évaluation", 1.0, "is not named by"),
        ("loss", np.nan, "loss is nan, not a finite"),
        ("loss", -np.inf, "loss is -inf"),
    ],
)
def test_metrics_are_few_named_plainly_and_finite(name, value, words):
    message = a_message()
    message.metrics[name] = value
    with pytest.raises(WireError, match=words) as caught:
        decode_update(message.SerializeToString(), SIZES)
    assert "\n" not in str(caught.value)
    with pytest.raises(WireError, match=words):
        encode_update(an_update(metrics={name: value}))
    with pytest.raises(WireError, match="more than 32"):
        encode_update(an_update(metrics={f"m{i}": 1.0 for i in range(33)}))


def test_parts_that_do_not_go_together_are_refused():
    message = a_message()
    message.ClearField("prototypes")
    with pytest.raises(WireError, match="one of theta and prototypes"):
        decode_update(message.SerializeToString(), SIZES)
    with pytest.raises(WireError, match="prototypes and no theta"):
        encode_update(an_update(theta=None))
    with pytest.raises(WireError, match="needs the task's theta"):
        encode_update(an_update(), None, Encoding.INT8)
    with pytest.raises(WireError, match=r"shape \[3\], not \[600\]"):
        encode_update(an_update(), noise(0, 3), Encoding.INT8)
    with pytest.raises(WireError, match=r"shape \[3\], not \[640\]"):
        encode_update(an_update(), noise(0, SIZES[0]), Encoding.INT8, noise(0, 3))
    with pytest.raises(WireError, match=r"shape \[600, 1\]"):
        encode_update(an_update(theta=noise(0, SIZES[0])[:, None]))
    with pytest.raises(WireError, match="update's prototypes has 40 numbers, not 41"):
        decode_update(encode_update(an_update())[0], (600, 41))


def test_a_difference_that_leaves_float32_is_refused():
    message = a_message(delta=True)
    message.theta.data = np.full(SIZES[0], LARGE, "<f4").tobytes()
    with pytest.raises(WireError, match="not finite where it is added"):
        decode_update(message.SerializeToString(), SIZES, np.full(SIZES[0], LARGE, np.float32))


def test_an_error_is_one_of_the_family():
    assert issubclass(WireError, FedaliError)


def test_a_task_has_one_id():
    ids = {task_id(run, round_, kind) for run in ("a", "b", "a1") for round_ in (1, 11, 2) for kind in (1, 2)}
    assert len(ids) == 18
    assert task_id("a", 1, pb.TASK_KIND_EVALUATE) == task_id("a", 1, 2)
    assert all(len(one) == 32 and int(one, 16) >= 0 for one in ids)


def test_names_of_runs():
    for good in ("a", "digits-2", "0" * 64):
        assert check_run_name(good) == good
    for bad in ("", "A", "a b", "a/b", "..", "a\n", "0" * 65, "é"):
        with pytest.raises(WireError, match="cannot name a run"):
            check_run_name(bad)
