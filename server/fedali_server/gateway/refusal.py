"""How a call is refused: a gRPC status and one line for a person."""

from __future__ import annotations

import grpc


class Refusal(Exception):  # noqa: N818  it is an answer, no fault
    """Ends a call with ``status``; ``why`` tells the other side, in one line, what was wrong and what to do."""

    def __init__(self, status: grpc.StatusCode, why: str) -> None:
        super().__init__(why)
        self.status, self.why = status, why


def malformed(why: str) -> Refusal:
    """The call itself makes no sense."""
    return Refusal(grpc.StatusCode.INVALID_ARGUMENT, why)


def too_much(why: str) -> Refusal:
    """More, or more often, than a device may."""
    return Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, why)


def not_now(why: str) -> Refusal:
    """Something else has to happen first."""
    return Refusal(grpc.StatusCode.FAILED_PRECONDITION, why)


def not_found(why: str) -> Refusal:
    """There is no such thing here, or no longer."""
    return Refusal(grpc.StatusCode.NOT_FOUND, why)


def not_allowed(why: str) -> Refusal:
    """Whoever calls is known, or not, and may not."""
    return Refusal(grpc.StatusCode.PERMISSION_DENIED, why)
