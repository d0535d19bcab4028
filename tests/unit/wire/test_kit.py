from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedali.errors import KitError
from fedali.wire.kit import (
    DeviceKit,
    OperatorKit,
    ServerKit,
    SiteKit,
    host_and_port,
    is_name,
    read_kit,
    read_kit_as,
)
from tests.kits import federation, provisioned

KINDS = {"server": ServerKit, "operator": OperatorKit, "site-a": SiteKit, "device-1": DeviceKit}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return provisioned(federation(), tmp_path_factory.mktemp("kits") / "kits").folder


@pytest.fixture
def kit(made, tmp_path):
    """A device's kit to break."""
    return shutil.copytree(made / "device-1", tmp_path / "kit")


def edit(folder: Path, **changes):
    path = folder / "kit.json"
    plain = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in plain.items() if value is not ...}))


def test_every_kit_reads_as_its_kind_with_files_that_are_there(made):
    for name, kind in KINDS.items():
        kit = read_kit(made / name)
        assert type(kit) is kind
        paths = [value for value in vars(kit).values() if isinstance(value, Path)]
        assert len(paths) > 3
        assert all(path.is_absolute() and path.exists() for path in paths)


def test_a_device_is_told_where_its_gateway_is(made):
    kit = read_kit_as(made / "device-1", DeviceKit)
    assert (kit.federation, kit.name, kit.number) == ("wards", "device-1", 1)
    assert (kit.gateway, kit.gateway_name) == ("127.0.0.1:9443", "site-a.wards.fedali")


def test_reading_needs_the_standard_library_alone(made):
    program = (
        "import sys; from fedali.wire.kit import read_kit; print(read_kit(sys.argv[1]).name);"
        "print(*{'torch', 'flwr', 'cryptography', 'pydantic', 'grpc'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", program, str(made / "device-1")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["device-1"]


def test_a_kit_may_be_a_link_to_a_folder(made, tmp_path):
    (tmp_path / "link").symlink_to(made / "device-1")
    assert read_kit_as(tmp_path / "link", DeviceKit).number == 1


def test_another_kind_is_named(made):
    with pytest.raises(KitError, match="is a kit for the server; this takes one for the device"):
        read_kit_as(made / "server", DeviceKit)


@pytest.mark.parametrize("where", ["nowhere", "", "kit.json", "nul\0byte", "x" * 300])
def test_no_kit_at_all(tmp_path, where):
    (tmp_path / "kit.json").write_text("{}") if where == "kit.json" else None
    with pytest.raises(KitError, match="cannot read the kit"):
        read_kit(tmp_path / where)


@pytest.mark.parametrize("name", ["device.key", "device.pem", "servers-authority.pem", "wards.pub"])
def test_a_file_that_is_missing_is_named(kit, name):
    (kit / name).unlink()
    with pytest.raises(KitError, match=f"cannot read .*{name}: No such file"):
        read_kit(kit)


def test_an_empty_file_is_refused(kit):
    (kit / "device.pem").write_bytes(b"")
    with pytest.raises(KitError, match=r"device\.pem has 0 bytes"):
        read_kit(kit)


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o644, 0o620, 0o601])
def test_a_private_key_that_others_can_read_is_refused(kit, mode):
    (kit / "device.key").chmod(mode)
    with pytest.raises(KitError, match=r"device\.key can be read by others .*chmod 600"):
        read_kit(kit)


@pytest.mark.parametrize(
    ("name", "key"), [("site-a", "node.key"), ("operator", "wards.key"), ("server", "server.key")]
)
def test_every_private_key_is_looked_at(made, tmp_path, name, key):
    folder = shutil.copytree(made / name, tmp_path / "kit")
    (folder / key).chmod(0o640)
    with pytest.raises(KitError, match="can be read by others"):
        read_kit(folder)


def test_a_folder_that_everybody_can_write_is_refused(kit):
    kit.chmod(0o777)
    with pytest.raises(KitError, match="can be written by everybody"):
        read_kit(kit)


@pytest.mark.parametrize(
    "name",
    [
        "../device.key",
        "/etc/passwd",
        "a/../../x",
        "a/b/c",
        ".hidden",
        "",
        ".",
        "..",
        "device.key\0",
        "a\nb",
        "a\\b",
        "~/x",
    ],
)
def test_names_of_files_stay_in_the_kit(kit, name):
    (kit.parent / "device.key").write_text("x")
    edit(kit, key=name)
    with pytest.raises(KitError, match="key cannot be"):
        read_kit(kit)


@pytest.mark.parametrize("target", ["../outside", "/etc/passwd"])
def test_links_stay_in_the_kit(kit, target):
    (kit.parent / "outside").write_text("x")
    (kit / "device.pem").unlink()
    (kit / "device.pem").symlink_to(target)
    with pytest.raises(KitError, match="is no file in the kit"):
        read_kit(kit)


def test_a_link_within_the_kit_is_followed_and_a_loop_is_not(kit):
    """As volumes of container managers have them."""
    (kit / "data").mkdir()
    (kit / "device.pem").rename(kit / "data/device.pem")
    (kit / "device.pem").symlink_to("data/device.pem")
    assert read_kit_as(kit, DeviceKit).certificate == kit / "device.pem"
    (kit / "data/device.pem").unlink()
    (kit / "data/device.pem").symlink_to("../device.pem")
    with pytest.raises(KitError, match=r"device\.pem"):
        read_kit(kit)


def test_a_folder_and_a_pipe_are_no_files(kit):
    (kit / "device.pem").unlink()
    os.mkfifo(kit / "device.pem")
    with pytest.raises(KitError, match="is no file in the kit"):
        read_kit(kit)
    edit(kit, certificate="folder")
    (kit / "folder").mkdir()
    with pytest.raises(KitError, match="is no file in the kit"):
        read_kit(kit)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, "is of version 2, this FedAli reads version 1"),
        ({"version": True}, "version cannot be True"),
        ({"kit": "phone"}, "kit cannot be 'phone'"),
        ({"kit": "site"}, "has no 'listen'"),
        ({"kit": ...}, "has no 'kit'"),
        ({"number": -1}, "number cannot be -1"),
        ({"number": 100_000}, "number cannot be 100000"),
        ({"number": 1.0}, r"number cannot be 1\.0"),
        ({"name": "Device"}, "name cannot be 'Device'"),
        ({"name": "a/b"}, "name cannot be"),
        ({"gateway": "host"}, "gateway cannot be 'host'"),
        ({"gateway": "host:0"}, "gateway cannot be"),
        ({"gateway": "host:65536"}, "gateway cannot be"),
        ({"gateway": "ho st:1"}, "gateway cannot be"),
        ({"gateway": "host:１"}, "gateway cannot be"),
        ({"gateway": ["host:1"]}, "gateway cannot be"),
        ({"gateway_name": "a\x1b[2J"}, "gateway_name cannot be"),
        ({"gatewy": "host:1"}, "unknown key 'gatewy'"),
    ],
)
def test_what_makes_no_sense_is_named_in_one_line(kit, changes, message):
    edit(kit, **changes)
    with pytest.raises(KitError, match=message) as caught:
        read_kit(kit)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "device-2"}, "devices has 'device-2' twice"),
        ({"number": 2}, "devices has 2 twice"),
        ({"certificate_sha256": "0" * 63}, r"devices\[0\]: certificate_sha256 cannot be"),
        ({"certificate_sha256": "G" * 64}, r"devices\[0\]: certificate_sha256 cannot be"),
        ({"extra": 1}, r"devices\[0\] has an unknown key 'extra'"),
    ],
)
def test_devices_of_a_site_are_told_apart(made, tmp_path, changes, message):
    folder = shutil.copytree(made / "site-a", tmp_path / "kit")
    plain = json.loads((folder / "kit.json").read_text())["devices"]
    edit(folder, devices=[{**plain[1], **changes}, plain[2]])
    with pytest.raises(KitError, match=message):
        read_kit(folder)


@given(data=st.binary(max_size=200))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_garbage_is_refused_in_one_line(kit, data):
    (kit / "kit.json").write_bytes(data)
    with pytest.raises(KitError) as caught:
        read_kit(kit)
    assert "\n" not in str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(data=st.data(), name=st.sampled_from(sorted(KINDS)))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_value_in_any_place_gives_a_kit_or_one_line(made, tmp_path, data, name):
    """A kit that reads says what its file says, and nothing outside of the kit is ever named."""
    folder = tmp_path / name
    if not folder.exists():
        shutil.copytree(made / name, folder)
    plain = json.loads((made / name / "kit.json").read_text())
    key, value = data.draw(st.sampled_from(sorted(plain))), data.draw(JSON)
    (folder / "kit.json").write_text(json.dumps({**plain, key: value}))
    try:
        kit = read_kit(folder)
    except KitError as error:
        message = str(error)
    else:
        message = ""
        found = getattr(kit, key, value)
        inside = [each for each in vars(kit).values() if isinstance(each, Path)]
        assert all(path.resolve().is_relative_to(folder) for path in inside)
        assert found == value or found == folder / str(value) or value == [] == list(found)
    assert "\n" not in message


@given(cut=st.integers(0, 400))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_kit_that_was_copied_in_part_is_refused(made, kit, cut):
    whole = (made / "device-1/kit.json").read_bytes()
    cut = min(cut, len(whole.rstrip()) - 1)
    (kit / "kit.json").write_bytes(whole[:cut])
    with pytest.raises(KitError):
        read_kit(kit)


@given(st.text(max_size=60))
def test_names_are_labels_of_hosts(text):
    if is_name(text):
        assert text.isascii()
        assert len(text) <= 40
        assert set(text) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
        assert text.strip("-") == text != ""


@given(st.from_regex(r"[a-z][a-z0-9.-]{0,20}[a-z0-9]", fullmatch=True), st.integers(1, 65535))
def test_addresses_come_apart(host, port):
    assert host_and_port(f"{host}:{port}") == (host, port)
