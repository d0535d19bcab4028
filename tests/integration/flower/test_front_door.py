"""A server's door over real TLS: who is slow is hung up on, and a SuperLink that is away is said to be."""

from __future__ import annotations

import asyncio
import socket
import ssl
import tempfile
import threading
from pathlib import Path

import httpx
import pytest

from fedali.errors import SettingsError
from fedali.wire.kit import ServerKit, read_kit_as
from fedali_server.flower.hosting import front_door
from fedali_server.flower.hosting.front_door import SITES, Door, listen, server_of
from tests.gateways import free_port
from tests.kits import federation, provisioned

ANSWER = 60.0


class Served:
    """A door for sites without a SuperLink behind it, in a thread."""

    def __init__(self, folder):
        self.address = f"127.0.0.1:{free_port()}"
        server = {"address": self.address, "listen": self.address}
        made = provisioned(federation(server=server), folder / "kits")
        kit = read_kit_as(made.server, ServerKit)
        operator = made.operator
        self.context = ssl.create_default_context(cafile=str(operator / "servers-authority.pem"))
        self.short = tempfile.TemporaryDirectory(prefix="fedali-")  # a Unix socket's path has to be short
        self.superlink = Path(self.short.name, "superlink")
        self.server = server_of(Door(self.superlink, SITES), kit, operators=False)
        self.socket = listen(self.address)
        self.thread = threading.Thread(target=asyncio.run, args=(self.server.serve([self.socket]),))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.server.should_exit = True
        self.thread.join(ANSWER)
        self.socket.close()
        self.short.cleanup()

    async def connect(self):
        host, port = self.address.split(":")
        return await asyncio.wait_for(asyncio.open_connection(host, int(port), ssl=self.context), ANSWER)


@pytest.fixture
def door(tmp_path, monkeypatch):
    monkeypatch.setattr(front_door, "_SILENCE", 0.5)
    with Served(tmp_path) as door:
        yield door


async def drip(door, line):
    """Send a byte now and then until the server hangs up; what it said."""
    reader, writer = await door.connect()
    said = asyncio.ensure_future(reader.read())
    try:
        for byte in line:
            if said.done():
                break
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.wait([said], timeout=0.05)
        return await asyncio.wait_for(said, ANSWER)
    except ConnectionError:
        return b""
    finally:
        said.cancel()
        writer.close()


def test_a_head_that_comes_by_drops_is_not_waited_for(door):
    line = b"POST /v1/fleet/pull-messages HTTP/1.1\r\nHost: x\r\n" + b"X-Slow: 1\r\n" * 10_000
    assert asyncio.run(drip(door, line)) == b""


def test_a_connection_that_says_nothing_is_ended(door):
    assert asyncio.run(drip(door, b"")) == b""


def test_a_body_that_stops_is_not_waited_for(door):
    head = b"POST /v1/fleet/push-object HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nsome"

    async def stop():
        reader, writer = await door.connect()
        writer.write(head)
        said = await asyncio.wait_for(reader.read(), ANSWER)
        writer.close()
        return said

    with socket.socket(socket.AF_UNIX) as superlink:
        superlink.bind(str(door.superlink))
        superlink.listen()
        assert asyncio.run(stop()).startswith(b"HTTP/1.1 408")


def test_a_superlink_that_is_away_is_said_to_be(door):
    url = f"https://{door.address}/v1/fleet/pull-messages"
    with httpx.Client(verify=door.context, timeout=ANSWER) as client:
        reply = client.post(url, content=b"x")
    assert reply.status_code == 503
    assert reply.json() == {"detail": "the SuperLink is not there: try again"}


def test_an_address_that_is_taken_is_one_line(door):
    with pytest.raises(SettingsError, match=r"cannot listen on 127\.0\.0\.1:.*: Address already in use"):
        listen(door.address)
