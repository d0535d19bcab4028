"""Settings of what is learnt."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from fedali.errors import SettingsError
from fedali.tasks import Task, build_task
from fedali_simulations.data_settings import Settings


class TaskSettings(Settings):
    """What is learnt of the samples, and by which loss."""

    name: str = "classification"
    """classification, multi-label or regression; or a task of your own, "my_file:MyTask"."""
    options: dict[str, Any] = Field(default_factory=dict)
    """The task's own options, such as ``label_smoothing``, ``class_weights``, ``error`` or ``units``."""

    @model_validator(mode="after")
    def _known(self) -> TaskSettings:
        try:
            self.build()
        except SettingsError as error:
            raise ValueError(str(error)) from error
        return self

    def build(self) -> Task:
        """The task, before it has seen data."""
        return build_task(self.name, self.options)


def as_task(value: Any) -> Any:
    """A name alone as settings."""
    return {"name": value} if isinstance(value, str) else value
