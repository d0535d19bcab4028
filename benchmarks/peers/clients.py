"""What is put before the peer's client classes: our samples, a fresh optimizer in each round, and what the client answers with.

Everything else, the training of each method above all, is the peer's own. ``run`` is of ``benchmarks.peers.peer.PeerRun``; a class is made
of one of these and one of the peer's for each run.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from benchmarks.peers.order import tensors


class AdamNear(torch.optim.Adam):
    """Adam along the direction of the peer's ``PerturbedGradientDescent``: the gradient and ``mu`` times the distance."""

    def __init__(self, params: Iterable[Tensor], lr: float, mu: float) -> None:
        super().__init__(params, lr)
        self.mu = mu

    @torch.no_grad()
    def step(self, global_params: Iterable[Tensor], device: Any) -> None:  # type: ignore[override]
        """One step, held near ``global_params``."""
        for value, centre in zip(self.param_groups[0]["params"], global_params, strict=True):
            value.grad.add_(value - centre, alpha=self.mu)
        super().step()


class AnyClient:
    """Of every method."""

    run: Any
    skip = 0  # epochs of a round's order that are not this training's

    def load_train_data(self, batch_size: int | None = None) -> Any:
        """Batches of all samples, the last one too."""
        return self.run.batches(self.id, self.skip)

    def train(self) -> None:
        """The peer's, with fresh optimizers."""
        self.renew()
        super().train()  # type: ignore[misc]

    def renew(self) -> None:
        """Adam in the place of the peer's plain descent, from zero moments; under SGD nothing is changed."""
        if self.run.optimizer != "adam":
            return
        for name, old in vars(self).copy().items():
            if isinstance(old, torch.optim.Optimizer):
                group = old.param_groups[0]
                near = (group["mu"],) if "mu" in group else ()
                made = AdamNear if near or isinstance(old, AdamNear) else torch.optim.Adam
                near = near or ((old.mu,) if isinstance(old, AdamNear) else ())
                setattr(self, name, made(group["params"], group["lr"], *near))

    def sent(self) -> list[Tensor]:
        """Parameters of the model that it trains in federation."""
        return list(self.model.parameters())

    def answer(self) -> list[Tensor]:
        """Parameters of the model that it answers with."""
        return self.sent()


class TwoModels(AnyClient):
    """Ditto and APFL: a personal model answers."""

    def answer(self) -> list[Tensor]:
        """The personal one."""
        return list(self.model_per.parameters())

    def alpha_update(self) -> None:
        """APFL's share of it stays."""


class Ditto(TwoModels):
    """Ditto trains its personal model first."""

    def ptrain(self) -> None:
        """The peer's, with fresh optimizers."""
        self.renew()
        super().ptrain()  # type: ignore[misc]


class Tuned(AnyClient):
    """FedBABU: a copy is fine-tuned when it is asked for."""

    def answer(self) -> list[Tensor]:
        """The model after the peer's fine-tuning; the client itself goes on as it was."""
        tuned = copy.deepcopy(self)
        tuned.renew()
        tuned.skip = self.local_epochs
        tuned.fine_tune()
        return tuned.sent()


class TwoHeads(AnyClient):
    """FedRoD: both heads' logits are added."""

    def answer(self) -> list[Tensor]:
        """The model whose head is the sum of both."""
        both = [a + b for a, b in zip(self.model.head.parameters(), self.head.parameters(), strict=True)]
        return [*self.model.base.parameters(), *both]


class Shifted(AnyClient):
    """FedDBE: embeddings are shifted before the head."""

    def answer(self) -> list[Tensor]:
        """The model whose head's bias takes in the shift."""
        head = self.model.head
        moved = head.bias + head.weight @ self.client_mean
        return [*self.model.base.parameters(), head.weight, moved]


class Mixing(AnyClient):
    """FedALA: the weights of a round are learnt on its first epoch."""

    skip = 1

    def local_initialization(self, received_global_model: Any) -> None:
        """The peer's, on all samples in the order of our first epoch, for one epoch in each round."""
        self.ALA.start_phase = False
        samples = tensors(self.run.samples[self.id], self.run.dtype)
        if self.run.ours:
            samples = [samples[i] for i in self.run.order(self.id).permutation(len(samples))]
        self.ALA.train_data = samples
        super().local_initialization(received_global_model)  # type: ignore[misc]


class Counted(dict):  # type: ignore[type-arg]
    """Prototypes by class, and how many samples each stands for."""

    counts: dict[int, int]


class Prototypes(AnyClient):
    """FedProto and FedPAC: prototypes of the trained model, over all samples."""

    def train(self) -> None:
        """The peer's training, then its own ``collect_protos``."""
        super().train()
        self.collect_protos()
        counts = torch.bincount(torch.from_numpy(self.run.samples[self.id].y)).tolist()
        self.protos = Counted(self.protos)
        self.protos.counts = dict(enumerate(counts))

    def statistics_extraction(self) -> tuple[None, None]:
        """FedPAC's, which serve the mixing of heads alone."""
        return None, None


class Envelope(AnyClient):
    """pFedMe: the personal model, which the peer overwrites with the shared one, is kept."""

    personal: list[Tensor] | None = None

    def train(self) -> None:
        """The peer's, without the weight decay of its optimizer."""
        self.optimizer.param_groups[0]["mu"] = 0.0
        super().train()

    def update_parameters(self, model: Any, new_params: list[Tensor]) -> None:
        """After training: what is overwritten is the personal model."""
        self.personal = [value.detach().clone() for value in model.parameters()]
        super().update_parameters(model, new_params)  # type: ignore[misc]

    def set_parameters(self, model: Any) -> None:
        """A round begins: the personal model goes on from where it was."""
        super().set_parameters(model)  # type: ignore[misc]
        if self.personal is not None:
            super().update_parameters(self.model, self.personal)  # type: ignore[misc]

    def answer(self) -> list[Tensor]:
        """The personal model."""
        assert self.personal is not None
        return self.personal
