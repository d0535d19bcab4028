"""Logits and embeddings of a model for samples; engines themselves give classes alone."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from fedali.engines.base import Samples, Vector
from fedali.engines.common import in_order
from fedali.models.base import Model
from fedali.step.forward import make_output

_BATCH = 256
Floats = npt.NDArray[np.float32]


class Outputs:
    """Runs a model as it is written, in float32 on the CPU, whatever engine trains it: the same bits for all."""

    def __init__(self, model: Model) -> None:
        self._infer = make_output(copy.deepcopy(model).to("cpu", torch.float32), matcher="cosine")

    def __call__(
        self, theta: Vector, prototypes: Vector, sets: Sequence[Samples], influence: float
    ) -> list[tuple[Floats, Floats]]:
        """Logits [n, classes] and embeddings [n, d] of each set, by a model with parameters [M] and prototypes [L]."""
        given = [torch.tensor(vector, dtype=torch.float32) for vector in (theta, prototypes)]
        found = [self._infer(*given, torch.from_numpy(x), influence) for x in in_order(sets, _BATCH)]
        ends = np.cumsum([len(samples) for samples in sets])[:-1]
        if not found:
            return [(np.zeros((0, 0), np.float32), np.zeros((0, 0), np.float32)) for _ in sets]
        logits, embeddings = (
            np.split(torch.cat([getattr(one, name) for one in found]).numpy(), ends)
            for name in ("logits", "embedding")
        )
        return list(zip(logits, embeddings, strict=True))
