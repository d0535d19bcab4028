"""Names for objects by what they hold: the same name, the same content."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from fedali.data import Dataset


def data_name(dataset: Dataset) -> str:
    """Of a data set: its own name, and a few digits of its content's hash."""
    known = hashlib.sha256(repr((dataset.client_names, dataset.class_names, dataset.channel_names)).encode())
    parts = () if dataset.part is None else (dataset.part,)
    for array in (dataset.client, dataset.y, dataset.recording, dataset.start, *parts, dataset.x):
        _add(known, array)
    return f"{dataset.name}-{known.hexdigest()[:8]}"


def model_name(thing: Any) -> str:
    """Of a network: its class, and a few digits of the hash of its weights and of how it is taken; of a class its name alone."""
    if isinstance(thing, type):
        return thing.__name__
    net = getattr(thing, "net", thing)  # of what fedali.adapt gives
    known = hashlib.sha256(str(net).encode())
    if net is not thing:
        taken = {key: value for key, value in sorted(vars(thing).items()) if key != "net"}
        known.update(repr(taken).encode())
    if hasattr(net, "state_dict"):
        for name, tensor in net.state_dict().items():
            known.update(name.encode())
            _add(known, tensor.detach().cpu().float().numpy())
    return f"{type(net).__name__}-{known.hexdigest()[:8]}"


def _add(known: Any, array: Any) -> None:
    known.update(repr((array.shape, array.dtype.str)).encode())
    known.update(np.ascontiguousarray(array).view(np.uint8).data)
