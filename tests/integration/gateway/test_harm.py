"""What a real gateway process does with calls that mean harm: too much, too slow, too often, or no sense at all."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedali.v1 import federation_pb2 as pb
from fedali.wire import messages as wire
from fedali.wire.messages import task_id
from tests.gateways import ANSWER, TRAIN, ProvisionedSite, assert_sums, parts, states


@pytest.fixture
def site(tmp_path):
    with ProvisionedSite(tmp_path) as site:
        yield site.put_bundle()


def peak(site):
    """The most memory that the gateway ever had, in bytes."""
    status = Path(f"/proc/{site.process.pid}/status").read_text()
    return 1024 * int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


GIB = 1 << 30


@pytest.mark.parametrize("said", [GIB, 1000])
def test_an_upload_of_a_gigabyte_is_cut_at_once_and_takes_no_memory(site, said):
    """Whether its header tells the truth or not."""
    outcome = site.begin(site.order(devices=[0, 1]))
    good, bad = site.device(0), site.device(1)
    task = good.wait_for_task()
    good.upload(task.id, site.update(0, task.id))
    before, sent = peak(site), 0

    def gigabyte():
        nonlocal sent
        artifact = pb.Artifact(sha256=bytes(32), size=said)
        yield pb.UploadRequest(header=pb.UploadHeader(task=task.id, update=artifact))
        chunk = pb.UploadRequest(data=bytes(wire.CHUNK))
        while sent < GIB:
            sent += len(chunk.data)
            yield chunk

    if said == GIB:
        reply = bad.call("Upload", gigabyte())
        assert (reply.verdict, "bytes; the round takes" in reply.reason) == (pb.VERDICT_REFUSED, True)
        assert states(outcome.result()) == {0: "done", 1: "refused"}
    else:
        with pytest.raises(grpc.RpcError) as error:
            bad.call("Upload", gigabyte())
        assert error.value.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED)
        assert not list((site.state / "rounds/first/1-train/incoming").glob("1-*"))
    assert sent < GIB / 8
    assert peak(site) - before < 8 << 20


def test_one_message_larger_than_a_chunk_is_refused(site):
    site.begin(site.order())
    device = site.device(0)
    task = device.wait_for_task()
    for size, code in (
        (300 << 10, grpc.StatusCode.INVALID_ARGUMENT),
        (8 << 20, grpc.StatusCode.RESOURCE_EXHAUSTED),
    ):
        header = pb.UploadHeader(task=task.id, update=pb.Artifact(sha256=bytes(32), size=1000))
        messages = iter([pb.UploadRequest(header=header), pb.UploadRequest(data=bytes(size))])
        with pytest.raises(grpc.RpcError) as error:
            device.call("Upload", messages)
        assert error.value.code() is code
    assert device.upload(task.id, site.update(0, task.id)).verdict == pb.VERDICT_COUNTED


@pytest.mark.parametrize("trickle", [False, True])
def test_an_upload_without_progress_is_cut_and_goes_on_later(tmp_path, trickle):
    with ProvisionedSite(tmp_path, "stall=0.5") as site:
        site.put_bundle()
        outcome = site.begin(site.order(devices=[0]))
        device = site.device(0)
        task = device.wait_for_task()
        data, over = site.update(0, task.id), threading.Event()

        def slowly():
            messages = parts(task.id, data, chunk=1)
            for _ in range(20):
                yield next(messages)
            while not over.wait(0.05 if trickle else None):
                yield next(messages)

        call = device.stub.Upload.future(slowly(), timeout=ANSWER)
        assert call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        over.set()
        assert "bytes in 0.5 seconds" in call.details()
        held = device.held(task.id, data)
        assert held >= 19
        assert device.upload(task.id, data, offset=held).verdict == pb.VERDICT_COUNTED
        assert_sums(outcome.result(), site.expected([0]))


def test_who_connects_and_says_nothing_is_put_out(tmp_path):
    with ProvisionedSite(tmp_path, "handshake=0.3") as site:
        for said in (b"", b"\x16\x03\x01", b"GET / HTTP/1.1\r\n\r\n"):
            with socket.create_connection(("127.0.0.1", site.port), timeout=ANSWER) as stranger:
                stranger.sendall(said)
                try:
                    while stranger.recv(1000):
                        pass
                except ConnectionResetError:
                    pass
        assert site.device(0).enrol().device == "a-0"


def test_a_device_that_calls_too_often_has_to_wait_and_others_need_not(tmp_path):
    with ProvisionedSite(tmp_path, "calls_per_second=0.001", "burst=5", "streams=2") as site:
        eager, other = site.device(0), site.device(1)
        for _ in range(5):
            eager.enrol()
        with pytest.raises(grpc.RpcError) as error:
            eager.enrol()
        assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "calls a second" in error.value.details()
        assert other.enrol().device == "a-1"


def test_a_device_that_downloads_for_ever_has_to_wait(tmp_path):
    with ProvisionedSite(tmp_path, "transfers=2", "transfer_window=1e9") as site:
        site.put_bundle()
        site.begin(site.order())
        device = site.device(0)
        task = device.wait_for_task()
        downloads = (device.download(task.bundle) for _ in range(20))
        with pytest.raises(grpc.RpcError) as error:
            list(downloads)
        assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "many times what a round needs" in error.value.details()
        other = site.device(1)
        assert other.download(task.bundle) == site.bundle


@pytest.mark.parametrize(
    ("call", "request_", "code"),
    [
        ("Enrol", pb.EnrolRequest(protocol=2), grpc.StatusCode.FAILED_PRECONDITION),
        ("Enrol", pb.EnrolRequest(protocol=1, software=65 * "x"), grpc.StatusCode.INVALID_ARGUMENT),
        ("Enrol", pb.EnrolRequest(protocol=1, software="a\nb"), grpc.StatusCode.INVALID_ARGUMENT),
        ("Enrol", pb.EnrolRequest(protocol=1, bundle=b"short"), grpc.StatusCode.INVALID_ARGUMENT),
        ("NextTask", pb.NextTaskRequest(wait_seconds=61), grpc.StatusCode.INVALID_ARGUMENT),
        ("NextTask", pb.NextTaskRequest(wait_seconds=float("nan")), grpc.StatusCode.INVALID_ARGUMENT),
        ("UploadOffset", pb.UploadOffsetRequest(task="../../etc"), grpc.StatusCode.INVALID_ARGUMENT),
        ("UploadOffset", pb.UploadOffsetRequest(task=32 * "0"), grpc.StatusCode.INVALID_ARGUMENT),
        ("Decline", pb.DeclineRequest(task=32 * "0", reason=201 * "x"), grpc.StatusCode.INVALID_ARGUMENT),
        ("Decline", pb.DeclineRequest(task=32 * "0", reason="a\x1b[2J"), grpc.StatusCode.INVALID_ARGUMENT),
        ("Heartbeat", pb.HeartbeatRequest(task="x"), grpc.StatusCode.INVALID_ARGUMENT),
        (
            "Heartbeat",
            pb.HeartbeatRequest(task=32 * "0", progress=float("inf")),
            grpc.StatusCode.INVALID_ARGUMENT,
        ),
    ],
)
def test_calls_that_make_no_sense_are_refused(fuzzed, call, request_, code):
    with pytest.raises(grpc.RpcError) as error:
        fuzzed.device(0).call(call, request_)
    assert error.value.code() is code
    assert error.value.details().isprintable()


def test_downloads_that_make_no_sense_are_refused(fuzzed):
    device = fuzzed.device(0)
    for artifact, offset, code in (
        (pb.Artifact(sha256=bytes(32)), 0, grpc.StatusCode.NOT_FOUND),
        (pb.Artifact(sha256=b""), 0, grpc.StatusCode.INVALID_ARGUMENT),
        (pb.Artifact(sha256=fuzzed.sha256), len(fuzzed.bundle) + 1, grpc.StatusCode.INVALID_ARGUMENT),
    ):
        with pytest.raises(grpc.RpcError) as error:
            device.download(artifact, offset)
        assert error.value.code() is code


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory):
    """A gateway with an open round and no limit on calls, which nothing here may bring down."""
    with ProvisionedSite(tmp_path_factory.mktemp("fuzzed"), "burst=1000000", "transfers=1000000") as site:
        site.put_bundle()
        outcome = site.begin(site.order(devices=[1, 2], seconds=3600.0))
        yield site
        device = site.device(2)  # after all of that it still does a round
        task = device.wait_for_task()
        device.upload(task.id, site.update(2, task.id))
        device = site.device(1)
        device.upload(task.id, site.update(1, task.id))
        found = outcome.result()
        found_states = states(found)
        assert found_states.pop(1) in ("done", "refused")  # it may have said that its update was of no bytes
        assert found_states == {2: "done"}
        assert_sums(
            found, site.expected([number for number, state in states(found).items() if state == "done"])
        )
        assert not any('"level": "error"' in line for line in site.said)


CALLS = {
    "Enrol": ("unary_unary", pb.EnrolRequest),
    "NextTask": ("unary_unary", pb.NextTaskRequest),
    "Download": ("unary_stream", pb.DownloadRequest),
    "UploadOffset": ("unary_unary", pb.UploadOffsetRequest),
    "Upload": ("stream_unary", pb.UploadRequest),
    "Decline": ("unary_unary", pb.DeclineRequest),
    "Heartbeat": ("unary_unary", pb.HeartbeatRequest),
}
EXPECTED = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}


def assert_refused(error):
    assert error.code() in EXPECTED, error.details()
    assert error.details().isprintable()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    call=st.sampled_from(sorted(CALLS)), messages=st.lists(st.binary(max_size=200), min_size=1, max_size=4)
)
def test_whatever_bytes_come_the_answer_is_one_line(fuzzed, call, messages):
    kind, _ = CALLS[call]
    device = fuzzed.fuzzer = getattr(fuzzed, "fuzzer", None) or fuzzed.device(0)
    raw = getattr(device.channel, kind)(f"/fedali.v1.Federation/{call}")
    try:
        reply = raw(iter(messages) if kind == "stream_unary" else messages[0], timeout=ANSWER)
        if kind == "unary_stream":
            list(reply)
    except grpc.RpcError as error:
        assert_refused(error)


DIGEST = st.sampled_from([b"", bytes(32), bytes(31)]) | st.binary(max_size=40)
TASK = st.just(task_id("first", 1, TRAIN)) | st.text(max_size=40)
PARTS = st.one_of(
    st.builds(
        lambda task, sha256, size, offset: pb.UploadRequest(
            header=pb.UploadHeader(task=task, update=pb.Artifact(sha256=sha256, size=size), offset=offset)
        ),
        TASK,
        DIGEST,
        st.integers(0, 2**64 - 1) | st.integers(0, 300),
        st.integers(0, 2**64 - 1) | st.just(0),
    ),
    st.binary(max_size=300).map(lambda data: pb.UploadRequest(data=data)),
    st.just(pb.UploadRequest()),
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(PARTS, max_size=5), st.booleans())
def test_whatever_an_upload_says_nothing_is_counted(fuzzed, messages, due):
    number = 1 if due else 0
    device = fuzzed.__dict__.setdefault(f"uploader-{number}", None) or fuzzed.device(number)
    fuzzed.__dict__[f"uploader-{number}"] = device
    try:
        reply = device.call("Upload", iter(messages))
    except grpc.RpcError as error:
        assert_refused(error)
    else:
        assert reply.verdict != pb.VERDICT_COUNTED
