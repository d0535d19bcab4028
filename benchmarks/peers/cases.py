"""What is held against what: a method of ours, the peer's, and what makes them the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.peers import clients, servers

_PLAIN = ("training.optimizer=sgd", "training.momentum=0")
SGD = (*_PLAIN, "training.learning_rate=0.05")
SLOW_SGD = (*_PLAIN, "training.learning_rate=0.02")  # at 0.05 pFedMe enlarges rounding a hundredfold a round


@dataclass(frozen=True)
class Case:
    """A row of the table.

    Args:
        ours: name of our method.
        module: of the peer's server, ``flcore.servers.server`` + this.
        server, client: the peer's classes.
        options: of our method.
        arguments: of the peer, where they are not its defaults.
        settings: changes of the scenario.
        before_client, before_server: what is put before the peer's classes.
        changed: in the peer, beyond what is changed in all; one sentence.
        differs: what is left, one sentence.
        same: whether nothing is meant to differ on the same batches.
    """

    ours: str
    module: str
    server: str
    client: str
    options: Mapping[str, Any] = field(default_factory=dict)
    arguments: Mapping[str, Any] = field(default_factory=dict)
    settings: tuple[str, ...] = ()
    before_client: type[clients.AnyClient] = clients.AnyClient
    before_server: type[servers.AnyServer] = servers.AnyServer
    changed: str = ""
    differs: str = ""
    same: bool = True

    @property
    def title(self) -> str:
        """Our method's name, and the optimizer where it is not Adam."""
        return f"{self.ours}, SGD" if self.settings else self.ours


_WEIGHED = "prototypes are those of the trained model over all samples, averaged by samples (PFLlib: collected on the way, each client alike)"

CASES = (
    Case("fedavg", "avg", "FedAvg", "clientAVG"),
    Case("fedper", "per", "FedPer", "clientPer"),
    Case("local", "local", "Local", "clientAVG"),
    Case(
        "fedprox",
        "prox",
        "FedProx",
        "clientProx",
        arguments={"mu": 0.1},
        changed="mu .1 (its default is 0, which is FedAvg); Adam on the gradient that its own optimizer takes",
    ),
    Case(
        "fedprox",
        "prox",
        "FedProx",
        "clientProx",
        arguments={"mu": 0.1},
        settings=SGD,
        changed="mu .1",
    ),
    Case(
        "fedrep",
        "rep",
        "FedRep",
        "clientRep",
        changed="nothing: its head trains for an epoch (`plocal_epochs`), then the body for all of `local_epochs`",
    ),
    Case(
        "ditto",
        "ditto",
        "Ditto",
        "clientDitto",
        arguments={"mu": 0.1, "plocal_epochs": 2},
        before_client=clients.Ditto,
        changed="mu .1 (its default is 0); as many epochs of the personal model as of the shared one (its default is 1)",
    ),
    Case(
        "scaffold",
        "scaffold",
        "SCAFFOLD",
        "clientSCAFFOLD",
        settings=SGD,
        before_server=servers.Variates,
        changed="models and variates are averaged by samples (PFLlib, as the paper: each client alike)",
    ),
    Case(
        "moon",
        "moon",
        "MOON",
        "clientMOON",
        arguments={"mu": 1.0, "tau": 0.5},
        changed="mu 1, tau .5 (its defaults are 0, which is FedAvg, and 1)",
    ),
    Case(
        "fedproto",
        "proto",
        "FedProto",
        "clientProto",
        before_client=clients.Prototypes,
        changed=f"{_WEIGHED}; the head answers (PFLlib: the nearest prototype)",
    ),
    Case(
        "fedntd",
        "ntd",
        "FedNTD",
        "clientNTD",
        arguments={"beta": 1.0, "tau": 3.0},
        before_server=servers.Evenly,
        changed="beta 1, tau 3 (its defaults are 0, which is FedAvg, and 1); models are averaged by samples (PFLlib: each client alike)",
    ),
    Case(
        "fedrod",
        "rod",
        "FedROD",
        "clientROD",
        before_client=clients.TwoHeads,
        changed="counts of classes are of all samples (PFLlib: without those of the last batch)",
    ),
    Case(
        "fedbabu",
        "babu",
        "FedBABU",
        "clientBABU",
        arguments={"fine_tuning_epochs": 5},
        before_client=clients.Tuned,
        changed="5 epochs of fine-tuning (its default is 10)",
    ),
    Case("fedbn", "bn", "FedBN", "clientBN", changed="group and layer norms count as batch norms"),
    Case(
        "apfl",
        "apfl",
        "APFL",
        "clientAPFL",
        arguments={"alpha": 0.5},
        before_client=clients.TwoModels,
        changed="alpha .5 for good (its default begins with 1, which is no mixture)",
        differs="the personal model: by the paper, and here, it trains through the mixture and goes on from itself; in PFLlib it trains "
        "alone and goes on from the mixture, so that the shared model comes back into it in each round. What is sent is the same",
        same=False,
    ),
    Case(
        "pfedme",
        "pFedMe",
        "pFedMe",
        "clientpFedMe",
        arguments={"lamda": 15.0, "K": 5, "p_learning_rate": 0.02, "beta": 1.0},
        settings=SLOW_SGD,
        before_client=clients.Envelope,
        changed="lambda 15, both step sizes .02, beta 1 (its default is 0: the server's model never moves); no weight decay of .001; the personal "
        "model is kept and goes on from itself (PFLlib overwrites it by the shared one before it is tested)",
    ),
    Case(
        "fedala",
        "ala",
        "FedALA",
        "clientALA",
        arguments={"rand_percent": 100},
        before_client=clients.Mixing,
        changed="weights are learnt on all samples for an epoch in each round (PFLlib: on 80 %, in the first round to convergence)",
    ),
    Case(
        "fedpac-align",
        "pac",
        "FedPAC",
        "clientPAC",
        before_client=clients.Prototypes,
        before_server=servers.Aligned,
        changed="heads are not mixed; prototypes are averaged by samples (PFLlib: each client alike)",
    ),
    Case(
        "feddbe",
        "dbe",
        "FedDBE",
        "clientDBE",
        arguments={"momentum": 1.0, "kl_weight": 1.0},
        before_client=clients.Shifted,
        before_server=servers.Centred,
        changed="kappa 1 (its default is 0), the mean of a batch (momentum 1; its default .1 begins at 0 in each round); the first round counts, and the "
        "centre is the mean over all samples after it (PFLlib: a running mean on the way, and its models are thrown away)",
    ),
)
