"""Optimal transport between sets of prototypes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedali.support.lazy import lazily

if TYPE_CHECKING:
    from fedali.transport.plans import Cost as Cost
    from fedali.transport.plans import Solver as Solver
    from fedali.transport.plans import ot_align as ot_align
    from fedali.transport.plans import separation as separation
    from fedali.transport.plans import transport_plan as transport_plan

_HOMES = {
    "transport_plan": "plans",
    "ot_align": "plans",
    "Solver": "plans",
    "Cost": "plans",
    "separation": "plans",
}

__all__ = ["Cost", "Solver", "ot_align", "separation", "transport_plan"]
if not TYPE_CHECKING:
    __getattr__ = lazily(__name__, _HOMES)
