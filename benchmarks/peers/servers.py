"""What is put before the peer's server classes: nothing is printed, tested or written by them, and a round's end is heard of."""

from __future__ import annotations

from typing import Any

import torch


class AnyServer:
    """Of every method. ``run`` is of ``benchmarks.peers.peer.PeerRun``."""

    run: Any

    def check_done(self, **_: Any) -> bool:
        """Called by the peer as each round ends."""
        self.run.ended(self)
        return False

    def evaluate(self, acc: Any = None, loss: Any = None) -> None:
        """Nothing: clients are tested when a round has ended."""

    evaluate_personalized = evaluate


class Evenly(AnyServer):
    """FedNTD: models are averaged by samples, as the peer's FedAvg does."""

    def add_parameters(self, w: float, client_model: Any) -> None:
        """The peer's base server's."""
        from flcore.servers.serverbase import Server

        Server.add_parameters(self, w, client_model)


class Variates(AnyServer):
    """SCAFFOLD: models and control variates are averaged by samples."""

    @torch.no_grad()
    def aggregate_parameters(self) -> None:
        """As the peer's with each client's weight for 1/N; not in place, clients hold what was sent."""
        from copy import deepcopy

        model, control = deepcopy(self.global_model), deepcopy(self.global_c)
        for client, weight in zip(self.uploaded_ids, self.uploaded_weights, strict=True):
            by_model, by_control = self.clients[client].delta_yc()
            for value, change in zip(model.parameters(), by_model, strict=True):
                value += weight * change
            for value, change in zip(control, by_control, strict=True):
                value += weight * change
        self.global_model, self.global_c = model, control


class Aligned(AnyServer):
    """FedPAC: heads are not mixed."""

    def aggregate_and_send_heads(self) -> None:
        """Each client keeps its own."""


class Centred(AnyServer):
    """FedDBE: the first round counts, and the centre is the mean embedding of its trained models over all samples."""

    @torch.no_grad()
    def __init__(self, args: Any, times: int) -> None:
        with torch.enable_grad():
            super().__init__(args, times)  # type: ignore[call-arg]
        self.receive_models()
        self.aggregate_parameters()
        total = sum(client.train_samples for client in self.clients)
        centre = torch.zeros_like(self.clients[0].running_mean)
        for client in self.clients:
            for x, _ in client.load_train_data():
                centre += client.model.base(x).sum(0) / total
        for client in self.clients:
            client.global_mean = centre.clone()
        self.run.ended(self)


def mean_by_samples(prototypes: list[Any]) -> Any:
    """In the place of the peer's ``proto_aggregation``: the mean over clients by their samples of the class (FedProto, equation 6)."""
    from collections import defaultdict

    sums: Any = defaultdict(list)
    for label in sorted({label for one in prototypes for label in one}):
        holding = [one for one in prototypes if label in one]
        total = sum(one.counts[label] for one in holding)
        sums[label] = torch.stack([one[label] * (one.counts[label] / total) for one in holding]).sum(0)
    return sums
