from __future__ import annotations

import socket
import ssl
import threading

import httpx
import pytest

from fedali_server.flower.connection import is_away, is_distrust, refusal
from fedali_server.flower.link import Link


def met(answer):
    """What a call over TLS ends with at a server that does ``answer`` with each connection."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()

        def run():
            connection, _ = server.accept()
            with connection:
                answer(connection)

        threading.Thread(target=run, daemon=True).start()
        with pytest.raises(httpx.TransportError) as caught:
            httpx.Client(verify=ssl.create_default_context(), timeout=0.5).get(
                f"https://127.0.0.1:{server.getsockname()[1]}"
            )
    return caught.value


def says_nothing(connection):
    threading.Event().wait(2)


def hangs_up(connection):
    connection.recv(1 << 16)
    connection.shutdown(socket.SHUT_RDWR)


def speaks_plain_http(connection):
    connection.recv(1 << 16)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


@pytest.mark.parametrize("answer", [says_nothing, hangs_up])
def test_a_server_that_does_not_finish_its_handshake_is_away(answer):
    error = met(answer)
    assert is_away(error), error
    assert not is_distrust(error)


def test_a_server_that_speaks_no_tls_is_no_server_to_wait_for():
    error = met(speaks_plain_http)
    assert is_distrust(error)
    assert "no SuperLink answers at 127.0.0.1:1: [SSL: WRONG_VERSION_NUMBER]" in str(
        refusal(error, Link("127.0.0.1:1"))
    )
