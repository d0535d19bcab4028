"""One run of somebody's network on random samples: what was called, in which order, of which shapes, and what went wrong."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from fedali.errors import SettingsError
from fedali.models.own.plain import PlainFunctions

_SAMPLES = 3
_CLOSE = 1e-3  # of outputs' scale; float32 in another order of batches


@dataclass(frozen=True)
class Call:
    """A module's call: what it took and gave, where that is one tensor."""

    path: str
    module: nn.Module
    takes: tuple[int, ...] | None
    gives: tuple[int, ...] | None


@dataclass
class Trial:
    """What a run of a network shows.

    Args:
        output: [B, ...].
        calls: of modules, in the order in which they were done.
        plain: whether it calls what has to be by its formula, see ``PlainFunctions``.
    """

    output: Tensor
    calls: list[Call]
    plain: bool = False

    def last(self, kind: type[nn.Module] | tuple[type[nn.Module], ...]) -> Call | None:
        """The last call of a module of a kind."""
        return next((call for call in reversed(self.calls) if isinstance(call.module, kind)), None)

    def of(self, path: str) -> list[Call]:
        """Calls of one module."""
        return [call for call in self.calls if call.path == path]


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes each operation with the module that is running."""

    def __init__(self, stack: list[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.stack = stack
        self.operations: dict[str, str] = {}

    def __torch_dispatch__(
        self, function: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        self.operations.setdefault(str(function), self.stack[-1] if self.stack else "")
        return function(*args, **(kwargs or {}))


@contextmanager
def _noting(net: nn.Module, calls: list[Call], stack: list[str]) -> Iterator[None]:
    """Note calls of modules; ``stack`` holds those that run."""
    handles = []
    for path, module in net.named_modules():

        def before(module: nn.Module, given: Any, path: str = path) -> None:
            stack.append(path)

        def after(module: nn.Module, given: Any, output: Any, path: str = path) -> None:
            stack.pop()
            takes = next((tuple(one.shape) for one in given if isinstance(one, Tensor)), None)
            first = output[0] if isinstance(output, tuple) and output else output
            calls.append(Call(path, module, takes, tuple(first.shape) if isinstance(first, Tensor) else None))

        handles += [module.register_forward_pre_hook(before), module.register_forward_hook(after)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def samples(input_shape: Sequence[int], count: int = _SAMPLES, *, tokens: bool = False) -> Tensor:
    """Random samples, the same ones each time [count, *input_shape]; of ``tokens`` ids that every vocabulary has, 0 and 1."""
    generator = torch.Generator().manual_seed(0)
    if tokens:
        return torch.randint(2, (count, *input_shape), generator=generator)
    return torch.randn(count, *input_shape, generator=generator)


def run(net: nn.Module, x: Tensor, name: str) -> Trial:
    """Run a network once. Raises ``SettingsError`` where it fails, or gives no tensor."""
    calls, stack = list[Call](), list[str]()
    plain = PlainFunctions()
    with torch.no_grad(), _noting(net, calls, stack), plain:
        try:
            output = net(x)
        except SettingsError:
            raise
        except Exception as error:  # a network may fail in any way
            raise SettingsError(
                f"{name} fails on samples of shape {tuple(x.shape[1:])}{_at(stack)}: {first_line(error)}"
            ) from error
    if not isinstance(output, Tensor):
        raise SettingsError(
            f"{name} gives a {type(output).__name__}, and has to give logits [B, classes] alone: wrap it in a module that does"
        )
    return Trial(output, calls, plain.seen)


def operations_of(net: nn.Module, input_shape: Sequence[int]) -> dict[str, str]:
    """Operations that a forward pass calls, with the path of the module that does so first."""
    stack: list[str] = []
    with torch.no_grad(), _noting(net, [], stack), PlainFunctions(), _Watch(stack) as watch:
        net(samples(input_shape, tokens=bool(getattr(net, "takes_tokens", False))))
    found: dict[str, str] = watch.operations
    return found


def check_pure(net: nn.Module, x: Tensor, name: str) -> None:
    """Raise ``SettingsError`` where a network changes its input or its buffers, draws numbers, or mixes the samples of a batch."""
    held = {key: value.clone() for key, value in net.named_buffers()}
    given = x.clone()
    with torch.no_grad(), PlainFunctions():
        first = net(x)
        if not torch.equal(x, given):
            raise SettingsError(f"{name} writes into its input in place: let it work on a copy")
        moved = [key for key, value in net.named_buffers() if not _same(value, held.get(key))]
        if moved:
            raise SettingsError(
                f"{name} changes its buffer {moved[0]!r} as it runs: a client's step is a function of parameters alone; "
                "make it a parameter, or leave it as it is"
            )
        if not torch.equal(first, net(x)):
            raise SettingsError(f"{name} draws random numbers after eval(), too: leave them out")
        one = net(x[:1])
    if one.shape[1:] != first.shape[1:] or len(one) != 1:
        raise SettingsError(
            f"{name} gives {tuple(one.shape)} for one sample, and {tuple(first.shape)} for {len(x)}"
        )
    if (one[0] - first[0]).abs().max() > _CLOSE * first.abs().max().clamp(min=1e-6):
        raise SettingsError(
            f"what {name} says of a sample depends on the others of its batch: is a recurrent layer or an attention "
            "without batch_first=True?"
        )


def check_gradient(net: nn.Module, x: Tensor, name: str) -> list[str]:
    """Names of parameters that the output does not depend on. Raises ``SettingsError`` where there is no derivative."""
    parameters = {key: p for key, p in net.named_parameters() if p.requires_grad}
    try:
        with torch.enable_grad(), PlainFunctions():
            found = torch.autograd.grad(net(x).square().sum(), list(parameters.values()), allow_unused=True)
    except RuntimeError as error:
        raise SettingsError(f"{name} has no derivative: {first_line(error)}") from error
    return [key for key, gradient in zip(parameters, found, strict=True) if gradient is None]


def depends_on_values(net: nn.Module, x: Tensor) -> str | None:
    """Where a network branches on values or makes shapes of them, and by what; None where it does not."""
    from torch._subclasses.fake_tensor import (
        DataDependentOutputException,
        DynamicOutputShapeException,
        FakeTensorMode,
    )

    stack: list[str] = []
    copied = copy.deepcopy(net)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, torch.no_grad(), _noting(copied, [], stack):
        try:
            copied(mode.from_tensor(x))
        except (DataDependentOutputException, DynamicOutputShapeException) as error:
            return f"{error.func}{_at(stack)}"
        except Exception:  # what fails for another reason fails on real samples, too, or not at all
            return None
    return None


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def _at(stack: Sequence[str]) -> str:
    return f" in {stack[-1]}" if stack and stack[-1] else ""


def _same(one: Tensor, other: Tensor | None) -> bool:
    return other is not None and one.shape == other.shape and bool(torch.equal(one, other))
