"""A client as a stranger would write it from docs/wire.md: protobuf's messages, numpy for arrays, onnxruntime for graphs, nothing of FedAli's.

It reads the recorded session, trains what the recorded tasks ask for, and makes the updates that were recorded.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

import numpy as np
import onnxruntime

from fedali.v1 import federation_pb2 as pb  # what protoc makes of the .proto file
from tests.vectors.order import Generator

BLOCK = 256
DTYPES = {"f32": "<f4", "i64": "<i8"}


class Vectors:
    """The folder ``proto/vectors``."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.session = json.loads((self.folder / "session.json").read_text())
        self.vectors = json.loads((self.folder / "vectors.json").read_text())
        self._bytes = (self.folder / "session.bin").read_bytes()
        with zipfile.ZipFile(self.folder / "model.fedali") as bundle:
            self.parts = {name: bundle.read(name) for name in bundle.namelist()}
        self.manifest = json.loads(self.parts["manifest.json"])

    def message(self, entry):
        """What an entry of the index holds."""
        data = self._bytes[entry["offset"] : entry["offset"] + entry["size"]]
        return getattr(pb, entry["message"]).FromString(data)

    def raw(self, entry):
        return self._bytes[entry["offset"] : entry["offset"] + entry["size"]]

    def of(self, step, message):
        """All messages of a kind in a step."""
        return [
            self.message(e)
            for e in self.session["messages"]
            if (e["step"], e.get("message")) == (step, message)
        ]

    def data(self, name):
        facts = self.session["data"][name]
        found = np.frombuffer((self.folder / "data" / facts["file"]).read_bytes(), DTYPES[facts["type"]])
        return found.reshape(facts["shape"])

    def uploaded(self, step):
        """The bytes of a step's first update, whether it came in one upload or in two."""
        requests = self.of(step, "UploadRequest")
        data = b"".join(r.data for r in requests if r.WhichOneof("part") == "data")
        return data[: requests[0].header.update.size]


def decoded(tensor):
    """The numbers of a tensor."""
    if tensor.encoding == pb.ENCODING_FLOAT32:
        return np.frombuffer(tensor.data, "<f4").copy()
    if tensor.encoding == pb.ENCODING_FLOAT16:
        return np.frombuffer(tensor.data, "<f2").astype(np.float32)
    steps = np.frombuffer(tensor.data, np.int8).astype(np.float32)
    scales = np.array(tensor.scales, np.float32)
    return np.array([step * scales[i // BLOCK] for i, step in enumerate(steps)], np.float32)


def encoded(numbers, encoding):
    """A tensor of numbers [n], float32."""
    tensor = pb.Tensor(encoding=encoding, size=len(numbers))
    if encoding == pb.ENCODING_FLOAT32:
        tensor.data = numbers.astype("<f4").tobytes()
    elif encoding == pb.ENCODING_FLOAT16:
        tensor.data = np.clip(numbers, np.float32(-65504), np.float32(65504)).astype("<f2").tobytes()
    else:
        steps = []
        for first in range(0, len(numbers), BLOCK):
            block = numbers[first : first + BLOCK]
            scale = np.abs(block).max() / np.float32(127)
            tensor.scales.append(float(scale))
            steps.append(np.clip(np.rint(block / scale if scale > 0 else 0 * block), -127, 127))
        tensor.data = np.concatenate(steps).astype(np.int8).tobytes()
    return tensor


class Trained:
    """What a task of training makes of the recorded data: ``theta``, ``prototypes``, and of each step what went in and came out."""

    def __init__(self, vectors, task, state):
        manifest, hyper = vectors.manifest, vectors.manifest["hyper"]
        optimizer, batch = manifest["optimizer"], manifest["batch"]
        x, y = normalised(vectors, vectors.data("train.x")), vectors.data("train.y")
        session = session_of(vectors, "train.onnx")
        theta, shared = decoded(state.theta), decoded(state.prototypes)
        names = [tensor.name for tensor in session.get_outputs()]
        now = {
            "theta": theta,
            "first_moment": np.zeros_like(theta),
            "second_moment": np.zeros_like(theta),
            "local_prototypes": shared,
        }
        random, step, self.steps = Generator(list(task.entropy)), 0, []
        for _ in range(task.epochs):
            order, sums = random.permutation(len(x)), np.zeros(3)
            for first in range(0, len(x), batch):
                chosen = order[first : first + batch]
                weights = np.zeros(batch, np.float32)
                weights[: len(chosen)] = 1
                padded = [*chosen, *chosen * batch][
                    :batch
                ]  # what is padded does not matter: it weighs nothing
                step += 1
                numbers = {
                    "step_size": optimizer["learning_rate"] / (1 - optimizer["beta1"] ** step),
                    "correction": (1 - optimizer["beta2"] ** step) ** -0.5,
                    "influence": task.influence,
                    "decay": hyper["decay"],
                }
                found = session.run(
                    None,
                    {
                        **now,
                        "x": x[padded],
                        "y": y[padded],
                        "weights": weights,
                        "shared_theta": theta,
                        "shared_prototypes": shared,
                        **{name: np.array(value, np.float32) for name, value in numbers.items()},
                    },
                )
                by_name = dict(zip(names, found, strict=True))
                now = {name: by_name[f"new_{name}"] for name in now}
                sums += [float(by_name[name]) for name in ("loss", "correct", "weight")]
                self.steps.append(
                    {**numbers, **{name: float(by_name[name]) for name in ("loss", "correct", "weight")}}
                )
        self.samples = len(x)
        self.metrics = {
            "train_loss": sums[0] / sums[2],
            "train_accuracy": sums[1] / sums[2],
        }  # the last epoch's
        self.theta, self.prototypes = now["theta"], now["local_prototypes"]


def task_of(vectors, step):
    """The task of a step, and its state."""
    task = vectors.of(step, "NextTaskReply")[-1].task
    size, data = task.state.size, b"".join(chunk.data for chunk in vectors.of(step, "Chunk"))
    if digest(data[:size]) != task.state.sha256:
        raise ValueError(f"{step}: the state is not what its SHA-256 says")
    return task, pb.SharedState.FromString(data[:size])


def trained_in(vectors, step):
    """What the training of a step makes."""
    return Trained(vectors, *task_of(vectors, step))


def update_of(vectors, task, state, trained, residual):
    """The update of a training, and what its encoding lost; ``residual`` is what the one before lost."""
    metrics = {
        **trained.metrics,
        **tested(vectors, "personalisation", trained.theta, trained.prototypes, task),
    }
    update = pb.Update(task=task.id, bundle=task.bundle.sha256, samples=trained.samples, metrics=metrics)
    sent, owed = trained.theta, []
    if task.encoding != pb.ENCODING_FLOAT32:
        update.delta, sent = True, trained.theta - decoded(state.theta)
    for name, numbers in (("theta", sent), ("prototypes", trained.prototypes)):
        wanted = numbers
        if residual is not None:
            size = len(sent)
            wanted = numbers + (residual[:size] if name == "theta" else residual[size:])
        tensor = encoded(wanted, task.encoding)
        getattr(update, name).CopyFrom(tensor)
        owed.append(wanted - decoded(tensor))
    return update, None if task.encoding == pb.ENCODING_FLOAT32 else np.concatenate(owed)


def tested(vectors, name, theta, prototypes, task):
    """Accuracy and macro-F1, over the classes that the labels or predictions have, on the recorded test data."""
    x, y = normalised(vectors, vectors.data("test.x")), vectors.data("test.y")
    inputs = {
        "theta": theta,
        "local_prototypes": prototypes,
        "influence": np.array(task.influence, np.float32),
        "x": x,
    }
    session = session_of(vectors, "infer.onnx")
    batch = session.get_inputs()[2].shape[0]
    size = batch if isinstance(batch, int) else len(x)
    answers = [session.run(None, {**inputs, "x": part})[0] for part in padded_parts(x, size)]
    predicted = np.concatenate(answers)[: len(x)].argmax(1)
    scores = []
    for label in range(len(vectors.manifest["classes"])):
        right = ((predicted == label) & (y == label)).sum()
        seen = (predicted == label).sum() + (y == label).sum()
        if seen:
            scores.append(2 * right / seen)
    return {name: float((predicted == y).mean()), f"{name}_f1": float(np.mean(scores))}


def padded_parts(x, size):
    for first in range(0, len(x), size):
        part = x[first : first + size]
        yield np.concatenate([part, np.zeros((size - len(part), *x.shape[1:]), np.float32)])


def normalised(vectors, x):
    facts = vectors.manifest["normalisation"]
    return (x - np.array(facts["mean"], np.float32)) / np.array(facts["std"], np.float32)


def session_of(vectors, name):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(vectors.parts[name], options, providers=["CPUExecutionProvider"])


def digest(data):
    return hashlib.sha256(data).digest()
