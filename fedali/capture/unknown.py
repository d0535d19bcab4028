"""Operations that ONNX does not have, and where in a model they come from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from fedali.errors import SettingsError
from fedali.models.base import Model


class UnknownOperationError(SettingsError):
    """A graph has operations that there is no rewrite for."""

    def __init__(self, operations: set[str], where: str = "") -> None:
        self.operations, self._where = operations, where
        super().__init__(
            f"no ONNX for {', '.join(sorted(operations))}{where}: engines loop, compiled and stacked run it, engine onnx and "
            "devices do not"
        )

    def __reduce__(self) -> tuple[type[UnknownOperationError], tuple[set[str], str]]:
        """It crosses processes whole."""
        return type(self), (self.operations, self._where)


@contextmanager
def located(model: Model, input_shape: Sequence[int]) -> Iterator[None]:
    """Inside, ``UnknownOperationError`` say which module of the model calls them."""
    try:
        yield
    except UnknownOperationError as error:
        from fedali.models.own.trial import operations_of

        found = operations_of(model, input_shape)
        paths = {found[name] for name in map(_forward, error.operations) if found.get(name)}
        if not paths:
            raise
        raise UnknownOperationError(error.operations, f" in {', '.join(sorted(paths))}") from error


def _forward(operation: str) -> str:
    """The operation whose derivative one is."""
    name, _, overload = operation.rpartition(".")
    return f"{name.removesuffix('_backward')}.{overload}"
