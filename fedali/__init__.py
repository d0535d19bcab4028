"""FedAli: federated learning of personalised models by alignment with prototypes (arXiv 2411.10595).

What there is to use:

- ``Method``, ``Slot``, ``Phase``: to write a method; ``build_method`` makes one by name.
- ``Task``, ``build_task``: what is learnt; ``Classification``, ``MultiLabel``, ``Regression`` to subclass.
- ``Model``, ``build_model``: architectures; ``adapt`` makes one of any ``torch.nn.Module``; ``ALPLayer`` is the paper's layer.
- ``Recipe``, ``build_engine``: to train clients yourself; ``Layouts``, ``SharedState``, ``Upload``: what a server adds up.
- ``ot_align``, ``ot_aggregate``, ``transport_plan``: prototypes aligned by optimal transport, in numpy and POT.
- ``load_digits_dataset``, ``load_motionsense``, ``load_public``, ``load_own``, ``as_dataset``, ``build_federation``: data of clients; ``Schema``: what they are, without them.
- ``read_bundle``, ``write_bundle``: files for devices.
- ``simulate`` compares methods, and needs ``fedali[sim]``; ``fedali_client.EdgeClient`` is a client on a device.

Importing this package needs numpy alone; torch, Flower and POT are loaded by what uses them, when it is asked for.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from fedali.errors import CheckpointError, DataError, FedaliError, MissingExtraError, SettingsError
from fedali.support.lazy import lazily
from fedali.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from fedali.aggregation import ot_aggregate as ot_aggregate
    from fedali.alp import ALPLayer as ALPLayer
    from fedali.bundle import read_bundle as read_bundle
    from fedali.bundle import write_bundle as write_bundle
    from fedali.data import as_dataset as as_dataset
    from fedali.data import build_federation as build_federation
    from fedali.data import load_digits_dataset as load_digits_dataset
    from fedali.data import load_motionsense as load_motionsense
    from fedali.data import load_own as load_own
    from fedali.data import load_public as load_public
    from fedali.engines import build_engine as build_engine
    from fedali.methods import Layouts as Layouts
    from fedali.methods import Method as Method
    from fedali.methods import build_method as build_method
    from fedali.models import Model as Model
    from fedali.models import build_model as build_model
    from fedali.models.own import adapt as adapt
    from fedali.recipe import Recipe as Recipe
    from fedali.schema import Schema as Schema
    from fedali.slots import Phase as Phase
    from fedali.slots import Slot as Slot
    from fedali.tasks import Classification as Classification
    from fedali.tasks import MultiLabel as MultiLabel
    from fedali.tasks import Regression as Regression
    from fedali.tasks import Task as Task
    from fedali.tasks import build_task as build_task
    from fedali.transport.plans import ot_align as ot_align
    from fedali.transport.plans import transport_plan as transport_plan
    from fedali.uploads import SharedState as SharedState
    from fedali.uploads import Upload as Upload

    simulate: Callable[..., Any]  # of fedali_simulations, which this package does not know

# Since 1.29 onnxruntime tells Microsoft of each model it opens, by hashes and names, unless it is told not to before it
# is loaded. Who wants it sets the variable to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_HOMES = {
    "ALPLayer": "fedali.alp",
    "Classification": "fedali.tasks",
    "Layouts": "fedali.methods",
    "Method": "fedali.methods",
    "Model": "fedali.models",
    "MultiLabel": "fedali.tasks",
    "Phase": "fedali.slots",
    "Recipe": "fedali.recipe",
    "Regression": "fedali.tasks",
    "Schema": "fedali.schema",
    "SharedState": "fedali.uploads",
    "Slot": "fedali.slots",
    "Task": "fedali.tasks",
    "Upload": "fedali.uploads",
    "adapt": "fedali.models.own",
    "as_dataset": "fedali.data",
    "build_engine": "fedali.engines",
    "build_federation": "fedali.data",
    "build_method": "fedali.methods",
    "build_model": "fedali.models",
    "build_task": "fedali.tasks",
    "load_digits_dataset": "fedali.data",
    "load_motionsense": "fedali.data",
    "load_own": "fedali.data",
    "load_public": "fedali.data",
    "ot_aggregate": "fedali.aggregation",
    "ot_align": "fedali.transport.plans",
    "read_bundle": "fedali.bundle",
    "simulate": "fedali_simulations.study",
    "transport_plan": "fedali.transport.plans",
    "write_bundle": "fedali.bundle",
}

__all__ = [
    "CheckpointError",
    "DataError",
    "FedaliError",
    "MissingExtraError",
    "SettingsError",
    "__version__",
    *_HOMES,
]
if not TYPE_CHECKING:
    __getattr__ = lazily(__name__, _HOMES, {"simulate": "sim"})
