"""Heartbeats: while a task is done, a thread tells the gateway how far it is, and hears whether it still counts."""

from __future__ import annotations

import threading
from types import TracebackType

from fedali.errors import KitError
from fedali_client.join.connection import GatewayConnection
from fedali_client.join.signals import AwayError, GoneError, UnwantedError

_LEAST = 0.5  # seconds between heartbeats


class Heart:
    """Beats in a ``with`` block, every ``seconds``, for the task of id ``task``."""

    def __init__(self, gateway: GatewayConnection, task: str, seconds: float) -> None:
        self._gateway, self._task, self._seconds = gateway, task, max(seconds, _LEAST)
        self._progress = 0.0
        self._over: UnwantedError | KitError | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeats", daemon=True)

    def beat(self, progress: float) -> None:
        """Note how far the task is, 0..1. Raises ``UnwantedError`` once its round has closed, ``KitError`` once refused."""
        self._progress = progress
        if self._over is not None:
            raise self._over

    def __enter__(self) -> Heart:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(_LEAST)  # one that waits for an answer ends with the connection

    def _run(self) -> None:
        while not self._stop.wait(self._seconds):
            try:
                if self._gateway.heartbeat(self._task, self._progress):
                    continue
                self._over = UnwantedError("the round closed before this device was done")
            except (AwayError, GoneError):  # training goes on; the gateway may be back before it ends
                continue
            except KitError as error:
                self._over = error
            return
