"""What the personal model says of samples: the graphs of a bundle, with the parameters that the state has now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fedali.answers.gate import Gate
from fedali.bundle.file import Bundle
from fedali.data.normalisation import Normalisation
from fedali_client.compute.batches import fingerprint
from fedali_client.compute.embedding import cached_embeddings
from fedali_client.compute.graphs import Forward, Runtime, open_session
from fedali_client.state.answer import Answer, AnswerFile
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
        self._answer: tuple[object, Answer] | None = None
        self.answers = AnswerFile(state.folder, bundle.digest)

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

    @property
    def answer(self) -> Answer:
        """What a client answers with by the gate: what it last made, or the bundle's."""
        version = self.answers.version()
        if self._answer is None or self._answer[0] != version:
            self._answer = version, self.answers.read() or Answer.of_bundle(self._bundle)
        return self._answer[1]

    def logits(self, x: Array) -> tuple[Vector, Vector]:
        """[n, classes] of samples [n, *shape], and how much the client's own model counts [n]."""
        if self._bundle.manifest.answers_by == "gate":
            return self._both(self.answer, x)
        return self._run(self._forward(self.part("infer")), x, self.constants()), np.ones(len(x), np.float32)

    def logits_of(self, theta: Vector, prototypes: Vector, influence: float, x: Array) -> Vector:
        """[n, classes] of samples [n, *shape] by a server's model: of its vector theta [P], and prototypes [L] as its local ones."""
        model = self.model(theta, prototypes, influence)
        if self._bundle.manifest.answers_by == "gate":
            both = model["theta"], model["theta"], prototypes, prototypes
            return self._both(Answer(*both, Gate.closed(self.answer.gate.everyone), influence), x)[0]
        return self._run(self._forward("infer.onnx"), x, model)

    def model(self, theta: Vector, prototypes: Vector, influence: float) -> dict[str, Array]:
        """What graphs take besides samples, of the model of a server's vector theta [P], and of prototypes [L] as its local ones."""
        begin, end = self._bundle.manifest.answer
        return {
            "theta": np.ascontiguousarray(theta[: end - begin]),
            "local_prototypes": prototypes,
            "influence": np.full((), influence, np.float32),
        }

    def embeddings(self, x: Array, constants: Mapping[str, Array]) -> Vector:
        """[n, d] of samples [n, *shape], which may be a mapped file. The graph is closed then: training needs the memory."""
        forward = self._forward(self.part("embed"))
        try:
            return self._run(forward, x, constants)
        finally:
            self._forwards.pop(self.part("embed"))

    def kept_embeddings(self, x: Array, constants: Mapping[str, Array]) -> Array:
        """``embeddings`` of a bundle whose body is frozen: computed once for the same samples, and kept on disk."""
        body, normalisation = constants["theta"].copy(), self.normalisation
        body[self._bundle.manifest.trained] = 0.0
        key = fingerprint(
            x,
            body,
            constants["local_prototypes"],
            constants["influence"],
            self.part("embed"),
            *(() if normalisation is None else (normalisation.mean, normalisation.std)),
        )
        return cached_embeddings(self._state.folder, key, len(x), lambda: self.embeddings(x, constants))

    def close(self) -> None:
        """Give back the memory of open graphs."""
        self._forwards.clear()
        self._theta = None

    def _both(self, answer: Answer, x: Array) -> tuple[Vector, Vector]:
        """Logits [n, classes] and weights [n] by the gate."""
        found = self._run(self._forward("infer.onnx"), x, answer.inputs())
        return found[:, :-1], found[:, -1]

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
