"""Who is let in by a real gateway process, and who is not."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import grpc
import pytest

from fedali.bundle.keys import load_public
from fedali.v1 import federation_pb2 as pb
from fedali.v1 import relay_pb2
from fedali.wire.kit import DeviceKit, read_kit, read_kit_as
from fedali_server.gateway.identity import Roster
from fedali_server.gateway.refusal import Refusal
from fedali_server.provisioning.certificates import RevocationList
from fedali_server.provisioning.federation_file import FederationConfig
from fedali_server.provisioning.provision import provision
from fedali_server.provisioning.revoke import revoke
from tests.gateways import Device, ProvisionedSite, assert_sums, states


@pytest.fixture(scope="module")
def open_site(tmp_path_factory):
    """For tests that change nothing."""
    with ProvisionedSite(tmp_path_factory.mktemp("open")) as site:
        yield site.put_bundle()


@pytest.fixture
def site(tmp_path):
    with ProvisionedSite(tmp_path) as site:
        yield site.put_bundle()


def refused(device, code=grpc.StatusCode.UNAVAILABLE):
    """A call of ``device`` fails: its reason."""
    with pytest.raises(grpc.RpcError) as error:
        device.call("Enrol", pb.EnrolRequest(protocol=1), wait=False)
    device.close()
    assert error.value.code() is code, error.value.details()
    return error.value.details()


def device_of(site, **options):
    return Device(read_kit_as(site.kits / "a-0", DeviceKit), **options)


def test_without_a_certificate_nobody_gets_in(open_site):
    refused(device_of(open_site, certificate=""))
    assert open_site.device(0).enrol().device == "a-0"


def test_a_certificate_of_another_authority_does_not_get_in(open_site, tmp_path):
    stranger = provision(open_site.config, tmp_path / "kits").devices["a-0"]
    kit = read_kit_as(stranger, DeviceKit)
    refused(device_of(open_site, certificate=kit.certificate, key=kit.key))


def test_a_device_does_not_talk_to_somebody_else(open_site, tmp_path):
    stranger = read_kit_as(provision(open_site.config, tmp_path / "kits").devices["a-0"], DeviceKit)
    refused(device_of(open_site, authority=stranger.authority))
    refused(device_of(open_site, name="b.wards.fedali"))


def test_a_device_of_another_site_is_told_so(open_site):
    kit = read_kit_as(open_site.kits / "b-0", DeviceKit)
    device = device_of(open_site, certificate=kit.certificate, key=kit.key)
    assert "this site has no device with this certificate" in refused(
        device, grpc.StatusCode.PERMISSION_DENIED
    )


def test_no_other_certificate_of_the_federation_is_a_device(open_site):
    for member in ("operator", "a", "server"):
        kit = read_kit(open_site.kits / member)
        refused(device_of(open_site, certificate=kit.certificate, key=kit.key))


def test_an_old_certificate_of_a_device_is_not_the_device(tmp_path):
    with ProvisionedSite(tmp_path) as site:
        old = site.device(0)
        assert old.enrol().device == "a-0"
        provision(site.config, site.kits, renew=["a-0"])
        site.kill()
        site.start()
        assert "this site has no device with this certificate" in refused(
            old, grpc.StatusCode.PERMISSION_DENIED
        )
        assert site.device(0).enrol().device == "a-0"


def config_of(site, days):
    return FederationConfig.model_validate({**site.config.model_dump(), "certificate_days": days})


def test_an_expired_certificate_does_not_get_in(tmp_path):
    site = ProvisionedSite(tmp_path)
    past = datetime.now(timezone.utc) - timedelta(days=3)
    provision(config_of(site, 1), site.kits, renew=["a-0"], now=past)
    with site:
        refused(site.device(0))
        assert site.device(1).enrol().device == "a-1"


def test_a_certificate_that_expires_on_an_open_connection_is_refused(tmp_path):
    """The handshake saw it good; each call asks again."""
    site = ProvisionedSite(tmp_path)
    site.short.cleanup()
    past = datetime.now(timezone.utc) - timedelta(days=3)
    provision(config_of(site, 1), site.kits, renew=["a-0"], now=past)
    kit = read_kit(site.kits / "a")
    roster = Roster(kit.devices, load_public(kit.trusted_key), kit.revoked, tmp_path / "revoked.json")
    good, expired = (read_kit_as(site.kits / name, DeviceKit).certificate for name in ("a-1", "a-0"))
    assert roster.who({"x509_pem_cert": (good.read_bytes(),)}).name == "a-1"
    with pytest.raises(Refusal, match="has expired"):
        roster.who({"x509_pem_cert": (expired.read_bytes(),)})
    for peer in ({}, {"x509_pem_cert": ()}, {"x509_pem_cert": (b"garbage",)}, {"x509_pem_cert": (b"", b"")}):
        with pytest.raises(Refusal):
            roster.who(peer)


@pytest.mark.parametrize("minutes", [-55, 5, 55])
def test_clocks_that_differ_do_not_keep_devices_out(tmp_path, minutes):
    """Kits made by a machine whose clock is off; no message carries a time."""
    site = ProvisionedSite(tmp_path)
    other = datetime.now(timezone.utc) + timedelta(minutes=minutes)
    provision(site.config, site.kits, renew=["a", "a-0"], now=other)
    with site:
        assert site.device(0).enrol().device == "a-0"


def signed(site, number, *devices):
    certificates = [device.certificate_sha256 for device in site.kit.devices if device.name in devices]
    made = RevocationList.sign(number, certificates, site.signer)
    return relay_pb2.RevokeRequest(list=made.text, signature=made.signature)


def test_a_device_that_is_revoked_in_a_round_is_out_at_once(site):
    devices = [site.device(index) for index in range(3)]
    outcome = site.begin(site.order())
    tasks = [device.wait_for_task() for device in devices]
    devices[1].enrol()
    assert site.relay().Revoke(signed(site, 5, "a-1")).number == 5
    with pytest.raises(grpc.RpcError) as error:
        devices[1].upload(tasks[1].id, site.update(1, tasks[1].id))
    assert error.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert error.value.details() == "this device's certificate is revoked"
    for index in (0, 2):
        devices[index].upload(tasks[index].id, site.update(index, tasks[index].id))
    found = outcome.result()  # nobody waits for it either
    assert states(found) == {0: "done", 1: "refused", 2: "done"}
    assert_sums(found, site.expected([0, 2]))
    assert [device.revoked for device in site.relay().Status(relay_pb2.StatusRequest()).devices] == [
        False,
        True,
        False,
    ]


def test_a_long_poll_of_a_revoked_device_ends(site):
    device = site.device(0)
    device.enrol()
    waiting = device.stub.NextTask.future(pb.NextTaskRequest(wait_seconds=60), timeout=50)
    while not any(d.doing == "waiting" for d in site.relay().Status(relay_pb2.StatusRequest()).devices):
        pass
    site.relay().Revoke(signed(site, 1, "a-0"))
    assert waiting.code() is grpc.StatusCode.PERMISSION_DENIED


def test_a_revocation_outlives_the_gateway_and_an_older_list_does_not_undo_it(site):
    relay = site.relay()
    assert relay.Revoke(signed(site, 5, "a-0")).number == 5
    assert relay.Revoke(signed(site, 4)).number == 5
    site.kill()
    site.start()
    refused(site.device(0), grpc.StatusCode.PERMISSION_DENIED)
    assert site.relay().Revoke(signed(site, 6), wait_for_ready=True).number == 6
    assert site.device(0).enrol().device == "a-0"


def test_a_list_that_the_federation_did_not_sign_is_refused(site, tmp_path):
    other = ProvisionedSite(tmp_path / "other")
    made = RevocationList.sign(9, [], other.signer)
    with pytest.raises(grpc.RpcError) as error:
        site.relay().Revoke(relay_pb2.RevokeRequest(list=made.text, signature=made.signature))
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "is not signed by the key" in error.value.details()
    other.short.cleanup()


def test_fedali_revoke_reaches_a_running_gateway_through_its_kit(site):
    device = site.device(2)
    device.enrol()
    waiting = device.stub.NextTask.future(pb.NextTaskRequest(wait_seconds=60), timeout=50)
    revoke("a-2", site.kits)
    assert waiting.code() is grpc.StatusCode.PERMISSION_DENIED
    assert waiting.details() == "this device's certificate is revoked"
    assert site.device(1).enrol().device == "a-1"


def test_a_bundle_that_the_federation_did_not_sign_is_refused(site, tmp_path):
    from fedali.bundle.file import write_bundle
    from tests import small_bundles

    other = ProvisionedSite(tmp_path / "other")
    for key, why in ((None, "it is not signed"), (other.signer, "its signature is not one of a trusted key")):
        write_bundle(tmp_path / "b.fedali", small_bundles.fields(), small_bundles.parts(), key)
        request = relay_pb2.PutBundleRequest(bundle=(tmp_path / "b.fedali").read_bytes())
        with pytest.raises(grpc.RpcError) as error:
            site.relay().PutBundle(request)
        assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert why in error.value.details()
    other.short.cleanup()
    held = site.relay().HasBundle
    assert held(relay_pb2.HasBundleRequest(sha256=site.sha256)).held
    assert not held(relay_pb2.HasBundleRequest(sha256=bytes(32))).held
    assert not held(relay_pb2.HasBundleRequest(sha256=b"")).held


def test_a_round_needs_its_bundle_and_a_state_that_fits_it(site):
    for changes, code, why in [
        ({"bundle": bytes(32)}, grpc.StatusCode.FAILED_PRECONDITION, "does not hold the round's bundle"),
        (
            {"theta": b"1234"},
            grpc.StatusCode.INVALID_ARGUMENT,
            "theta has 4 bytes; the bundle's model has 78",
        ),
        ({"prototypes": b"\0\0\xc0\x7f" * 10}, grpc.StatusCode.INVALID_ARGUMENT, "not finite"),
        ({"devices": [0, 3]}, grpc.StatusCode.INVALID_ARGUMENT, "device 3, which this site has not"),
        ({"run": "Not A Name"}, grpc.StatusCode.INVALID_ARGUMENT, "cannot name a run"),
    ]:
        with pytest.raises(grpc.RpcError) as error:
            site.begin(site.order(**changes)).result()
        assert error.value.code() is code
        assert why in error.value.details()
    assert site.device(0).task(wait=0) is None
