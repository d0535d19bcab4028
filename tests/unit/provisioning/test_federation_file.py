"""The file that says who is in a federation."""

from __future__ import annotations

import pytest

from fedali.errors import SettingsError
from fedali_server.provisioning.federation_file import EXAMPLE, read_federation


def test_the_example_is_a_federation(tmp_path):
    (tmp_path / "federation.toml").write_text(EXAMPLE)
    config = read_federation(tmp_path / "federation.toml")
    assert (config.name, len(config.sites), len(config.sites[0].devices)) == ("wards", 2, 3)
    assert config.server.operators_listen == "127.0.0.1:9093"  # nobody else's, unless asked for
    uncommented = [
        line.removeprefix("# ") for line in EXAMPLE.splitlines() if " = " in line or line.startswith("[")
    ]
    (tmp_path / "all.toml").write_text("\n".join(uncommented))
    everything = read_federation(tmp_path / "all.toml")
    assert everything.server.operators_listen == "0.0.0.0:9093"
    assert everything.certificate_days == config.certificate_days
    assert everything.sites == config.sites


GOOD = """name = "wards"
[server]
address = "fl.example.org:9092"
[[sites]]
name = "site-a"
address = "10.0.0.1:9443"
devices = ["device-0"]
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "wards"\n', "", "name is missing"),
        ("[server]", "[sever]", "unknown setting 'sever'; did you mean 'server'|server is missing"),
        ("devices", "device", "unknown setting 'sites.0.device'; did you mean 'devices'"),
        ('"wards"', '"Wards"', "name: 'Wards' is no name here"),
        ('"wards"', "7", "name: input should be a valid string, not 7"),
        ('"site-a"', '"server"', "'server' has a meaning of its own"),
        ('"device-0"', '"../device"', r"sites.0.devices.0: '../device' is no name here"),
        (
            '"device-0"',
            '"device-0", "device-0"',
            "'device-0' is the name of a device of site-a and of a device of site-a",
        ),
        ('"device-0"', '"site-a"', "'site-a' is the name of a site and of a device of site-a"),
        (
            "fl.example.org:9092",
            "fl.example.org",
            "server.address: 'fl.example.org' is no address; for example",
        ),
        ("10.0.0.1:9443", "10.0.0.1:99999", "sites.0.address: '10.0.0.1:99999' is no address"),
        ("fl.example.org:9092", "fl.example.org:9093", "need different ports"),
        (
            'name = "wards"',
            'name = "wards"\ncertificate_days = 0',
            "certificate_days: .*greater than or equal to 1, not 0",
        ),
        (
            'name = "wards"',
            'name = "wards"\nauthority_days = 10',
            "certificate_days cannot be more than authority_days",
        ),
        ("[[sites]]", "[sites]", "sites: input should be a valid tuple"),
        ("[[sites]]", "[[sites", "not valid TOML"),
    ],
)
def test_what_is_wrong_with_the_file_is_one_line(tmp_path, old, new, message):
    path = tmp_path / "federation.toml"
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(SettingsError, match=message) as caught:
        read_federation(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_one_line(tmp_path):
    with pytest.raises(SettingsError, match=r"cannot read .*: No such file"):
        read_federation(tmp_path / "nowhere.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff")
    with pytest.raises(SettingsError, match="not UTF-8 text"):
        read_federation(tmp_path / "bytes.toml")
