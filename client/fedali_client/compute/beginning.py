"""What a method does as each phase of a fit starts: ``begin.onnx``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fedali.targets import counts
from fedali_client.compute.batches import Labels
from fedali_client.compute.graphs import BoundGraph
from fedali_client.state.personal import PersonalState
from fedali_client.state.slots import Vector

if TYPE_CHECKING:
    import onnxruntime


class Beginning:
    """The vector of a client as phases of its training start.

    Args:
        state: is trained.
        session: of ``begin.onnx``.
        y: labels that it trains on.

    Attributes:
        kept: what training leaves as it is [P - T], as the first phase starts; the same whenever it is asked for in a fit.
    """

    def __init__(self, state: PersonalState, session: onnxruntime.InferenceSession, y: Labels) -> None:
        self._state = state
        given = counts(state.manifest.targets.kind, y, len(state.manifest.classes))
        self._theta, self._phase = state.theta()[: state.manifest.known].copy(), np.zeros((), np.float32)
        self._new = np.empty_like(self._theta)
        inputs = {"theta": self._theta, "shared_theta": state.known_theta, "class_counts": given}
        self._graph = BoundGraph(session, {**inputs, "phase": self._phase}, {"new_theta": self._new})
        self._graph.run()
        self.kept: Vector = self._new[state.sizes.theta :].copy()

    def enter(self, phase: float) -> None:
        """Make what is trained what a phase starts with; done again after a kill, it is the same."""
        trained, end = self._state.slots.current["theta"], self._state.sizes.theta
        self._theta[:end] = trained
        if phase:
            self._theta[end:] = self.kept
        self._phase[...] = phase
        self._graph.run()
        trained[...] = self._new[:end]
