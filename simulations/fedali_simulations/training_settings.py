"""Settings of local training: how a client trains in a round, and how many rounds there are."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from fedali.engines.choose import EngineName
from fedali.errors import SettingsError
from fedali.optimizers.schedules import Kind as RateKind
from fedali.optimizers.schedules import RateSchedule
from fedali_simulations.data_settings import Settings


class TrainingSettings(Settings):
    """What every client does in a round, and how many rounds there are."""

    rounds: int = Field(default=10, ge=1)
    epochs: int = Field(default=2, ge=1)
    batch_size: int = Field(default=64, ge=1)
    optimizer: Literal["adam", "sgd"] = "adam"
    """Fresh each round."""
    learning_rate: float = Field(default=1e-3, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """SGD only."""
    schedule: RateKind = "constant"
    """The learning rate over rounds: ``constant``, ``cosine`` (to ``schedule_floor`` in the last round's end) or ``step``."""
    warmup_rounds: int = Field(default=0, ge=0)
    """Rounds in which the learning rate climbs to its value, in equal steps."""
    schedule_rounds: int = Field(default=0, ge=0)
    """Cosine: over how many rounds, warm-up included; 0: all of them."""
    schedule_floor: float = Field(default=0.0, ge=0, le=1)
    """Cosine: the share of the learning rate that it nears."""
    step_rounds: int = Field(default=10, ge=1)
    """Step: rounds between two drops."""
    step_factor: float = Field(default=0.1, gt=0, le=1)
    """Step: what each drop multiplies the learning rate by."""
    weight_decay: float = Field(default=0.0, ge=0, lt=float("inf"))
    """As torch's AdamW has it with adam, apart from the gradient; L2 in the gradient with sgd. 0: none."""
    clip_norm: float = Field(default=0.0, ge=0, lt=float("inf"))
    """Longest gradient, by its norm over all parameters of a model; a longer one is shortened. 0: as it is."""
    patience: int = Field(default=0, ge=0)
    """Rounds without a better mean validation accuracy after which a run stops; 0: never."""
    participation: float = Field(default=1.0, gt=0, le=1)
    """Share of the clients that train in a round."""
    mode: Literal["rounds", "buffered"] = "rounds"
    """``buffered``: a round is a step of a server that waits for a number of reports, and not for certain clients."""
    keep_models: Literal["all", "personal", "none"] = "all"
    """``personal``: each client's final model; ``all``: also those of the round chosen on validation; ``none``."""
    engine: EngineName = "auto"
    """``loop``: eager torch; ``compiled``: for this CPU, once; ``onnx``: by onnxruntime; ``stacked``: many clients at
    once, for a GPU; ``ray``: over the machines of a Ray cluster; ``auto``: the fastest that this machine can run."""
    precision: Literal["highest", "high"] = "highest"
    """Matrix products on a GPU: float32, or tf32."""

    @model_validator(mode="after")
    def _rates(self) -> TrainingSettings:
        try:
            self.rates.check_rounds(self.rounds, "Set training.schedule_floor, or schedule_rounds = 0")
        except SettingsError as error:
            raise ValueError(str(error)) from error
        return self

    @property
    def rates(self) -> RateSchedule:
        """The learning rate over rounds."""
        rounds = (self.schedule_rounds or self.rounds) if self.schedule == "cosine" else 0
        return RateSchedule(
            *(self.schedule, self.warmup_rounds, rounds),
            *(self.schedule_floor, self.step_rounds, self.step_factor),
        )


OPTIMIZATION = (
    "optimizer",
    "learning_rate",
    "momentum",
    "schedule",
    "warmup_rounds",
    "schedule_rounds",
    "schedule_floor",
    "step_rounds",
    "step_factor",
    "weight_decay",
    "clip_norm",
    "patience",
)  # what belongs to a method as its options do
LINES_OWN = ("epochs", *OPTIMIZATION)  # of a line's training; the rest is the table's
