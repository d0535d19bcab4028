"""Devices that are refused for what they are, and what they decline themselves."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

import numpy as np

from fedali.v1 import relay_pb2
from fedali_server.provisioning.federation_file import FederationConfig
from fedali_server.provisioning.provision import provision
from fedali_server.provisioning.revoke import revoke
from tests.gateways import ANSWER, ProvisionedSite, states
from tests.integration.join.joined import Joined, altered, complaint


def test_wrong_kits_are_refused_in_one_line(site, stranger):
    gateway = f"127.0.0.1:{site.port}"
    theirs, other = stranger.kits / "a-0", site.kits / "b-0"
    for name, changes, line in (
        (
            "certificate",
            {"certificate": theirs / "device.pem", "key": theirs / "device.key"},
            f"the gateway {gateway} hangs up on this device: its certificate is of another federation",
        ),
        (
            "another-site",
            {"certificate": other / "device.pem", "key": other / "device.key"},
            f"the gateway {gateway} refuses this device: this site has no device with this certificate",
        ),
        (
            "name",
            {"gateway_name": "b.wards.fedali"},
            f"what answers at {gateway} is not this device's gateway: its certificate is not one of b.wards.fedali",
        ),
        (
            "authority",
            {"authority": theirs / "servers-authority.pem"},
            f"what answers at {gateway} is not this device's gateway: its certificate is not one of the federation wards",
        ),
        ("key", {"key": theirs / "device.key"}, "do not work together"),
    ):
        with Joined(site, 0, kit=altered(site, 0, name, **changes)) as device:
            assert line in complaint(device)
    with Joined(site, 0, kit=site.kits / "a") as device:
        assert "kits/a is " in complaint(device)
    with Joined(site, 0, kit=site.folder) as device:
        assert "a kit is a folder of `fedali provision`" in complaint(device)


def test_a_device_whose_certificate_has_expired_says_since_when(tmp_path):
    site, past = ProvisionedSite(tmp_path), datetime.now(timezone.utc) - timedelta(days=3)
    lasting = FederationConfig.model_validate({**site.config.model_dump(), "certificate_days": 1})
    provision(lasting, site.kits, renew=["a-0"], now=past)
    with site, Joined(site, 0) as device:
        line = f"hangs up on this device: its certificate has expired on {past + timedelta(days=1):%Y-%m-%d}; ask for a new kit"
        assert complaint(device).endswith(line)


def test_a_device_that_is_revoked_ends_and_says_why(site):
    with Joined(site, 0) as device:
        device.event("joined")
        revoke("a-0", site.kits)
        revoked = json.loads((site.kits / "operator" / "revoked.json").read_text())
        import base64

        site.relay().Revoke(
            relay_pb2.RevokeRequest(
                list=revoked["list"].encode(), signature=base64.b64decode(revoked["signature"])
            ),
            timeout=ANSWER,
        )
        assert complaint(device).endswith("refuses this device: this device's certificate is revoked")


def test_a_bundle_that_another_key_signed_is_declined_and_the_device_stays(site, stranger):
    """The gateway would not take one either, unless somebody had taken it over."""
    kit = altered(site, 0, "other-key", trusted_key=stranger.kit.trusted_key)
    with Joined(site, 0, kit=kit) as device:
        outcome = site.begin(site.order(1, devices=[0])).result()
        (report,) = outcome.devices
        assert report.state == "declined"
        assert "its signature is not one of a trusted key" in report.reason
        assert str(site.folder) not in report.reason
        event = device.event("declined", round=1)
        assert "its signature is not one of a trusted key" in event["reason"]
        assert not list(device.state.glob("*/training.map"))
        outcome = site.begin(site.order(2, devices=[0])).result()
        assert states(outcome) == {0: "declined"}
        assert device.end()[0] == 143


def test_data_that_do_not_fit_are_declined_and_told(site):
    np.savez(site.folder / "train-0.npz", x=np.zeros((5, 7, 2), np.float32), y=[0] * 5)
    with Joined(site, 0) as device:
        outcome = site.begin(site.order(1, devices=[0])).result()
        (report,) = outcome.devices
        assert (report.state, report.reason) == (
            "declined",
            "this device's samples are windows of 7 with 2 channels; the federation's are windows of 24 with 3 channels",
        )
        code, said = device.end(None)
    assert code == 2
    assert "x has shape [5, 7, 2]; this model takes [n, 24, 3]" in said.splitlines()[-1]


def test_an_update_that_is_refused_is_told_with_its_reason(site):
    outcome = site.begin(site.order(1, devices=[0], epochs=20, largest_step=1e-6))
    with Joined(site, 0, "--once") as device:
        code, said = device.end(None)
    (report,) = outcome.result().devices
    assert report.state == "refused"
    assert code == 1
    lines = said.splitlines()
    assert f", refused: {report.reason}" in lines[-2]
    assert lines[-1] == "fedali-client: the training did not count"
