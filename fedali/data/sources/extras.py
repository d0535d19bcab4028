"""Optional dependencies, imported where they are used so that ``fedali.data`` itself needs numpy alone."""

from __future__ import annotations

import importlib
from typing import Any

from fedali.errors import MissingExtraError


def require(module: str) -> Any:
    """Import ``module`` now.

    Raises ``MissingExtraError`` when it is not installed.

    >>> require("json").dumps([1])
    '[1]'
    >>> require("no_such_module")
    Traceback (most recent call last):
    fedali.errors.MissingExtraError: no_such_module is not installed; this needs an extra: pip install 'fedali[sim]'
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(module.partition(".")[0], "sim") from error
