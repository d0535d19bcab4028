"""Processes that belong to one command: started with it, started again when they die, ended with it."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

import structlog

from fedali.errors import FedaliError
from fedali.support.files import reporting

_PAUSES = 0.1, 10.0  # seconds before another start: the first, twice as many each time, the most
_WELL = 30.0  # seconds after which a start counts as good
_PATIENCE = 15.0  # seconds for a process to end by itself

log = structlog.get_logger("fedali.server")


def say(line: str) -> None:
    """A line on stderr."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


class Child:
    """A Python module in a process of its own, started again when it dies.

    Args:
        name: for people.
        words: the module and its arguments.
        ready: how the line on stderr begins that says that it is at work.
        inherit: file descriptors for it.
        say: what is done with the other lines on stderr.

    As a context: entering waits until the process is at work and raises ``FedaliError`` with its last line when it ends
    before that, leaving ends it.
    """

    def __init__(
        self,
        name: str,
        words: Sequence[str],
        ready: str,
        *,
        inherit: Sequence[int] = (),
        say: Callable[[str], None] = say,
    ) -> None:
        self.name, self._words, self._ready, self._inherit, self._say = name, words, ready, inherit, say
        self._process: subprocess.Popen[str] | None = None
        self._settled = threading.Event()  # at work, or failed
        self._failure: FedaliError | None = None
        self._ending = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._watch, name=name, daemon=True)

    def __enter__(self) -> Child:
        self._thread.start()
        try:
            self._settled.wait()
        except BaseException:
            self._end()
            raise
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        """End the process: SIGTERM, and SIGKILL when it does not go."""
        with self._lock:
            self._ending.set()
            process = self._process
        if process is not None:
            process.terminate()
            try:
                process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
        self._thread.join(_PATIENCE)

    def _watch(self) -> None:
        """Start the process, hear it out, and start it again."""
        pause = _PAUSES[0]
        while not self._ending.is_set():
            started = time.monotonic()
            code, last = self._run()
            if self._ending.is_set():
                return
            if not self._settled.is_set():
                self._failure = FedaliError(f"{self.name} did not start: {last}")
                self._failure.exit_code = code if code in (1, 2) else 1
                self._settled.set()
                return
            if time.monotonic() - started > _WELL:
                pause = _PAUSES[0]
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            log.warning("starting again", process=self.name, ended_by=how)
            self._ending.wait(pause)
            pause = min(2 * pause, _PAUSES[1])

    def _run(self) -> tuple[int, str]:
        """One life of the process: its exit code, and its last line."""
        with self._lock:
            if self._ending.is_set():
                return 0, ""
            process = self._process = subprocess.Popen(
                [sys.executable, "-m", "fedali_server.child", *self._words],
                stdin=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                pass_fds=self._inherit,
            )
        assert process.stdin is not None
        assert process.stderr is not None
        held: list[str] = []  # until it is at work, the last line may be the reason why it is not
        with process.stdin, process.stderr:
            for line in map(str.rstrip, process.stderr):
                if line.startswith(self._ready):
                    for before in held:
                        self._say(before)
                    held.clear()
                    self._say(line)
                    self._settled.set()
                elif self._settled.is_set():
                    self._say(line)
                else:
                    held.append(line)
            code = process.wait()
        for line in held[:-1]:
            self._say(line)
        last = held[-1] if held else f"it ended with code {code} without a word"
        return code, last.removeprefix("error: ").removeprefix("fedali: ")


@contextmanager
def alone(folder: Path, what: str) -> Iterator[int]:
    """Make ``folder`` and hold it alone, with the processes that inherit the file descriptor.

    Waits for the end of what was killed. Raises ``FedaliError`` when another command goes on to use the folder.
    """
    with reporting(folder):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(folder / "alone", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        end, told = time.monotonic() + _PATIENCE, False
        while True:
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            if time.monotonic() > end:
                raise FedaliError(f"another {what} uses {folder}: end it, or give this one another --state")
            if not told:
                say(f"waiting for another {what} to leave {folder}")
                told = True
            time.sleep(0.1)
        yield descriptor
    finally:
        os.close(descriptor)
