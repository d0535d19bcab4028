"""Somebody's network as a model: its head taken off, and ALP layers where they were asked for."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from fedali.alp import Alignment, ALPLayer
from fedali.errors import SettingsError
from fedali.models.base import Model
from fedali.models.own.plain import PlainFunctions
from fedali.models.own.report import Report


@dataclass(frozen=True)
class Place:
    """Where an ALP layer sits: behind the module at ``path``, whose output's channels are its axis ``axis``.

    ``""`` is before the head. ``dim`` is a token's length, ``said`` the place in words.
    """

    path: str
    axis: int
    dim: int
    said: str


class _Pass:
    """The alignment of the pass that is running."""

    alignment: Alignment | None = None


class _Align:
    """A hook that aligns what a module gives."""

    def __init__(self, layer: ALPLayer, axis: int, running: _Pass) -> None:
        self.layer, self.axis, self.running = layer, axis, running

    def __call__(self, module: nn.Module, given: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (self(module, given, output[0]), *output[1:])
        last = output.movedim(self.axis, -1)
        tokens = last if last.dim() == 2 else last.flatten(1, -2)
        aligned = self.layer(tokens, self.running.alignment)
        return aligned.reshape(last.shape).movedim(-1, self.axis)


class Adapted(Model):
    """A network as a model: ``body`` is the network without its head, ``head`` what was there. Made by ``fedali.adapt``.

    Args:
        net: without its head: it gives embeddings [B, d].
        head: gives logits of them.
        layers: ALP layers in the order of the forward pass.
        places: of the layers.
        plain: whether functions have to be by their formulas, see ``PlainFunctions``.
        loop_only: why the network cannot be a graph; empty where it can.
        report: what was found and done.
    """

    def __init__(
        self,
        net: nn.Module,
        head: nn.Module,
        layers: Sequence[ALPLayer],
        places: Sequence[Place],
        *,
        plain: bool = False,
        loop_only: str = "",
        report: Report | None = None,
    ) -> None:
        super().__init__()
        self.body, self.alp, self.head = net, nn.ModuleList(layers), head
        self.places = tuple((place.path, place.axis) for place in places)
        self.plain, self.loop_only = plain, loop_only
        self._report, self._pass = report, _Pass()
        for layer, place in zip(layers, places, strict=True):
            if place.path:
                net.get_submodule(place.path).register_forward_hook(_Align(layer, place.axis, self._pass))

    def features(self, x: Tensor, alignment: Alignment | None) -> Tensor:
        """Embedding [B, d] of samples [B, *input_shape]."""
        if self.loop_only:
            _refuse_capture(self.loop_only)
        self._pass.alignment = alignment
        try:
            with PlainFunctions() if self.plain else nullcontext():
                embedding: Tensor = self.body(x)
        finally:
            self._pass.alignment = None
        if self.places and not self.places[-1][0]:
            embedding = self.alp[-1](embedding, alignment)
        return embedding

    def train(self, mode: bool = True) -> Adapted:
        """It stays as it is: what a network does in training alone would be state, or chance."""
        return self

    @property
    def report(self) -> Report:
        """What was found and done."""
        assert self._report is not None
        return self._report


def _refuse_capture(why: str) -> None:
    """Raise ``SettingsError`` while a graph is made: it would be of these samples' shapes and branches alone."""
    from torch.fx.experimental.proxy_tensor import get_proxy_mode

    if get_proxy_mode() is not None:
        raise SettingsError(f"the network cannot be a graph, it {why}: use engine 'loop'")
