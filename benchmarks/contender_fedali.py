"""Our simulator with one of its engines."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.nn.utils import vector_to_parameters

from benchmarks import plain
from benchmarks.clients import read_clients
from benchmarks.contender import OURS
from benchmarks.engines import make_engine
from benchmarks.measure import RoundClock, versions
from benchmarks.order import Order, Outcome
from benchmarks.simulator import build_simulation, make_federation
from benchmarks.workloads import BATCH_SIZE, INFLUENCE, LEARNING_RATE, SEED, WORKLOADS
from fedali.methods import FedAliPaper, SharedState
from fedali.optimizers.rules import Adam
from fedali.recipe import Recipe


def run(order: Order) -> Outcome:
    """Rounds of FedAli with all clients."""
    workload, clients = WORKLOADS[order.workload], read_clients(order.data_folder)
    model, method = workload.model(), FedAliPaper(strength=INFLUENCE)
    engine = make_engine(
        order.contender.removeprefix(OURS),
        Recipe(
            model,
            method,
            Adam(LEARNING_RATE),
            workload.shape,
            order.epochs,
            BATCH_SIZE,
            model.alp_layers[0].decay,
        ),
        workers=order.workers,
    )
    federation = make_federation(clients.x, clients.y, workload.classes)
    simulation = build_simulation(model, method, engine, federation, Path(order.scratch) / "run", seed=SEED)
    clock, breakdown = RoundClock(), []
    last = simulation.initial

    def on_round(shared: SharedState) -> None:
        nonlocal last
        clock.mark()
        breakdown.append(simulation.watch.take())
        last = shared

    clock.mark()
    simulation.run(order.rounds, on_round)
    vector_to_parameters(torch.tensor(last.theta, dtype=torch.float32), model.parameters())
    return Outcome(
        clock,
        plain.final_loss(model, clients),
        versions("fedali", "flwr", "torch", "numpy", "onnxruntime"),
        breakdown,
    )
