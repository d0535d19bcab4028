"""Records the session of ``proto/vectors`` at a real gateway: ``python -m tests.vectors.record [FOLDER]``, or ``make vectors``.

The device is FedAli's own client, ``Worker``; the gateway is a process as in a deployment. Every message is kept as it was on the wire, but for the
``seconds_left`` of tasks, which are set to the round's 600. What is there already of ``model.fedali`` stays: an export by another version of torch
would have other bytes.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import grpc
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedali.bundle.keys import public_of
from fedali.v1 import federation_pb2 as pb
from fedali_client import EdgeClient
from fedali_client.join.samples import DataFiles
from fedali_client.join.work import Worker
from fedali_server.provisioning.certificates import RevocationList
from tests import bundles
from tests.gateways import EVALUATE, TRAIN, ProvisionedSite
from tests.vectors import reader
from tests.vectors.order import seed_words

FOLDER = Path(__file__).parents[2] / "proto" / "vectors"
KEY = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"the key of FedAli's test vectors").digest())
STATISTICS = int(pb.TASK_KIND_STATISTICS)
FLOAT32, FLOAT16, INT8 = 1, 2, 3
LEFT = 600.0
ENTROPIES = [
    ([7, 0, 1, 0], [20, 20]),
    ([0, 0, 1, 0], [1, 2, 3, 45]),
    ([2**40 + 3, 0, 12, 41], [33, 100, 1000]),
]


@dataclass
class Frame:
    """A message, or a call's end, in the order in which they came."""

    step: str
    says: str
    call: str
    direction: str
    message: str = ""
    offset: int = 0
    size: int = 0
    status: str = ""
    details: str = ""


class Recorder:
    """Calls over a device's connection, whose bytes are kept."""

    def __init__(self, device):
        self._device, self.frames, self.data, self.step = device, [], bytearray(), ""
        self._service = pb.DESCRIPTOR.services_by_name["Federation"]

    def call(self, name, requests, says):
        """Send one message, or several; the replies."""
        method = self._service.methods_by_name[name]
        sent = [one.SerializeToString(deterministic=True) for one in requests]
        for place, data in enumerate(sent):
            self._keep(
                name, "to the gateway", method.input_type.name, data, says if not place else "and its data"
            )
        channel, path = self._device.channel, f"/fedali.v1.Federation/{name}"
        kind = pb.__dict__[method.output_type.name]
        try:
            if method.client_streaming:
                found = [channel.stream_unary(path)(iter(sent), wait_for_ready=True, timeout=60)]
            elif method.server_streaming:
                found = list(channel.unary_stream(path)(sent[0], wait_for_ready=True, timeout=60))
            else:
                found = [channel.unary_unary(path)(sent[0], wait_for_ready=True, timeout=60)]
        except grpc.RpcError as error:
            frame = Frame(self.step, "the call ends with a status", name, "to the device")
            frame.status, frame.details = error.code().name, error.details()
            self.frames.append(frame)
            return []
        replies = [kind.FromString(data) for data in found]
        for reply in replies:
            if isinstance(reply, pb.NextTaskReply) and reply.HasField("task"):
                reply.task.seconds_left = LEFT
            data = reply.SerializeToString(deterministic=True)
            self._keep(name, "to the device", method.output_type.name, data, "the answer")
        return replies

    def _keep(self, call, direction, message, data, says):
        frame = Frame(self.step, says, call, direction, message, len(self.data), len(data))
        self.frames.append(frame)
        self.data += data

    def task(self, says="a long poll, with a task open"):
        """The task that is open."""
        return self.call("NextTask", [pb.NextTaskRequest(wait_seconds=30)], says)[0].task

    def upload(self, task, update, says, offset=0, end=None, **header):
        """An update, or a part of it."""
        artifact = pb.Artifact(**{"sha256": hashlib.sha256(update).digest(), "size": len(update), **header})
        parts = [pb.UploadRequest(header=pb.UploadHeader(task=task, update=artifact, offset=offset))]
        data = update[offset:end]
        parts += [pb.UploadRequest(data=data[i : i + 1000]) for i in range(0, len(data), 1000)]
        return self.call("Upload", parts, says)[0]


def record(out, make=None):
    """The session into the folder ``out``: ``make(step)`` gives the bytes of an update in the place of training it."""
    out = Path(out)
    (out / "data").mkdir(parents=True, exist_ok=True)
    (out / "vectors.pub").write_text(public_of(KEY, "vectors").line + "\n")
    if not (out / "model.fedali").exists():
        bundles.write_full(out / "model.fedali", key=KEY)
    data = _data(out)
    with tempfile.TemporaryDirectory(prefix="fedali-") as folder:
        provisioned = ProvisionedSite(folder, "chunk=8192", "burst=1000000", devices=1)
        provisioned.kit.trusted_key.write_bytes((out / "vectors.pub").read_bytes())
        RevocationList.sign(0, (), KEY).save(provisioned.kit.revoked)
        with provisioned as site:
            site.put(out / "model.fedali")
            with EdgeClient.open(
                out / "model.fedali", Path(folder) / "device", trusted_key=out / "vectors.pub"
            ) as client:
                device = site.device(0)
                recorder = Recorder(device)
                worker = Worker(client, site.sha256, _files(out, Path(folder)))
                _session(site, recorder, worker, make, Path(folder))
    (out / "session.bin").write_bytes(recorder.data)
    frames = [
        {key: value for key, value in asdict(frame).items() if value != "" or key == "says"}
        for frame in recorder.frames
    ]
    names = {"federation": "wards", "site": "a", "device": "a-0", "number": 0, "run": "vectors"}
    (out / "session.json").write_text(_json({**names, "data": data, "messages": frames}))
    (out / "vectors.json").write_text(_json({"order": _order(), "adam": _adam(site.manifest.optimizer)}))


def _session(site, recorder, worker, make, folder):
    """All of it, in order."""
    theta, residual = site.start_state.theta, None

    def state_of(round_):
        moved = theta + np.float32(round_ / 128)
        return {"theta": moved.tobytes(), "influence": 0.25, "epochs": 2}

    def made(kind, task, owed):
        if make is not None:
            return make(recorder.step), None
        path = folder / "state.pb"
        if kind == STATISTICS:
            done = worker.add_up(task)
        else:
            path.write_bytes(site.device(0).download(task.state))
            done = (
                worker.train(task, path, owed, lambda _: None)
                if kind == TRAIN
                else worker.evaluate(task, path, took_part=True)
            )
        return done.update, done.lost

    def begin(round_, kind, step, **changes):
        recorder.step = step
        plain = state_of(round_) if kind != STATISTICS else {"theta": b"", "prototypes": b"", "epochs": 0}
        more = {"encoding": 0} if kind == STATISTICS else {}
        return site.begin(site.order(round_, kind, run="vectors", **{**plain, **more, **changes}))

    recorder.step = "before any training"
    recorder.call("Enrol", [pb.EnrolRequest(protocol=2)], "another version of the protocol")
    hello = pb.EnrolRequest(protocol=1, software="vectors 1", train_samples=20, test_samples=11)
    recorder.call("Enrol", [hello], "a device without a bundle introduces itself")
    recorder.call(
        "NextTask", [pb.NextTaskRequest(wait_seconds=0)], "a poll that does not wait, with nothing to do"
    )
    recorder.call("Heartbeat", [pb.HeartbeatRequest()], "idle")

    outcome = begin(0, STATISTICS, "statistics")
    task = recorder.task()
    recorder.call("Download", [pb.DownloadRequest(sha256=task.bundle.sha256)], "the bundle, model.fedali")
    recorder.upload(task.id, made(STATISTICS, task, None)[0], "sums over the training data")
    outcome.result()

    outcome = begin(1, TRAIN, "train in float32", encoding=FLOAT32)
    task = recorder.task()
    recorder.task("asked again: the same task")
    recorder.call("Download", [pb.DownloadRequest(sha256=task.state.sha256)], "the state")
    recorder.call(
        "Download", [pb.DownloadRequest(sha256=task.state.sha256, offset=1000)], "the state from byte 1000 on"
    )
    recorder.call("Heartbeat", [pb.HeartbeatRequest(task=task.id, progress=0.5)], "at work")
    update = made(TRAIN, task, None)[0]
    recorder.upload(task.id, update, "the update", end=500)
    known = pb.UploadOffsetRequest(task=task.id, sha256=hashlib.sha256(update).digest())
    held = recorder.call("UploadOffset", [known], "after a break: how much is there?")[0].received
    recorder.upload(task.id, update, "the rest", offset=held)
    outcome.result()
    recorder.upload(task.id, update, "sent again: the answer is the same, and it counts once")
    recorder.call(
        "Decline", [pb.DeclineRequest(task=task.id, reason="too late to decline")], "a decline after that"
    )
    recorder.call("Heartbeat", [pb.HeartbeatRequest(task=task.id, progress=1)], "the task is over")

    outcome = begin(1, EVALUATE, "evaluate", encoding=FLOAT32)
    task = recorder.task()
    recorder.call("Download", [pb.DownloadRequest(sha256=task.state.sha256)], "the state")
    recorder.upload(task.id, made(EVALUATE, task, None)[0], "metrics alone")
    outcome.result()

    for round_, encoding, step in (
        (2, FLOAT16, "train in float16"),
        (3, FLOAT16, "train in float16 with feedback"),
        (4, INT8, "train in int8 with feedback"),
        (5, INT8, "train in int8 with feedback again"),
    ):
        outcome = begin(round_, TRAIN, step, encoding=encoding)
        task = recorder.task()
        recorder.call("Download", [pb.DownloadRequest(sha256=task.state.sha256)], "the state")
        update, lost = made(TRAIN, task, residual)
        recorder.upload(task.id, update, "the update")
        residual = lost
        outcome.result()
        last = task.id, update

    outcome = begin(6, TRAIN, "decline", encoding=FLOAT32)
    task = recorder.task()
    recorder.call(
        "Decline", [pb.DeclineRequest(task=task.id, reason="the disk is full")], "it cannot do this one"
    )
    outcome.result()
    recorder.upload(task.id, update, "an update all the same: a decline is final")

    outcome = begin(7, TRAIN, "refused", encoding=FLOAT32)
    task = recorder.task()
    sound = pb.Update.FromString(site.update(0, task.id, bundle=site.sha256))
    bad = pb.Update()
    bad.CopyFrom(sound)
    bad.metrics["validation"] = 50.0
    recorder.upload(task.id, bad.SerializeToString(deterministic=True), "an accuracy of 50")
    recorder.upload(
        task.id,
        sound.SerializeToString(deterministic=True),
        "a sound one afterwards: a refusal is final for the task",
    )
    outcome.result()
    recorder.upload(*last, "the update of round 5 once more, which is long over: it had counted")
    recorder.upload("0" * 32, sound.SerializeToString(deterministic=True), "of a task that nobody knows")

    recorder.step = "calls that are refused"
    recorder.call("Download", [pb.DownloadRequest(sha256=bytes(32))], "an artifact that is not here")
    recorder.call("Download", [pb.DownloadRequest(sha256=b"short")], "no digest")
    recorder.call("NextTask", [pb.NextTaskRequest(wait_seconds=61)], "too long a poll")
    recorder.call("Heartbeat", [pb.HeartbeatRequest(task=task.id, progress=2)], "more than all")


def _data(out):
    """The device's data in plain files, and what they are."""
    x, y = bundles.toy_data(31)
    facts = {}
    for part, rows in (("train", slice(0, 20)), ("test", slice(20, 31))):
        for name, array, kind, form in (("x", x, "f32", "<f4"), ("y", y, "i64", "<i8")):
            file = f"{part}.{name}.{kind}"
            values = array[rows].astype(form)
            (out / "data" / file).write_bytes(values.tobytes())
            facts[f"{part}.{name}"] = {"file": file, "type": kind, "shape": list(values.shape)}
    return facts


def _files(out, folder):
    """The same data, as FedAli's client takes them."""
    x, y = bundles.toy_data(31)
    for part, rows in (("train", slice(0, 20)), ("test", slice(20, 31))):
        np.savez(folder / f"{part}.npz", x=x[rows], y=y[rows])
    return DataFiles(folder / "train.npz", None, folder / "test.npz")


def _order():
    """Permutations by numpy, one generator for each entropy; and what is on the way to them."""
    found = []
    for entropy, counts in ENTROPIES:
        random = np.random.default_rng(np.random.SeedSequence(entropy))
        raw = np.random.default_rng(np.random.SeedSequence(entropy)).bit_generator.random_raw(3)
        permutations = [random.permutation(count).tolist() for count in counts]
        found.append(
            {
                "entropy": entropy,
                "seed_words": [f"{word:016x}" for word in seed_words(entropy)],
                "first_outputs": [f"{int(word):016x}" for word in raw],
                "permutations": permutations,
            }
        )
    return found


def _adam(optimizer):
    """What Adam's graph takes at the first steps of a task."""
    rate, one, two = (optimizer[name] for name in ("learning_rate", "beta1", "beta2"))
    steps = [
        {"t": t, "step_size": rate / (1 - one**t), "correction": (1 - two**t) ** -0.5} for t in range(1, 7)
    ]
    return {"learning_rate": rate, "beta1": one, "beta2": two, "steps": steps}


def _json(facts):
    """Lists one element a line."""
    lines = []
    for key, value in facts.items():
        if isinstance(value, list):
            rows = ",\n  ".join(json.dumps(one) for one in value)
            lines.append(f"{json.dumps(key)}: [\n  {rows}\n ]")
        else:
            lines.append(f"{json.dumps(key)}: {json.dumps(value)}")
    return "{\n " + ",\n ".join(lines) + "\n}\n"


if __name__ == "__main__":
    chosen = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    record(chosen)
    vectors = reader.Vectors(chosen)
    steps = reader.trained_in(vectors, "train in float32").steps
    (chosen / "training.json").write_text(_json({"step": "train in float32", "steps": steps}))
