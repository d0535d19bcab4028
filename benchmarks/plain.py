"""A client as Flower's and pfl's tutorials write it: an ``nn.Module``, ``loss.backward()``, ``torch.optim.Adam``."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from benchmarks.clients import Clients
from benchmarks.workloads import BATCH_SIZE, INFLUENCE, LEARNING_RATE
from fedali.models import Model

_GLOBAL, _LOCAL = "global_prototypes", "local_prototypes"


def set_influence(model: Model, round_: int) -> None:
    """As FedAli does: prototypes do not pull in the first round."""
    for layer in model.alp_layers:
        layer.influence = INFLUENCE if round_ > 1 else 0.0


def loss(model: Model, x: Tensor, y: Tensor) -> Tensor:
    """Mean cross-entropy of a batch."""
    return F.cross_entropy(model(x).logits, y)


def train(model: Model, x: Tensor, y: Tensor, epochs: int) -> None:
    """Train in place; the ALP layers move their local prototypes, which are buffers."""
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    for _ in range(epochs):
        order = torch.randperm(len(y))
        for start in range(0, len(y), BATCH_SIZE):
            where = order[start : start + BATCH_SIZE]
            optimizer.zero_grad()
            loss(model, x[where], y[where]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()


def upload(model: Model) -> dict[str, Tensor]:
    """What a client sends: parameters and one set of prototypes."""
    return {name: value for name, value in model.state_dict().items() if not name.endswith(_GLOBAL)}


def download(model: Model, state: dict[str, Tensor]) -> None:
    """Take up what the server sent; local prototypes start from the global ones."""
    copies = {n.replace(_LOCAL, _GLOBAL): v for n, v in state.items() if n.endswith(_LOCAL)}
    model.load_state_dict({**state, **copies})


@torch.no_grad()
def final_loss(model: Model, clients: Clients) -> float:
    """Mean loss over all clients' samples without prototypes: shows that contenders learned the same."""
    set_influence(model, 1)
    model.eval()
    total = 0.0
    for x, y in zip(clients.x, clients.y, strict=True):
        total += float(loss(model, torch.from_numpy(x), torch.from_numpy(y))) * len(y)
    return total / clients.samples
