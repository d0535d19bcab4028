"""What a device answers with by the gate, whole in one file: a reader has the last one that was made until the next one is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedali.answers import GATE, PROTOTYPES
from fedali.answers.between import HALFWAY, model_at
from fedali.answers.gate import Gate
from fedali.bundle.file import Bundle
from fedali.errors import CheckpointError
from fedali.slots import slot_slice
from fedali_client.state.checkpoint import read_arrays, write_arrays

Vector = npt.NDArray[np.float32]

_VECTORS = ("theta", "shared_theta", "local_prototypes", "shared_prototypes")


@dataclass(frozen=True, eq=False)
class Answer:
    """Both models and the gate between them, see ``fedali.answers.gate``.

    Args:
        theta: of the personal model [M].
        shared_theta: of the shared one [M].
        local_prototypes: of the personal model [L].
        shared_prototypes: of the shared one [L].
        gate: says which of them counts.
        influence: of the ALP layers.
        of: names the training that it was made after; "" for the bundle's.
    """

    theta: Vector
    shared_theta: Vector
    local_prototypes: Vector
    shared_prototypes: Vector
    gate: Gate
    influence: float
    of: str = ""

    @classmethod
    def of_bundle(cls, bundle: Bundle) -> Answer:
        """Of a device that has not trained: the client's that the bundle is of, else the shared model alone."""
        manifest, state = bundle.manifest, bundle.state()
        begin, end = manifest.answer
        shared = state["shared_theta"][: end - begin]
        everyone = everyones(state["shared_theta"], bundle)
        prototypes, influence = state["shared_prototypes"], manifest.hyper.influence
        if "own" not in state:
            return cls(shared, shared, prototypes, prototypes, Gate.closed(everyone), influence)
        personal = np.asarray(model_at(HALFWAY, state["theta"][begin:end], shared), np.float32)
        gate = Gate(state["own"], everyone, *map(float, state["gate"]))
        return cls(personal, shared, state["local_prototypes"], prototypes, gate, influence)

    def inputs(self) -> dict[str, npt.NDArray[Any]]:
        """What ``infer.onnx`` takes besides samples."""
        numbers = {"middle": self.gate.middle, "spread": self.gate.spread, "influence": self.influence}
        return {
            **{name: getattr(self, name) for name in _VECTORS},
            "own": np.asarray(self.gate.own, np.float32),
            "everyone": np.asarray(self.gate.everyone, np.float32),
            **{name: np.full((), value, np.float32) for name, value in numbers.items()},
        }


class AnswerFile:
    """``answer.safetensors`` in a bundle's folder of states; it is replaced as a whole.

    Args:
        folder: of the state.
        digest: of the bundle.
    """

    def __init__(self, folder: Path, digest: str) -> None:
        self._path, self._digest = folder / "answer.safetensors", digest

    def version(self) -> tuple[int, ...]:
        """Changes with the file."""
        try:
            facts = self._path.stat()
        except OSError:
            return ()
        return facts.st_ino, facts.st_mtime_ns, facts.st_size

    def read(self) -> Answer | None:
        """The answer, if one was made; ``CheckpointError`` where the file is damaged or of another bundle."""
        try:
            arrays, facts = read_arrays(self._path)
        except FileNotFoundError:
            return None
        if facts.get("purpose") != self._digest:
            raise CheckpointError(f"{self._path} belongs to another bundle")
        models = {name: arrays.get(name, np.zeros(0, np.float32)) for name in _VECTORS}
        gate = Gate(arrays["own"], arrays["everyone"], facts["middle"], facts["spread"])
        return Answer(**models, gate=gate, influence=facts["influence"], of=facts["of"])

    def write(self, answer: Answer) -> None:
        """Put an answer in force. On the disk on return; ``FedaliError`` when that is full."""
        arrays = answer.inputs()
        facts = {name: float(arrays.pop(name)) for name in ("middle", "spread", "influence")}
        write_arrays(self._path, arrays, {"purpose": self._digest, "of": answer.of, **facts})


def everyones(theta: Vector, bundle: Bundle) -> Vector:
    """Everybody's prototypes [K, d] in a server's vector theta [P]."""
    where = slot_slice(bundle.manifest.layouts.parameters, GATE.name)
    return theta[where].reshape(PROTOTYPES, -1)
