"""A second process for an export: the same graphs from the other end, into the cache that both look into.

Half of a first export is importing torch's exporters and tracing; two processes do that on two cores.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedali.support.memory import collect_rarely
from fedali_simulations.environment import cores


@contextmanager
def exporting_ahead(run: Path, **chosen: Any) -> Iterator[None]:
    """While this lasts another process makes graphs too, where there is a core for it; ``chosen`` as for ``exporting.export``.

    What it has not done when the export is complete is nobody's any more: it ends.
    """
    if cores() < 2:
        yield
        return
    command = [sys.executable, "-m", __name__, json.dumps({"run": str(run), **chosen})]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet) as helper:
        try:
            yield
        finally:
            helper.kill()


def _main(run: str, method: str | None, seed: int | None, mode: Any, batch: int) -> None:
    from fedali_server.export.bundle_export import export_graphs
    from fedali_simulations.federate.exporting import choose, federated_run, untrained_source
    from fedali_simulations.setup import build_plan

    if federated_run(Path(run), method, seed) is not None:
        return  # its graphs were made when it began
    chosen = choose(Path(run), method, seed)
    plan = build_plan(chosen.scenario, chosen.line, chosen.seed)
    source = untrained_source(chosen.scenario, chosen.line, plan)
    export_graphs(source, mode, batch, from_the_end=True)


if __name__ == "__main__":
    collect_rarely()
    _main(**json.loads(sys.argv[1]))
