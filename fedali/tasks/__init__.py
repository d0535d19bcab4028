"""Tasks by name: what is learnt, by which loss, and how good answers are."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from fedali.errors import SettingsError, did_you_mean
from fedali.support.doors import outside
from fedali.targets import Score, Targets
from fedali.tasks.base import Task
from fedali.tasks.classification import CLASSIFICATION, Classification
from fedali.tasks.multilabel import MultiLabel
from fedali.tasks.regression import Regression

TASKS: dict[str, type[Task]] = {kind.name: kind for kind in (Classification, MultiLabel, Regression)}


_NAMES: dict[type[Task], str] = {}  # of tasks from outside, as they were asked for


def build_task(name: str, options: Mapping[str, Any] | None = None, *, doors: bool = True) -> Task:
    """A task by name with ``options`` over its defaults.

    Args:
        name: of ``TASKS``, of an entry point of the group ``fedali.tasks``, or ``"module:Class"``.
        options: fields of the task.
        doors: whether names from outside the package are taken; who has the name from somebody else says no.

    Raises ``SettingsError`` for an unknown name or option.

    >>> build_task("regression", {"error": "huber"}).kind
    'numbers'
    """
    kind = TASKS.get(name)
    if kind is None:
        if not doors:
            raise SettingsError(f"task {name!r} is no part of FedAli, and its code is not run here")
        kind = outside(name, "fedali.tasks", Task, list(TASKS))
        _NAMES[kind] = name
    known = [field.name for field in dataclasses.fields(kind)]
    for option in options or {}:
        if option not in known:
            hint = did_you_mean(option, known) if known else "it has none"
            raise SettingsError(f"task {name!r} has no option {option!r}; {hint}")
    try:
        return kind(**(options or {}))
    except TypeError as error:
        raise SettingsError(f"task {name!r} cannot be made: {error}") from None


def task_name(task: Task) -> str:
    """The name that ``build_task`` makes a task by: the registry's, or ``"module:Class"``."""
    kind = type(task)
    if TASKS.get(kind.name) is kind:
        return kind.name
    return _NAMES.get(kind, f"{kind.__module__}:{kind.__qualname__}")


__all__ = [
    "CLASSIFICATION",
    "TASKS",
    "Classification",
    "MultiLabel",
    "Regression",
    "Score",
    "Targets",
    "Task",
    "build_task",
    "task_name",
]
