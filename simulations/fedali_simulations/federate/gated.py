"""A client's answer by the gate, taken out of a run's folder: both models and the gate, as a device has them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import structlog

from fedali.answers import GATE, PROTOTYPES
from fedali.answers.gate import Gate, middle
from fedali.cohort.site import Cohort
from fedali.engines.outputs import Outputs
from fedali.slots import slot_slice
from fedali_server.export.source import Start
from fedali_simulations.setup import Plan


def gated_start(
    plan: Plan, start: Start, tensors: Mapping[str, npt.NDArray[Any]], client: int, round_: int
) -> Start:
    """``start`` of a client that trained in ``round_``, with the shared model that answers beside its own, and the gate between both.

    ``tensors`` are those of ``best.safetensors``; what the round began with is in them.
    """
    layout = plan.layouts.parameters
    where = slot_slice(layout, "")
    theta, prototypes = start.shared_theta.copy(), start.shared_prototypes
    if "began.theta" in tensors:
        theta[where] = middle(tensors["began.theta"][where], theta[where])
        prototypes = middle(tensors["began.prototypes"], prototypes)
    else:  # of an earlier version
        structlog.get_logger().warning(
            "this run did not keep what its best round began with: the gate's shared model is the one that the round made"
        )
    cohort, outputs = Cohort(plan.federation, plan.task), Outputs(plan.model)
    sets = cohort.train[client], cohort.validation[client]
    influence = plan.method.influence(round_)
    (_, train), (_, validation) = outputs(theta[where], prototypes, sets, influence)
    everyone = theta[slot_slice(layout, GATE.name)].reshape(PROTOTYPES, -1)
    gate = Gate.made(np.asarray(train, np.float64), validation, everyone)
    return dataclasses.replace(start, shared_theta=theta, shared_prototypes=prototypes, gate=gate)
