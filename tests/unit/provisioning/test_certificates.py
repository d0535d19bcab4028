"""Who gets through whose door: real handshakes between sockets, with the files of kits."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from fedali.errors import KitError
from fedali.wire.kit import DeviceKit, OperatorKit, ServerKit, SiteKit, read_kit, read_kit_as
from fedali_server.provisioning.certificates import fingerprint, identity, load_certificate, parse_certificate
from fedali_server.provisioning.provision import provision
from tests.kits import federation, provisioned

NOW = datetime.now(timezone.utc)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return provisioned(federation(), tmp_path_factory.mktemp("wards") / "kits")


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """Another federation, whose members have the same names."""
    return provisioned(federation(), tmp_path_factory.mktemp("foreign") / "kits")


def door(kit: SiteKit | ServerKit | DeviceKit | OperatorKit, authority: Path) -> ssl.SSLContext:
    """A server's side with a kit's certificate, for clients of ``authority``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.load_verify_locations(authority)
    context.load_cert_chain(kit.certificate, kit.key)
    return context


def client_side(authority: Path, kit: DeviceKit | OperatorKit | SiteKit | ServerKit | None) -> ssl.SSLContext:
    """A client's side that trusts servers of ``authority``, with a kit's certificate or none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.load_verify_locations(authority)
    if kit is not None:
        context.load_cert_chain(kit.certificate, kit.key)
    return context


def meet(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> tuple[bytes | str, str]:
    """A handshake on the loopback interface, and a byte each way.

    Returns what the server saw: the client's certificate as PEM, or why it refused; and why the client did.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        listener.settimeout(30)

        def serve() -> bytes | str:
            with listener.accept()[0] as plain:
                plain.settimeout(30)
                try:
                    with server.wrap_socket(plain, server_side=True) as stream:
                        stream.sendall(stream.recv(1))
                        return ssl.DER_cert_to_PEM_cert(stream.getpeercert(binary_form=True)).encode()
                except OSError as error:
                    return str(error)

        seen, why = pool.submit(serve), ""
        with socket.create_connection(listener.getsockname(), 30) as plain:
            try:
                with client.wrap_socket(plain, server_hostname=name) as stream:
                    stream.sendall(b"x")
                    assert stream.recv(1) == b"x"
            except OSError as error:
                why = str(error)
        return seen.result(), why


def gateway(made, site: str = "site-a") -> tuple[ssl.SSLContext, SiteKit]:
    kit = read_kit_as(made.sites[site], SiteKit)
    return door(kit, kit.devices_authority), kit


def device(made, name: str = "device-0") -> tuple[ssl.SSLContext, DeviceKit]:
    kit = read_kit_as(made.devices[name], DeviceKit)
    return client_side(kit.authority, kit), kit


def operators_door(made) -> ssl.SSLContext:
    kit = read_kit_as(made.server, ServerKit)
    return door(kit, kit.operators_authority)


def test_a_device_gets_through_and_is_known(made):
    server, site = gateway(made)
    client, kit = device(made)
    seen, why = meet(server, client, kit.gateway_name)
    assert why == ""
    who = identity(seen)
    assert (who.federation, who.kind, who.name) == ("wards", "device", "device-0")
    assert [each for each in site.devices if each.certificate_sha256 == fingerprint(seen)] == [
        ("device-0", 0, who.sha256)
    ]


def test_an_operator_gets_through_and_is_known(made):
    operator = read_kit_as(made.operator, OperatorKit)
    seen, why = meet(operators_door(made), client_side(operator.authority, operator), "127.0.0.1")
    assert why == ""
    assert identity(seen).kind == "operator"


def test_servers_are_found_by_address_and_by_name(made):
    server, _ = gateway(made)
    client, kit = device(made)
    assert meet(server, client, kit.gateway.partition(":")[0])[1] == ""
    operator = read_kit_as(made.operator, OperatorKit)
    assert (
        meet(operators_door(made), client_side(operator.authority, operator), "server.wards.fedali")[1] == ""
    )


@pytest.mark.parametrize("name", ["site-b.wards.fedali", "server.wards.fedali", "localhost", "127.0.0.2"])
def test_a_gateway_of_another_name_is_refused_by_the_device(made, name):
    server, _ = gateway(made)
    client, _ = device(made)
    assert "certificate verify failed" in meet(server, client, name)[1]


def test_without_a_certificate_nobody_gets_through(made):
    _, kit = device(made)
    for server, name in ((gateway(made)[0], kit.gateway_name), (operators_door(made), "127.0.0.1")):
        seen, why = meet(server, client_side(kit.authority, None), name)
        assert "peer did not return a certificate" in seen
        assert why != ""


def test_a_device_of_another_authority_is_refused(made, foreign):
    """Its certificate says the same; who signed it does not."""
    server, _ = gateway(made)
    _, theirs = device(foreign)
    _, ours = device(made)
    assert theirs.name == ours.name
    seen, why = meet(server, client_side(ours.authority, theirs), ours.gateway_name)
    assert "certificate verify failed" in seen
    assert why != ""


def test_a_gateway_of_another_authority_is_refused(made, foreign):
    server, _ = gateway(foreign)
    client, kit = device(made)
    assert "certificate verify failed" in meet(server, client, kit.gateway_name)[1]


@pytest.mark.parametrize("who", ["operator", "site-a", "server"])
def test_only_devices_get_through_to_a_gateway(made, who):
    server, _ = gateway(made)
    _, kit = device(made)
    seen, why = meet(server, client_side(kit.authority, read_kit(made.folder / who)), kit.gateway_name)
    assert "certificate verify failed" in seen
    assert why != ""


@pytest.mark.parametrize("who", ["device-0", "site-a", "server"])
def test_only_operators_get_through_to_where_runs_are_submitted(made, who):
    kit = read_kit_as(made.operator, OperatorKit)
    seen, why = meet(
        operators_door(made), client_side(kit.authority, read_kit(made.folder / who)), "127.0.0.1"
    )
    assert "certificate verify failed" in seen
    assert why != ""


@pytest.mark.parametrize(("who", "authority"), [("site-a", "servers"), ("server", "servers")])
def test_a_server_cannot_pass_for_a_client_even_where_its_authority_is_trusted(made, who, authority):
    kit = read_kit(made.folder / who)
    site = read_kit_as(made.sites["site-a"], SiteKit)
    seen, _ = meet(
        door(site, made.authority / f"{authority}.pem"),
        client_side(site.superlink_authority, kit),
        "127.0.0.1",
    )
    assert "unsuitable certificate purpose" in seen or "unsupported certificate purpose" in seen


@pytest.mark.parametrize(("who", "authority"), [("device-0", "devices"), ("operator", "operators")])
def test_a_client_cannot_pass_for_a_server_even_where_its_authority_is_trusted(made, who, authority):
    kit = read_kit(made.folder / who)
    client = client_side(made.authority / f"{authority}.pem", kit)
    client.check_hostname = False
    _, why = meet(door(kit, made.authority / f"{authority}.pem"), client, "127.0.0.1")
    assert "purpose" in why


def test_a_device_cannot_sign_for_another(made, tmp_path):
    """A chain from the authority over a device's certificate to one that the device made up."""
    _, kit = device(made)
    key, request, forged = (tmp_path / name for name in ("key.pem", "request.pem", "forged.pem"))
    forge = f"""
        openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {key} -subj /CN=device-1 -out {request}
        openssl x509 -req -in {request} -CA {kit.certificate} -CAkey {kit.key} -days 9 -out {forged} -set_serial 1
        cat {kit.certificate} >> {forged}
    """
    subprocess.run(["sh", "-ec", forge], check=True, capture_output=True)
    client = client_side(kit.authority, None)
    client.load_cert_chain(forged, key)
    seen, _ = meet(gateway(made)[0], client, kit.gateway_name)
    assert "certificate verify failed" in seen


def test_what_has_expired_is_refused_on_both_ends(tmp_path):
    out = tmp_path / "kits"
    provision(federation(), out, now=NOW - timedelta(days=731))
    old = provision(federation(), out, renew=["site-a", "device-1"])
    server, _ = gateway(old)
    seen, _ = meet(server, device(old, "device-0")[0], "site-a.wards.fedali")
    assert "certificate has expired" in seen
    assert meet(server, device(old, "device-1")[0], "site-a.wards.fedali")[1] == ""
    _, why = meet(gateway(old, "site-b")[0], device(old, "device-1")[0], "site-b.wards.fedali")
    assert "certificate has expired" in why


@pytest.mark.parametrize(("ahead", "through"), [(timedelta(minutes=5), True), (timedelta(days=2), False)])
def test_clocks_may_be_wrong_by_a_day(tmp_path, ahead, through):
    """Made on a machine whose clock is ahead of the gateway's and the device's."""
    out = provisioned(federation(), tmp_path / "kits", now=NOW + ahead)
    _, why = meet(gateway(out)[0], device(out)[0], "site-a.wards.fedali")
    assert (why == "") == through
    assert through or "not yet valid" in why


def test_operators_of_before_are_refused_once_the_operator_was_renewed(tmp_path):
    out = tmp_path / "kits"
    made = provisioned(federation(), out)
    before = shutil.copytree(made.operator, tmp_path / "stolen")
    renewed = provisioned(federation(), out, renew=["operator"])
    assert renewed.changed == ("server",)
    stolen, mine = (read_kit_as(folder, OperatorKit) for folder in (before, renewed.operator))
    seen, _ = meet(operators_door(renewed), client_side(stolen.authority, stolen), "127.0.0.1")
    assert "certificate verify failed" in seen
    assert meet(operators_door(renewed), client_side(mine.authority, mine), "127.0.0.1")[1] == ""


def test_fingerprints_are_those_of_openssl(made):
    path = made.devices["device-0"] / "device.pem"
    command = ["openssl", "x509", "-in", str(path), "-noout", "-fingerprint", "-sha256"]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    wanted = found.partition("=")[2].strip().replace(":", "").lower()
    assert fingerprint(path.read_bytes()) == fingerprint(load_certificate(path)) == wanted
    assert identity(path.read_bytes()).sha256 == wanted


@pytest.mark.parametrize(
    "data",
    [b"", b"nonsense", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", os.urandom(200)],
)
def test_what_is_no_certificate_is_one_line(data):
    for read in (parse_certificate, fingerprint, identity):
        with pytest.raises(KitError, match="holds no PEM certificate"):
            read(data)


def test_certificates_of_others_stand_for_nobody(made, tmp_path):
    """An authority's own, and one with another name in its URI than its own."""
    with pytest.raises(KitError, match="not one of a federation"):
        identity((made.authority / "devices.pem").read_bytes())
    forged = tmp_path / "forged.pem"
    for uri in (
        "fedali://wards/device/device-1",
        "fedali://wards/device",
        "https://wards/device/device-0",
        "fedali:///device/device-0",
    ):
        command = [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
        ]
        names = ["-subj", "/CN=device-0", "-addext", f"subjectAltName=URI:{uri}"]
        files = ["-keyout", str(tmp_path / "key"), "-out", str(forged)]
        subprocess.run([*command, *names, *files], check=True, capture_output=True)
        with pytest.raises(KitError, match="not one of a federation"):
            identity(forged.read_bytes())
