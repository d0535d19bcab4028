"""The models themselves, and their construction by name."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from fedali.errors import SettingsError, did_you_mean
from fedali.models.base import ALPSettings, Model
from fedali.models.cnn1d import CNN1D
from fedali.models.cnn2d import CNN2D
from fedali.models.hart import HART
from fedali.models.mlp import MLP
from fedali.models.names import MODEL_NAMES
from fedali.models.own.adaptation import Adaptation
from fedali.models.own.outside import build_outside, build_own
from fedali.models.own.trainable import restrict

MODELS: dict[str, type[Model]] = dict(zip(MODEL_NAMES, (MLP, CNN1D, CNN2D, HART), strict=True))
_DIMENSIONS = {"cnn1d": "(samples, channels)", "hart": "(samples, 6)", "cnn2d": "(channels, height, width)"}


def build_model(
    name: str | Adaptation | nn.Module,
    input_shape: Sequence[int],
    classes: int,
    *,
    alp: ALPSettings | None = None,
    seed: int = 0,
    adapt: Mapping[str, Any] | None = None,
    doors: bool = True,
    tokens: bool = False,
    **options: Any,
) -> Model:
    """A freshly initialised model; the same seed gives the same weights and touches no global random state.

    Args:
        name: of ``MODELS``, of an entry point of the group ``fedali.models``, or ``"module:Name"``: a subclass of ``Model``, any
            ``nn.Module``, a function that makes one, or what ``fedali.adapt`` gives. Such a thing itself is taken, too.
        input_shape: of one sample.
        classes: how many.
        alp: settings of ALP layers, None for none.
        seed: of its weights.
        adapt: settings of ``fedali.adapt``; of the registry's models ``trainable`` alone.
        doors: whether names from outside the package are taken; who has the name from somebody else says no.
        tokens: whether samples are ids of tokens.
        options: the model's own.

    Raises ``SettingsError`` for an unknown name or option, or samples the model cannot take.

    >>> build_model("cnn1d", (128, 6), 6).parameter_layout.size
    82598
    """
    model = _build(name, input_shape, classes, alp, seed, adapt or {}, doors, tokens, options)
    model._seed = seed
    if tokens:
        model.takes_tokens = True
    return model


def _build(
    name: str | Adaptation | nn.Module,
    input_shape: Sequence[int],
    classes: int,
    alp: ALPSettings | None,
    seed: int,
    adapt: Mapping[str, Any],
    doors: bool,
    tokens: bool,
    options: Mapping[str, Any],
) -> Model:
    if not isinstance(name, str):
        return build_own(name, input_shape, classes, alp, seed, adapt, options, tokens=tokens)
    if name not in MODELS:
        if not doors:
            raise SettingsError(f"model {name!r} is no part of FedAli, and its code is not run here")
        return build_outside(name, input_shape, classes, alp, seed, adapt, options, [*MODELS], tokens)
    if set(adapt) - {"trainable"}:
        raise SettingsError(f"model {name!r} is FedAli's own: of model.adapt it takes trainable alone")
    known = [n for n, p in inspect.signature(MODELS[name]).parameters.items() if p.kind is p.KEYWORD_ONLY]
    for option in options:
        if option not in known:
            raise SettingsError(f"model {name!r} has no option {option!r}; {did_you_mean(option, known)}")
    wanted = _DIMENSIONS.get(name)
    if wanted and wanted.count(",") + 1 != len(input_shape):
        raise SettingsError(
            f"model {name!r} takes samples of shape {wanted}, the data has {tuple(input_shape)}"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MODELS[name](input_shape, classes, alp, **options)
    if adapt:
        restrict(model, adapt["trainable"])
    return model
