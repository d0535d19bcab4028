"""``fedali server start``: a SuperLink, the keys of the sites it knows, and the doors in front of it."""

from __future__ import annotations

import asyncio
import logging
import signal
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import structlog

from fedali.errors import FedaliError
from fedali.wire.kit import FILE, ServerKit, read_kit_as
from fedali_server.children import alone, say
from fedali_server.flower.hosting.front_door import OPERATORS, SITES, Door, listen, server_of
from fedali_server.flower.hosting.local_superlink import local_superlink, register

_LOOK = 1.0  # seconds between looks whether the kit has changed

log = structlog.get_logger("fedali.server")


def run_server(kit: ServerKit, state: Path) -> None:
    """Serve a federation until SIGTERM or SIGINT. A SuperLink that dies is started again, with the database in ``state``.

    A kit that is changed, as by ``fedali provision`` and ``fedali revoke``, is taken up at once.

    Raises ``FedaliError`` when an address is taken, the SuperLink does not start, or another server uses ``state``.
    """
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)  # strangers' broken handshakes
    with alone(state, "server") as lock:
        asyncio.run(_serve(kit, state, lock))


async def _serve(kit: ServerKit, state: Path, lock: int) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    async with AsyncExitStack() as stack:
        sockets = [stack.enter_context(listen(address)) for address in (kit.listen, kit.operators_listen)]
        superlink = stack.enter_context(local_superlink(state, lock))
        await asyncio.to_thread(register, superlink, kit)
        doors = [Door(superlink, SITES), Door(superlink, OPERATORS)]
        for door in doors:
            stack.push_async_callback(door.close)
        servers = [server_of(door, kit, operators=door is doors[1]) for door in doors]
        serving = [
            asyncio.create_task(server.serve([each])) for server, each in zip(servers, sockets, strict=True)
        ]
        watching = asyncio.create_task(_watch(kit.folder, superlink))
        say(
            f"server of {kit.federation} is ready: sites at {kit.listen}, operators at {kit.operators_listen}"
        )
        waiting = asyncio.create_task(ended.wait())
        await asyncio.wait([waiting, watching, *serving], return_when=asyncio.FIRST_COMPLETED)
        for server in servers:
            server.should_exit = True
        for task in (waiting, watching):
            task.cancel()
        for task in serving:
            await task
        with suppress(asyncio.CancelledError):
            await watching
    say(f"server of {kit.federation} has ended")


async def _watch(folder: Path, superlink: Path) -> None:
    """Take up what changes in the kit."""
    seen = (folder / FILE).stat().st_mtime_ns
    while True:
        await asyncio.sleep(_LOOK)
        try:
            now = (folder / FILE).stat().st_mtime_ns
            if now == seen:
                continue
            await asyncio.to_thread(register, superlink, read_kit_as(folder, ServerKit))
            seen = now
        except (OSError, FedaliError) as error:
            log.warning("the kit has changed and cannot be taken up", why=str(error))
