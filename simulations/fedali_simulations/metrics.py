"""Per-client metrics of a simulated run, in its folder: Parquet, a file a round."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedali.errors import CheckpointError
from fedali.support.files import flush_folder
from fedali_simulations.report.tablefile import Columns, read_table, write_table

if TYPE_CHECKING:  # needed when a run has ended: importing it takes as long as a short round
    import pandas as pd


class MetricsFiles:
    """Reads and writes them.

    Args:
        path: the run's folder, see ``fedali_server.run.folder``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def write_metrics(self, round_: int, columns: Columns) -> None:
        """Write a round's per-client metrics: columns by name, of one length."""
        path = self.path / "metrics" / f"{round_:05d}.parquet"
        write_table(path, columns)
        flush_folder(path.parent)

    def read_round(self, round_: int) -> dict[str, list[Any]] | None:
        """A round's columns by name, without pandas; None where it has none."""
        path = self.path / "metrics" / f"{round_:05d}.parquet"
        return read_table(path) if path.exists() else None

    def write_unseen(self, columns: Columns) -> None:
        """Write how clients that never took part fare before and after adapting."""
        write_table(self.path / "unseen.parquet", columns)

    def read_unseen(self) -> pd.DataFrame | None:
        """What ``write_unseen`` wrote, None when no client was held out."""
        import pandas as pd

        path = self.path / "unseen.parquet"
        return pd.read_parquet(path) if path.exists() else None

    def read_metrics(self, rounds: int) -> pd.DataFrame:
        """Per-client metrics of rounds 1 to ``rounds``."""
        import pandas as pd

        paths = [self.path / "metrics" / f"{round_:05d}.parquet" for round_ in range(1, rounds + 1)]
        try:
            found = [frame for frame in map(pd.read_parquet, paths) if len(frame)]  # a round may have nobody
            return pd.concat(found, ignore_index=True)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"cannot read the metrics of {self.path}: {error}") from error
