"""Whatever comes, sound numbers or ``WireError``."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fedali.errors import WireError
from fedali.v1 import federation_pb2 as pb
from fedali.wire.messages import (
    LARGEST_SAMPLES,
    decode_state,
    decode_update,
    encode_state,
    encode_update,
    largest_update,
)
from fedali.wire.tensors import Encoding, decode
from tests.unit.wire.messages import BUNDLE, SIZES, TASK, a_message, an_update, noise


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
