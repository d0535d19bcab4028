"""A run of the peer: its own servers and clients, on our splits, module, initial weights and samples."""

from __future__ import annotations

import contextlib
import os
import random
from argparse import Namespace
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from benchmarks.peers.cases import Case
from benchmarks.peers.checkout import peer_module
from benchmarks.peers.module import Plain, flat
from benchmarks.peers.observed import Observed
from benchmarks.peers.order import OurBatches, order_of, tensors
from fedali.engines.base import Samples
from fedali_simulations.scenario import Scenario
from fedali_simulations.setup import Setup

# What its servers and clients read of its command line, as its defaults are; what a case changes comes over it.
_DEFAULTS: dict[str, Any] = {
    "learning_rate_decay": False,
    "learning_rate_decay_gamma": 0.99,
    "join_ratio": 1.0,
    "random_join_ratio": False,
    "few_shot": 0,
    "time_select": False,
    "goal": "test",
    "time_threthold": 10_000,
    "save_folder_name": "items",
    "top_cnt": 100,
    "eval_gap": 1,
    "client_drop_rate": 0.0,
    "train_slow_rate": 0.0,
    "send_slow_rate": 0.0,
    "dlg_eval": False,
    "dlg_gap": 100,
    "batch_num_per_client": 2,
    "num_new_clients": 0,
    "fine_tuning_epoch_new": 0,
    "beta": 0.0,
    "lamda": 1.0,
    "mu": 0.0,
    "K": 5,
    "p_learning_rate": 0.01,
    "alpha": 1.0,
    "plocal_epochs": 1,
    "tau": 1.0,
    "fine_tuning_epochs": 10,
    "server_learning_rate": 1.0,
    "eta": 1.0,
    "rand_percent": 80,
    "layer_idx": 2,
    "momentum": 0.1,
    "kl_weight": 0.0,
}


class _Over(Exception):  # noqa: N818
    """The last round has ended; what the peer does afterwards, files and best rounds, is not wanted."""


class PeerRun:
    """One run of a case.

    Args:
        case: of which method.
        scenario: its settings.
        setup: model, splits and initial weights.
        seed: of the order of samples.
        ours: whether samples come in our order, or as the peer shuffles them.
        dtype: of all numbers.
    """

    def __init__(
        self, case: Case, scenario: Scenario, setup: Setup, seed: int, *, ours: bool, dtype: torch.dtype
    ) -> None:
        self.case, self.training, self.setup, self.seed = case, scenario.training, setup, seed
        self.ours, self.dtype, self.optimizer = ours, dtype, scenario.training.optimizer
        self.samples: list[Samples] = setup.sites[0].cohort.train
        self.round = 1
        self.observed = Observed()

    def __call__(self) -> Observed:
        """Train all rounds."""
        with contextlib.suppress(_Over), self._own_classes() as server, _silence():
            made = server(self._arguments(), 0)
            self._seed()  # each client it makes has set torch's to 0
            made.train()
        return self.observed

    def ended(self, server: Any) -> None:
        """A round has ended: look at some."""
        rounds = self.training.rounds
        if self.observed.wanted(self.round, rounds):
            sent = [flat(client.sent()) for client in server.clients]
            answers = [flat(client.answer()) for client in server.clients]
            self.observed.after[self.round] = sent, answers
        if self.round == rounds:
            raise _Over
        self.round += 1

    def order(self, client: int) -> np.random.Generator:
        """Of a client's samples in this round, from its beginning."""
        return order_of(self.seed, self.round, client)

    def batches(self, client: int, skip: int) -> Any:
        """What a client's training goes through in each epoch."""
        samples, size = self.samples[client], self.training.batch_size
        if self.ours:
            return OurBatches(samples, size, self.order(client), skip, self.dtype)
        return DataLoader(tensors(samples, self.dtype), size, shuffle=True)

    def _read(self, dataset: str, client: int, is_train: bool = True, few_shot: int = 0) -> Any:
        cohort = self.setup.sites[0].cohort
        return tensors((cohort.train if is_train else cohort.test)[client], self.dtype)

    def _arguments(self) -> Namespace:
        training, federation = self.training, self.setup.federation
        return Namespace(
            **{
                **_DEFAULTS,
                "device": "cpu",
                "dataset": "ours",
                "algorithm": self.case.server,
                "model": Plain(self.setup.model).to(self.dtype),
                "num_classes": len(federation.class_names),
                "num_clients": len(federation.clients),
                "global_rounds": training.rounds,
                "local_epochs": training.epochs,
                "batch_size": training.batch_size,
                "local_learning_rate": training.learning_rate,
                "auto_break": True,  # it asks ``check_done`` after each round
                **self.case.arguments,
            }
        )

    def _seed(self) -> None:
        random.seed(self.seed)
        np.random.seed(self.seed)
        torch.manual_seed(self.seed)

    @contextlib.contextmanager
    def _own_classes(self) -> Iterator[Callable[..., Any]]:
        """The peer's server, with ours put before it and before its clients."""
        case = self.case
        module = peer_module(f"flcore.servers.server{case.module}")
        before = {
            (module, case.client): _put_before(case.before_client, getattr(module, case.client), self),
            (peer_module("flcore.servers.serverbase"), "read_client_data"): self._read,
        }
        if case.module == "ala":
            before[peer_module("flcore.clients.clientala"), "read_client_data"] = self._read
        if hasattr(module, "proto_aggregation"):
            from benchmarks.peers.servers import mean_by_samples

            before[module, "proto_aggregation"] = mean_by_samples
        old = {(where, name): getattr(where, name) for where, name in before}
        for (where, name), value in before.items():
            setattr(where, name, value)
        try:
            yield _put_before(case.before_server, getattr(module, case.server), self)
        finally:
            for (where, name), value in old.items():
                setattr(where, name, value)


def _put_before(ours: type, theirs: type, run: PeerRun) -> Callable[..., Any]:
    return type(f"{ours.__name__}{theirs.__name__}", (ours, theirs), {"run": run})


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """The peer prints much."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):  # noqa: PTH123
        yield
