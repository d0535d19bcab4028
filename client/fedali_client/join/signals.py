"""What can happen to a device's task besides success."""

from __future__ import annotations

from fedali.errors import FedaliError


class AwayError(FedaliError):
    """The gateway cannot be reached, or cannot answer now: try again later.

    Args:
        why: in one line.
        heard: the gateway itself said so.
        stranger: somebody else answered at its address, or it knows no such device.
    """

    def __init__(self, why: str, *, heard: bool = False, stranger: bool = False) -> None:
        super().__init__(why)
        self.heard, self.stranger = heard, stranger


class GoneError(FedaliError):
    """What a task needs is not there any more: its round has closed."""


class UnwantedError(FedaliError):
    """The round has closed while its task was done."""


class UnableError(FedaliError):
    """A task that cannot be done here, for a reason that everybody may know."""
