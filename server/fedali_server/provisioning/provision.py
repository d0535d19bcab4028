"""Making the start-up kits of a federation: authorities, identities, and a folder for each member to carry away."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)

from fedali.bundle import keys
from fedali.errors import KitError, SettingsError, did_you_mean
from fedali.support.files import reporting
from fedali.wire.kit import host_and_port
from fedali_server.provisioning.certificates import (
    Pair,
    RevocationList,
    is_issued_by,
    issue,
    load_key,
    load_pair,
    make_authority,
)
from fedali_server.provisioning.federation_file import FederationConfig
from fedali_server.provisioning.kit_files import make_folder, write_file
from fedali_server.provisioning.kits import STEMS, gateway_name, write_kits
from fedali_server.provisioning.register import FILE, Member, Register, locked

CONFIG = "federation.json"  # in authority/: the federation as it was provisioned last
REVOKED = "revoked.json"
_AUTHORITIES = {"server": "servers", "site": "servers", "device": "devices", "operator": "operators"}
_NODE_KEY = "node.key"
_SOON = timedelta(days=30)


@dataclass(frozen=True)
class Provisioned:
    """Where the kits are, and what was done."""

    folder: Path
    authority: Path
    """Private keys of the authorities: stays here."""
    server: Path
    operator: Path
    sites: dict[str, Path]
    devices: dict[str, Path]
    made: tuple[str, ...]
    """Names of members with a new certificate."""
    changed: tuple[str, ...]
    """Names of other members whose kits were changed, and have to be carried to them again."""
    absent: tuple[str, ...]
    """Names of devices whose kits are not here any more."""
    warnings: tuple[str, ...]


def provision(
    config: FederationConfig, out: Path | str, *, renew: Collection[str] = (), now: datetime | None = None
) -> Provisioned:
    """Make the kits of a federation below ``out``; what was made before stays, numbers of devices included.

    Args:
        config: who takes part.
        out: folder for ``authority/``, ``server/``, ``operator/``, and one for each site and device by its name.
        renew: names, ``server`` or ``operator``: these get a new key and certificate. With ``operator`` the operators'
            authority is made anew too, so that the server refuses earlier certificates of operators.
        now: from when certificates are good, aware; by default the present.

    Raises ``KitError`` or ``SettingsError`` when ``out`` is something else, or of another federation.
    """
    out, now = Path(out), now or datetime.now(timezone.utc)
    authority = out / "authority"
    with reporting(out, "read"):
        others = {each.name for each in out.iterdir()} if out.exists() else set()
        there = {each.name for each in authority.iterdir()} if "authority" in others else set()
    if FILE not in there and (others - {"authority"} or any(not name.startswith(".") for name in there)):
        raise KitError(f"{out} is there and has no authority/{FILE}: give a new folder, or that of the kits")
    make_folder(out)
    make_folder(authority)
    with locked(authority):
        if not (authority / FILE).exists():
            Register(config.name).save(authority)
        register = Register.load(authority)
        if register.federation != config.name:
            raise SettingsError(f"{out} has the kits of {register.federation!r}, not of {config.name!r}")
        return _Provisioning(config, out, register, frozenset(renew), now).run()


@dataclass
class _Provisioning:
    config: FederationConfig
    out: Path
    register: Register
    renew: frozenset[str]
    now: datetime
    made: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def run(self) -> Provisioned:
        wanted = list(self._wanted())
        names = [name for name, *_ in wanted]
        for name in sorted(self.renew - set(names)):
            raise SettingsError(f"--renew {name}: nobody is called so; {did_you_mean(name, names)}")
        self._sign_first_list()
        authorities = {name: self._open_authority(name) for name in sorted(set(_AUTHORITIES.values()))}
        for name, kind, hosts, site in wanted:
            self._member(name, kind, hosts, site, authorities[_AUTHORITIES[kind]])
        self.register.save(self.authority)
        write_file(self.authority / CONFIG, self.config.model_dump_json(indent=1).encode())
        changed, absent = write_kits(self.config, self.out, self.register)
        self._warn(names)
        return Provisioned(
            folder=self.out,
            authority=self.authority,
            server=self.out / "server",
            operator=self.out / "operator",
            sites={site.name: self.out / site.name for site in self.config.sites},
            devices={name: self.out / name for site in self.config.sites for name in site.devices},
            made=tuple(self.made),
            changed=tuple(name for name in changed if name not in self.made),
            absent=tuple(absent),
            warnings=tuple(self.warnings),
        )

    @property
    def authority(self) -> Path:
        return self.out / "authority"

    def _wanted(self) -> Iterator[tuple[str, str, tuple[str, ...], str]]:
        """Name, kind, names and addresses it is a server under, and site, of each member."""
        server, federation = self.config.server, self.config.name
        addresses = [host_and_port(each)[0] for each in (server.address, server.operators_address)]
        yield "server", "server", (*dict.fromkeys(addresses), gateway_name("server", federation)), ""
        yield "operator", "operator", (), ""
        for site in self.config.sites:
            hosts = (host_and_port(site.address)[0], gateway_name(site.name, federation))
            yield site.name, "site", hosts, ""
            for device in site.devices:
                yield device, "device", (), site.name

    def _sign_first_list(self) -> None:
        """The key that signs bundles and revocations, and the first list, that revokes nothing."""
        operator, public = self.out / "operator", f"{self.config.name}.pub"
        if (self.authority / REVOKED).exists():
            return
        make_folder(operator)
        key = operator / f"{self.config.name}.key"
        if not key.exists():
            (operator / public).unlink(missing_ok=True)  # of an attempt that was cut short
            keys.create(key.with_suffix(""))
        signing = keys.load_private(key)
        line = keys.public_of(signing, self.config.name).line
        write_file(self.authority / public, f"{line}\n".encode())
        RevocationList.sign(0, (), signing).save(self.authority / REVOKED)

    def _open_authority(self, name: str) -> Pair:
        """An authority; made when nobody has been issued anything by it, or when it is to be made anew."""
        both, certificate = self.authority / f"{name}.key", self.authority / f"{name}.pem"
        issued = any(_AUTHORITIES[member.kind] == name for member in self.register.members.values())
        if issued and not (name == "operators" and "operator" in self.renew):
            pair = load_pair(both, both)
        else:
            title = f"{self.config.name} {name} {self.now:%Y-%m-%d}"
            pair = make_authority(title, self.now, self.config.authority_days)
            write_file(both, pair.key_pem + pair.certificate_pem, private=True)  # at once, or not at all
        write_file(certificate, pair.certificate_pem)
        until = pair.certificate.not_valid_after_utc
        if until < self.now + 12 * _SOON and issued:
            self.warnings.append(
                f"the {name}' authority ends on {until:%Y-%m-%d}: provision the federation anew before, into another folder"
            )
        return pair

    def _member(self, name: str, kind: str, hosts: tuple[str, ...], site: str, authority: Pair) -> None:
        """Sees to it that a member has a certificate for its names, and the private key in its kit."""
        member = self.register.members.get(name)
        folder = self.out / name
        path = folder / f"{STEMS[kind]}.key"
        if member is None:
            member = Member(kind, "", number=self.register.next_number() if kind == "device" else -1)
            key = None
        elif member.kind != kind:
            raise SettingsError(f"{name} was a {member.kind}, and cannot be a {kind}: choose another name")
        elif name in self.renew:
            key = None
        else:
            key = load_key(path) if path.exists() else None
            member = replace(member, site=site, node_key=_node_key_of(folder) or member.node_key)
            lasting = set(member.hosts) == set(hosts) and is_issued_by(member.loaded, authority)
            if lasting and (key is None or key.public_key() == member.loaded.public_key()):
                self.register.members[name] = member
                return
            if key is None:
                raise KitError(f"{name} has a new address, and its key is not here: add --renew {name}")
        pair = issue(
            authority,
            self.config.name,
            kind,
            name,
            hosts=hosts,
            now=self.now,
            days=self.config.certificate_days,
            key=key,
        )
        make_folder(folder)
        node_key = member.node_key
        if key is None:
            write_file(path, pair.key_pem, private=True)
            if kind == "site":
                node_key = _make_node_key(folder)
        former = (*member.former, member.sha256) if member.certificate else ()
        self.register.members[name] = replace(
            member,
            certificate=pair.certificate_pem.decode(),
            site=site,
            node_key=node_key,
            former=former,
            revoked=member.revoked and key is not None,
        )
        self.made.append(name)

    def _warn(self, names: Collection[str]) -> None:
        signing = self.out / "operator" / f"{self.config.name}.key"
        if "operator" in self.made and not signing.exists():
            self.warnings.append(f"{signing} is not here: bring it from where the operator's kit is")
        for name, member in self.register.members.items():
            if name in names and member.expires < self.now + _SOON:
                self.warnings.append(
                    f"the certificate of {name} ends on {member.expires:%Y-%m-%d}: add --renew {name}"
                )
            elif name not in names and not member.revoked:
                self.warnings.append(
                    f"{name} is not in the federation any more, but not revoked: fedali revoke {name} --kits {self.out}"
                )


def _make_node_key(folder: Path) -> str:
    """Write a new private key for a site's Flower node; its public one in OpenSSH's format."""
    key = ec.generate_private_key(ec.SECP384R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    write_file(folder / _NODE_KEY, pem, private=True)
    return _public(key)


def _node_key_of(folder: Path) -> str:
    """The public half of the node key that is in a kit; empty when none is there."""
    path = folder / _NODE_KEY
    if not path.exists():
        return ""
    with reporting(path, "read"):
        data = path.read_bytes()
    try:
        key = load_ssh_private_key(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise KitError(f"{path} is no node key of `fedali provision`")
    return _public(key)


def _public(key: ec.EllipticCurvePrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
