"""Methods by name, and presets of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from fedali.errors import SettingsError, did_you_mean
from fedali.methods.base import (
    Contribution,
    Layouts,
    Method,
    SharedState,
    Trained,
    personal_indices,
    shared_indices,
)
from fedali.methods.fedali import FedAli
from fedali.methods.fedavg import FedAvg
from fedali.methods.fedper import FedPer
from fedali.methods.local import Local

METHODS: dict[str, type[Method]] = {m.name: m for m in (FedAli, FedAvg, FedPer, Local)}

PRESETS: dict[str, tuple[str, Mapping[str, Any], str]] = {
    "fedali-kmeans": ("fedali", {"aggregation": "kmeans"}, "FedAli with the published k-means on the server"),
    "fedali-head": ("fedali", {"personal": "head"}, "FedAli whose head stays on the client"),
    "l2only": (
        "fedali",
        {"strength": 0.0, "aggregation": "mean"},
        "ablation: FedAli's normalisation, no prototypes",
    ),
}


def build_method(name: str, options: Mapping[str, Any] | None = None) -> Method:
    """A method of ``METHODS`` or ``PRESETS`` with ``options`` over its defaults.

    Raises ``SettingsError`` for an unknown name or option.

    >>> build_method("fedali-head").personal_parameters
    ('head.*',)
    """
    if name in PRESETS:
        base, preset, _ = PRESETS[name]
        return build_method(base, {**preset, **(options or {})})
    if name not in METHODS:
        raise SettingsError(f"unknown method {name!r}; {did_you_mean(name, [*METHODS, *PRESETS])}")
    known = [f.name for f in dataclasses.fields(METHODS[name])]
    for option in options or {}:
        if option not in known:
            hint = did_you_mean(option, known) if known else "it has none"
            raise SettingsError(f"method {name!r} has no option {option!r}; {hint}")
    return METHODS[name](**(options or {}))


def describe_methods() -> dict[str, str]:
    """Every name ``build_method`` takes, with a line on what it is."""
    return {**{n: m.summary for n, m in METHODS.items()}, **{n: p[2] for n, p in PRESETS.items()}}


__all__ = [
    "METHODS",
    "PRESETS",
    "Contribution",
    "FedAli",
    "FedAvg",
    "FedPer",
    "Layouts",
    "Local",
    "Method",
    "SharedState",
    "Trained",
    "build_method",
    "describe_methods",
    "personal_indices",
    "shared_indices",
]
