"""Messages for tests, and numbers to make them of."""

from __future__ import annotations

import dataclasses

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedali.v1 import federation_pb2 as pb
from fedali.wire.messages import ClientUpdate, encode_update, task_id
from fedali.wire.tensors import Encoding

TASK = task_id("first", 1, pb.TASK_KIND_TRAIN)
BUNDLE = bytes(range(32))
SIZES = (600, 40)
LARGE = float(np.float32(3.0e38))
finite = st.floats(-LARGE, LARGE, width=32)
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
