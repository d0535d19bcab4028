"""Apple's pfl-research: simulated federated averaging in one process.

It averages parameters only; prototypes stay buffers of its one model. Batches keep their order between epochs.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.aggregate.weighting import WeightByDatapoints
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.pytorch import PyTorchTensorDataset
from pfl.data.sampling import get_user_sampler
from pfl.hyperparam.base import NNTrainHyperParams
from pfl.metrics import Metrics
from pfl.model.pytorch import PyTorchModel
from torch import Tensor, nn

from benchmarks import plain
from benchmarks.clients import read_clients
from benchmarks.measure import RoundClock, versions
from benchmarks.order import Order, Outcome
from benchmarks.workloads import BATCH_SIZE, LEARNING_RATE, WORKLOADS
from fedali.models import Model


class Trainable(nn.Module):
    """A model with the two methods that pfl asks for."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Of one batch."""
        self.train()
        return plain.loss(self.model, x, y)

    def metrics(self, x: Tensor, y: Tensor) -> dict[str, Any]:
        """None: nothing is evaluated."""
        return {}


class WithoutEvaluation(FederatedAveraging):  # type: ignore[misc]
    """Federated averaging that does not evaluate in its first round either."""

    def get_next_central_contexts(self, *args: Any, **options: Any) -> Any:
        """As the base class does."""
        contexts, model, metrics = super().get_next_central_contexts(*args, **options)
        if contexts is not None:
            contexts = tuple(dataclasses.replace(context, do_evaluation=False) for context in contexts)
        return contexts, model, metrics


class Marks(TrainingProcessCallback):  # type: ignore[misc]
    """Marks the clock after each round, and sets the next round's influence."""

    def __init__(self, clock: RoundClock, model: Model) -> None:
        self.clock, self.model = clock, model

    def on_train_begin(self, *, model: Any) -> Metrics:
        """Before the first round."""
        plain.set_influence(self.model, 1)
        self.clock.mark()
        return Metrics()

    def after_central_iteration(
        self, aggregate_metrics: Metrics, model: Any, *, central_iteration: int
    ) -> tuple[bool, Metrics]:
        """After a round (0, 1, ...)."""
        self.clock.mark()
        plain.set_influence(self.model, central_iteration + 2)
        return False, Metrics()


def run(order: Order) -> Outcome:
    """Rounds of federated averaging with all clients."""
    workload, clients = WORKLOADS[order.workload], read_clients(order.data_folder)
    model, clock, count = workload.model(), RoundClock(), len(clients.y)
    trainable = Trainable(model)
    data = [
        PyTorchTensorDataset((torch.from_numpy(x), torch.from_numpy(y)), user_id=str(i))
        for i, (x, y) in enumerate(zip(clients.x, clients.y, strict=True))
    ]
    wrapped = PyTorchModel(
        trainable,
        local_optimizer_create=torch.optim.Adam,
        central_optimizer=torch.optim.SGD(trainable.parameters(), lr=1.0),
    )
    users = FederatedDataset(lambda user: data[user], get_user_sampler("minimize_reuse", list(range(count))))
    WithoutEvaluation().run(
        algorithm_params=NNAlgorithmParams(
            central_num_iterations=order.rounds,
            evaluation_frequency=order.rounds + 1,
            train_cohort_size=count,
            val_cohort_size=0,
        ),
        backend=SimulatedBackend(training_data=users, val_data=users, postprocessors=[WeightByDatapoints()]),
        model=wrapped,
        model_train_params=NNTrainHyperParams(
            local_num_epochs=order.epochs, local_learning_rate=LEARNING_RATE, local_batch_size=BATCH_SIZE
        ),
        model_eval_params=None,
        callbacks=[Marks(clock, model)],
    )
    return Outcome(clock, plain.final_loss(model, clients), versions("pfl", "torch", "numpy"))
