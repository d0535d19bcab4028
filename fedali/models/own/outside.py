"""Models from outside the package: by name, or as the thing itself."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from fedali.errors import SettingsError, did_you_mean
from fedali.models.base import ALPSettings, Model
from fedali.models.own.adaptation import Adaptation, adapt_with
from fedali.models.own.trial import first_line
from fedali.support.doors import outside_thing

GROUP = "fedali.models"


def build_outside(
    name: str,
    input_shape: Sequence[int],
    classes: int,
    alp: ALPSettings | None,
    seed: int,
    adapt: Mapping[str, Any],
    options: Mapping[str, Any],
    known: list[str],
    tokens: bool = False,
) -> Model:
    """The model that ``module:Name``, or an entry point, stands for; arguments are those of ``build_model``."""
    thing = outside_thing(name, GROUP, "model", known)
    return build_own(thing, input_shape, classes, alp, seed, adapt, options, name, tokens)


def build_own(
    thing: Any,
    input_shape: Sequence[int],
    classes: int,
    alp: ALPSettings | None,
    seed: int,
    adapt: Mapping[str, Any],
    options: Mapping[str, Any],
    name: str | None = None,
    tokens: bool = False,
) -> Model:
    """A model of a network, of what ``fedali.adapt`` gives, of a class or a function that makes one.

    A class or a function is called with ``options``, and with ``input_shape`` and ``classes`` where it has arguments of these names.
    Raises ``SettingsError`` for anything else, and for options that it has not.
    """
    said = name or type(thing).__name__
    if isinstance(thing, nn.Module | Adaptation):
        if options:
            raise SettingsError(
                f"model {said!r} is made already, and takes no option {next(iter(options))!r}"
            )
        made: Any = thing
    elif callable(thing):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            made = _call(
                thing, said, {"input_shape": tuple(input_shape), "classes": classes, "alp": alp}, options
            )
    else:
        made = thing
    if isinstance(made, Model):
        if adapt:
            raise SettingsError(f"model {said!r} is a fedali.Model, which model.adapt does not change")
        return _copied(made, said, classes, alp) if made is thing else made
    if isinstance(made, Adaptation):
        if adapt:
            raise SettingsError(f"model {said!r} is adapted already: leave model.adapt away")
    elif isinstance(made, nn.Module):
        made = adapt_with(made, adapt)
    else:
        raise SettingsError(
            f"model {said!r} gives a {type(made).__name__}, and has to give a torch.nn.Module"
        )
    adapted: Adaptation = made
    return adapted.build(input_shape, classes, alp, seed=seed, tokens=tokens)


def _copied(model: Model, name: str, classes: int, alp: ALPSettings | None) -> Model:
    """A model of a program's own, which stays as it is."""
    if model.facts.classes != classes:
        raise SettingsError(
            f"model {name} has {model.facts.classes} outputs, and the data have {classes} classes"
        )
    if alp is not None and not model.alp_layers:
        raise SettingsError(
            f"model {name} has no ALP layers, which this method needs: give the class, which is made with them, or another method"
        )
    return copy.deepcopy(model)


def _call(maker: Callable[..., Any], name: str, facts: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
    """What a class or a function makes, of its options and of those facts that it asks for."""
    parameters = inspect.signature(maker).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for option in options:
        if option not in parameters and not takes_any:
            raise SettingsError(
                f"model {name!r} has no option {option!r}; {did_you_mean(option, parameters)}"
            )
    given = {key: value for key, value in facts.items() if key in parameters and key not in options}
    try:
        return maker(**given, **options)
    except SettingsError:
        raise
    except Exception as error:  # it may fail in any way
        raise SettingsError(
            f"model {name!r} cannot be made: {type(error).__name__}: {first_line(error)}"
        ) from error
