"""``python -m fedali_server.gateway KIT``: a site's gateway."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import structlog

from fedali.errors import FedaliError, SettingsError, did_you_mean
from fedali.support.memory import share_arena
from fedali.wire.kit import SiteKit, read_kit_as
from fedali_server.gateway.limits import Limits


def main(words: Sequence[str] | None = None) -> int:
    """Run a gateway; 0 after SIGTERM."""
    parser = argparse.ArgumentParser(
        prog="fedali_server.gateway", description="A site's gateway to its devices."
    )
    parser.add_argument("kit", type=Path, metavar="KIT", help="folder of the site's kit")
    parser.add_argument("--state", type=Path, metavar="DIR", help="what it remembers (KIT/state)")
    parser.add_argument("--socket", type=Path, metavar="PATH", help="for the site's node (DIR/relay.sock)")
    parser.add_argument(
        "--limit", action="append", default=[], metavar="NAME=NUMBER", help="a limit other than the usual"
    )
    options = parser.parse_args(words)
    _prepare()
    from fedali_server.gateway.server import serve  # gRPC reads its settings when it is loaded

    try:
        kit = read_kit_as(options.kit, SiteKit)
        state: Path = (options.state or kit.folder / "state").absolute()
        socket: Path = (options.socket or state / "relay.sock").absolute()
        asyncio.run(serve(kit, state, socket, _limits(options.limit)))
    except FedaliError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    return 0


def _limits(words: Sequence[str]) -> Limits:
    kinds: dict[str, type[int] | type[float]] = {name: type(value) for name, value in vars(Limits()).items()}
    changes: dict[str, float] = {}
    for word in words:
        name, _, text = word.partition("=")
        if name not in kinds:
            raise SettingsError(f"--limit {word}: {did_you_mean(name, kinds)}")
        try:
            changes[name] = kinds[name](text)
        except ValueError:
            raise SettingsError(f"--limit {word}: {text!r} is no number") from None
        if not 0 < changes[name] < 1e12:
            raise SettingsError(f"--limit {word}: it has to be more than 0")
    return dataclasses.replace(Limits(), **changes)  # type: ignore[arg-type]


def _prepare() -> None:
    """Logs are lines of JSON on stderr; libraries are quiet, and load nothing that is not needed."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # it has a line for each scanner that passes
    for backend in ("PYTORCH", "JAX", "CUPY", "TENSORFLOW"):
        os.environ.setdefault(f"POT_BACKEND_DISABLE_{backend}", "1")  # hundreds of megabytes
    share_arena()  # many threads of gRPC take what they free elsewhere
    logging.getLogger("grpc").addHandler(logging.NullHandler())
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


if __name__ == "__main__":
    sys.exit(main())
