"""Flower's own simulation: Ray actors, FedAvg, and a client as in Flower's PyTorch quickstart."""

from __future__ import annotations

import functools
from pathlib import Path

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

from benchmarks import plain
from benchmarks.clients import Clients, read_clients
from benchmarks.measure import RoundClock, versions
from benchmarks.order import Order, Outcome
from benchmarks.workloads import WORKLOADS

client_app = ClientApp()


@functools.lru_cache(maxsize=1)
def _clients(folder: str) -> Clients:
    """Loaded once in each actor."""
    return read_clients(Path(folder))


@client_app.train()
def train(message: Message, context: Context) -> Message:
    """One client update; without epochs the client returns what it got."""
    torch.set_num_threads(1)
    arrays, config = message.content.array_records["arrays"], message.content.config_records["config"]
    clients, client = _clients(str(config["data"])), int(context.node_config["partition-id"])
    x, y = torch.from_numpy(clients.x[client]), torch.from_numpy(clients.y[client])
    epochs = config["epochs"]
    assert isinstance(epochs, int)
    if epochs:
        model = WORKLOADS[str(config["workload"])].model()
        plain.download(model, arrays.to_torch_state_dict())
        plain.set_influence(model, int(config["server-round"]))  # type: ignore[arg-type]
        plain.train(model, x, y, epochs)
        arrays = ArrayRecord(plain.upload(model))
    metrics = MetricRecord({"num-examples": len(y)})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)


def run(order: Order) -> Outcome:
    """Rounds of FedAvg with all clients."""
    workload, clients = WORKLOADS[order.workload], read_clients(order.data_folder)
    model, clock = workload.model(), RoundClock()
    server_app = ServerApp()

    def on_round(_: int, __: ArrayRecord) -> None:
        clock.mark()

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        count = len(clients.y)
        strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=count, min_available_nodes=count)
        config = ConfigRecord({"workload": order.workload, "data": order.data, "epochs": order.epochs})
        arrays = ArrayRecord(plain.upload(model))
        result = strategy.start(grid, arrays, order.rounds, train_config=config, evaluate_fn=on_round)
        plain.download(model, result.arrays.to_torch_state_dict())

    run_simulation(
        server_app,
        client_app,
        num_supernodes=len(clients.y),
        backend_config={
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
            "init_args": {"num_cpus": order.workers},
        },
    )
    return Outcome(clock, plain.final_loss(model, clients), versions("flwr", "ray", "torch", "numpy"))
