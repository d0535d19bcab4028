"""What every model of the registry is: features -> embedding, head -> logits, ALP layers in between."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fedali.alp import Alignment, ALPLayer, Duplicates, Matcher, TopK, Update
from fedali.errors import SettingsError
from fedali.layout import Layout
from fedali.slots import ModelFacts


class Output(NamedTuple):
    """Logits [B, classes] and the embedding [B, d] they were computed from."""

    logits: Tensor
    embedding: Tensor


@dataclass(frozen=True)
class ALPSettings:
    """How the ALP layers of a model are made; the names are those of ``fedali.alp.ALPLayer``."""

    num_prototypes: tuple[int, ...] = (64,)
    matcher: Matcher = "ot"
    gated: bool = True
    update: Update = "bulk"
    duplicates: Duplicates = "mean"
    topk_from: TopK = "batch"
    decay: float = 0.999
    temperature: float = 0.05
    iterations: int = 3
    scale: float = 1.0

    def layers(self, dims: tuple[int, ...]) -> list[ALPLayer]:
        """One layer for each place a model offers; one number of prototypes serves all places."""
        sizes = self.num_prototypes * len(dims) if len(self.num_prototypes) == 1 else self.num_prototypes
        if len(sizes) != len(dims):
            raise SettingsError(
                f"alp.num_prototypes has {len(sizes)} numbers; this model has {len(dims)} places for ALP layers: "
                f"give 1 or {len(dims)}"
            )
        return [
            ALPLayer(
                dim,
                size,
                matcher=self.matcher,
                gated=self.gated,
                update=self.update,
                duplicates=self.duplicates,
                topk_from=self.topk_from,
                decay=self.decay,
                temperature=self.temperature,
                iterations=self.iterations,
                scale=self.scale,
            )
            for dim, size in zip(dims, sizes, strict=True)
        ]


class Model(nn.Module):
    """A classifier whose parameters named ``head.*`` are its head; the rest is its body.

    Subclasses define ``features`` and ``head``. ``modules()`` must yield ALP layers in the order ``features`` calls
    them. Normalisation layers hold no running statistics, so that parameters are all there is to share.
    """

    head: nn.Module
    takes_tokens: bool = False
    """Whether samples are ids of tokens [B, T] int64; set where the data are known."""
    _seed = 0

    def features(self, x: Tensor, alignment: Alignment | None) -> Tensor:
        """Embedding [B, d] of samples [B, *shape]."""
        raise NotImplementedError

    def forward(self, x: Tensor, alignment: Alignment | None = None) -> Output:
        """Logits and embedding of samples [B, *shape]."""
        embedding = self.features(x, alignment)
        return Output(self.head(embedding), embedding)

    @property
    def alp_layers(self) -> list[ALPLayer]:
        """ALP layers in the order of the forward pass."""
        return [module for module in self.modules() if isinstance(module, ALPLayer)]

    @property
    def parameter_layout(self) -> Layout:
        """Layout of theta."""
        return Layout.of({name: p.shape for name, p in self.named_parameters()})

    @property
    def head_layout(self) -> Layout:
        """Layout of the head's stretch of theta; the names are those of ``parameter_layout``."""
        return Layout.of({n: p.shape for n, p in self.named_parameters() if n.startswith("head.")})

    @property
    def prototype_layout(self) -> Layout:
        """Layout of one set of prototypes, ``alp.0`` [K, d] and on; empty without ALP layers."""
        return Layout.of(
            {f"alp.{i}": (layer.num_prototypes, layer.dim) for i, layer in enumerate(self.alp_layers)}
        )

    @property
    def facts(self) -> ModelFacts:
        """What a method's slots need to know: classes and d are those of the head's last and first linear layer."""
        linear = [module for module in self.head.modules() if isinstance(module, nn.Linear)]
        return ModelFacts(self.parameter_layout, linear[-1].out_features, linear[0].in_features)

    @property
    def has_constants(self) -> bool:
        """Whether it has weights that neither train nor travel."""
        inside = {id(value) for layer in self.alp_layers for value in layer.buffers()}
        return any(id(value) not in inside for value in self.buffers())

    @property
    def seed_of_constants(self) -> int:
        """The seed that ``build_model`` made it with."""
        return self._seed

    def theta(self) -> Tensor:
        """The parameters as one flat vector [P], copied."""
        return torch.cat([p.detach().reshape(-1) for p in self.parameters()])


def groups(channels: int) -> int:
    """Number of groups for GroupNorm: 8 where it divides the channels, else the largest divisor below."""
    return next(n for n in range(min(8, channels), 0, -1) if channels % n == 0)
