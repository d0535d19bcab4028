from __future__ import annotations

import json

import pytest

from fedali.errors import CheckpointError, SettingsError
from fedali_server.flower.link import Link
from fedali_simulations.machines.remote_sites import RemoteSites, find_remote_sites


@pytest.mark.parametrize(
    "address", ["", "9092", "127.0.0.1", "127.0.0.1:", "127.0.0.1:http", "127.0.0.1:70000"]
)
def test_an_address_needs_a_host_and_a_port(address):
    with pytest.raises(SettingsError, match="is no address; for example"):
        Link(address)


@pytest.mark.parametrize(
    "address", ["10.0.0.1:9092", "0.0.0.0:9092", "example.org:9092", "[2001:db8::1]:9092"]
)
def test_another_machine_needs_certificates(address):
    with pytest.raises(SettingsError, match="is another machine: give --root-certificates"):
        Link(address)


@pytest.mark.parametrize("address", ["127.0.0.1:9092", "localhost:9092", "[::1]:9092"])
def test_the_loopback_interface_needs_none(address):
    assert Link(address).insecure


def test_certificates_that_are_none_are_refused(tmp_path):
    with pytest.raises(SettingsError, match=r"ca\.pem as root certificates: No such file"):
        Link("10.0.0.1:9092", tmp_path / "ca.pem")
    (tmp_path / "ca.pem").write_text("not a certificate")
    with pytest.raises(SettingsError, match="holds no PEM certificate"):
        Link("10.0.0.1:9092", tmp_path / "ca.pem")


def test_a_folder_knows_where_its_clients_are(tmp_path):
    assert find_remote_sites(tmp_path) is None
    with pytest.raises(SettingsError, match="are in that folder: continue it without --superlink"):
        find_remote_sites(tmp_path, Link("127.0.0.1:1"))
    written = RemoteSites(Link("127.0.0.1:1"))
    written.write(tmp_path)
    assert find_remote_sites(tmp_path) == written
    moved = find_remote_sites(tmp_path, Link("127.0.0.1:2"))
    assert (moved.study, moved.link.address) == (written.study, "127.0.0.1:2")
    assert RemoteSites(Link("127.0.0.1:1")).study != written.study


@pytest.mark.parametrize("change", [{"study": "../../home"}, {"study": None}, {"superlink": 3}])
def test_a_broken_note_is_one_line(tmp_path, change):
    RemoteSites(Link("127.0.0.1:1")).write(tmp_path)
    path = tmp_path / "machines.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises((CheckpointError, SettingsError)):
        find_remote_sites(tmp_path)
