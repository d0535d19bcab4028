from __future__ import annotations

import base64
import json
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedali.bundle.keys import create, load_private, load_public
from fedali.errors import FedaliError, KitError, SettingsError
from fedali.wire.kit import DeviceKit, OperatorKit, ServerKit, SiteKit, read_kit_as
from fedali_server.provisioning.certificates import RevocationList, fingerprint
from fedali_server.provisioning.provision import provision
from fedali_server.provisioning.revoke import revoke
from tests.kits import SITES, federation, provisioned

GOOD = "0" * 64


@pytest.fixture
def out(tmp_path):
    return provisioned(federation(), tmp_path / "kits").folder


@pytest.fixture(scope="module")
def signed(tmp_path_factory):
    """A key and a list that it signed."""
    folder = tmp_path_factory.mktemp("keys")
    public = create(folder / "wards")
    return public, RevocationList.sign(3, [GOOD], load_private(folder / "wards.key"))


def listed(out, kit: str) -> RevocationList:
    return RevocationList.read(out / kit / "revoked.json", load_public(out / kit / "wards.pub"))


def pem(out, name: str) -> bytes:
    return (out / name / "device.pem").read_bytes()


def test_nobody_is_revoked_at_first(out):
    for kit in ("operator", "site-a", "site-b"):
        assert (listed(out, kit).number, listed(out, kit).revoked) == (0, frozenset())


def test_a_revoked_device_is_on_the_list_of_the_operator_and_of_sites(out):
    done = revoke("device-1", out)
    assert (done.kind, done.site, done.number) == ("device", "site-a", 1)
    assert set(done.changed) == {"operator", "site-a", "site-b"}
    for kit in ("operator", "site-a", "site-b"):
        assert (listed(out, kit).number, listed(out, kit).revoked) == (1, {fingerprint(pem(out, "device-1"))})
    operator = read_kit_as(out / "operator", OperatorKit)
    assert "device-1" not in [device.name for device in operator.devices]
    assert "device-1" in [device.name for device in read_kit_as(out / "site-a", SiteKit).devices]


def test_lists_grow_and_provisioning_keeps_them(out):
    revoke("device-1", out)
    assert provision(federation(), out).changed == ()
    assert revoke("device-4", out).number == 2
    both = {fingerprint(pem(out, name)) for name in ("device-1", "device-4")}
    assert listed(out, "site-b").revoked == both
    with pytest.raises(KitError, match="device-1 is revoked already"):
        revoke("device-1", out)
    assert listed(out, "site-b").number == 2


def test_a_revoked_name_can_have_a_new_identity(out):
    """A stolen device is replaced: the same name and number, another key; what was stolen stays on the list."""
    stolen = pem(out, "device-1")
    revoke("device-1", out)
    provisioned(federation(), out, renew=["device-1"])
    assert pem(out, "device-1") != stolen
    assert listed(out, "site-a").revoked == {fingerprint(stolen)}
    device = next(each for each in read_kit_as(out / "site-a", SiteKit).devices if each.name == "device-1")
    assert (device.number, device.certificate_sha256) == (1, fingerprint(pem(out, "device-1")))
    assert "device-1" in [device.name for device in read_kit_as(out / "operator", OperatorKit).devices]
    assert revoke("device-1", out).number == 2
    assert listed(out, "site-a").revoked == {fingerprint(stolen), fingerprint(pem(out, "device-1"))}


def test_certificates_of_before_are_revoked_too(out):
    first = pem(out, "device-1")
    provisioned(federation(), out, renew=["device-1"])
    revoke("device-1", out)
    assert listed(out, "operator").revoked == {fingerprint(first), fingerprint(pem(out, "device-1"))}


def test_a_device_that_left_and_was_carried_away_can_be_revoked(out):
    certificate = pem(out, "device-3")
    shutil.rmtree(out / "device-3")
    provision(federation({"site-a": SITES["site-a"]}), out)
    revoke("device-3", out)
    assert listed(out, "site-a").revoked == {fingerprint(certificate)}
    assert not any(
        "device-3" in warning for warning in provision(federation({"site-a": SITES["site-a"]}), out).warnings
    )


def test_a_revoked_site_is_not_among_those_the_server_knows(out):
    key = (out / "site-b/node.pub").read_text()
    done = revoke("site-b", out)
    assert (done.kind, set(done.changed)) == ("site", {"server", "operator"})
    server, operator = read_kit_as(out / "server", ServerKit), read_kit_as(out / "operator", OperatorKit)
    assert [site.name for site in server.sites] == ["site-a"]
    assert [(name, path.read_text()) for name, path in server.revoked] == [("site-b", key)]
    assert operator.sites == ("site-a",)
    assert {device.site for device in operator.devices} == {"site-a"}


def test_a_revoked_site_can_have_a_new_identity_more_than_once(out):
    keys = []
    for _ in range(2):
        keys.append((out / "site-b/node.pub").read_text())
        revoke("site-b", out)
        again = provisioned(federation(), out, renew=["site-b"])
        assert again.made == ("site-b",)
    server = read_kit_as(out / "server", ServerKit)
    assert [site.name for site in server.sites] == ["site-a", "site-b"]
    assert server.sites[1].node_public_key.read_text() == (out / "site-b/node.pub").read_text()
    assert [path.read_text() for _, path in server.revoked] == keys
    assert (out / "site-b/node.pub").read_text() not in keys


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("device-11", "nobody is called 'device-11'; did you mean"),
        ("server", "--renew server"),
        ("operator", "--renew operator"),
    ],
)
def test_who_cannot_be_revoked(out, name, message):
    with pytest.raises(SettingsError, match=message):
        revoke(name, out)


def test_folders_that_are_no_kits(tmp_path):
    with pytest.raises(KitError, match=r"has no authority/register\.json"):
        revoke("device-1", tmp_path)
    with pytest.raises(KitError, match=r"has no authority/register\.json"):
        revoke("device-1", tmp_path / "nowhere")


def test_without_the_key_that_signs_nothing_is_revoked(out):
    (out / "operator/wards.key").unlink()
    with pytest.raises(KitError, match=r"wards\.key is not here"):
        revoke("device-1", out)
    assert listed(out, "site-a").number == 0
    (out / "authority/federation.json").write_text("{")
    with pytest.raises(KitError, match=r"federation\.json is broken"):
        revoke("device-1", out)


def test_a_list_that_somebody_altered_is_not_signed_again(out):
    path = out / "authority/revoked.json"
    revoke("device-1", out)
    plain = json.loads(path.read_text())
    path.write_text(json.dumps({**plain, "list": plain["list"].replace('"number": 1', '"number": 0')}))
    with pytest.raises(KitError, match="is not signed by the key"):
        revoke("device-2", out)


def test_lists_survive_their_file(signed, tmp_path):
    public, made = signed
    made.save(tmp_path / "revoked.json")
    assert RevocationList.read(tmp_path / "revoked.json", public) == made
    assert json.loads(made.text) == {"number": 3, "revoked": [GOOD]}
    assert RevocationList.parse(made.text, made.signature, public) == made


def test_a_list_of_another_key_is_refused(signed, tmp_path):
    _, made = signed
    with pytest.raises(KitError, match="is not signed by the key"):
        RevocationList.parse(made.text, made.signature, create(tmp_path / "other"))


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_a_list_with_one_bit_changed_is_refused(signed, data):
    public, made = signed
    whole = made.text + made.signature
    at = data.draw(st.integers(0, 8 * len(whole) - 1))
    changed = bytearray(whole)
    changed[at // 8] ^= 1 << at % 8
    with pytest.raises(KitError):
        RevocationList.parse(bytes(changed[: len(made.text)]), bytes(changed[len(made.text) :]), public)


@pytest.mark.parametrize(
    "plain",
    [
        [],
        {},
        {"number": 1},
        {"number": -1, "revoked": []},
        {"number": 1.5, "revoked": []},
        {"number": True, "revoked": []},
        {"number": 1 << 60, "revoked": []},
        {"number": 1, "revoked": [1]},
        {"number": 1, "revoked": ["A" * 64]},
        {"number": 1, "revoked": ["0" * 63]},
        {"number": 1, "revoked": {}},
        {"number": 1, "revoked": [], "more": 1},
    ],
)
def test_signed_nonsense_is_refused(signed, tmp_path, plain):
    public = create(tmp_path / "key")
    key, text = load_private(tmp_path / "key.key"), json.dumps(plain).encode()
    with pytest.raises(KitError, match="the revocation list"):
        RevocationList.parse(text, key.sign(text), public)


@given(data=st.binary(max_size=150))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_garbage_in_the_file_is_one_line(signed, tmp_path, data):
    public, _ = signed
    for garbage in (
        data,
        json.dumps({"list": data.decode("latin-1"), "signature": base64.b64encode(data).decode()}).encode(),
    ):
        (tmp_path / "revoked.json").write_bytes(garbage)
        with pytest.raises(KitError) as caught:
            RevocationList.read(tmp_path / "revoked.json", public)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        '{"list": "\\ud800", "signature": ""}',
        '{"list": "", "signature": "ä"}',
        '{"list": 1, "signature": ""}',
    ],
)
def test_odd_text_in_the_file_is_one_line(signed, tmp_path, text):
    (tmp_path / "revoked.json").write_text(text)
    with pytest.raises(KitError, match=r"is no revocation list|is not signed"):
        RevocationList.read(tmp_path / "revoked.json", signed[0])
    with pytest.raises(FedaliError, match="cannot read"):
        RevocationList.read(tmp_path / "nowhere.json", signed[0])


def test_a_stolen_kit_is_told_from_its_replacement_by_the_list_alone(out):
    """What a gateway does: a certificate counts when it is in the site's list and not on the revoked one."""
    stolen = read_kit_as(shutil.copytree(out / "device-1", out.parent / "stolen"), DeviceKit)
    revoke("device-1", out)
    provisioned(federation(), out, renew=["device-1"])
    known = {each.certificate_sha256 for each in read_kit_as(out / "site-a", SiteKit).devices} - listed(
        out, "site-a"
    ).revoked
    assert fingerprint(stolen.certificate.read_bytes()) not in known
    assert fingerprint(pem(out, "device-1")) in known
