"""Methods by name, and presets of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from fedali.answers import ANSWERS
from fedali.errors import SettingsError, did_you_mean
from fedali.methods.apfl import APFL
from fedali.methods.base import (
    Layouts,
    Method,
    check_choices,
    personal_indices,
    shared_indices,
)
from fedali.methods.ditto import Ditto
from fedali.methods.fedala import FedALA
from fedali.methods.fedali import FedAli
from fedali.methods.fedali_paper import FedAliPaper
from fedali.methods.fedavg import FedAvg
from fedali.methods.fedavg_tuned import FedAvgTuned
from fedali.methods.fedbabu import FedBABU
from fedali.methods.fedbn import FedBN
from fedali.methods.feddbe import FedDBE
from fedali.methods.fedntd import FedNTD
from fedali.methods.fedpac_align import FedPACAlign
from fedali.methods.fedper import FedPer
from fedali.methods.fedproto import FedProto
from fedali.methods.fedprox import FedProx
from fedali.methods.fedrep import FedRep
from fedali.methods.fedrod import FedRoD
from fedali.methods.local import Local
from fedali.methods.moon import Moon
from fedali.methods.pfedme import PFedMe
from fedali.methods.scaffold import Scaffold
from fedali.support.doors import outside
from fedali.uploads import SharedState, Trained, Upload

_KINDS = (
    *(FedAli, FedAliPaper, FedAvg, FedPer, Local, FedProx, FedRep, Ditto, Scaffold, Moon, FedProto),
    *(FedNTD, FedRoD, FedBABU, FedBN, FedALA, FedAvgTuned),
    *(APFL, PFedMe, FedDBE, FedPACAlign),
)
METHODS: dict[str, type[Method]] = {m.name: m for m in _KINDS}

_NAMES: dict[type[Method], str] = {}  # of methods from outside, as they were asked for

PRESETS: dict[str, tuple[str, Mapping[str, Any], str]] = {
    "fedali-kmeans": (
        "fedali-paper",
        {"aggregation": "kmeans"},
        "fedali-paper with the published k-means on the server",
    ),
    "fedali-head": ("fedali-paper", {"personal": "head"}, "fedali-paper whose head stays on the client"),
    "l2only": (
        "fedali-paper",
        {"strength": 0.0, "aggregation": "mean"},
        "ablation: fedali-paper's normalisation, no prototypes",
    ),
    "knn-per": (
        "fedavg",
        {"answer": "neighbours"},
        "FedAvg, whose clients mix the shared model's answer with that of their own nearest samples",
    ),
    "fedavg-more": (
        "fedavg",
        {"extra_epochs": 10},
        "control of what trains longer: FedAvg with 10 more local epochs",
    ),
}


def build_method(name: str, options: Mapping[str, Any] | None = None, *, doors: bool = True) -> Method:
    """A method by name with ``options`` over its defaults.

    Args:
        name: of ``METHODS``, of ``PRESETS``, of an entry point of the group ``fedali.methods``, or ``"module:Class"``; behind a plus
            what clients answer with, see ``fedali.answers``.
        options: fields of the method.
        doors: whether names from outside the package are taken; who has the name from somebody else says no.

    Raises ``SettingsError`` for an unknown name or option.

    >>> build_method("fedali-head").personal_parameters
    ('head.*',)
    >>> build_method("fedavg+gate").answer
    'gate'
    """
    name, plus, answer = name.partition("+")
    if plus:
        if answer not in ANSWERS:
            raise SettingsError(
                f"method {name!r} cannot answer by {answer!r}; {did_you_mean(answer, ANSWERS)}"
            )
        return build_method(name, {**(options or {}), "answer": answer}, doors=doors)
    if name in PRESETS:
        base, preset, _ = PRESETS[name]
        return build_method(base, {**preset, **(options or {})})
    kind = METHODS.get(name)
    if kind is None:
        if not doors and ":" in name:
            raise SettingsError(f"method {name!r} is no part of FedAli, and its code is not run here")
        kind = outside(name, "fedali.methods", Method, [*METHODS, *PRESETS]) if doors else None
    if kind is None:
        raise SettingsError(f"unknown method {name!r}; {did_you_mean(name, [*METHODS, *PRESETS])}")
    known = _options_of(kind)
    for option in options or {}:
        if option not in known:
            hint = did_you_mean(option, known) if known else "it has none"
            if kind is FedAli and option in _options_of(FedAliPaper):
                hint = "it is one of 'fedali-paper', which 'fedali' meant before 0.3.0"
            raise SettingsError(f"method {name!r} has no option {option!r}; {hint}")
    try:
        method = kind(**(options or {}))
    except TypeError as error:
        raise SettingsError(f"method {name!r} cannot be made: {error}") from None
    check_choices(method)
    if method.answer not in ("trained", "shared") and not method.has_global_model:
        raise SettingsError(
            f"method {name!r} cannot answer by {method.answer!r}: {', '.join(method.personal_parameters)} never leave the clients, so "
            "that there is no shared model"
        )
    if name not in METHODS:
        _NAMES[type(method)] = name
    return method


def name_of(method: Method) -> str:
    """The name that ``build_method`` makes a method by: the registry's, or ``"module:Class"``."""
    kind = type(method)
    if METHODS.get(kind.name) is kind:
        return kind.name
    return _NAMES.get(kind, f"{kind.__module__}:{kind.__qualname__}")


def options_of(method: Method) -> dict[str, Any]:
    """A method's options: its own, and what clients answer with where that is not what they trained, or its kind answers otherwise."""
    found = dataclasses.asdict(method)
    if method.answer == type(method).answer == "trained":
        del found["answer"]
    return found


def _options_of(kind: type[Method]) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]


def describe_methods() -> dict[str, str]:
    """Every name ``build_method`` takes, with a line on what it is."""
    return {**{n: m.summary for n, m in METHODS.items()}, **{n: p[2] for n, p in PRESETS.items()}}


__all__ = [
    "APFL",
    "METHODS",
    "PRESETS",
    "Ditto",
    "FedALA",
    "FedAli",
    "FedAliPaper",
    "FedAvg",
    "FedAvgTuned",
    "FedBABU",
    "FedBN",
    "FedDBE",
    "FedNTD",
    "FedPACAlign",
    "FedPer",
    "FedProto",
    "FedProx",
    "FedRep",
    "FedRoD",
    "Layouts",
    "Local",
    "Method",
    "Moon",
    "PFedMe",
    "Scaffold",
    "SharedState",
    "Trained",
    "Upload",
    "build_method",
    "describe_methods",
    "name_of",
    "options_of",
    "personal_indices",
    "shared_indices",
]
