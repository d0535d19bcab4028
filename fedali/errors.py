"""One small family of errors; each message says what was wrong, where, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_SHOWN = 20  # known words in a message


class FedaliError(Exception):
    """Base of every error a user can cause or mend; the CLI prints its message as one line.

    ``exit_code`` is what a command-line program ends with: 2 for bad input, 1 for a bad environment.
    """

    exit_code = 1


class SettingsError(FedaliError):
    """A setting, option or scenario file is wrong."""

    exit_code = 2


class DataError(FedaliError):
    """A data set is missing, broken or does not fit its scenario."""

    exit_code = 2


class MisfitError(DataError):
    """Data that are sound, and not what a model takes.

    Args:
        message: for their owner.
        public: the same for others, without a value or a file of anybody's.
    """

    def __init__(self, message: str, public: str) -> None:
        super().__init__(message)
        self.public = public


class CheckpointError(FedaliError):
    """A run folder or checkpoint cannot be read or does not belong to this run."""


class DivergedError(FedaliError):
    """Weights are not finite after training."""


class BundleError(FedaliError):
    """A bundle or key is broken, not to be trusted, or not what it should be."""

    exit_code = 2


class WireError(FedaliError):
    """A message from another process, or one to send, is not what it has to be."""


class KitError(FedaliError):
    """A start-up kit of a server, site, device or operator is broken, incomplete, or readable by others."""

    exit_code = 2


class MissingExtraError(FedaliError):
    """An optional dependency is not installed."""

    def __init__(self, module: str, extra: str) -> None:
        super().__init__(f"{module} is not installed; this needs an extra: pip install 'fedali[{extra}]'")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of an error message: the nearest known word, or all of them, if they are not too many.

    >>> did_you_mean("moton", ["digits", "motionsense"])
    "did you mean 'motionsense'?"
    >>> did_you_mean("zzz", ["digits", "motionsense"])
    'known: digits, motionsense'
    """
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.55)
    if near:
        return f"did you mean {near[0]!r}?"
    more = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
    return f"known: {', '.join(known[:_SHOWN])}{more}"
