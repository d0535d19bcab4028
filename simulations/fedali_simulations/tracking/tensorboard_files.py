"""TensorBoard's event files, in ``tensorboard/`` of the run's folder: ``tensorboard --logdir RUN/tensorboard``."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from fedali.support.names import file_name
from fedali_simulations.tracking.callbacks import RoundEnded, RunEnded
from fedali_simulations.tracking.trackers import Tracker

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TensorBoard(Tracker):
    """A curve for each measure, a run for each method and seed."""

    name: ClassVar[str] = "tensorboard"
    _writers: dict[tuple[str, int], SummaryWriter]

    def write(self, ended: RoundEnded) -> None:
        """A point on each curve."""
        writer = self._writer(ended)
        for measure, mean in ended.means.items():
            writer.add_scalar(measure, mean, ended.round)
        writer.add_scalar("clients", ended.clients, ended.round)
        writer.flush()

    def on_end(self, ended: RunEnded) -> None:
        """Close its file."""
        writer = vars(self).get("_writers", {}).pop((ended.method, ended.seed), None)
        if writer is not None:
            writer.close()

    def _writer(self, ended: RoundEnded) -> SummaryWriter:
        writers = vars(self).setdefault("_writers", {})
        key = ended.method, ended.seed
        if key not in writers:
            from torch.utils.tensorboard import SummaryWriter

            where = self.folder / "tensorboard" / file_name(ended.method) / f"seed-{ended.seed}"
            # What a killed process has written of this round and did not note is not shown.
            writers[key] = SummaryWriter(str(where), purge_step=ended.round if ended.round > 1 else None)
        found: SummaryWriter = writers[key]
        return found
