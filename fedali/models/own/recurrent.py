"""LSTM, GRU and plain recurrent layers, step after step: torch's own keep their weights where no other can be lent, and
neither stack over clients nor have a derivative in ONNX.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from fedali.errors import SettingsError

_States = list[Tensor]  # h, and c of an LSTM; each [B, hidden]
_Cell = Callable[[Tensor, _States, Tensor, Tensor | None], _States]


class Unrolled(nn.Module):
    """A recurrent layer of torch with the same parameters, under the same names, and the same outputs up to rounding.

    Args:
        layer: an ``nn.LSTM``, ``nn.GRU`` or ``nn.RNN``; its dropout is off.

    Raises ``SettingsError`` for a projection (``proj_size``).
    """

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        if layer.proj_size:
            raise SettingsError("a recurrent layer with proj_size is not taken: use a linear layer behind it")
        self.mode, self.hidden_size, self.num_layers = layer.mode, layer.hidden_size, layer.num_layers
        self.bias, self.batch_first = layer.bias, layer.batch_first
        self.directions = 2 if layer.bidirectional else 1
        for name, parameter in layer.named_parameters(recurse=False):
            self.register_parameter(name, parameter)

    def forward(
        self, x: Tensor, state: Tensor | tuple[Tensor, ...] | None = None
    ) -> tuple[Tensor, Tensor | tuple[Tensor, ...]]:
        """All outputs and the last states of sequences [B, T, inputs], or [T, B, inputs] without ``batch_first``."""
        if not isinstance(x, Tensor) or x.dim() != 3:
            raise SettingsError(
                "a recurrent layer takes batches of sequences here, [B, T, channels] or [T, B, channels]"
            )
        x = x.transpose(0, 1) if self.batch_first else x
        starts = self._starts(x, state)
        ends: list[_States] = []
        for layer in range(self.num_layers):
            both = []
            for direction in range(self.directions):
                outputs, end = self._run(x, layer, direction, starts[len(ends)])
                both.append(outputs)
                ends.append(end)
            x = both[0] if self.directions == 1 else torch.cat(both, -1)
        last = tuple(torch.stack(parts) for parts in zip(*ends, strict=True))
        return x.transpose(0, 1) if self.batch_first else x, last if self.mode == "LSTM" else last[0]

    def _starts(self, x: Tensor, state: Tensor | tuple[Tensor, ...] | None) -> list[_States]:
        """First states of each layer and direction."""
        count = self.num_layers * self.directions
        if state is None:
            zeros = x.new_zeros(x.shape[1], self.hidden_size)
            return [[zeros] * (2 if self.mode == "LSTM" else 1)] * count
        given = state if isinstance(state, tuple) else (state,)
        return [[part[number] for part in given] for number in range(count)]

    def _run(self, x: Tensor, layer: int, direction: int, states: _States) -> tuple[Tensor, _States]:
        """One layer in one direction: outputs [T, B, hidden] and the last states."""
        suffix = f"_l{layer}{'_reverse' if direction else ''}"
        bias = [getattr(self, f"bias_{which}{suffix}") if self.bias else None for which in ("ih", "hh")]
        weight = getattr(self, f"weight_hh{suffix}")
        inputs = F.linear(x, getattr(self, f"weight_ih{suffix}"), bias[0]).unbind(0)
        cell = _CELLS[self.mode]
        outputs: list[Tensor] = []
        for given in reversed(inputs) if direction else inputs:
            states = cell(given, states, weight, bias[1])
            outputs.append(states[0])
        return torch.stack(outputs[::-1] if direction else outputs), states


def _lstm(given: Tensor, states: _States, weight: Tensor, bias: Tensor | None) -> _States:
    hidden, cell = states
    enters, forgets, new, leaves = (given + F.linear(hidden, weight, bias)).chunk(4, -1)
    cell = torch.sigmoid(forgets) * cell + torch.sigmoid(enters) * torch.tanh(new)
    return [torch.sigmoid(leaves) * torch.tanh(cell), cell]


def _gru(given: Tensor, states: _States, weight: Tensor, bias: Tensor | None) -> _States:
    resets, updates, new = given.chunk(3, -1)
    resets_h, updates_h, new_h = F.linear(states[0], weight, bias).chunk(3, -1)
    new = torch.tanh(new + torch.sigmoid(resets + resets_h) * new_h)
    return [new + torch.sigmoid(updates + updates_h) * (states[0] - new)]


def _tanh(given: Tensor, states: _States, weight: Tensor, bias: Tensor | None) -> _States:
    return [torch.tanh(given + F.linear(states[0], weight, bias))]


def _relu(given: Tensor, states: _States, weight: Tensor, bias: Tensor | None) -> _States:
    return [torch.relu(given + F.linear(states[0], weight, bias))]


_CELLS: dict[str, _Cell] = {"LSTM": _lstm, "GRU": _gru, "RNN_TANH": _tanh, "RNN_RELU": _relu}
