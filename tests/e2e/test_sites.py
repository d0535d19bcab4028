"""Server and site as real processes over TLS: who gets in, and what survives kills.

Also the tripwire for what ``fedali_server`` takes from inside Flower: ``node``, ``superlink``, ``superlink_process`` and
``local_superlink``. There are no devices here; ``tests/e2e/test_federation.py`` has them.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import ssl
import stat
import subprocess
import sys
import threading
import zipfile
from importlib.metadata import version
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
import pytest
from flwr.app import Message
from flwr.common.serde import user_config_to_proto
from flwr.proto.control_pb2 import StartRunRequest
from flwr.supercore.runtime_version_compatibility import RuntimeVersionMetadata

from fedali.cohort.contract import RoundSettings
from fedali.errors import FedaliError
from fedali.methods import SharedState
from fedali.wire.kit import SiteKit, read_kit_as
from fedali_server.flower import records, relay_records
from fedali_server.flower.hosting.empty_bundle import empty_bundle
from fedali_server.flower.link import Link
from fedali_server.flower.superlink import LOST, list_sites, running
from fedali_server.site.relay import RelayConnection
from tests.e2e.sites import ANSWER, BIN, Place
from tests.gateways import free_port

PROTOBUF = {"content-type": "application/x-protobuf", "accept": "application/x-protobuf"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = Place(tmp_path_factory.mktemp("sites"))
    try:
        place.start_server()
        place.site = place.start_site().wait_for("has joined")
        yield place
    finally:
        place.end()


def hello(grid, node):
    """What a site says when it is asked; its messages are repeated where Flower lost them."""
    (reply,) = ask(grid, relay_records.ask_hello, node)
    return relay_records.read_hello(reply)


def ask(grid, question, node, *words):
    while True:
        replies = grid.send_and_receive([question(node, *words)], timeout=ANSWER)
        assert replies, "no answer"
        if not (replies[0].has_error() and replies[0].error.code in LOST):
            assert not replies[0].has_error(), replies[0].error.reason
            return replies


def train(node, size=(78, 10)):
    shared = SharedState(*(np.zeros(n, np.float32) for n in size))
    content = records.instructions(RoundSettings(1, influence=0.2), records.from_shared(shared))
    return Message(content, node, "train")


def test_a_round_goes_to_the_gateway_and_back(place):
    with running(place.link, place.config_of_run("short", seconds=0.5)) as grid:
        node = place.nodes(grid, "site-a")
        assert [device.device for device in hello(grid, node).devices] == ["a-0", "a-1"]
        (reply,) = grid.send_and_receive([train(node)], timeout=ANSWER)
        assert "bundle" in reply.error.reason  # the gateway's reason comes through
        sha256 = hashlib.sha256(place.bundle).digest()
        (answer,) = ask(grid, relay_records.ask_has_bundle, node, sha256)
        assert not relay_records.read_has_bundle(answer)
        ask(grid, relay_records.ask_put_bundle, node, place.bundle)
        (answer,) = ask(grid, relay_records.ask_has_bundle, node, sha256)
        assert relay_records.read_has_bundle(answer)
        (reply,) = ask(grid, train, node)
        states = [report["state"] for report in records.read_reports(reply.content)]
        assert states == ["offline", "offline"]


def test_operators_see_the_sites(place):
    found = {site.name: site.online for site in list_sites(place.link, place.operator.node_keys)}
    assert found == {"site-a": True, "site-b": False, "site-c": False}


def test_without_an_operators_identity_nobody_submits_a_run(place):
    kit, config = place.operator, place.config_of_run("stranger")
    with (
        pytest.raises(FedaliError, match=r"no SuperLink answers at .*needs an operator's certificate"),
        running(Link(kit.server, kit.authority), config),
    ):
        pass
    for link in (  # the sites' door has no such paths, for operators neither
        Link(place.server_kit.listen, kit.authority),
        Link(place.server_kit.listen, kit.authority, kit.certificate, kit.key),
    ):
        with pytest.raises(FedaliError, match="refused: HTTP status 404"), running(link, config):
            pass


def test_an_operator_with_another_flower_is_told_so(place, monkeypatch):
    def older(component):
        return RuntimeVersionMetadata("flwr", "1.30.0", component)

    monkeypatch.setattr(RuntimeVersionMetadata, "from_local_component", older)
    with (
        pytest.raises(FedaliError, match=rf"runs Flower {version('flwr')}, .*: install one version"),
        running(place.link, place.config_of_run("older")),
    ):
        pass


@pytest.mark.parametrize("name", ["a-0", "site-a", "server"])
def test_no_other_certificate_of_the_federation_is_an_operators(place, name):
    files = {"a-0": "device", "site-a": "gateway", "server": "server"}[name]
    with (
        door(place, place.operator.server, place.kit(name) / f"{files}.pem") as client,
        pytest.raises(httpx.TransportError),
    ):
        client.post("/v1/control/list-runs", content=b"")


def door(place, address, certificate=None):
    """A client of a door, with the operator's certificate or another."""
    certificate = certificate or place.operator.certificate
    context = ssl.create_default_context(cafile=str(place.operator.authority))
    context.load_cert_chain(certificate, certificate.with_suffix(".key"))
    return httpx.Client(base_url=f"https://{address}", verify=context, headers=PROTOBUF, timeout=ANSWER)


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/docs", "/openapi.json", "/v1/fleet/register-node", "/v1/fleet/unregister-node"),
        *("/v1/control/start-run", "/v1/runtime/acquire-task", "/v1/control/register-node"),
        *(
            "/v1/fleet/pull-messages/../../control/start-run",
            "/v1/fleet//pull-messages",
            "/v1/fleet%2fregister-node",
        ),
    ],
)
def test_the_sites_door_has_what_a_node_needs_and_nothing_else(place, path):
    with door(place, place.server_kit.listen) as client:
        assert client.post(path, content=b"").status_code == 404
        assert client.get("/v1/fleet/pull-messages").status_code == 405


def test_the_operators_door_registers_no_nodes(place):
    with door(place, place.operator.server) as client:
        for path in ("/v1/control/register-node", "/v1/fleet/pull-messages", "/v1/control/create-federation"):
            assert client.post(path, content=b"").status_code == 404


def test_a_run_that_brings_code_is_refused(place):
    config = place.config_of_run("code")
    bundle = empty_bundle(config)
    buffer = BytesIO(bundle)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("evil.py", "import os")
    text = bundle.replace(b"fedali_server.flower.relay_app:app", b"elsewhere_and_e.vil_app:app")
    assert text != bundle
    with door(place, place.operator.server) as client:
        for content, spec in (
            *((buffer.getvalue(), ""), (text, ""), (b"garbage", ""), (b"", "")),
            *((bundle, "@somebody/app"), (b"", "@somebody/app")),
        ):
            request = StartRunRequest(app_spec=spec, override_config=user_config_to_proto(config))
            request.fab.content, request.fab.hash_str = content, hashlib.sha256(content).hexdigest()
            reply = client.post("/v1/control/start-run", content=request.SerializeToString())
            assert reply.status_code == 403
            assert "must not bring code" in reply.json()["detail"]


def test_what_is_too_large_is_cut_off(place):
    with door(place, place.server_kit.listen) as client:
        parts = (bytes(1 << 20) for _ in range(100))
        try:
            status = client.post("/v1/fleet/push-object", content=parts).status_code
        except httpx.TransportError:  # the server hung up while we were at it
            status = 413
        assert status == 413


def test_nobody_else_on_the_machine_reaches_the_superlink(place):
    state = place.kit("server") / "state"
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    server, child = (
        place.server.process.pid,
        place.server.child("fedali_server.flower.hosting.superlink_process"),
    )
    ports = {place.server_kit.listen.rpartition(":")[2], place.server_kit.operators_listen.rpartition(":")[2]}
    assert listening(server) == ports
    assert listening(child) == set()


def listening(process):
    """The TCP ports that a process listens on."""
    inodes = set()
    for path in Path(f"/proc/{process}/fd").iterdir():
        inodes |= set(re.findall(r"socket:\[(\d+)\]", str(path.readlink())))
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{process}/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and words[9] in inodes:
                found.add(str(int(words[1].rpartition(":")[2], 16)))
    return found


def test_a_site_whose_key_is_not_registered_does_not_join(place):
    place.start_site("site-c").wait_for("has joined").kill(signal.SIGTERM)
    key = place.kit("site-c") / "node.key"
    kept = key.read_bytes()
    key.unlink()
    subprocess.run(["ssh-keygen", "-q", "-t", "ecdsa", "-b", "384", "-N", "", "-f", key], check=True)
    stranger = place.start_site("site-c").wait_for("not connected, trying again")
    assert "refused" in stranger.said
    key.write_bytes(kept)
    assert stranger.kill(signal.SIGTERM) == 0
    assert "has joined" not in stranger.said


@pytest.mark.slow
def test_a_site_that_is_killed_comes_back_at_once_and_answers(place):
    with running(place.link, place.config_of_run("killed", seconds=2.0)) as grid:
        node = place.nodes(grid, "site-a")
        ask(grid, relay_records.ask_put_bundle, node, place.bundle)
        before = grid.joined[node]
        (name,) = grid.push_messages([train(node)])
        gateway = place.site.child("fedali_server.gateway")
        place.site.kill()
        wait_for(lambda: not Path(f"/proc/{gateway}").exists())  # it does not outlive its site
        place.site = place.start_site().wait_for("has joined")
        assert place.nodes(grid, "site-a") == node
        assert grid.joined[node] > before  # by which a server knows that it has to ask again
        (reply,) = ask(grid, train, node)
        assert [report["state"] for report in records.read_reports(reply.content)] == ["offline", "offline"]
        grid.pull_messages([name])


def wait_for(what):
    """Wait until something is so that nobody tells of."""
    turns = threading.Event()
    for _ in range(int(ANSWER * 50)):
        if what():
            return
        turns.wait(0.02)
    raise AssertionError("it did not happen")


def test_a_gateway_that_is_killed_is_started_again(place):
    with running(place.link, place.config_of_run("gateway")) as grid:
        node = place.nodes(grid, "site-a")
        told = place.site.said.count("gateway listening")
        os.kill(place.site.child("fedali_server.gateway"), signal.SIGKILL)
        assert hello(grid, node).site == "site-a"  # the relay waits for it
        place.site.wait_for("gateway listening", told + 1)


@pytest.mark.slow
def test_a_run_outlives_a_superlink_that_is_killed_under_it(place):
    with running(place.link, place.config_of_run("outlives", seconds=3.0)) as grid:
        node = place.nodes(grid, "site-a")
        ask(grid, relay_records.ask_put_bundle, node, place.bundle)
        (name,) = grid.push_messages([train(node)])
        wait_for(lambda: open_round(place) == "outlives")
        os.kill(place.server.child("fedali_server.flower.hosting.superlink_process"), signal.SIGKILL)
        found = []
        wait_for(lambda: found.extend(grid.pull_messages([name])) or found)
        states = [report["state"] for report in records.read_reports(found[0].content)]
        assert states == ["offline", "offline"]
        assert hello(grid, node).site == "site-a"
    place.server.wait_for("process='the SuperLink'")


def open_round(place):
    gateway = RelayConnection(place.kit("site-a") / "state" / "relay.sock")
    try:
        return gateway.status().run
    finally:
        gateway.close()


@pytest.mark.slow
def test_a_run_outlives_a_server_that_is_killed_under_it(place):
    with running(place.link, place.config_of_run("server")) as grid:
        node = place.nodes(grid, "site-a")
        joined = place.site.said.count("has joined")
        place.server.kill()
        place.start_server()
        place.site.wait_for("has joined", joined + 1)
        assert hello(grid, node).site == "site-a"


def test_a_revoked_site_is_thrown_out_and_a_new_one_let_in(place):
    site = place.start_site("site-c").wait_for("has joined")
    kit = place.kit("server")
    shutil.copytree(kit, place.folder / "before", ignore=shutil.ignore_patterns("state"))
    subprocess.run(
        [BIN / "fedali", "revoke", "site-c", "--kits", place.folder / "kits"], check=True, capture_output=True
    )
    place.server.wait_for("site unregistered")
    site.wait_for("refused")
    assert site.kill(signal.SIGTERM) == 0
    place.config["sites"].append(
        {"name": "site-d", "address": f"127.0.0.1:{free_port()}", "devices": ["d-0"]}
    )
    place.config["sites"] = [site for site in place.config["sites"] if site["name"] != "site-c"]
    place.provision()
    place.start_site("site-d").wait_for("has joined").kill(signal.SIGTERM)


@pytest.mark.slow  # it asks every three seconds
def test_flowers_own_supernode_answers_with_the_relay(place):
    kit = read_kit_as(place.kit("site-b"), SiteKit)
    gateway = place.start(sys.executable, "-m", "fedali_server.gateway", kit.folder)
    gateway.wait_for("gateway listening")
    socket = kit.folder / "state" / "relay.sock"
    node = place.start(
        BIN / "flower-supernode",
        *("--superlink", kit.superlink, "--root-certificates", kit.superlink_authority),
        *("--auth-supernode-private-key", kit.node_key, "--host", "127.0.0.1", "--port", free_port()),
        *("--node-config", f'socket="{socket}"'),
        extra={"FLWR_HOME": str(place.folder / "flwr"), "PATH": f"{BIN}:{os.environ['PATH']}"},
    )
    with running(place.link, place.config_of_run("stock")) as grid:
        wait_for(lambda: any(found.name == "site-b" for found in grid.get_nodes()) or node.process.poll())
        assert node.process.poll() is None, node.said
        assert hello(grid, place.nodes(grid, "site-b")).site == "site-b"


def test_all_leave_in_good_order(place):
    found = {site.name: site.online for site in list_sites(place.link, place.operator.node_keys)}
    assert found["site-a"]
    assert place.site.kill(signal.SIGTERM) == 0
    assert "site site-a has left" in place.site.said
    found = {site.name: site.online for site in list_sites(place.link, place.operator.node_keys)}
    assert not found["site-a"]
    assert place.server.kill(signal.SIGTERM) == 0
    assert place.server.said.rstrip().endswith("server of wards has ended")
    for process in (place.site, place.server):
        assert "Traceback" not in process.said
