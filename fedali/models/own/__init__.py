"""Networks of one's own: any ``torch.nn.Module`` as a model of FedAli."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedali.support.lazy import lazily

if TYPE_CHECKING:
    from fedali.models.own.adaptation import Adaptation as Adaptation
    from fedali.models.own.adaptation import adapt as adapt
    from fedali.models.own.model import Adapted as Adapted
    from fedali.models.own.report import Report as Report

_HOMES = {"Adaptation": "adaptation", "Adapted": "model", "Report": "report", "adapt": "adaptation"}

__all__ = ["Adaptation", "Adapted", "Report", "adapt"]
if not TYPE_CHECKING:
    __getattr__ = lazily(__name__, _HOMES)
