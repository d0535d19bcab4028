"""Runs side by side, each in a process of its own that is told its jobs over a pipe, in JSON.

Not ``multiprocessing``: a spawned child would import the user's script again, and a forked one inherits torch's
threads. A worker ends when its parent is gone, so that a killed study leaves nobody writing.
"""

from __future__ import annotations

import dataclasses
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from fedali import errors
from fedali.errors import FedaliError
from fedali.support.memory import collect_rarely
from fedali_simulations.jobs import Job, Progress, Report
from fedali_simulations.scenario import load_scenario


def run_side_by_side(jobs: Sequence[Job], workers: int, report: Report) -> None:
    """Run ``jobs`` in up to ``workers`` processes; ``report`` is called in this thread.

    The first job that fails ends the others; its error is raised here.
    """
    waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
    for job in jobs:
        waiting.put(job)
    heard: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
    processes = [_start() for _ in range(min(workers, len(jobs)))]
    threads = [threading.Thread(target=_serve, args=(p, waiting, heard), daemon=True) for p in processes]
    try:
        for thread in threads:
            thread.start()
        ended = 0
        while ended < len(threads):
            message = heard.get()
            if message is None:
                ended += 1
            elif "error" in message:
                kind = getattr(errors, message["kind"], FedaliError)
                error = FedaliError(message["error"])
                error.exit_code = kind.exit_code
                raise error
            else:
                report(Progress(**message))
    finally:
        for process in processes:
            process.kill()
            process.wait()
        for thread in threads:
            thread.join()
        for process in processes:
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()


def _start() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "fedali_simulations.machines.workers"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )


def _serve(
    process: subprocess.Popen[str],
    waiting: queue.SimpleQueue[Job],
    heard: queue.SimpleQueue[dict[str, Any] | None],
) -> None:
    """Give one worker job after job, and pass on what it says."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        while True:
            job = waiting.get_nowait()
            process.stdin.write(json.dumps(_to_json(job)) + "\n")
            process.stdin.flush()
            for line in process.stdout:
                message = json.loads(line)
                if message == "done":
                    break
                heard.put(message)
            else:
                heard.put(
                    {"kind": "FedaliError", "error": f"the worker of {job.folder} ended: was memory short?"}
                )
                return
    except (queue.Empty, OSError, ValueError):  # no job left, or the study is being stopped
        pass
    finally:
        heard.put(None)


def _to_json(job: Job) -> dict[str, Any]:
    return {
        "scenario": job.scenario.model_dump(mode="json"),
        "line": job.scenario.methods.index(job.line),
        "seed": job.seed,
        "folder": str(job.folder),
        "workers": job.workers,
        "may_diverge": job.may_diverge,
        "path": sys.path,
    }


def _from_json(found: dict[str, Any]) -> Job:
    sys.path.extend(place for place in found["path"] if place not in sys.path)  # a user's modules are there
    scenario = load_scenario(found["scenario"])
    line, folder = scenario.methods[found["line"]], Path(found["folder"])
    return Job(scenario, line, found["seed"], folder, found["workers"], found["may_diverge"])


def _work(orders: IO[str], answers: IO[str]) -> None:
    """The worker process: run each job that comes in, say how it goes."""
    from fedali_simulations.run import run_job

    def say(message: Any) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    received: queue.SimpleQueue[str] = queue.SimpleQueue()

    def listen() -> None:
        for line in orders:
            received.put(line)
        os._exit(0)  # the parent is gone

    threading.Thread(target=listen, daemon=True).start()
    while True:
        job = _from_json(json.loads(received.get()))
        try:
            run_job(job, lambda progress: say(dataclasses.asdict(progress)))
        except FedaliError as error:
            say({"kind": type(error).__name__, "error": str(error)})
        except Exception as error:
            traceback.print_exc()
            say({"kind": "FedaliError", "error": f"{job.folder}: {type(error).__name__}: {error}"})
        say("done")


if __name__ == "__main__":
    collect_rarely()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the parent, which ends its workers
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever else prints must not get between the answers
    _work(sys.stdin, answers)
