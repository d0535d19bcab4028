"""Where ALP layers sit in somebody's network, and which axis of what is there holds a token's numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from fedali.errors import SettingsError, did_you_mean
from fedali.models.own.layers import FrozenBatchNorm
from fedali.models.own.model import Place
from fedali.models.own.trial import Call, Trial

_LAST = (
    nn.Linear,
    nn.LayerNorm,
    nn.RMSNorm,
    nn.Embedding,
    nn.MultiheadAttention,
)  # channels are the last axis
_FIRST = (
    *(nn.modules.conv._ConvNd, nn.GroupNorm, FrozenBatchNorm),
    *(nn.modules.pooling._MaxPoolNd, nn.modules.pooling._AvgPoolNd),
    *(nn.modules.pooling._AdaptiveAvgPoolNd, nn.modules.pooling._AdaptiveMaxPoolNd),
)


def find_places(trial: Trial, paths: Sequence[str], head: str, embedding: int) -> list[Place]:
    """Places in the order of the forward pass; before the head without ``paths``.

    Raises ``SettingsError`` for a path that there is not, is not called once, or lies behind the head.
    """
    if not paths:
        return [Place("", -1, embedding, f"before the head: 1 token of {embedding}")]
    order = {call.path: number for number, call in enumerate(trial.calls)}
    found: list[tuple[int, Place]] = []
    for path in paths:
        calls = trial.of(path)
        if path == head or not path:
            raise SettingsError(f"alp_at {path!r} is the head or all of the network: name a module before it")
        if not calls:
            raise SettingsError(f"alp_at {path!r}: no such module is called; {did_you_mean(path, order)}")
        if len(calls) > 1:
            raise SettingsError(
                f"alp_at {path!r} is called {len(calls)} times: an ALP layer sits behind one call"
            )
        if order[path] > order[head] or head.startswith(f"{path}."):
            raise SettingsError(f"alp_at {path!r} ends behind the head {head!r}: name a module before it")
        shape = calls[0].gives
        if shape is None or len(shape) < 2:
            raise SettingsError(f"alp_at {path!r} gives no tensor [B, ...] to align")
        axis = _axis(trial, path, order[path], len(shape))
        dim = shape[axis]
        tokens = math.prod(shape[1:]) // dim
        said = f"behind {path}: {tokens} token{'s' * (tokens > 1)} of {dim}"
        found.append((order[path], Place(path, axis, dim, said)))
    return [place for _, place in sorted(found, key=lambda pair: pair[0])]


def before_head(trial: Trial, head: str) -> str:
    """What the head's input comes from: the last layer called before it."""
    quiet = (nn.Identity, nn.modules.dropout._DropoutNd)
    leaves = [call for call in _leaves(trial, len(trial.calls)) if not isinstance(call.module, quiet)]
    order = {call.path: number for number, call in enumerate(leaves)}
    inside = [order[call.path] for call in leaves if call.path == head or call.path.startswith(f"{head}.")]
    before = leaves[: min(inside)] if inside else leaves
    return f"{before[-1].path} ({type(before[-1].module).__name__})" if before else "the samples"


def _leaves(trial: Trial, until: int) -> list[Call]:
    return [call for call in trial.calls[:until] if not any(True for _ in call.module.children())]


def _axis(trial: Trial, path: str, until: int, dimensions: int) -> int:
    """Channels are the first axis behind a convolution, a pooling or batch normalisation, the last one elsewhere."""
    if dimensions == 2:
        return -1
    inside = [c for c in _leaves(trial, until + 1) if c.path == path or c.path.startswith(f"{path}.")]
    for call in reversed(inside):
        if isinstance(call.module, _FIRST):
            return 1
        if isinstance(call.module, _LAST):
            return -1
    return 1 if dimensions > 3 else -1
