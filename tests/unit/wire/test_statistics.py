"""Statistics of channels: sums equal to those of pooled data, and what comes over the wire is sound or refused."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedali.data.normalisation import ChannelSums, add_up, channel_statistics, channel_sums
from fedali.errors import WireError
from fedali.v1 import federation_pb2 as pb
from fedali.wire.messages import decode_update, task_id
from fedali.wire.statistics import (
    StatisticsUpdate,
    decode_statistics,
    encode_statistics,
    largest_statistics,
    of_message,
    to_message,
)

TASK = task_id("first", 0, pb.TASK_KIND_STATISTICS)
DOCUMENT = Path(__file__).parents[3] / "docs/wire.md"


def some(seed, n, shape, dtype=np.float32):
    random = np.random.default_rng(seed)
    channels = random.uniform(-100, 100, shape)
    return (random.standard_normal((n, *shape)) * random.uniform(0.1, 30) + channels).astype(dtype)


@pytest.mark.parametrize("shape", [(7,), (128, 6), (3, 9, 5), (1, 8, 8)])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.uint8, np.int64])
def test_sums_of_devices_are_those_of_all_their_data_pooled(shape, dtype):
    devices = [np.abs(some(seed, n, shape)).astype(dtype) for seed, n in enumerate((1, 300, 40, 1025))]
    together = add_up([channel_sums(x) for x in devices])
    pooled = np.concatenate(devices).astype(np.float64)
    columns = np.moveaxis(pooled, 1 if len(shape) == 3 else -1, 0).reshape(together.sums.size, -1)
    for found, numbers in ((together.sums, columns), (together.squares, np.square(columns))):
        np.testing.assert_allclose(found, [math.fsum(row) for row in numbers.tolist()], rtol=3e-15)
    assert together.count == pooled.size // together.sums.size
    found, wanted = together.normalisation(shape), channel_statistics([pooled])
    for one, other in ((found.mean, wanted.mean), (found.std, wanted.std)):
        assert (one.dtype, one.shape) == (np.float32, other.shape)
        np.testing.assert_allclose(one, other, rtol=3e-7)
    assert found(devices[0]).shape == devices[0].shape


@given(st.lists(st.integers(0, 2**32), min_size=2, max_size=6, unique=True), st.randoms())
def test_the_order_of_devices_changes_no_bit(seeds, chance):
    parts = [channel_sums(some(seed, 1 + seed % 5, (4, 3))) for seed in seeds]
    shuffled = parts[:]
    chance.shuffle(shuffled)
    one, other = add_up(parts), add_up(shuffled)
    assert (one.count, one.sums.tobytes(), one.squares.tobytes()) == (
        other.count,
        other.sums.tobytes(),
        other.squares.tobytes(),
    )


@pytest.mark.parametrize("value", [0.0, 0.1, -1013.25, 1e-4, 3.3e5])
@pytest.mark.parametrize("count", [1, 3, 100_000])
def test_a_channel_that_never_changes_has_no_deviation_of_rounding(value, count):
    x = np.full((count, 10, 2), value, np.float32)
    x[..., 1] += np.arange(count * 10, dtype=np.float32).reshape(count, 10)
    found = channel_sums(x).normalisation((10, 2))
    assert found.std[0] == 1
    assert found.std[1] > 1
    assert np.isfinite(found(x)).all()
    assert found(x)[..., 0].tolist() == np.zeros((count, 10)).tolist()


def an_update(**changes):
    sums = channel_sums(some(1, 5, (4, 2)))
    return StatisticsUpdate(
        **{"task": TASK, "bundle": bytes(range(32)), "samples": 5, "sums": sums, **changes}
    )


def test_an_update_comes_back_bit_by_bit():
    sent = an_update()
    found = decode_statistics(encode_statistics(sent), (4, 2))
    assert (found.task, found.bundle, found.samples, found.sums.count) == (TASK, bytes(range(32)), 5, 20)
    assert found.sums.sums.tobytes() == sent.sums.sums.tobytes()
    assert found.sums.squares.tobytes() == sent.sums.squares.tobytes()
    wide = channel_sums(some(2, 3, (20_000,)))
    data = encode_statistics(an_update(samples=3, sums=wide))
    assert len(data) <= largest_statistics((20_000,))
    assert decode_statistics(data, (20_000,)).sums.count == 3


def test_what_no_data_add_up_to_is_refused():
    def made(**changes):
        message = pb.Update.FromString(encode_statistics(an_update()))
        for name, value in changes.items():
            if name == "samples":
                message.samples = value
            elif isinstance(value, list):
                getattr(message.statistics, name)[:] = value
            else:
                setattr(message.statistics, name, value)
        return message.SerializeToString()

    for changes, line in (
        ({"count": 0}, "2 sums and 2 squares of 0 values"),
        ({"count": 21}, "of 21 values a channel; 5 samples have 20"),
        ({"samples": 6}, "of 20 values a channel; 6 samples have 24"),
        ({"sums": [1.0]}, "1 sums and 2 squares"),
        ({"sums": [1.0] * 3, "squares": [1.0] * 3}, "of 3 channels; samples have 2"),
        ({"sums": [float("nan"), 1.0]}, "of channel 1 are not finite"),
        ({"squares": [1e9, float("inf")]}, "of channel 2 are not finite"),
        ({"sums": [1e300, 1e300]}, "of channel 1 are not finite, or of no numbers"),
        ({"sums": [1.0, 1.0], "squares": [1.0, -1.0]}, "of channel 2 .* or of no numbers"),
        ({"sums": [100.0, 1.0], "squares": [400.0, 1.0]}, "of channel 1 .* or of no numbers"),
    ):
        with pytest.raises(WireError, match=line):
            decode_statistics(made(**changes), (4, 2))
    with pytest.raises(WireError, match="bytes; at most"):
        decode_statistics(bytes(largest_statistics((4, 2)) + 1), (4, 2))
    with pytest.raises(WireError, match="not the message it should be"):
        decode_statistics(b"\xff\xff", (4, 2))
    with pytest.raises(WireError, match="has no statistics"):
        decode_statistics(pb.Update(task=TASK, bundle=bytes(32), samples=5).SerializeToString(), (4, 2))
    with pytest.raises(WireError, match="of no numbers"):
        encode_statistics(an_update(sums=ChannelSums(20, np.full(2, np.nan), np.ones(2))))
    assert of_message(to_message(an_update().sums)).count == 20


def test_an_older_reader_takes_it_for_an_evaluation():
    found = decode_update(encode_statistics(an_update()), (3, 1))
    assert (found.theta, found.metrics) == (None, {})


def test_the_document_s_example_is_what_is_sent():
    text = DOCUMENT.read_text("utf-8").split("### Statistics, byte by byte")[1]
    shown = bytes.fromhex(text.split("```")[1])
    x = np.array([[[1, -2]], [[3, 0.5]]], np.float32)
    assert encode_statistics(StatisticsUpdate(TASK, bytes(32), 2, channel_sums(x))) == shown
    head = b"\x0a\x20" + TASK.encode() + b"\x12\x20" + bytes(32) + b"\x18\x02"
    numbers = [
        b"\x08\x02",
        b"\x12\x10",
        struct.pack("<2d", 4, -1.5),
        b"\x1a\x10",
        struct.pack("<2d", 10, 4.25),
    ]
    assert shown == head + b"\x42\x26" + b"".join(numbers)
