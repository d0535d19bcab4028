"""What the devices of sites on this machine are at, asked of their gateways once a second."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from fedali.errors import FedaliError
from fedali.v1 import relay_pb2
from fedali_server.site.relay import RelayConnection

_PAUSE = 1.0  # seconds between looks
_PATIENCE = 0.5  # seconds for a gateway to answer

Seen = Mapping[str, relay_pb2.SiteStatus | None]


class SiteMonitor:
    """Asks the gateways at ``sockets``, by site, in a thread of its own, and tells; None for one that does not answer.

    Runs in a ``with`` block.
    """

    def __init__(self, sockets: Mapping[str, Path], tell: Callable[[Seen], None]) -> None:
        self._gateways = {
            site: RelayConnection(socket, patience=_PATIENCE) for site, socket in sockets.items()
        }
        self._tell, self._ended = tell, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="site-monitor")

    def __enter__(self) -> SiteMonitor:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        for gateway in self._gateways.values():
            gateway.close()

    def _run(self) -> None:
        while not self._ended.wait(_PAUSE):
            seen: dict[str, relay_pb2.SiteStatus | None] = {}
            for site, gateway in self._gateways.items():
                seen[site] = None
                with suppress(FedaliError):
                    seen[site] = gateway.status()
            self._tell(seen)
