from __future__ import annotations

import os
import shutil
import stat
import subprocess
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from cryptography.x509 import BasicConstraints

from fedali.bundle.keys import load_private, load_public, public_of
from fedali.errors import FedaliError, KitError, SettingsError
from fedali.wire.kit import DeviceKit, OperatorKit, ServerKit, SiteKit, read_kit, read_kit_as
from fedali_server.provisioning.certificates import identity, load_certificate, load_pair
from fedali_server.provisioning.federation_file import FederationConfig
from fedali_server.provisioning.provision import provision
from tests.kits import SITES, federation, members, provisioned

PRIVATE = {
    "authority": {"servers.key", "devices.key", "operators.key", "register.json", ".lock"},
    "server": {"server.key"},
    "operator": {"operator.key", "wards.key"},
    "site-a": {"gateway.key", "node.key"},
    "device-0": {"device.key"},
}


@pytest.fixture
def out(tmp_path):
    return tmp_path / "kits"


@pytest.fixture
def made(out):
    return provisioned(federation(), out)


def tree(folder: Path) -> dict[str, tuple[bytes, int]]:
    """All files with what is in them and when they were written."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def differs(before: dict[str, tuple[bytes, int]], after: dict[str, tuple[bytes, int]]) -> set[str]:
    return {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}


def test_devices_are_numbered_in_order_over_all_sites(made, out):
    assert members(out) == {f"device-{number}": number for number in range(5)}
    operator = read_kit_as(made.operator, OperatorKit)
    assert [(name, number) for name, number, _ in operator.devices] == list(members(out).items())
    assert operator.sites == ("site-a", "site-b")


def test_every_certificate_has_its_key_and_says_whom_it_stands_for(made):
    kinds = {
        "server": made.server,
        "operator": made.operator,
        "site": made.sites["site-a"],
        "device": made.devices["device-3"],
    }
    for kind, folder in kinds.items():
        kit = read_kit(folder)
        load_pair(kit.certificate, kit.key)
        who = identity(load_certificate(kit.certificate))
        assert (who.federation, who.kind, who.name) == ("wards", kind, folder.name)
        assert timedelta(729) < who.expires - datetime.now(timezone.utc) <= timedelta(730)


def test_node_keys_are_what_flower_takes(made):
    """ECDSA on P-384 in OpenSSH's format; the server's public key is of the site's private one."""
    site, server = read_kit_as(made.sites["site-a"], SiteKit), read_kit_as(made.server, ServerKit)
    key = load_ssh_private_key(site.node_key.read_bytes(), None)
    assert key.curve.name == "secp384r1"
    command = ["ssh-keygen", "-y", "-f", str(site.node_key)]
    if shutil.which("ssh-keygen"):
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert found.split()[:2] == server.sites[0].node_public_key.read_text().split()[:2]


def test_bundles_signed_by_the_operator_are_trusted_by_all(made):
    operator = read_kit_as(made.operator, OperatorKit)
    public = public_of(load_private(operator.signing_key), "wards")
    for folder in (made.operator, *made.sites.values(), *made.devices.values()):
        assert load_public(read_kit(folder).trusted_key) == public


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777 - 0o700])
def test_private_files_are_their_owners_whatever_the_umask(out, umask):
    before = os.umask(umask)
    try:
        provisioned(federation(), out)
    finally:
        os.umask(before)
    for folder, private in PRIVATE.items():
        assert stat.S_IMODE((out / folder).stat().st_mode) == 0o700
        closed = {path.name for path in (out / folder).iterdir() if not path.stat().st_mode & 0o077}
        assert {name for name in closed if (out / folder / name).is_file()} == private


def test_no_private_key_is_in_two_kits_and_only_authorities_can_sign(made, out):
    keys = [
        path.read_bytes() for path in out.rglob("*") if path.is_file() and b"PRIVATE KEY" in path.read_bytes()
    ]
    assert len(keys) == len(set(keys)) == 3 + 1 + 2 + 2 * 2 + 5
    for path in out.glob("*/kit.json"):
        certificate = load_certificate(read_kit(path.parent).certificate)
        assert not certificate.extensions.get_extension_for_class(BasicConstraints).value.ca


def test_openssl_agrees_on_each_certificate(made):
    """Also by the strict rules of RFC 5280, which newer Pythons hold certificates to."""
    cases = [
        (made.server / "server.pem", "servers", "sslserver"),
        (made.sites["site-a"] / "gateway.pem", "servers", "sslserver"),
        (made.devices["device-0"] / "device.pem", "devices", "sslclient"),
        (made.operator / "operator.pem", "operators", "sslclient"),
    ]
    for path, authority, purpose in cases:
        for asked in ("sslserver", "sslclient"):
            root = str(made.authority / f"{authority}.pem")
            command = ["openssl", "verify", "-x509_strict", "-purpose", asked, "-CAfile", root, str(path)]
            assert (subprocess.run(command, capture_output=True).returncode == 0) == (asked == purpose)


def test_again_changes_nothing(made, out):
    before = tree(out)
    again = provisioned(federation(), out)
    assert (again.made, again.changed, again.absent) == ((), (), ())
    assert differs(before, tree(out)) == set()


def test_devices_and_sites_are_added_without_a_change_to_others(made, out):
    before = tree(out)
    sites = {"site-c": ("device-9",), "site-a": ("device-8", *SITES["site-a"]), "site-b": SITES["site-b"]}
    added = provisioned(federation(sites), out)
    assert set(added.made) == {"site-c", "device-9", "device-8"}
    assert members(out) == {f"device-{number}": number for number in range(5)} | {
        "device-9": 5,
        "device-8": 6,
    }
    changed = {path for path in differs(before, tree(out)) if path.partition("/")[0] not in added.made}
    assert {path for path in changed if not path.startswith("authority/")} == {
        *(f"{kit}/{file}" for kit in ("server", "operator") for file in ("kit.json", "nodes/site-c.pub")),
        "site-a/kit.json",
    }
    assert {"server", "operator", "site-a"} == set(added.changed)


def test_a_number_is_never_given_again(made, out):
    provision(federation({"site-a": ("device-0",)}), out)
    again = provision(federation({"site-a": ("device-0", "device-7")}), out)
    assert read_kit_as(again.devices["device-7"], DeviceKit).number == 5
    back = provision(federation({"site-a": ("device-0", "device-7", "device-4")}), out)
    assert read_kit_as(back.devices["device-4"], DeviceKit).number == 4


def test_who_is_taken_out_but_not_revoked_is_warned_of(made, out):
    done = provision(federation({"site-a": SITES["site-a"]}), out)
    assert [warning.split()[0] for warning in done.warnings] == ["site-b", "device-3", "device-4"]
    assert "fedali revoke device-3" in done.warnings[1]
    assert read_kit_as(done.server, ServerKit).sites[0].name == "site-a"
    assert len(read_kit_as(done.server, ServerKit).sites) == 1


def test_a_device_moves_to_another_site_with_its_identity(made, out):
    certificate = (out / "device-0/device.pem").read_bytes()
    moved = provisioned(
        federation({"site-a": ("device-1", "device-2"), "site-b": ("device-0", *SITES["site-b"])}), out
    )
    assert moved.made == ()
    assert {"site-a", "site-b", "device-0"} <= set(moved.changed)
    kit = read_kit_as(out / "device-0", DeviceKit)
    assert (kit.gateway, kit.gateway_name, kit.number) == ("127.0.0.1:9444", "site-b.wards.fedali", 0)
    assert (out / "device-0/device.pem").read_bytes() == certificate
    assert members(out)["device-0"] == 0


def test_renewing_gives_a_new_key_and_leaves_others_alone(made, out):
    before = tree(out)
    renewed = provisioned(federation(), out, renew=["device-1"])
    assert renewed.made == ("device-1",)
    assert renewed.changed == ("site-a",)
    changed = {path for path in differs(before, tree(out)) if not path.startswith("authority/")}
    assert {"device-1/device.key", "device-1/device.pem", "site-a/kit.json"} <= changed
    assert {path.partition("/")[0] for path in changed} == {"device-1", "site-a"}
    assert members(out)["device-1"] == 1


def test_renewing_a_site_gives_it_a_new_key_at_the_server_too(made, out):
    """A server never takes a key back that it once unregistered, as of a site that was out of the federation for a while."""
    before = (out / "site-a/node.key").read_bytes()
    renewed = provisioned(federation(), out, renew=["site-a"])
    assert (renewed.made, set(renewed.changed)) == (("site-a",), {"server", "operator"})
    assert (out / "site-a/node.key").read_bytes() != before
    server = read_kit_as(out / "server", ServerKit)
    assert server.sites[0].node_public_key.read_text() == (out / "site-a/node.pub").read_text()
    assert server.revoked == ()


def test_a_new_address_gives_a_new_certificate_for_the_same_key(made, out):
    key, certificate = (out / "site-a/gateway.key").read_bytes(), load_certificate(out / "site-a/gateway.pem")
    config = federation().model_dump()
    config["sites"][0]["address"] = "gateway.example:9443"
    moved = provisioned(FederationConfig.model_validate(config), out)
    assert moved.made == ("site-a",)
    assert set(moved.changed) == set(SITES["site-a"])
    assert (out / "site-a/gateway.key").read_bytes() == key
    assert load_certificate(out / "site-a/gateway.pem") != certificate
    load_pair(out / "site-a/gateway.pem", out / "site-a/gateway.key")
    shutil.rmtree(out / "site-a")
    with pytest.raises(
        KitError, match="site-a has a new address, and its key is not here: add --renew site-a"
    ):
        provision(federation(), out)


def test_kits_that_were_carried_away_are_not_made_again(made, out):
    for name in ("device-0", "site-b"):
        shutil.rmtree(out / name)
    again = provisioned(federation(), out)
    assert (again.made, again.absent) == ((), ("device-0",))
    assert not (out / "device-0").exists()
    assert not (out / "site-b/gateway.key").exists()  # what may have news is there, its keys are elsewhere
    assert (out / "site-b/revoked.json").exists()
    assert read_kit_as(out / "site-a", SiteKit).devices[0].name == "device-0"
    back = provisioned(federation(), out, renew=["device-0"])
    assert (back.made, back.absent) == (("device-0",), ())
    assert read_kit_as(out / "device-0", DeviceKit).number == 0


def test_what_ends_soon_is_warned_of(out):
    now = datetime.now(timezone.utc)
    provision(federation(), out, now=now - timedelta(days=701))
    done = provision(federation(), out, renew=["device-0"])
    assert len(done.warnings) == 2 + 2 + 4
    assert all("ends on" in warning and "--renew" in warning for warning in done.warnings)
    assert not any("device-0" in warning for warning in done.warnings)
    old = provision(federation(), out, now=now + timedelta(days=3650 - 701 - 300))
    assert any("authority ends on" in warning for warning in old.warnings)


def test_certificates_do_not_outlive_their_authority(out):
    config = federation(certificate_days=30, authority_days=30)
    now = datetime.now(timezone.utc)
    provision(config, out, now=now - timedelta(days=20))
    provision(config, out, renew=["device-0"], now=now)
    authority = load_certificate(out / "authority/devices.pem")
    assert load_certificate(out / "device-0/device.pem").not_valid_after_utc == authority.not_valid_after_utc


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(KitError, match=r"has no authority/register\.json"):
        provision(federation(), tmp_path)
    with pytest.raises(FedaliError, match="Not a directory"):
        provision(federation(), tmp_path / "mine.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_authorities_without_their_register_are_never_made_anew(made, out):
    (out / "authority/register.json").unlink()
    before = tree(out)
    with pytest.raises(KitError, match=r"has no authority/register\.json"):
        provision(federation(), out)
    assert tree(out) == before


def test_an_authority_that_is_lost_is_not_replaced_silently(made, out):
    (out / "authority/devices.key").unlink()
    with pytest.raises(FedaliError, match=r"cannot read .*devices\.key"):
        provision(federation({**SITES, "site-c": ("device-9",)}), out)


def test_another_federation_is_refused(made, out):
    with pytest.raises(SettingsError, match="has the kits of 'wards', not of 'other'"):
        provision(federation(name="other"), out)


def test_a_name_keeps_its_kind(made, out):
    with pytest.raises(SettingsError, match="site-b was a site, and cannot be a device"):
        provision(federation({"site-a": ("site-b",)}), out)


@pytest.mark.parametrize(
    "damage", [b"", b"{}", b"\xff", b'{"version": 1, "federation": "wards", "members": {"x": 1}}']
)
def test_a_damaged_register_is_one_line(made, out, damage):
    (out / "authority/register.json").write_bytes(damage)
    with pytest.raises(KitError, match=r"restore .* from a backup") as caught:
        provision(federation(), out)
    assert "\n" not in str(caught.value)


def test_renewing_somebody_unknown_is_refused_before_anything_is_done(made, out):
    before = tree(out)
    with pytest.raises(
        SettingsError, match="--renew device-11: nobody is called so; did you mean 'device-1'"
    ):
        provision(federation(), out, renew=["device-11"])
    assert differs(before, tree(out)) <= {"authority/.lock"}
