"""FedRoD (Chen & Chao, ICLR 2022, arXiv 2107.00778): one body, and two heads: a generic one for all, a personal one beside it.

Body and generic head learn by the balanced risk, here balanced softmax by the client's own class counts (section 4.2, equation 7):
client by client this is nearer to what all of them together would learn. The personal head learns by the client's plain risk, with
the generic logits added and no gradient to the body (equation 8). Clients answer with the sum of both heads' logits; the server
averages body and generic head.

A head is the model's last linear layer: of a head that has a hidden layer, that is part of the body. The sum of both is then a layer
again, and the answer a model like any other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from fedali.methods.base import Method
from fedali.slots import Slot

if TYPE_CHECKING:
    from torch import Tensor

    from fedali.step.client import ClientStep, Ended, Started


@dataclass(frozen=True)
class FedRoD(Method):
    """A shared model trained by balanced softmax, and a personal head that is added to its own."""

    name: ClassVar[str] = "fedrod"
    needs_classes: ClassVar[bool] = True
    summary: ClassVar[str] = (
        "shared model trained as if classes were balanced, and a personal head that is added to its own"
    )
    slots: ClassVar[tuple[Slot, ...]] = (
        Slot("personal_head", "kept", "head", starts="model", trained=True),
        Slot("class_counts", "kept", ("classes",)),
        Slot("both", "kept", starts="model"),  # the model whose last layer is the sum of both
    )
    answer_slot: ClassVar[str] = "both"

    def begin(self, start: Started) -> Mapping[str, Tensor]:
        """What the balanced softmax goes by."""
        return {"class_counts": start.class_counts}

    def objective(self, step: ClientStep) -> Tensor:
        """The balanced loss of the generic head, and the plain one of both; each trains its own."""
        fixed = {name: value.detach() for name, value in step.own.model.items()}
        both = step.forward(_added(fixed, step.own["personal_head"]))
        return step.balanced_loss(step.own["class_counts"]) + step.loss(both)

    def finish(self, end: Ended) -> Mapping[str, Mapping[str, Tensor]]:
        """What answers."""
        return {"both": _added(end.own.model, end.own["personal_head"])}


def _added(model: Mapping[str, Tensor], head: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The model with the last layer of another head added to its own."""
    return {**model, **{name: model[name] + head[name] for name in _last_layer(head)}}


def _last_layer(names: Iterable[str]) -> list[str]:
    """Parameters of the last layer of a head.

    >>> _last_layer(["head.0.weight", "head.0.bias", "head.2.weight", "head.2.bias"])
    ['head.2.weight', 'head.2.bias']
    """
    layers = {name: name.rpartition(".")[0] for name in names}
    return [name for name, layer in layers.items() if layer == list(layers.values())[-1]]
