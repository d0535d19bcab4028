"""Models that are objects of a program, in the place of a name."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from fedali.errors import SettingsError
from fedali.models.base import ALPSettings, Model


def build_given(
    thing: Any, input_shape: Sequence[int], classes: int, *, alp: ALPSettings | None = None, seed: int = 0
) -> Model:
    """The model that ``thing`` is or makes; ``thing`` itself is left as it is.

    Args:
        thing: a ``Model``, whose weights are where training starts, whatever the seed; a class of them, made with ``(input_shape, classes,
            alp)``; what ``fedali.adapt`` gives; or another network, which ``fedali.adapt`` is asked to take.
        input_shape: of one sample.
        classes: how many.
        alp: settings of ALP layers, None for none.
        seed: of what is drawn.

    Raises ``SettingsError`` for anything else, and for a model that does not have ``classes`` or the ALP layers that a method needs.
    """
    if isinstance(thing, Model):
        return _copied(thing, classes, alp)
    if isinstance(thing, type) and issubclass(thing, Model):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return thing(input_shape, classes, alp)
    if isinstance(thing, nn.Module):
        adapt = getattr(import_module("fedali"), "adapt", None)
        if adapt is None:
            raise SettingsError(
                f"model {type(thing).__name__} is no fedali.Model: give it features and a head, see docs/python.md"
            )
        thing = adapt(thing)
    if not callable(getattr(thing, "build", None)):
        raise SettingsError(
            f"model {thing!r} is {type(thing).__name__}; give a name, a fedali.Model, or what fedali.adapt makes of a network"
        )
    made: Model = thing.build(tuple(input_shape), classes, alp, seed=seed)
    return made


def _copied(model: Model, classes: int, alp: ALPSettings | None) -> Model:
    name = type(model).__name__
    if model.facts.classes != classes:
        raise SettingsError(
            f"model {name} has {model.facts.classes} outputs, and the data have {classes} classes"
        )
    if alp is not None and not model.alp_layers:
        raise SettingsError(
            f"model {name} has no ALP layers, which this method needs: give the class, which is made with them, or another method"
        )
    return copy.deepcopy(model)


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
