"""The ALP layer: alignment with prototypes (paper, section 3), as a pure function and a module around it.

A token is one embedding of a window. Each token is matched to prototypes by a transport plan between the tokens of
the batch and the prototypes; the matched *global* prototype, gated, is blended into the token; the *local*
prototypes move towards the tokens they stand for. ``align`` is that in one function without side effects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from fedali.errors import SettingsError, did_you_mean
from fedali.sinkhorn import sinkhorn as sinkhorn

Matcher = Literal["ot", "cosine", "euclidean"]
Update = Literal["bulk", "single"]
Duplicates = Literal["mean", "last"]
TopK = Literal["batch", "tokens"]

_NEVER = -1e30  # a score that no token reaches


def l2_normalise(x: Tensor) -> Tensor:
    """``x`` with the last axis scaled to unit length; its derivative is finite at zero."""
    return x * torch.rsqrt(torch.clamp((x * x).sum(-1, keepdim=True), min=1e-12))


def match(
    tokens: Tensor,
    prototypes: Tensor,
    matcher: Matcher,
    *,
    temperature: float = 0.05,
    iterations: int = 3,
    valid: Tensor | None = None,
) -> Tensor:
    """Match matrix [N, P] of tokens [N, d] and prototypes [P, d].

    ``ot``: the transport plan of ``sinkhorn``; ``cosine``: cosine similarity; ``euclidean``: the *distance* of the
    unit vectors. The best prototype is the largest entry of a row, for ``euclidean`` the smallest: see ``assign``.
    """
    if matcher == "ot":
        cosine = l2_normalise(tokens) @ l2_normalise(prototypes).T
        return sinkhorn(cosine, temperature=temperature, iterations=iterations, valid=valid)
    token_norms = tokens.norm(dim=1, keepdim=True)
    prototype_norms = prototypes.norm(dim=1, keepdim=True)
    if matcher == "cosine":
        similarity: Tensor = (tokens @ prototypes.T) / (token_norms @ prototype_norms.T + 1e-7)
        return similarity
    a, b = tokens / (token_norms + 1e-7), prototypes / (prototype_norms + 1e-7)
    squared: Tensor = (a * a).sum(1, keepdim=True) - 2 * (a @ b.T) + (b * b).sum(1)[None]
    return squared.clamp(min=0.0).sqrt()


def assign(matrix: Tensor, matcher: Matcher) -> Tensor:
    """Best prototype of each token: [N] indices into the columns of a match matrix."""
    return matrix.argmin(1) if matcher == "euclidean" else matrix.argmax(1)


def bulk_update(
    tokens: Tensor, local: Tensor, matrix: Tensor, decay: Tensor | float, k: int, valid: Tensor | None
) -> Tensor:
    """Every local prototype moves to the score-weighted mean of its ``k`` best tokens. [K, d] -> [K, d].

    ``matrix`` [N, K] are the local columns of the match matrix. As published the *largest* entries are taken for
    every matcher, for ``euclidean`` too, where they are the farthest tokens.
    """
    if valid is not None:
        matrix = torch.where(valid[:, None] > 0, matrix, torch.full_like(matrix, _NEVER))
    if k == 1:  # the same, several times faster
        best, where = matrix.max(0)
        scores, chosen = best[:, None], where[:, None]
    else:
        scores, chosen = torch.topk(matrix.T, k, dim=1)
    if valid is not None:  # fewer tokens than k: the rest weighs nothing
        scores = torch.where(scores > _NEVER, scores, torch.zeros_like(scores))
    scores = scores / scores.sum(1, keepdim=True)
    target = (tokens[chosen] * scores[..., None]).sum(1)
    return decay * local + (1 - decay) * target


def single_update(
    tokens: Tensor,
    local: Tensor,
    assigned: Tensor,
    decay: Tensor | float,
    duplicates: Duplicates,
    valid: Tensor | None,
) -> Tensor:
    """Every token moves the local prototype it is assigned to. [K, d] -> [K, d].

    Tokens that share a prototype are averaged (``duplicates="mean"``), or the last one of the batch wins
    (``"last"``, what the reference implementation does).
    """
    size = local.shape[0]
    mass = torch.ones_like(tokens[:, 0]) if valid is None else valid
    count = torch.zeros_like(local[:, 0]).index_add(0, assigned, mass)
    if duplicates == "mean":
        total = torch.zeros_like(local).index_add(0, assigned, tokens * mass[:, None])
        target = total / count.clamp(min=1.0)[:, None]
    else:
        order = torch.arange(tokens.shape[0], device=tokens.device)
        order = torch.where(mass > 0, order, torch.zeros_like(order))
        last = torch.zeros(size, dtype=order.dtype, device=tokens.device)
        target = tokens[last.scatter_reduce(0, assigned, order, "amax")]
    moved = decay * local + (1 - decay) * target
    return torch.where(count[:, None] > 0, moved, local)


def align(
    tokens: Tensor,
    local: Tensor,
    global_: Tensor,
    gate_weight: Tensor | None = None,
    gate_bias: Tensor | None = None,
    *,
    matcher: Matcher = "ot",
    update: Update = "bulk",
    duplicates: Duplicates = "mean",
    topk_from: TopK = "batch",
    influence: Tensor | float = 0.2,
    decay: Tensor | float = 0.999,
    temperature: float = 0.05,
    iterations: int = 3,
    scale: float = 1.0,
    training: bool = True,
    weights: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Pull tokens towards their prototypes; move the local prototypes towards their tokens.

    Args:
        tokens: [B, T, d] or [B, d] embeddings of B samples.
        local: [K, d] local prototypes.
        global_: [K, d] global prototypes.
        gate_weight: [2d, d] and ``gate_bias`` [2d] of the gated linear unit: the first half, times the sigmoid of the
            second. None leaves the prototype as it is.
        gate_bias: see ``gate_weight``.
        matcher: how tokens and prototypes are matched: ``match``.
        update: how local prototypes move: ``bulk_update`` or ``single_update``.
        duplicates: for ``single_update``.
        topk_from: bulk's k is max(1, B // K) (``"batch"``, published) or max(1, B*T // K) (``"tokens"``).
        influence: share of the prototype in the output, 0..1.
        decay: how much of a local prototype stays, 0..1.
        temperature: of the transport plan.
        iterations: of the transport plan.
        scale: length of the output tokens (published: 1).
        training: match against local and global prototypes, take the global one, and move the local ones; else match
            against and take the local ones, which stay.
        weights: [B] per-sample weights; samples of weight 0 are padding: they get no mass and move nothing.

    Returns:
        Output of the shape of ``tokens``, each token of length ``scale``; and the new local prototypes [K, d]. No
        gradient flows into or through prototypes.
    """
    shape, (size, dim) = tokens.shape, local.shape
    flat = tokens if tokens.dim() == 2 else tokens.reshape(-1, dim)
    seen = flat.detach()
    valid = None if weights is None else _per_token(weights, flat.shape[0])
    options = {"temperature": temperature, "iterations": iterations}
    new_local = local
    if training:
        active = torch.cat([local, global_]).detach()
        matrix = match(seen, active, matcher, valid=valid, **options)  # type: ignore[arg-type]
        prototypes = global_.detach()[assign(matrix[:, size:], matcher)]
        if update == "bulk":
            k = max(1, (shape[0] if topk_from == "batch" else flat.shape[0]) // size)
            new_local = bulk_update(seen, local, matrix[:, :size], decay, k, valid)
        else:
            assigned = assign(matrix[:, :size], matcher)
            new_local = single_update(seen, local, assigned, decay, duplicates, valid)
        if valid is not None:  # a batch of padding alone moves nothing
            new_local = torch.where(valid.sum() > 0, new_local, local)
        new_local = new_local.detach()
    else:
        matrix = match(seen, local.detach(), matcher, valid=valid, **options)  # type: ignore[arg-type]
        prototypes = local.detach()[assign(matrix, matcher)]
    if gate_weight is not None:
        prototypes = F.glu(F.linear(prototypes, gate_weight, gate_bias), -1)
    output = l2_normalise(influence * prototypes + (1 - influence) * flat)
    if scale != 1.0:
        output = output * scale
    return output if tokens.dim() == 2 else output.reshape(shape), new_local


def _per_token(weights: Tensor, tokens: int) -> Tensor:
    """[B] sample weights as [B*T] of 0 and 1."""
    valid = (weights > 0).to(weights.dtype)
    return valid[:, None].expand(-1, tokens // valid.shape[0]).reshape(-1)


@dataclass
class Alignment:
    """What one forward pass needs of prototypes and what it gives back; created for the pass, gone after it.

    A model hands it from layer to layer, so that neither the layers nor the model hold state of a pass: the local
    step stays a pure function.
    """

    local: Sequence[Tensor]
    global_: Sequence[Tensor]
    training: bool
    weights: Tensor | None = None
    influence: Tensor | float | None = None
    decay: Tensor | float | None = None
    matcher: Matcher | None = None

    def __post_init__(self) -> None:
        self.new_local: list[Tensor] = []

    def __call__(self, layer: ALPLayer, tokens: Tensor) -> Tensor:
        """Align ``tokens`` with the prototypes of the next layer of the model."""
        index = len(self.new_local)
        output, new_local = layer.align(
            tokens,
            self.local[index],
            self.global_[index],
            training=self.training,
            weights=self.weights,
            influence=self.influence,
            decay=self.decay,
            matcher=self.matcher,
        )
        self.new_local.append(new_local)
        return output


class ALPLayer(nn.Module):
    """Alignment with prototypes as a layer (paper, section 3): ``align`` with its own prototypes and gate.

    Used alone it behaves like any module with running state: in training, each call moves
    ``local_prototypes``. Inside a model the prototypes travel in an ``Alignment``.

    Args:
        dim: d, length of a token.
        num_prototypes: K.
        matcher: see ``align``.
        gated: whether prototypes pass a gated linear unit, ``gate``.
        update: see ``align``.
        duplicates: see ``align``.
        topk_from: see ``align``.
        influence: see ``align``.
        decay: see ``align``.
        temperature: see ``align``.
        iterations: see ``align``.
        inference_matcher: the matcher outside training; None is ``matcher``. An ``ot`` match depends on the other
            samples of the batch, ``cosine`` does not: deployment wants ``cosine``.
        scale: see ``align``.

    >>> layer = ALPLayer(8, 4)
    >>> layer(torch.randn(2, 3, 8)).shape
    torch.Size([2, 3, 8])
    """

    local_prototypes: Tensor
    global_prototypes: Tensor

    def __init__(
        self,
        dim: int,
        num_prototypes: int,
        *,
        matcher: Matcher = "ot",
        gated: bool = True,
        update: Update = "bulk",
        duplicates: Duplicates = "mean",
        topk_from: TopK = "batch",
        influence: float = 0.2,
        decay: float = 0.999,
        temperature: float = 0.05,
        iterations: int = 3,
        inference_matcher: Matcher | None = None,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        for name, value, choices in (
            ("matcher", matcher, get_args(Matcher)),
            ("inference_matcher", inference_matcher or matcher, get_args(Matcher)),
            ("update", update, get_args(Update)),
            ("duplicates", duplicates, get_args(Duplicates)),
            ("topk_from", topk_from, get_args(TopK)),
        ):
            if value not in choices:
                raise SettingsError(f"{name} is {value!r}; {did_you_mean(str(value), choices)}")
        self.dim, self.num_prototypes = dim, num_prototypes
        self.matcher: Matcher = matcher
        self.inference_matcher: Matcher = inference_matcher or matcher
        self.update: Update = update
        self.duplicates: Duplicates = duplicates
        self.topk_from: TopK = topk_from
        self.influence, self.decay = influence, decay
        self.temperature, self.iterations, self.scale = temperature, iterations, scale
        self.gate = nn.Linear(dim, 2 * dim) if gated else None
        self.register_buffer("local_prototypes", torch.randn(num_prototypes, dim))
        self.register_buffer("global_prototypes", torch.randn(num_prototypes, dim))

    def align(
        self,
        tokens: Tensor,
        local: Tensor,
        global_: Tensor,
        *,
        training: bool,
        weights: Tensor | None = None,
        influence: Tensor | float | None = None,
        decay: Tensor | float | None = None,
        matcher: Matcher | None = None,
    ) -> tuple[Tensor, Tensor]:
        """``align`` with this layer's gate and settings; None takes the layer's own value. No side effect."""
        return align(
            tokens,
            local,
            global_,
            None if self.gate is None else self.gate.weight,
            None if self.gate is None else self.gate.bias,
            matcher=matcher or (self.matcher if training else self.inference_matcher),
            update=self.update,
            duplicates=self.duplicates,
            topk_from=self.topk_from,
            influence=self.influence if influence is None else influence,
            decay=self.decay if decay is None else decay,
            temperature=self.temperature,
            iterations=self.iterations,
            scale=self.scale,
            training=training,
            weights=weights,
        )

    def forward(
        self, tokens: Tensor, alignment: Alignment | None = None, weights: Tensor | None = None
    ) -> Tensor:
        """Aligned tokens, of the shape of ``tokens`` [B, T, d] or [B, d].

        With an ``alignment`` the prototypes come from there and go back there; without, they are the layer's
        buffers, and a training call moves ``local_prototypes`` in place.
        """
        if alignment is not None:
            return alignment(self, tokens)
        output, new_local = self.align(
            tokens, self.local_prototypes, self.global_prototypes, training=self.training, weights=weights
        )
        if self.training:
            with torch.no_grad():
                self.local_prototypes.copy_(new_local)
        return output

    def extra_repr(self) -> str:
        """Settings worth seeing when a model is printed."""
        return f"dim={self.dim}, num_prototypes={self.num_prototypes}, matcher={self.matcher}, update={self.update}"
