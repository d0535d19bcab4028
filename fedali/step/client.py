"""What a method sees of a client's training: of each step, and of its end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fedali.models.base import Output
from fedali.slots import Named
from fedali.task import Batch
from fedali.tasks.base import Task

Parameters = dict[str, Tensor]

_NO_SAMPLES = 1e-30  # the logarithm of 0 has no derivative


@dataclass(frozen=True, eq=False)
class ClientStep:
    """What a method's ``objective`` and ``measure`` see of a step.

    Args:
        output: of the client's model on the batch.
        batch: samples, labels and weights; 0 marks padding.
        own: the client's vector: ``own.model`` are its model's parameters by name, ``own["slot"]`` a slot's.
        server: what the server sent, likewise.
        forward: the output on the same batch of the model with other parameters; its prototypes do not move.
        head: the output of the head alone, with a model's parameters, on embeddings [B, d].
        gradient: of a number that a function makes of parameters: by each of them, and the number; they are constants to
            what is differentiated around.
        task: what is learnt.
        step_size: of the optimizer in this step, 0-d; None after training.
    """

    output: Output
    batch: Batch
    own: Named
    server: Named
    forward: Callable[[Parameters], Output]
    head: Callable[[Parameters, Tensor], Output]
    gradient: Callable[[Callable[[Parameters], Tensor], Parameters], tuple[Parameters, Tensor]]
    task: Task
    step_size: Tensor | None = None

    def loss(self, output: Output | None = None) -> Tensor:
        """The task's, a weighted mean over the batch: of the client's model, or of another output."""
        return self.task.loss(self.output if output is None else output, self.batch)

    def balanced_loss(self, class_counts: Tensor) -> Tensor:
        """The task's loss, as if the client had as many samples of each class: balanced softmax (Ren et al., NeurIPS 2020).

        Logits are raised by the logarithms of ``class_counts`` [classes], which ``Method.begin`` knows: what is learnt is what
        remains. A class that the client lacks takes no part.

        Raises ``SettingsError`` for a task without classes.
        """
        self.task.need_classes("balanced softmax")
        shift = class_counts.clamp(min=_NO_SAMPLES).log()
        return self.loss(self.output._replace(logits=self.output.logits + shift))

    def mean(self, values: Tensor) -> Tensor:
        """The weighted mean of numbers [B] over the batch."""
        return (values * self.batch.weights).sum() / self.batch.weights.sum().clamp(min=1.0)


@dataclass(frozen=True, eq=False)
class Started:
    """What a method's ``begin`` sees as a phase of a client's training starts.

    Args:
        own: the client's vector as it is now.
        server: what the server sent.
        class_counts: how many training samples of each class the client has [classes].
        phase: number of the phase, from 0; 0 without phases.
    """

    own: Named
    server: Named
    class_counts: Tensor
    phase: int


@dataclass(frozen=True, eq=False)
class Ended:
    """What a method's ``finish`` sees of a client's training that has ended.

    Args:
        own: the client's vector: what is trained as it is now, the rest as the round began.
        server: what the server sent.
        measured: the sums over its training samples.
        steps: how many the training took, 0-d.
        step_size: the optimizer's learning rate, 0-d.
        samples: how many it trained on, 0-d.
    """

    own: Named
    server: Named
    measured: Named
    steps: Tensor
    step_size: Tensor
    samples: Tensor


def squared_distance(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> Tensor:
    """Sum over all parameters of ``one`` of the squared difference to those of ``other``."""
    return torch.stack([(one[name] - other[name]).square().sum() for name in one]).sum()
