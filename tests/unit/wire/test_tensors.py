"""Numbers of a tensor: there and back, what encodings lose, and that what is not sound is refused."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedali.errors import WireError
from fedali.v1 import federation_pb2 as pb
from fedali.wire.tensors import BLOCK, Encoding, decode, encode
from tests.unit.wire.messages import LARGE, encodings, lossy, noise, vectors

usual = st.floats(-1000, 1000, width=32)


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
