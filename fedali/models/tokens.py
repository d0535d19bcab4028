"""Whether a model can take ids of tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from torch import nn

from fedali.errors import SettingsError
from fedali.models.base import Model


def check_tokens(model: Model, ids: Sequence[npt.NDArray[np.int64]]) -> None:
    """Raise ``SettingsError`` for a model that has no table of embeddings, or one that is too small for ``ids`` of tokens, clients' [n, T]."""
    tables = [module.num_embeddings for module in model.modules() if isinstance(module, nn.Embedding)]
    largest = max(int(one.max(initial=0)) for one in ids)
    name = type(model).__name__
    if not tables:
        raise SettingsError(
            f"model {name} has no torch.nn.Embedding, and samples are ids of tokens: give a model that has one"
        )
    if largest >= max(tables):
        raise SettingsError(
            f"model {name} embeds tokens 0 to {max(tables) - 1}, and the data have {largest}: give it {largest + 1} embeddings"
        )
