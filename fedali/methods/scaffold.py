"""SCAFFOLD (Karimireddy et al., ICML 2020, arXiv 1910.06378): drift of clients is corrected by control variates.

The server keeps c, client i keeps c_i. A local step follows ``g_i(y) - c_i + c`` (equation 3). After K steps of size eta

    c_i+ = c_i - c + (x - y_i) / (K eta)                      (equation 4, option II)

and the client sends its model and c_i+ - c_i. The server averages models and moves c by |S|/N times the mean of the differences
(equation 5). Weighted by samples as FedAvg's mean is, c estimates the gradient of what that mean minimises. The server's step is
1. Equation 4 is made for SGD without momentum; with another optimizer c_i is its mean step by eta.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from fedali.methods.base import Layouts, Method, SharedState, Upload
from fedali.slots import Slot, slot_slice

if TYPE_CHECKING:
    from torch import Tensor

    from fedali.step.client import ClientStep, Ended


@dataclass(frozen=True)
class Scaffold(Method):
    """FedAvg with control variates."""

    name: ClassVar[str] = "scaffold"
    summary: ClassVar[str] = "FedAvg whose clients' drift is corrected by control variates"
    slots: ClassVar[tuple[Slot, ...]] = (Slot("control", "shared"), Slot("own_control", "kept"))

    def objective(self, step: ClientStep) -> Tensor:
        """The task's loss, and a linear term whose gradient is c - c_i."""
        server, own = step.server["control"], step.own["own_control"]
        total = step.loss()
        for name, value in step.own.model.items():
            total = total + (value * (server[name] - own[name])).sum()
        return total

    def finish(self, end: Ended) -> Mapping[str, Mapping[str, Tensor]]:
        """Option II; what is sent in the place of c is c + (c_i+ - c_i)."""
        server, own = end.server["control"], end.own["own_control"]
        drift = {
            name: (end.server.model[name] - value) / (end.steps * end.step_size)
            for name, value in end.own.model.items()
        }
        new = {name: own[name] - server[name] + drift[name] for name in own}
        return {
            "own_control": new,
            "control": {name: server[name] + new[name] - own[name] for name in own},
        }

    def aggregate(self, total: Upload, shared: SharedState, layouts: Layouts) -> SharedState:
        """The mean model; c moves by the share of clients that took part."""
        new = super().aggregate(total, shared, layouts)
        where = slot_slice(layouts.parameters, "control")
        before = shared.theta[where]
        new.theta[where] = before + total.participation * (new.theta[where] - before)
        return new
