"""The numbers of the wire: there and back, what encodings lose, and that nothing but sound numbers or WireError comes out."""

from __future__ import annotations

import dataclasses
import re
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedali.errors import FedaliError
from fedali.v1 import federation_pb2 as pb
from fedali.wire.messages import (
    BLOCK,
    LARGEST_METRIC_NAME,
    LARGEST_METRICS,
    LARGEST_SAMPLES,
    ClientUpdate,
    Encoding,
    WireError,
    check_run_name,
    decode,
    decode_state,
    decode_update,
    encode,
    encode_state,
    encode_update,
    largest_update,
    task_id,
)

TASK = task_id("first", 1, pb.TASK_KIND_TRAIN)
BUNDLE = bytes(range(32))
DOCUMENT = Path(__file__).parents[3] / "docs/wire.md"
SIZES = (600, 40)
LARGE = float(np.float32(3.0e38))

finite = st.floats(-LARGE, LARGE, width=32)
usual = st.floats(-1000, 1000, width=32)
encodings = st.sampled_from(Encoding)
lossy = st.sampled_from([Encoding.FLOAT16, Encoding.INT8])


def vectors(elements=finite, size=None):
    return arrays(np.float32, st.integers(0, 700) if size is None else size, elements=elements)


def noise(seed, size, scale=1.0):
    return (np.random.default_rng(seed).standard_normal(size) * scale).astype(np.float32)


def an_update(seed=0, **changes):
    theta, prototypes = noise(seed, SIZES[0]), noise(seed + 1, SIZES[1])
    update = ClientUpdate(TASK, BUNDLE, 120, theta, prototypes, {"train_loss": 0.25, "validation": 1.0})
    return dataclasses.replace(update, **changes)


def a_message(**changes):
    """The parsed message of an update in float32, for tests to spoil."""
    message = pb.Update.FromString(encode_update(an_update())[0])
    for name, value in changes.items():
        setattr(message, name, value)
    return message


# --- tensors ---


@given(vectors())
def test_float32_keeps_every_bit(values):
    tensor, lost = encode(values, Encoding.FLOAT32)
    assert decode(tensor, values.size).tobytes() == values.tobytes()
    assert not lost.any()


@given(vectors(), encodings)
def test_what_arrives_and_what_was_lost_make_the_whole(values, encoding):
    tensor, lost = encode(values, encoding)
    arrived = decode(pb.Tensor.FromString(tensor.SerializeToString()), values.size)
    assert arrived.dtype == np.float32
    assert arrived.flags.writeable
    np.testing.assert_array_equal(values - arrived, lost)


@given(vectors(st.floats(-65000, 65000, width=32)))
def test_float16_loses_half_a_unit_at_most(values):
    _, lost = encode(values, Encoding.FLOAT16)
    units = np.spacing(np.abs(values).astype(np.float16)).astype(np.float32)
    assert (np.abs(lost) <= units / 2).all()


@given(vectors())
def test_int8_loses_half_a_step_of_its_block_at_most(values):
    tensor, lost = encode(values, Encoding.INT8)
    for start, scale in zip(range(0, values.size, BLOCK), tensor.scales, strict=True):
        block = slice(start, start + BLOCK)
        largest = np.abs(values[block]).max()
        assert np.isclose(scale, largest / 127, rtol=1e-6, atol=1e-44)
        # a scale below the smallest normal number has few digits left; all of the block may then be lost
        assert (np.abs(lost[block]) <= max(scale / 2 * (1 + 1e-4), 127e-44)).all()


def test_numbers_that_float16_has_no_room_for_are_sent_as_its_largest_and_the_rest_is_owed():
    tensor, lost = encode(np.array([1e6, -1e30, 1e-12], np.float32), Encoding.FLOAT16)
    np.testing.assert_array_equal(decode(tensor, 3), np.array([65504, -65504, 0], np.float32))
    np.testing.assert_array_equal(lost, np.array([1e6 - 65504, -1e30, 1e-12], np.float32))


@given(st.lists(vectors(usual, 300), min_size=1, max_size=25), lossy)
def test_with_feedback_the_sum_of_what_arrives_is_the_sum_of_what_was_sent(rounds, encoding):
    residual, total = None, np.zeros(300)
    for values in rounds:
        tensor, residual = encode(values, encoding, residual)
        total += decode(tensor, 300)
    wanted = np.sum(rounds, axis=0, dtype=np.float64)
    one_rounding = 1000 / 127 + 1e-3 if encoding is Encoding.INT8 else 0.5
    # float32 sums of values and residuals round too, once a round
    slack = len(rounds) * 2000 * np.finfo(np.float32).eps
    assert (np.abs(residual) <= one_rounding).all()
    np.testing.assert_allclose(total + residual, wanted, rtol=0, atol=slack)


def test_without_feedback_what_is_small_is_lost_for_ever():
    values = np.full(BLOCK, 1e-4, np.float32)
    values[0] = 1.0
    kept, dropped, residual = np.zeros(BLOCK), np.zeros(BLOCK), None
    for _ in range(100):
        tensor, residual = encode(values, Encoding.INT8, residual)
        kept += decode(tensor, BLOCK)
        dropped += decode(encode(values, Encoding.INT8)[0], BLOCK)
    assert (dropped[1:] == 0).all()
    np.testing.assert_allclose(kept, 100 * values, atol=1 / 127)


@pytest.mark.parametrize("encoding", Encoding)
def test_the_bytes_are_what_the_document_says(encoding):
    """An independent reading of docs/wire.md, one number after another."""
    values = noise(3, 2 * BLOCK + 17)
    tensor = pb.Tensor.FromString(encode(values, encoding)[0].SerializeToString())
    assert (tensor.encoding, tensor.size) == (encoding, values.size)
    read = []
    for i in range(tensor.size):
        if encoding is Encoding.FLOAT32:
            (number,) = struct.unpack_from("<f", tensor.data, 4 * i)
        elif encoding is Encoding.FLOAT16:
            (number,) = struct.unpack_from("<e", tensor.data, 2 * i)
        else:
            number = struct.unpack_from("b", tensor.data, i)[0] * tensor.scales[i // 256]
        read.append(number)
    np.testing.assert_allclose(np.array(read, np.float32), decode(tensor, values.size), rtol=1e-7)


def test_numbers_that_are_not_finite_are_not_sent():
    for bad in (np.nan, np.inf, -np.inf):
        for encoding in Encoding:
            with pytest.raises(WireError, match="not finite"):
                encode(np.array([0.0, bad], np.float32), encoding)
    huge = np.array([LARGE], np.float32)
    with pytest.raises(WireError, match="not finite"):
        encode(huge, Encoding.INT8, huge)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"size": 2}, "has 2 numbers, not 3"),
        ({"size": 2**64 - 1}, "numbers, not 3"),
        ({"encoding": 0}, "encoding is 0; known: 1 .float32., 2 .float16., 3 .int8."),
        ({"encoding": 77}, "encoding is 77"),
        ({"encoding": 2}, "has 12 bytes for 3 numbers of 2"),
        ({"data": b""}, "has 0 bytes"),
        ({"data": bytes(13)}, "has 13 bytes"),
        ({"scales": [1.0]}, "has 1 scales, not 0"),
        ({"data": struct.pack("<3f", 0, np.nan, 0)}, "not finite"),
        ({"data": struct.pack("<3f", 0, 0, np.inf)}, "not finite"),
        ({"encoding": 2, "data": struct.pack("<3e", 0, 0, np.inf)}, "not finite"),
        ({"encoding": 3, "data": bytes(3)}, "has 0 scales, not 1"),
        ({"encoding": 3, "data": bytes(3), "scales": [1.0, 1.0]}, "has 2 scales, not 1"),
        ({"encoding": 3, "data": bytes(3), "scales": [-1.0]}, "negative or not finite"),
        ({"encoding": 3, "data": bytes(3), "scales": [np.nan]}, "negative or not finite"),
        ({"encoding": 3, "data": bytes(3), "scales": [np.inf]}, "negative or not finite"),
        ({"encoding": 3, "data": b"\x00\x80\x00", "scales": [1.0]}, "the byte -128"),
        ({"encoding": 3, "data": b"\x00\x7f\x00", "scales": [LARGE]}, "not finite"),
    ],
)
def test_a_tensor_that_is_not_sound_is_refused(changes, words):
    fields = {"encoding": 1, "size": 3, "data": bytes(12)} | changes
    with pytest.raises(WireError, match=words):
        decode(pb.Tensor(**fields), 3)


# --- states ---


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


# --- updates ---


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


# --- whatever comes, sound numbers or WireError ---


def attempt(decoder, *arguments, **options):
    """What the decoder makes of it; None for a ``WireError`` of one line. Any other exception is a failure."""
    try:
        return decoder(*arguments, **options)
    except WireError as error:
        why = str(error)
    assert why.isprintable()
    assert len(why) < 300
    return None


def judge(data, sizes=SIZES, largest=None):
    """Both decoders on bytes of any origin."""
    reference = np.zeros(sizes[0], np.float32)
    update = attempt(decode_update, data, sizes, reference, largest=largest)
    if update is not None:
        assert 1 <= update.samples <= LARGEST_SAMPLES
        assert all(np.isfinite(value) for value in update.metrics.values())
        if update.theta is not None:
            assert (update.theta.size, update.prototypes.size) == sizes
            assert np.isfinite(update.theta).all()
            assert np.isfinite(update.prototypes).all()
    state = attempt(decode_state, data, sizes)
    if state is not None:
        assert tuple(part.size for part in state) == sizes
        assert all(np.isfinite(part).all() for part in state)


@given(st.binary(max_size=4096))
@example(b"")
@example(b"\x0b" * 4096)  # groups in groups
@example(b"\x3a\x00" * 2048)  # metrics without a name
@example(b"\x2a\xff\xff\xff\xff\x0f")  # a theta of 4 GiB, of which nothing follows
@example(b"\x3a\x03\x0a\x01\xff")  # a name that is no UTF-8
def test_any_bytes(data):
    judge(data)
    judge(data, (0, 0))


MESSAGES = [
    *(encode_update(an_update(), noise(9, SIZES[0]), encoding)[0] for encoding in Encoding),
    encode_update(an_update(theta=None, prototypes=None))[0],
    encode_state(noise(0, SIZES[0]), noise(1, SIZES[1])),
]


@given(
    st.sampled_from(MESSAGES),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=8),
    st.floats(0, 1),
    st.binary(max_size=16),
)
def test_sound_messages_with_bytes_changed_cut_off_and_added(message, changes, kept, added):
    data = bytearray(message)
    for place, value in changes:
        data[int(place * len(data))] = value
    judge(bytes(data))
    judge(bytes(data[: int(kept * len(data))]) + added)


floats = st.floats(width=32, allow_nan=True, allow_infinity=True)
tensors = st.builds(
    pb.Tensor,
    encoding=st.integers(-(2**31), 2**31 - 1) | st.integers(0, 3),
    size=st.integers(0, 2**64 - 1) | st.integers(0, 9),
    data=st.binary(max_size=40),
    scales=st.lists(floats, max_size=3),
)
updates = st.builds(
    pb.Update,
    task=st.just(TASK) | st.text(max_size=40),
    bundle=st.just(BUNDLE) | st.binary(max_size=40),
    samples=st.integers(0, 2**64 - 1) | st.integers(0, 9),
    delta=st.booleans(),
    theta=st.none() | tensors,
    prototypes=st.none() | tensors,
    metrics=st.dictionaries(st.text(max_size=60), st.floats(), max_size=4),
)


@given(updates, st.tuples(st.integers(0, 9), st.integers(0, 9)))
def test_messages_of_every_kind_of_content(update, sizes):
    judge(update.SerializeToString(), sizes)


@given(tensors, st.integers(0, 9))
def test_tensors_of_every_kind_of_content(tensor, size):
    try:
        numbers = decode(tensor, size)
    except WireError:
        return
    assert numbers.shape == (size,)
    assert np.isfinite(numbers).all()


def test_what_is_said_to_be_huge_takes_no_memory():
    declared = pb.Tensor(encoding=Encoding.INT8, size=2**40, data=b"x", scales=[1.0])
    message = a_message()
    message.theta.CopyFrom(declared)
    data = message.SerializeToString()
    tracemalloc.start()
    for size in (2**40, SIZES[0]):
        with pytest.raises(WireError):
            decode(declared, size)
    with pytest.raises(WireError):
        decode_update(data, SIZES)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


def test_what_is_huge_is_not_even_parsed():
    data = bytes(32 << 20)
    tracemalloc.start()
    with pytest.raises(WireError, match=f"has {32 << 20} bytes; at most {largest_update(SIZES)}"):
        decode_update(data, SIZES)
    with pytest.raises(WireError, match="has 33 bytes; at most 32"):
        decode_update(bytes(33), SIZES, largest=32)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


# --- names ---


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
