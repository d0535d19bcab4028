"""One run of a baseline: a line of the table and a seed."""

from __future__ import annotations

import time

from fedali_server.run.folder import RunFolder
from fedali_simulations.jobs import Job, Progress, Report


def run_baseline(job: Job, folder: RunFolder, report: Report) -> None:
    """Run or resume a job whose line is one of ``BASELINES``; its folder is that of a method's."""
    rounds = job.scenario.training.rounds
    folder.sweep()
    report(Progress(job.line.title, job.seed, 0, rounds))
    started, processor = time.perf_counter(), time.process_time()
    before = folder.read_checkpoint()
    if job.line.name == "pooled":
        from fedali_simulations.baselines.pooled import run_pooled as run
    else:
        from fedali_simulations.baselines.forest import run_forest as run
    facts = run(job, folder, report)
    folder.finish(
        {
            **facts,
            "prototype_values": 0,
            "notes": [],
            "timing": {
                "first_round": 1 if before is None else before.round + 1,
                "seconds": time.perf_counter() - started,
                "cpu_seconds": time.process_time() - processor,
            },
        }
    )
