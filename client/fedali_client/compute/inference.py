"""What the personal model says of samples: the graphs of a bundle, with the parameters that the state has now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fedali.bundle.file import Bundle
from fedali.data.normalisation import Normalisation
from fedali_client.compute.graphs import Forward, Runtime, open_session
from fedali_client.state.personal import PersonalState

Array = npt.NDArray[Any]
Vector = npt.NDArray[np.float32]


class Inference:
    """Logits and embeddings of raw samples.

    Args:
        bundle: has the graphs; each is opened when it is first needed.
        state: has the parameters, and this device's normalisation.
        runtime: where they run.
    """

    def __init__(self, bundle: Bundle, state: PersonalState, runtime: Runtime) -> None:
        self._bundle, self._state, self._runtime = bundle, state, runtime
        self._forwards: dict[str, Forward] = {}
        self._theta: tuple[object, Vector] | None = None

    @property
    def normalisation(self) -> Normalisation | None:
        """The bundle's, or this device's own where that is left to it and it has seen training data."""
        given = self._bundle.manifest.normalisation
        if given.kind == "none":
            return None
        return self._state.checkpoint.normalisation or Normalisation(given.mean, given.std)

    def constants(self) -> dict[str, Array]:
        """What graphs take besides samples: the model that answers as theta [M], put together once for each state, prototypes and
        influence.
        """
        state = self._state
        version = (state.checkpoint.generation, 0 if state.read_only else state.slots.tick)
        if self._theta is None or self._theta[0] != version:
            begin, end = self._bundle.manifest.answer
            self._theta = version, np.ascontiguousarray(state.theta()[begin:end])
        return {
            "theta": self._theta[1],
            "local_prototypes": state.local_prototypes,
            "influence": np.full((), state.checkpoint.influence, np.float32),
        }

    def part(self, graph: str) -> str:
        """The file for ``infer`` or ``embed``. In int8 it holds the bundle's own body, and serves until a round brings another."""
        small = f"{graph}_int8.onnx"
        fits = small in self._bundle.parts and self._state.base_is_the_bundles
        return small if fits else f"{graph}.onnx"

    def logits(self, x: Array) -> Vector:
        """[n, classes] of samples [n, *shape]."""
        return self._run(self._forward(self.part("infer")), x, self.constants())

    def logits_of(self, theta: Vector, prototypes: Vector, influence: float, x: Array) -> Vector:
        """[n, classes] of samples [n, *shape] by a server's model: of its vector theta [P], and prototypes [L] as its local ones."""
        begin, end = self._bundle.manifest.answer
        model = {
            "theta": np.ascontiguousarray(theta[: end - begin]),
            "local_prototypes": prototypes,
            "influence": np.full((), influence, np.float32),
        }
        return self._run(self._forward("infer.onnx"), x, model)

    def embeddings(self, x: Array) -> Vector:
        """[n, d] of samples [n, *shape], which may be a mapped file. The graph is closed then: training needs the memory."""
        forward = self._forward(self.part("embed"))
        try:
            return self._run(forward, x, self.constants())
        finally:
            self._forwards.pop(self.part("embed"))

    def close(self) -> None:
        """Give back the memory of open graphs."""
        self._forwards.clear()
        self._theta = None

    def _run(self, forward: Forward, x: Array, constants: Mapping[str, Array]) -> Vector:
        normalisation = self.normalisation
        parts = []
        for start in range(0, len(x), forward.size):
            piece = np.asarray(x[start : start + forward.size], np.float32)
            parts.append(forward(piece if normalisation is None else normalisation(piece), constants))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _forward(self, part: str) -> Forward:
        if part not in self._forwards:
            self._forwards[part] = Forward(open_session(self._bundle, part, self._runtime))
        return self._forwards[part]
