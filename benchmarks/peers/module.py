"""Our model as the plain module that a peer takes: a ``base`` that embeds and a ``head``, with the same parameters in the same order."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fedali.models.base import Model


class Base(nn.Module):
    """A model's embedding, without its head."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = copy.deepcopy(model)
        self.model.head = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings [B, d] of samples [B, *shape]."""
        return self.model.features(x, None)


class Plain(nn.Module):
    """A model in two parts, as PFLlib splits its own. Norms are named ``bn``, by which its FedBN knows them."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.base, self.head = Base(model), copy.deepcopy(model.head)
        names = list(model.parameter_layout.names)
        assert names == sorted(names, key=lambda name: name.startswith("head.")), "the head comes last"

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, classes] of samples [B, *shape]."""
        return self.head(self.base(x))

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        """Parameters, those of norms as ``bn``."""
        for name, value in super().named_parameters(prefix, recurse, remove_duplicate):
            yield name.replace("norm", "bn"), value


def flat(parameters: Iterable[Tensor]) -> npt.NDArray[np.floating]:
    """Parameters as our theta [M], copied."""
    return torch.cat([value.detach().reshape(-1) for value in parameters]).numpy().copy()
