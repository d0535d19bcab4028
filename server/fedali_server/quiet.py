"""Flower without its telemetry, its look for updates and its log lines; ours on standard error."""

from __future__ import annotations

import logging
import os
import sys

_SETTINGS = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
}


def quiet_flower() -> None:
    """Keep Flower quiet and offline, here and in processes started from here; before it is imported."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    logging.getLogger("flwr").setLevel(logging.ERROR)


def log_to_stderr() -> None:
    """Logs go to what ``sys.stderr`` is when they are written: a display of progress puts another in its place."""
    import structlog

    structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))
