"""The models themselves, and their construction by name."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch

from fedali.errors import SettingsError, did_you_mean
from fedali.models.base import ALPSettings, Model
from fedali.models.cnn1d import CNN1D
from fedali.models.cnn2d import CNN2D
from fedali.models.hart import HART
from fedali.models.mlp import MLP
from fedali.models.names import MODEL_NAMES

MODELS: dict[str, type[Model]] = dict(zip(MODEL_NAMES, (MLP, CNN1D, CNN2D, HART), strict=True))
_DIMENSIONS = {"cnn1d": "(samples, channels)", "hart": "(samples, 6)", "cnn2d": "(channels, height, width)"}


def build_model(
    name: str,
    input_shape: Sequence[int],
    classes: int,
    *,
    alp: ALPSettings | None = None,
    seed: int = 0,
    **options: Any,
) -> Model:
    """A freshly initialised model; the same seed gives the same weights and touches no global random state.

    Raises ``SettingsError`` for an unknown name or option, or samples the model cannot take.

    >>> build_model("cnn1d", (128, 6), 6).parameter_layout.size
    82598
    """
    if name not in MODELS:
        raise SettingsError(f"unknown model {name!r}; {did_you_mean(name, MODELS)}")
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
        return MODELS[name](input_shape, classes, alp, **options)
