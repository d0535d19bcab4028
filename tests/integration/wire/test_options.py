"""What gRPC makes of the options of both ends, with real servers and connections."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import pytest

from fedali.v1 import federation_pb2 as pb
from fedali.v1.federation_pb2_grpc import FederationServicer, FederationStub, add_FederationServicer_to_server
from fedali.wire.options import LARGEST_CHUNK, client_options, relay_options, server_options


class Library(FederationServicer):
    """Hands out and takes chunks of any size; asks for nothing."""

    def Download(self, request, context):  # noqa: N802
        yield pb.Chunk(data=bytes(request.offset))

    def Upload(self, request_iterator, context):  # noqa: N802
        return pb.UploadReply(received=sum(len(part.data) for part in request_iterator))


@contextmanager
def served(options, address="127.0.0.1:0"):
    server = grpc.server(ThreadPoolExecutor(2), options=options)
    add_FederationServicer_to_server(Library(), server)
    port = server.add_insecure_port(address)
    server.start()
    try:
        yield f"127.0.0.1:{port}" if port > 1 else address
    finally:
        server.stop(None).wait()


def upload(stub, size):
    return stub.Upload(iter([pb.UploadRequest(data=bytes(size))]), timeout=60, wait_for_ready=True).received


def download(stub, size):
    return [
        len(c.data) for c in stub.Download(pb.DownloadRequest(offset=size), timeout=60, wait_for_ready=True)
    ]


def test_chunks_of_the_largest_size_pass_and_messages_much_larger_are_refused():
    with (
        served(server_options()) as address,
        grpc.insecure_channel(address, client_options()) as channel,
        grpc.insecure_channel(address, relay_options()) as unbridled,
    ):
        stub = FederationStub(channel)
        assert upload(stub, LARGEST_CHUNK) == LARGEST_CHUNK
        assert download(stub, LARGEST_CHUNK) == [LARGEST_CHUNK]
        for refused in (
            lambda: upload(stub, 2 * LARGEST_CHUNK),  # not even sent
            lambda: upload(FederationStub(unbridled), 2 * LARGEST_CHUNK),
            lambda: download(stub, 2 * LARGEST_CHUNK),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                refused()
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert upload(stub, 1) == 1


def test_whole_models_pass_the_socket_of_a_site(tmp_path):
    socket = f"unix:{tmp_path / 'relay.sock'}"
    with served(relay_options(), socket), grpc.insecure_channel(socket, relay_options()) as channel:
        assert upload(FederationStub(channel), 40 << 20) == 40 << 20


def test_two_gateways_do_not_share_a_port():
    with served(server_options()) as address:
        second = grpc.server(ThreadPoolExecutor(1), options=server_options())
        with pytest.raises(RuntimeError, match="bind"):
            second.add_insecure_port(address)
        second.stop(None)


def test_a_device_reconnects_to_a_gateway_that_comes_back():
    with served(server_options()) as address:
        channel = grpc.insecure_channel(address, client_options())
        assert upload(FederationStub(channel), 3) == 3
    lost = threading.Event()
    channel.subscribe(lambda state: state is grpc.ChannelConnectivity.READY or lost.set())
    assert lost.wait(60)
    with served(server_options(), address):
        assert upload(FederationStub(channel), 4) == 4
    channel.close()
