"""From a bundle back to what it was made of: the model, method and optimizer that its manifest names. No data are needed."""

from __future__ import annotations

import dataclasses
from typing import Any

from fedali.bundle.file import Bundle
from fedali.errors import BundleError, SettingsError
from fedali.methods import SharedState, build_method
from fedali.models import ALPSettings, Model, build_model
from fedali.optimizers.rules import SGD, Adam
from fedali.slots import model_layout
from fedali.tasks import CLASSIFICATION, Task, build_task
from fedali_server.export.source import Source, Start


def model_of(bundle: Bundle, *, doors: bool = False) -> Model:
    """The bundle's architecture; ``BundleError`` where this version makes another one of it.

    ``doors``: whether a network from outside of FedAli is taken; its code is run.
    """
    manifest = bundle.manifest
    component, layouts = manifest.model, manifest.layouts
    try:
        model = build_model(
            component.name,
            manifest.input_shape,
            len(manifest.classes),
            alp=None if component.alp is None else ALPSettings(**_tuples(component.alp)),
            doors=doors,
            **component.options,
        )
    except (SettingsError, TypeError, ValueError) as error:
        raise BundleError(f"this version of FedAli cannot build the bundle's model: {error}") from None
    own = model_layout(layouts.parameters), layouts.prototypes
    if (model.parameter_layout, model.prototype_layout) != own:
        raise BundleError("the bundle's layouts are not those of its model; export it again")
    return model


def optimizer_of(bundle: Bundle) -> Adam | SGD:
    """The optimizer of the bundle's local training."""
    plain = bundle.manifest.optimizer
    options = {name: value for name, value in plain.items() if name != "name"}
    return SGD(**options) if plain["name"] == "sgd" else Adam(**options)


def task_of(bundle: Bundle, *, doors: bool = True) -> Task:
    """What the bundle's devices learn; ``doors`` as for ``fedali.tasks.build_task``."""
    task = bundle.manifest.task
    return CLASSIFICATION if task is None else build_task(task.name, task.options, doors=doors)


def source_of(bundle: Bundle, shared: SharedState, round_: int, name: str | None = None) -> Source:
    """What a new bundle is of, whose devices start from the server's state after ``round_`` of a federation of ``bundle``.

    Raises ``BundleError`` where this version cannot make the bundle's model, or the state is another model's.
    """
    manifest = bundle.manifest
    sizes = manifest.layouts.parameters.size, manifest.layouts.prototypes.size
    if (shared.theta.size, shared.prototypes.size) != sizes:
        raise BundleError(
            f"the state has {shared.theta.size} parameters and {shared.prototypes.size} values of prototypes; the bundle's model "
            f"has {sizes[0]} and {sizes[1]}"
        )
    return Source(
        name=name or manifest.name,
        model=model_of(bundle, doors=True),
        component=dataclasses.replace(manifest.model),
        method=build_method(manifest.method.name, manifest.method.options),
        optimizer=optimizer_of(bundle),
        start=Start(shared.theta, shared.prototypes, shared.theta, shared.prototypes),
        round=round_,
        decay=manifest.hyper.decay,
        normalisation=manifest.normalisation,
        input_shape=manifest.input_shape,
        classes=manifest.classes,
        data=manifest.data,
        task=task_of(bundle),
        targets=None if manifest.task is None else manifest.task.targets,
        schedule=manifest.schedule,
    )


def _tuples(plain: dict[str, Any]) -> dict[str, Any]:
    """JSON has lists."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()}
