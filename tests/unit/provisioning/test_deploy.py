"""What kits bring to run as services: checked as far as a machine can that runs neither systemd nor containers."""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import subprocess
import sys
from configparser import RawConfigParser
from pathlib import Path

import pytest
import yaml

from fedali.cli import _app
from fedali.wire.kit import read_kit
from fedali_client.cli import _parser
from fedali_server.provisioning.kit_texts import deployed
from tests.kits import federation, provisioned

ROOT = Path(__file__).parents[3]
KITS = {"server": "server", "site": "site-a", "device": "device-0"}
SERVICES = sorted(KITS)
UNITS = (*SERVICES, "site-data")  # a site's other one, where it holds data itself
SYSTEMD = shutil.which("systemd-analyze")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return provisioned(federation(), tmp_path_factory.mktemp("kits") / "kits").folder


def unit(kind: str) -> dict[str, str]:
    parser = RawConfigParser(strict=False)
    parser.optionxform = str
    parser.read_string(deployed(f"fedali-{kind}.service"))
    return dict(parser["Service"])


def command(kind: str) -> list[str]:
    return shlex.split(unit(kind)["ExecStart"])


def compose(kind: str) -> dict:
    plain = yaml.safe_load(deployed(f"compose-{kind}.yaml"))
    (service,) = plain["services"].values()
    return service


@pytest.mark.parametrize("kind", UNITS)
@pytest.mark.skipif(SYSTEMD is None, reason="needs systemd-analyze")
def test_systemd_takes_the_unit_and_finds_it_well_confined(kind, tmp_path):
    """With the commands of this environment, since /opt/fedali is not here."""
    path = tmp_path / f"fedali-{kind}.service"
    here = str(Path(sys.executable).parent)
    path.write_text(deployed(path.name).replace("/opt/fedali/venv/bin", here))
    checked = subprocess.run([SYSTEMD, "verify", "--man=no", str(path)], capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")
    words = [SYSTEMD, "security", "--offline=true", "--threshold=20", "--no-pager", str(path)]
    checked = subprocess.run(words, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("kind", UNITS)
def test_units_write_to_their_state_alone_and_start_again(kind):
    """A wrong kit stops a server or site for good; a device may be refused because its site has not its new kit yet."""
    found = unit(kind)
    assert found["StateDirectory"] == f"fedali/{kind.removesuffix('-data')}/state"
    assert (found["ProtectSystem"], found["NoNewPrivileges"], found["User"]) == ("strict", "yes", "fedali")
    assert "ReadWritePaths" not in found
    assert found["Restart"] == "on-failure"
    assert ("RestartPreventExitStatus" in found) == (kind != "device")


@pytest.mark.parametrize("kind", SERVICES)
def test_readme_unit_and_compose_file_start_the_same(made, kind):
    readme = (made / KITS[kind] / "README.txt").read_text()
    tried = next(
        line.split() for line in readme.splitlines() if re.match(r"  fedali(-client)? .* \.( |$)", line)
    )
    served, contained = command(kind), compose(kind)["command"]
    assert Path(served[0]).name == tried[0]
    folder = f"/var/lib/fedali/{kind}"
    assert [word for word in served[1:] if not word.startswith("/")] == [
        word for word in tried[1:] if word not in (".", "state", "train.npz", "test.npz")
    ]
    assert [
        word.replace(folder, "/kit").replace("/var/lib/fedali/data", "/data") for word in served[1:]
    ] == contained
    assert f"/var/lib/fedali/{kind}" in readme
    assert f"fedali-{kind}.service" in readme


def test_a_site_with_data_is_started_the_same_everywhere(made):
    folder = made / KITS["site"]
    readme = (folder / "README.txt").read_text()
    assert "  fedali site start . --data DIR\n" in readme
    served, contained = command("site-data"), compose("site-data")
    assert served[1:] == ["site", "start", "/var/lib/fedali/site", "--data", "/var/lib/fedali/data"]
    assert contained["command"] == ["site", "start", "/kit", "--data", "/data"]
    assert (folder / "fedali-site-data.service").read_text() == deployed("fedali-site-data.service")
    text = (folder / "compose-data.yaml").read_text()
    assert text == deployed("compose-site-data.yaml")
    assert (
        set(re.findall(r"\$\{(\w+)", text))
        == {"FEDALI_USER", "FEDALI_DATA"}
        == set(re.findall(r"(FEDALI_\w+)=", readme))
    )
    assert contained["image"] == "fedali-site"
    assert "docker build -f server/Dockerfile --build-arg EXTRA=site -t fedali-site ." in text
    assert "ARG EXTRA=server" in (ROOT / "server/Dockerfile").read_text()
    differing = set(unit("site").items()) ^ set(unit("site-data").items())
    assert {name for name, _ in differing} == {"ExecStart"}


@pytest.mark.parametrize("kind", SERVICES)
def test_every_file_of_a_kit_is_explained(made, kind):
    folder = made / KITS[kind]
    readme = (folder / "README.txt").read_text()
    for path in folder.iterdir():
        assert path.name in readme or path.name == "README.txt"
    read_kit(folder)


def test_the_readme_of_an_operator_says_what_to_keep(made):
    readme = (made / "operator/README.txt").read_text()
    assert {path.name for path in (made / "operator").iterdir() if path.name not in readme} == {"README.txt"}
    assert "fedali run" in readme


@pytest.mark.parametrize("kind", SERVICES)
def test_every_line_for_a_shell_is_one(made, kind):
    """As far as a shell can tell without running it."""
    lines = [
        line for line in (made / KITS[kind] / "README.txt").read_text().splitlines() if line.startswith("  ")
    ]
    done = subprocess.run(["sh", "-n"], input="\n".join(lines[:-1]), text=True, capture_output=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("kind", UNITS)
def test_containers_have_no_privileges_and_write_to_state_alone(kind):
    service = compose(kind)
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "network_mode", "pid", "devices"} & set(service)
    writable = [volume for volume in service["volumes"] if not volume.endswith(":ro")]
    assert writable == ["./state:/kit/state"]
    assert ("ports" in service) == (kind in ("server", "site"))


@pytest.mark.parametrize("kind", SERVICES)
def test_compose_files_find_their_variables_in_the_kit(made, kind):
    folder = made / KITS[kind]
    assert (folder / "compose.yaml").read_text() == deployed(f"compose-{kind}.yaml")
    lines = (folder / ".env").read_text().splitlines() if (folder / ".env").exists() else []
    known = dict(line.split("=") for line in lines) | {"FEDALI_USER": "1000:1000"}
    text = (folder / "compose.yaml").read_text()
    assert set(re.findall(r"\$\{(\w+)", text)) == known.keys()
    filled = yaml.safe_load(re.sub(r"\$\{(\w+)[^}]*\}", lambda match: known[match[1]], text))
    (service,) = filled["services"].values()
    kit = read_kit(folder)
    if kind == "site":
        assert service["ports"] == ["9443:9443"]
        assert kit.listen.endswith(":9443")
    if kind == "server":
        assert service["ports"] == ["9092:9092", "127.0.0.1:9093:9093"]
        assert (kit.listen, kit.operators_listen) == ("127.0.0.1:9092", "127.0.0.1:9093")


def spoken(text: str) -> list[list[str]]:
    """The command lines in a document, without comments."""
    lines = re.findall(r"^(?: {2})?(fedali(?:-client)? [a-z].*)$", text, re.MULTILINE)
    return [shlex.split(line.partition(">")[0], comments=True) for line in lines]


def subcommand(name: str) -> argparse.ArgumentParser:
    choices = [each.choices for each in _parser()._actions if isinstance(each, argparse._SubParsersAction)]
    return choices[0][name]


@pytest.mark.parametrize(
    "source", ["deploy.md", *KITS.values(), "operator", *(f"fedali-{kind}.service" for kind in UNITS)]
)
def test_every_command_that_is_spoken_of_is_there_with_its_options(made, source):
    if source == "deploy.md":
        lines = spoken((ROOT / "docs" / source).read_text())
    elif source.endswith(".service"):
        program, *words = command(source[7:-8])
        lines = [[Path(program).name, *words]]
    else:
        lines = spoken((made / source / "README.txt").read_text())
    assert lines
    for program, *words in lines:
        if program == "fedali":
            here, left = _app(), words
            while left and left[0] in getattr(here, "commands", {}):
                here, left = here.commands[left[0]], left[1:]
            assert not hasattr(here, "commands"), words
            options = {name for each in here.params for name in each.opts}
        else:
            options = set(subcommand(words[0])._option_string_actions)
        assert {word for word in words if word.startswith("-")} <= options, words


def test_tests_that_documents_name_are_there():
    named = re.findall(r"`(tests/[^`]+)`", (ROOT / "docs/threat-model.md").read_text())
    assert len(named) > 10
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize(
    ("file", "image", "entry"),
    [("server", "fedali-server", "fedali"), ("client", "fedali-client", "fedali-client")],
)
def test_images_are_made_from_what_is_there(file, image, entry):
    lines = (ROOT / file / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    words = [line.split() for line in lines if line and not line.startswith("#")]
    for copied in (each[1:-1] for each in words if each[0] == "COPY"):
        assert all((ROOT / path).exists() for path in copied)
    assert ["ENTRYPOINT", f'["{entry}"]'] in words
    assert any(each[0] == "USER" and each[1] != "0:0" for each in words)
    kinds = ("device",) if file == "client" else ("server", "site")
    for kind in kinds:
        assert compose(kind)["image"] == image
        assert f"docker build -f {file}/Dockerfile -t {image} ." in deployed(f"compose-{kind}.yaml")
        assert Path(command(kind)[0]).name == entry
    assert f"docker build -f {file}/Dockerfile -t {image} ." in "\n".join(lines)
