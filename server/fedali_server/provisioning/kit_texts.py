"""What a kit brings for people, and for what keeps services running: README.txt, a systemd unit, a compose file."""

from __future__ import annotations

import textwrap
from importlib import resources

from fedali.wire.kit import host_and_port
from fedali_server.provisioning.federation_file import FederationConfig
from fedali_server.provisioning.register import Register

TEXTS = (
    "README.txt",
    "compose.yaml",
    "fedali-server.service",
    "fedali-site.service",
    "compose-data.yaml",
    "fedali-site-data.service",
    "fedali-device.service",
)

_README = """\
Start-up kit of {title}

{what}

Whoever has this folder is {name}: its keys are not encrypted. Bring it over a channel that you trust, as a whole, let
nobody else read it, and delete it where it is not used. Lost or stolen: whoever runs the federation takes trust back with

  {lost}

Its certificate is good until {until}. A newer kit, after that or with other addresses, is put in place of this one in the
same way; then restart what runs.

{start}
Files: {files}
"""

_START = """\
Start, to try it:

  pip install "fedali[{extra}]"
  {command}

As a service of systemd:

  sudo useradd --system --no-create-home --shell /usr/sbin/nologin fedali
  sudo python3 -m venv /opt/fedali/venv && sudo /opt/fedali/venv/bin/pip install "fedali[{extra}]"
  sudo mkdir -p /var/lib/fedali && sudo cp -r . /var/lib/fedali/{kind}
  sudo chown -R fedali: /var/lib/fedali/{kind} && sudo chmod -R go= /var/lib/fedali/{kind}
  sudo cp fedali-{kind}.service /etc/systemd/system/
  sudo systemctl enable --now fedali-{kind}
  journalctl -fu fedali-{kind}
{data}
In a container (the image: see compose.yaml):

  mkdir -p -m 700 state
  FEDALI_USER=$(id -u):$(id -g) docker compose up -d
"""

_DATA = """
Its data are read from /var/lib/fedali/data/train.npz and test.npz there: give them to the user fedali.
"""

_SITE_DATA = """
A site that holds the data of its clients itself, DEVICE/train.npz or DEVICE.csv for each, needs no devices: fedali[site] in the place of
fedali[server], and

  fedali site start . --data DIR

As a service, fedali-site-data.service in the place of fedali-site.service; it reads /var/lib/fedali/data. In a container:

  FEDALI_DATA=/srv/data FEDALI_USER=$(id -u):$(id -g) docker compose -f compose-data.yaml up -d
"""

_OPERATE = """\
Use:

  fedali status .
  fedali run SCENARIO --kit .

{name}.key signs bundles and revocations for all: with it, and without anything else here, somebody could make devices train
another model. Keep it as you keep the keys in authority/.
"""

_FILES = {
    "server": "kit.json what is where; server.pem, server.key its certificate; operators-authority.pem who signs for operators; "
    "nodes/ the keys that sites are known by; .env ports, for compose.yaml",
    "site": "kit.json what is where, and which devices there are; gateway.pem, gateway.key the gateway's certificate, for "
    "devices; node.key, node.pub what the server knows this site by; servers-authority.pem who signs for the server; "
    "devices-authority.pem who signs for devices; {federation}.pub who signs bundles; revoked.json what is not to be trusted "
    "any more: a newer one is taken up as soon as it is here; .env ports, for compose.yaml",
    "device": "kit.json what is where; device.pem, device.key its certificate; servers-authority.pem who signs for gateways; "
    "{federation}.pub who signs bundles",
    "operator": "kit.json what is where; operator.pem, operator.key its certificate; {federation}.key, {federation}.pub what "
    "signs bundles; servers-authority.pem who signs for the server; nodes/ the keys of sites; revoked.json what is not to be "
    "trusted any more",
}
_COMMANDS = {
    "server": "fedali server start .",
    "site": "fedali site start .",
    "device": "fedali-client join . --data train.npz --test test.npz --state state",
}


def texts(kind: str, name: str, config: FederationConfig, register: Register) -> dict[str, str]:
    """Files of a kit by name, for people and for the machine's service manager."""
    files = {"README.txt": _readme(kind, name, config, register)}
    if kind != "operator":
        files[f"fedali-{kind}.service"] = deployed(f"fedali-{kind}.service")
        files["compose.yaml"] = deployed(f"compose-{kind}.yaml")
    if kind == "site":
        files["fedali-site-data.service"] = deployed("fedali-site-data.service")
        files["compose-data.yaml"] = deployed("compose-site-data.yaml")
    if kind in ("server", "site"):
        files[".env"] = "".join(f"{key}={value}\n" for key, value in _variables(kind, name, config).items())
    return files


def deployed(name: str) -> str:
    """A file of ``deploy/``, which kits get as it is."""
    return (resources.files("fedali_server") / "deploy" / name).read_text("utf-8")


def _variables(kind: str, name: str, config: FederationConfig) -> dict[str, int]:
    """What a compose file does not know."""
    found: dict[str, int] = {}
    if kind == "server":
        found["FEDALI_PORT"] = host_and_port(config.server.listen)[1]
        found["FEDALI_OPERATORS_PORT"] = host_and_port(config.server.operators_listen)[1]
    if kind == "site":
        site = next(each for each in config.sites if each.name == name)
        found["FEDALI_PORT"] = host_and_port(site.listen)[1]
    return found


def _readme(kind: str, name: str, config: FederationConfig, register: Register) -> str:
    member, server = register.members[name], config.server
    title = f"the {kind} of the federation {config.name}"
    lost = f"fedali provision federation.toml --renew {name}"
    if kind == "server":
        what = f"It listens for sites at {server.listen}, which find it at {server.address}, and for operators at {server.operators_listen}."
    elif kind == "operator":
        what = f"It submits trainings to the server at {server.operators_address}, and sees who is there."
    elif kind == "site":
        site = next(each for each in config.sites if each.name == name)
        title = f"the site {name} of the federation {config.name}"
        what = (
            f"It listens for its devices at {site.listen}, which find it at {site.address}, and connects to the server at "
            f"{server.address}."
        )
        lost = f"fedali revoke {name}"
    else:
        site = next(each for each in config.sites if name in each.devices)
        title = f"the device {name} of the site {site.name}, federation {config.name}"
        what = (
            f"It connects to its site's gateway at {site.address}, and listens nowhere. Its data stay on it."
        )
        lost = f"fedali revoke {name}"
    start = _OPERATE.format(name=config.name)
    if kind != "operator":
        data = _DATA if kind == "device" else ""
        extra = "join" if kind == "device" else "server"
        start = _START.format(extra=extra, command=_COMMANDS[kind], kind=kind, data=data)
        start += _SITE_DATA if kind == "site" else ""
    return _README.format(
        title=title,
        what=textwrap.fill(what, 120),
        name=name,
        lost=lost,
        until=f"{member.expires:%Y-%m-%d}",
        start=start,
        files=textwrap.fill(_FILES[kind].format(federation=config.name), 112, subsequent_indent="  "),
    )
