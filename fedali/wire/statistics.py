"""What a device's training data add up to, as bytes of an ``Update`` and strictly back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fedali.data.normalisation import ChannelSums, channel_shape
from fedali.errors import WireError
from fedali.v1 import federation_pb2
from fedali.wire import messages

_ROUNDING = 1e-6  # of a sum's square, that squares may be short of what is possible


@dataclass(frozen=True, eq=False)
class StatisticsUpdate:
    """What a device answers a task of statistics with: the task's id, the bundle's SHA-256, how many ``samples`` its ``sums`` are of."""

    task: str
    bundle: bytes
    samples: int
    sums: ChannelSums
    metrics: Mapping[str, float] = field(default_factory=dict)


def to_message(sums: ChannelSums) -> federation_pb2.Statistics:
    """Sums as they travel."""
    return federation_pb2.Statistics(count=sums.count, sums=sums.sums.tolist(), squares=sums.squares.tolist())


def of_message(message: federation_pb2.Statistics) -> ChannelSums:
    """What ``to_message`` made. Raises ``WireError`` for sums that no numbers have."""
    count = int(message.count)
    sums, squares = np.array(message.sums, np.float64), np.array(message.squares, np.float64)
    if not count or not sums.size or sums.shape != squares.shape:
        raise WireError(f"the statistics have {sums.size} sums and {squares.size} squares of {count} values")
    with np.errstate(over="ignore", invalid="ignore"):
        sound = np.isfinite(sums) & np.isfinite(squares)
        sound &= np.square(sums / count) <= squares / count * (
            1 + _ROUNDING
        )  # the mean's square, and the square's mean
    if not sound.all():
        raise WireError(
            f"the statistics of channel {int(np.argmin(sound)) + 1} are not finite, or of no numbers"
        )
    return ChannelSums(count, sums, squares)


def encode_statistics(update: StatisticsUpdate) -> bytes:
    """A serialised ``Update``; ``WireError`` for what ``decode_statistics`` would refuse."""
    message = federation_pb2.Update(task=update.task, bundle=update.bundle, samples=update.samples)
    message.statistics.CopyFrom(to_message(update.sums))
    messages.check_header(message)
    of_message(message.statistics)
    return message.SerializeToString(deterministic=True)


def decode_statistics(data: bytes, sample_shape: Sequence[int]) -> StatisticsUpdate:
    """What ``encode_statistics`` wrote, or any other device, of samples of this shape.

    Raises ``WireError`` for anything that cannot be used. Whether task and bundle are the right ones is for the caller to see.
    """
    channels = channel_shape(sample_shape)[0]
    message = messages.parse(federation_pb2.Update, data, largest_statistics(sample_shape), "the update")
    messages.check_header(message)
    if not message.HasField("statistics"):
        raise WireError("the update has no statistics, and the task was to send them")
    sums = of_message(message.statistics)
    if sums.sums.size != channels:
        raise WireError(f"the statistics are of {sums.sums.size} channels; samples have {channels}")
    values = message.samples * int(np.prod(sample_shape)) // channels
    if sums.count != values:
        raise WireError(
            f"the statistics are of {sums.count} values a channel; {message.samples} samples have {values}"
        )
    return StatisticsUpdate(message.task, message.bundle, message.samples, sums, dict(message.metrics))


def largest_statistics(sample_shape: Sequence[int]) -> int:
    """Bytes that an update with statistics may have."""
    return messages.largest_update((4 * channel_shape(sample_shape)[0], 0))
