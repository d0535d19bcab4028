"""What ``simulate`` is asked for, as a scenario: settings by keyword, and objects under names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fedali.data import Dataset, as_dataset
from fedali.data.given.partitioned import is_partitioner
from fedali.errors import SettingsError, did_you_mean
from fedali.support.held import hold
from fedali.targets import Kind
from fedali_simulations.beginning import beginning
from fedali_simulations.data import load_dataset
from fedali_simulations.data_settings import Settings
from fedali_simulations.objects.fingerprint import data_name, model_name
from fedali_simulations.objects.lines import lines_of
from fedali_simulations.objects.reach import in_file, name_elsewhere
from fedali_simulations.scenario import EvaluationSettings, Scenario, TrainingSettings, load_scenario
from fedali_simulations.task_settings import TaskSettings, as_task

_FLAT: dict[str, type[Settings]] = {"training": TrainingSettings, "evaluation": EvaluationSettings}
"""Sections whose settings may be given without the section's name."""

Source = str | Path | Mapping[str, Any] | Scenario


def gather(
    scenario: Source | None,
    overrides: Sequence[str] = (),
    *,
    data: Any = None,
    model: Any = None,
    methods: Any = None,
    partition: Any = None,
    settings: Mapping[str, Any] | None = None,
) -> tuple[Scenario, list[object]]:
    """The scenario, and the objects that it names: they are known for as long as somebody keeps them.

    Raises ``SettingsError`` or ``DataError`` that says what is wrong.
    """
    keep: list[object] = []
    found = _base(scenario, overrides)
    if not found and data is None:
        raise SettingsError("what is to be simulated? Give a scenario, as 'digits', or data=...")
    dataset: Dataset | None = None
    if data is not None:
        task = (settings or {}).get("task", found.get("task"))
        found["data"], dataset = _data(data, partition, keep, _kind(task))
    if partition is not None and not is_partitioner(partition):
        own = {"kind": partition} if isinstance(partition, str) else dict(partition)
        found["partition"] = {**found.get("partition", {}), **own}
    elif is_partitioner(partition):
        found["partition"] = {"kind": "natural"}
    if methods is not None:
        found["methods"] = lines_of(methods, keep)
    if model is not None:
        before = found.get("model", {}) if isinstance(model, Mapping) and "name" not in model else {}
        found["model"] = {**before, **_model(model, keep)}
    for key, value in (settings or {}).items():
        _set(found, key, value)
    if scenario is None:
        found = _completed(found, dataset)
    return load_scenario(found), keep


def hold_again(
    data: Any = None, model: Any = None, methods: Any = None, partition: Any = None, task: Any = None
) -> list[object]:
    """Objects of a run that goes on, under the names that they had; to be kept until it is complete."""
    keep: list[object] = []
    if data is not None:
        _data(data, partition, keep, _kind(task))
    if model is not None:
        _model(model, keep)
    if methods is not None:
        lines_of(methods, keep)
    return keep


def _base(scenario: Source | None, overrides: Sequence[str]) -> dict[str, Any]:
    if scenario is None:
        if overrides:
            raise SettingsError("overrides are of a scenario, and there is none: give settings by keyword")
        return {}
    given = scenario.model_dump(mode="json") if isinstance(scenario, Scenario) else scenario
    return load_scenario(given, overrides).model_dump(mode="json")


def _kind(task: Any) -> Kind:
    """What a task learns, by its settings."""
    return "classes" if task is None else TaskSettings(**as_task(task)).build().kind


def _data(
    data: Any, partition: Any, keep: list[object], kind: Kind = "classes"
) -> tuple[dict[str, Any], Dataset | None]:
    """Settings of the data, and the data set itself where it is here already."""
    partitioner = partition if is_partitioner(partition) else None
    if isinstance(data, str | Path) and partitioner is None:
        return {"source": str(data)}, None
    if isinstance(data, Mapping) and isinstance(data.get("source"), str) and partitioner is None:
        return dict(data), None
    if isinstance(data, str | Path):
        raise SettingsError("a partitioner takes data that are here: give them, or divide them by partition")
    if _is_function(data):
        elsewhere = name_elsewhere(data)
        if elsewhere is not None and partitioner is None:
            return {"source": in_file(elsewhere)}, None
        data = data()
    dataset = as_dataset(data, partitioner=partitioner, kind=kind)
    keep.append(dataset)
    return {"source": hold(data_name(dataset), dataset)}, dataset


def _is_function(value: Any) -> bool:
    return isinstance(value, Callable) and hasattr(value, "__code__")  # type: ignore[arg-type]


def _model(model: Any, keep: list[object]) -> dict[str, Any]:
    if isinstance(model, str):
        return {"name": model}
    if isinstance(model, Mapping):
        return dict(model)
    elsewhere = name_elsewhere(model) if callable(model) else None
    if elsewhere is not None:
        return {"name": elsewhere}
    if not (callable(model) or hasattr(model, "build")):
        raise SettingsError(
            f"model {model!r} is {type(model).__name__}; give a name, a fedali.Model, or what fedali.adapt makes of a network"
        )
    keep.append(model)
    return {"name": hold(model_name(model), model)}


def _set(found: dict[str, Any], key: str, value: Any) -> None:
    """Lay one keyword over the settings."""
    sections = list(Scenario.model_fields)
    if key in sections:
        whole = isinstance(value, Mapping) and isinstance(found.get(key), Mapping)
        found[key] = {**found[key], **value} if whole else value
        return
    for section, kind in _FLAT.items():
        if key in kind.model_fields:
            found[section] = {**found.get(section, {}), key: value}
            return
    known = [*sections, *(name for kind in _FLAT.values() for name in kind.model_fields)]
    raise SettingsError(f"unknown setting {key!r}; {did_you_mean(key, known)}")


def _completed(found: dict[str, Any], dataset: Dataset | None) -> dict[str, Any]:
    """Settings with those that follow from the data, where nobody has said them: a model, and how samples are divided."""
    if dataset is None:
        asked = load_scenario({key: value for key, value in found.items() if key in ("data", "seed")})
        dataset = load_dataset(asked, asked.seed)
    if len(dataset.client_names) < 2 and "partition" not in found:
        raise SettingsError(
            "these data are one client's: say whose samples are, as in data=(x, y, clients), or divide them: "
            'partition={"kind": "dirichlet", "clients": 20}'
        )
    if dataset.tokens and "model" not in found:
        raise SettingsError("samples are ids of tokens: give a model that takes them")
    clients = [2, 2]  # what is divided has been said
    return beginning(found, dataset.sample_shape, overlap=dataset.length > 1, clients=clients)
