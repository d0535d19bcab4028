"""Tensors on the wire: float32, float16, or int8 by blocks; what an encoding lost is owed.

>>> sent, lost = encode(np.array([0.5, -1.0, 0.3], np.float32), Encoding.INT8)
>>> len(sent.data), decode(sent, 3) + lost
(3, array([ 0.5, -1. ,  0.3], dtype=float32))
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from fedali.errors import WireError
from fedali.v1 import federation_pb2

Vector = npt.NDArray[np.float32]

BLOCK = 256  # numbers that share a scale in int8
_LARGEST_HALF = np.float32(65504)  # the largest finite number of float16


class Encoding(IntEnum):
    """How a tensor's numbers are written, as in ``federation.proto``."""

    FLOAT32 = 1
    FLOAT16 = 2
    INT8 = 3


def encode(
    values: Vector, encoding: Encoding, residual: Vector | None = None
) -> tuple[federation_pb2.Tensor, Vector]:
    """A tensor of ``values + residual`` [n], and what the encoding lost of it [n], to be given as the next ``residual``.

    With this error feedback the sum of all that is decoded stays within one rounding of the sum of all ``values``,
    however many rounds. Numbers too large for float16 are sent as its largest, and the rest is owed too.

    Raises ``WireError`` for numbers that are not finite.
    """
    wanted = as_vector(values, "the tensor")
    if residual is not None:
        with np.errstate(over="ignore"):
            wanted = wanted + as_vector(residual, "what an earlier round lost", wanted.size)
    if not np.isfinite(wanted).all():
        raise WireError("the tensor is not sent: it has numbers that are not finite; did training diverge?")
    if encoding is Encoding.FLOAT32:
        data, scales, sent = wanted.astype("<f4").tobytes(), (), wanted
    elif encoding is Encoding.FLOAT16:
        halves = np.clip(wanted, -_LARGEST_HALF, _LARGEST_HALF).astype("<f2")
        data, scales, sent = halves.tobytes(), (), halves.astype(np.float32)
    else:
        bytes_, scale = _to_int8(wanted)
        data, scales, sent = bytes_.tobytes(), scale.tolist(), _from_int8(bytes_, scale)
    tensor = federation_pb2.Tensor(encoding=int(encoding), size=wanted.size, data=data, scales=scales)  # type: ignore[arg-type]
    return tensor, wanted - sent


def decode(tensor: federation_pb2.Tensor, size: int) -> Vector:
    """The numbers [size] of a tensor, float32.

    Raises ``WireError`` unless there are exactly ``size`` finite numbers, written as the tensor says.
    """
    if tensor.size != size:
        raise WireError(f"the tensor has {tensor.size} numbers, not {size}")
    number = int(tensor.encoding)  # any, whatever its type says
    if number not in list(Encoding):
        raise WireError(f"the tensor's encoding is {number}; known: {_KNOWN}")
    encoding = Encoding(number)
    data = tensor.data  # each look at a field of bytes copies it
    width, scales = _DTYPES[encoding].itemsize, -(-size // BLOCK) if encoding is Encoding.INT8 else 0
    if len(data) != size * width:
        raise WireError(f"the tensor has {len(data)} bytes for {size} numbers of {width}")
    if len(tensor.scales) != scales:
        raise WireError(f"the tensor has {len(tensor.scales)} scales, not {scales}")
    if encoding is Encoding.INT8:
        numbers = _decode_int8(data, np.array(tensor.scales, np.float32))
    else:
        numbers = np.frombuffer(data, _DTYPES[encoding]).astype(np.float32)
    if not np.isfinite(numbers).all():
        raise WireError("the tensor has numbers that are not finite")
    return numbers


_DTYPES: dict[Encoding, np.dtype[Any]] = {
    Encoding.FLOAT32: np.dtype("<f4"),
    Encoding.FLOAT16: np.dtype("<f2"),
    Encoding.INT8: np.dtype("i1"),
}
_KNOWN = ", ".join(f"{encoding.value} ({encoding.name.lower()})" for encoding in Encoding)


def _to_int8(values: Vector) -> tuple[npt.NDArray[np.int8], Vector]:
    """``values`` [n] as -127 to 127 [n] times a scale for each block."""
    blocks = np.zeros((-(-values.size // BLOCK), BLOCK), np.float32)
    blocks.reshape(-1)[: values.size] = values
    scales = np.abs(blocks).max(axis=1) / np.float32(127)
    steps = np.rint(blocks / np.where(scales > 0, scales, 1)[:, None])
    return np.clip(steps, -127, 127).astype(np.int8).reshape(-1)[: values.size], scales


def _from_int8(steps: npt.NDArray[np.int8], scales: Vector) -> Vector:
    return steps.astype(np.float32) * np.repeat(scales, BLOCK)[: steps.size]


def _decode_int8(data: bytes, scales: Vector) -> Vector:
    steps = np.frombuffer(data, np.int8)
    if not (np.isfinite(scales).all() and (scales >= 0).all()):
        raise WireError("the tensor has scales that are negative or not finite")
    if (steps == -128).any():
        raise WireError("the tensor has the byte -128; int8 goes from -127 to 127")
    with np.errstate(over="ignore"):
        return _from_int8(steps, scales)


def as_vector(values: npt.NDArray[np.floating], what: str, size: int | None = None) -> Vector:
    """``values`` as float32 [size]; ``WireError`` for another shape."""
    vector = np.ascontiguousarray(values, np.float32)
    if vector.ndim != 1 or (size is not None and vector.size != size):
        raise WireError(f"{what} has the shape {list(vector.shape)}, not [{'n' if size is None else size}]")
    return vector
