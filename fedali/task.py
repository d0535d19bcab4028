"""A batch of samples and what is known of them; what is learnt of it says ``fedali.tasks``."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """Samples x [B, *shape], classes y [B] or targets y [B, T], and weights [B]; weight 0 marks padding, so that B may be fixed."""

    x: Tensor
    y: Tensor
    weights: Tensor
