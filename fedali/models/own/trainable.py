"""Which parameters of a model train: the others become constants, which neither train nor travel."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Mapping

from torch import nn

from fedali.errors import SettingsError, did_you_mean
from fedali.models.base import Model
from fedali.models.own.layers import norm_parameters

WORDS: Mapping[str, str] = {
    "all": "every parameter",
    "head": "the last layers",
    "biases": "what is added",
    "norms": "scales and shifts of normalisation",
    "adapters": "low-rank adapters",
}


def restrict(model: Model, patterns: Iterable[str], called: Mapping[str, str] | None = None) -> None:
    """Keep the parameters that match ``patterns``, and those of ALP layers; all others become buffers.

    Args:
        model: is changed.
        patterns: words of ``WORDS``, or globs of parameters' names; one that begins with ``!`` takes names out.
        called: what parameters are called besides: somebody's names by the model's.

    Raises ``SettingsError`` for a pattern that matches nothing.
    """
    names = [name for name, _ in model.named_parameters()]
    called = called or {}
    picked: set[str] = set()
    for pattern in _split(patterns):
        takes_out = pattern.startswith("!")
        found = _matching(model, names, called, pattern.removeprefix("!"))
        picked = picked - found if takes_out else picked | found
    if not picked:
        raise SettingsError("no parameter trains: give model.trainable a pattern that matches one")
    picked |= {name for name in names if name.startswith("alp.")}
    if picked != set(names):
        _freeze(model, picked)


def _split(patterns: Iterable[str]) -> list[str]:
    """``"biases and norms"`` are two."""
    given = [patterns] if isinstance(patterns, str) else list(patterns)
    return [part.strip() for one in given for part in one.split(" and ")]


def _matching(model: Model, names: list[str], called: Mapping[str, str], pattern: str) -> set[str]:
    word = _BY_WORD.get(pattern)
    if word is not None:
        found = word(model, names)
    else:
        found = {n for n in names if _fits(n, pattern) or _fits(called.get(n, n), pattern)}
    if not found:
        own = [called.get(name, name) for name in names]
        raise SettingsError(
            f"trainable {pattern!r} matches no parameter; {did_you_mean(pattern, own)}, or use {', '.join(WORDS)}"
        )
    return found


def _fits(name: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(name, pattern)


_BY_WORD: dict[str, Callable[[Model, list[str]], set[str]]] = {
    "all": lambda model, names: set(names),
    "head": lambda model, names: {name for name in names if name.startswith("head.")},
    "biases": lambda model, names: {name for name in names if name.rpartition(".")[2].startswith("bias")},
    "norms": lambda model, names: set(norm_parameters(model)) & set(names),
    "adapters": lambda model, names: {name for name in names if name.rpartition(".")[2].startswith("lora_")},
}


def _freeze(model: nn.Module, kept: set[str]) -> None:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    constants = {id(p): p.detach() for p in model.parameters()}
    for module in model.modules():
        for key, parameter in list(module._parameters.items()):
            if parameter is not None and names[id(parameter)] not in kept:
                del module._parameters[key]
                module.register_buffer(key, constants[id(parameter)])
