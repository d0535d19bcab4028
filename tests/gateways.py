"""A gateway process for tests: a provisioned site, its node's end, and devices that speak the protocol by plain stubs."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import grpc
import numpy as np

from fedali import methods
from fedali.bundle import keys
from fedali.bundle.file import read_bundle, write_bundle
from fedali.v1 import federation_pb2 as pb
from fedali.v1 import federation_pb2_grpc, relay_pb2, relay_pb2_grpc
from fedali.wire import messages as wire
from fedali.wire import options
from fedali.wire.kit import DeviceKit, read_kit, read_kit_as
from fedali.wire.messages import ClientUpdate
from fedali.wire.tensors import Encoding
from fedali_server.provisioning.federation_file import FederationConfig
from fedali_server.provisioning.provision import provision
from fedali_simulations.federate.ports import free_ports
from tests import small_bundles

TRAIN, EVALUATE = int(pb.TASK_KIND_TRAIN), int(pb.TASK_KIND_EVALUATE)
ANSWER = 60.0  # seconds: an answer that takes as long is a failure, on any machine

RECONNECT = {  # a test restarts gateways often
    "grpc.initial_reconnect_backoff_ms": 50,
    "grpc.min_reconnect_backoff_ms": 50,
    "grpc.max_reconnect_backoff_ms": 200,
}


def free_port():
    return free_ports(1)[0]


def uploaded(outcome):
    """What a round's clients sent together."""
    return methods.Upload.from_bytes(outcome.upload)


class ProvisionedSite:
    """A provisioned site with a gateway process; a second site's devices are strangers to it."""

    def __init__(self, folder, *limits, devices=3, **config):
        self.folder, self.port = Path(folder), free_port()
        self.config = FederationConfig.model_validate(
            {
                "name": "wards",
                "server": {"address": "127.0.0.1:9092"},
                "sites": [
                    {
                        "name": "a",
                        "address": f"127.0.0.1:{self.port}",
                        "devices": [f"a-{i}" for i in range(devices)],
                    },
                    {"name": "b", "address": f"127.0.0.1:{free_port()}", "devices": ["b-0"]},
                ],
                **config,
            }
        )
        self.kits = self.folder / "kits"
        provision(self.config, self.kits)
        self.kit = read_kit(self.kits / "a")
        self.operator = read_kit(self.kits / "operator")
        self.signer = keys.load_private(self.operator.signing_key)
        self.short = tempfile.TemporaryDirectory(prefix="fedali-")  # a Unix socket's path has to be short
        self.state, self.socket = self.folder / "state", Path(self.short.name, "relay.sock")
        self.process, self.said, self.open, self.limits, self.calls = None, [], [], limits, []
        self.bundle, self.over = b"", threading.Event()

    def __enter__(self):
        return self.start()

    def start(self, program=("-m", "fedali_server.gateway"), wait=True):
        words = [f"--limit={limit}" for limit in self.limits]
        command = [
            sys.executable,
            "-X",
            "faulthandler",
            *program,
            self.kit.folder,
            "--state",
            self.state,
            "--socket",
            self.socket,
        ]
        self.process = subprocess.Popen([*command, *words], stderr=subprocess.PIPE, text=True, bufsize=1)
        listening = threading.Event()
        self.reader = threading.Thread(target=self._read, args=(self.process.stderr, listening), daemon=True)
        self.reader.start()
        assert listening.wait(ANSWER), "".join(self.said)
        assert not wait or self.process.poll() is None, "".join(self.said)
        return self

    def _read(self, stream, listening):
        with stream:
            for line in stream:
                self.said.append(line)
                if line.startswith("gateway listening"):
                    listening.set()
        listening.set()

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(ANSWER)
        self.reader.join(ANSWER)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(ANSWER)
        self.reader.join(ANSWER)
        return code

    def __exit__(self, *error):
        self.over.set()
        for one in self.open:
            one.close()
        if self.process and self.process.poll() is None:
            self.kill()
        self.short.cleanup()

    def relay(self):
        channel = grpc.insecure_channel(f"unix:{self.socket}", options.relay_options())
        self.open.append(channel)
        return relay_pb2_grpc.RelayStub(channel)

    def device(self, index, **options):
        device = Device(read_kit_as(self.kits / f"a-{index}", DeviceKit), **options)
        self.open.append(device)
        return device

    def put_bundle(self, **changes):
        """Make a bundle, give it to the gateway, and remember what a round needs of it."""
        path = self.folder / "model.fedali"
        write_bundle(path, small_bundles.fields(**changes), small_bundles.parts(), self.signer)
        return self.put(path)

    def put(self, path):
        self.bundle = path.read_bytes()
        self.sha256 = hashlib.sha256(self.bundle).digest()
        self.manifest = read_bundle(path, None, allow_unsigned=True).manifest
        self.method = methods.build_method(self.manifest.method.name, self.manifest.method.options)
        self.layouts = methods.Layouts(self.manifest.layouts.parameters, self.manifest.layouts.prototypes)
        self.shared = methods.shared_indices(self.method, self.layouts.parameters)
        random = np.random.default_rng(1)
        self.start_state = methods.SharedState(
            random.standard_normal(self.layouts.parameters.size).astype(np.float32),
            random.standard_normal(self.layouts.prototypes.size).astype(np.float32),
        )
        request = relay_pb2.PutBundleRequest(bundle=self.bundle)
        try:
            self.relay().PutBundle(request, wait_for_ready=True, timeout=ANSWER / 2)
        except grpc.RpcError as error:
            self._explain(error)
            self.relay().PutBundle(request, wait_for_ready=True, timeout=ANSWER / 2)
        return self

    def _explain(self, error):
        """Of a gateway that does not answer: what its threads do. One that answers another channel is well."""
        if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
            raise error
        try:
            self.relay().Status(relay_pb2.StatusRequest(), wait_for_ready=True, timeout=ANSWER / 6)
        except grpc.RpcError:
            self.process.send_signal(signal.SIGABRT)
            self.process.wait(ANSWER)
            self.reader.join(ANSWER)
            raise AssertionError("".join(self.said)) from error

    @property
    def sizes(self):
        return self.shared.size, self.layouts.prototypes.size

    def order(self, round_=1, kind=TRAIN, **changes):
        plain = {
            "run": "first",
            "round": round_,
            "kind": kind,
            "bundle": self.sha256,
            "theta": self.start_state.theta.tobytes(),
            "prototypes": self.start_state.prototypes.tobytes(),
            "epochs": 1,
            "influence": 0.2,
            "seed": 7,
            "encoding": 1,
            "seconds": 600.0,
            "quorum": 1.0,
            "grace_seconds": 0.0,
        }
        return relay_pb2.RoundOrder(**{**plain, **changes})

    def begin(self, order):
        """A call that ends with the round's outcome."""
        call = self.relay().Round.future(order, wait_for_ready=True, timeout=10 * ANSWER)
        self.calls.append(call)  # gRPC cancels what nobody holds
        return call

    def trained(self, number, round_=1):
        """What device ``number`` would have trained; theta [P] has the start's personal part."""
        random = np.random.default_rng([number, round_])
        theta, prototypes = self.start_state.theta.copy(), self.start_state.prototypes.copy()
        theta[self.shared] += 0.1 * random.standard_normal(self.shared.size).astype(np.float32)
        rows = self.layouts.prototypes.unflatten(prototypes)
        mixed = {name: random.permutation(value) + np.float32(0.01) for name, value in rows.items()}
        flat = self.layouts.prototypes.flatten(mixed).astype(np.float32)
        return methods.Trained(theta, flat, int(random.integers(1, 1000)))

    def expected(self, numbers, round_=1):
        """The sums of ``fedali.methods`` itself."""
        total = methods.Upload()
        for number in numbers:
            total += self.method.upload(self.trained(number, round_), self.start_state, self.layouts)
        return total

    def update(self, number, task, round_=1, encoding=Encoding.FLOAT32, **changes):
        """The bytes that device ``number`` uploads for a task of training."""
        trained = self.trained(number, round_)
        plain = {
            "task": task,
            "bundle": self.sha256,
            "samples": trained.samples,
            "theta": trained.theta[self.shared],
            "prototypes": trained.local_prototypes,
            "metrics": {"train_loss": 0.5 + number},
        }
        return wire.encode_update(
            ClientUpdate(**{**plain, **changes}), self.start_state.theta[self.shared], encoding
        )[0]


class Device:
    """One device: calls of the protocol, nothing more."""

    def __init__(self, kit, *, certificate=None, key=None, authority=None, address=None, name=None):
        self.kit, self.number = kit, kit.number
        read = [
            Path(path).read_bytes() if path else None for path in (authority or kit.authority, key or kit.key)
        ]
        chain = Path(certificate or kit.certificate).read_bytes()
        if certificate == "":
            chain, read[1] = None, None
        credentials = grpc.ssl_channel_credentials(read[0], read[1], chain)
        chosen = {**dict(options.client_options(name or kit.gateway_name)), **RECONNECT}
        self.channel = grpc.secure_channel(address or kit.gateway, credentials, list(chosen.items()))
        self.stub = federation_pb2_grpc.FederationStub(self.channel)

    def close(self):
        self.channel.close()

    def call(self, name, request, wait=True, timeout=2 * ANSWER):
        return getattr(self.stub, name)(request, wait_for_ready=wait, timeout=timeout)

    def enrol(self, **changes):
        return self.call("Enrol", pb.EnrolRequest(**{"protocol": 1, "software": "test 1", **changes}))

    def task(self, wait=30.0):
        """The next task; None when there is none."""
        reply = self.call("NextTask", pb.NextTaskRequest(wait_seconds=wait))
        return reply.task if reply.HasField("task") else None

    def wait_for_task(self):
        task = self.task(60.0)
        assert task is not None
        return task

    def download(self, artifact, offset=0):
        chunks = self.call("Download", pb.DownloadRequest(sha256=artifact.sha256, offset=offset))
        return b"".join(chunk.data for chunk in chunks)

    def held(self, task, data):
        request = pb.UploadOffsetRequest(task=task, sha256=hashlib.sha256(data).digest())
        return self.call("UploadOffset", request).received

    def upload(self, task, data, offset=0, chunk=1000, wait=True, **header):
        return self.call("Upload", parts(task, data, offset, chunk, **header), wait)

    def heartbeat(self, task="", progress=0.5):
        return self.call("Heartbeat", pb.HeartbeatRequest(task=task, progress=progress)).wanted


def tensor(values):
    """As a device might send it that checks nothing."""
    values = np.asarray(values, np.float32)
    return pb.Tensor(encoding=pb.ENCODING_FLOAT32, size=values.size, data=values.tobytes())


def parts(task, data, offset=0, chunk=1000, end=None, **header):
    """The messages of an upload, up to the byte ``end``."""
    plain = {"sha256": hashlib.sha256(data).digest(), "size": len(data), **header}
    yield pb.UploadRequest(header=pb.UploadHeader(task=task, update=pb.Artifact(**plain), offset=offset))
    for first in range(offset, len(data) if end is None else end, chunk):
        yield pb.UploadRequest(data=data[first : first + chunk])


def assert_sums(outcome, expected):
    """Sums of an outcome against those of ``fedali.methods``: they differ by roundings of float64 alone."""
    found = uploaded(outcome)
    assert found.sums.keys() == expected.sums.keys()
    for name, wanted in expected.sums.items():
        assert found.sums[name].weight == wanted.weight
        np.testing.assert_allclose(found.sums[name].total, wanted.total, rtol=1e-13, atol=1e-13)
    assert [weight for weight, _ in found.sets] == [weight for weight, _ in expected.sets]
    for (_, one), (_, other) in zip(found.sets, expected.sets, strict=True):
        np.testing.assert_array_equal(one, other)


def states(outcome):
    return {report.number: report.state for report in outcome.devices}
