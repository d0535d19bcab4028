from __future__ import annotations

import base64
import os
import stat
import subprocess

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from fedali.bundle.keys import PublicKey, create, load_private, load_public, public_of
from fedali.errors import BundleError, FedaliError


def test_a_new_pair_signs_and_verifies(tmp_path):
    made = create(tmp_path / "keys" / "site")
    assert sorted(path.name for path in (tmp_path / "keys").iterdir()) == ["site.key", "site.pub"]
    private, public = load_private(tmp_path / "keys/site.key"), load_public(tmp_path / "keys/site.pub")
    assert public == made == public_of(private, "site")
    signature = private.sign(b"a message")
    assert public.verifies(signature, b"a message")
    assert not public.verifies(signature, b"another")
    assert not public.verifies(signature[:-1] + bytes([signature[-1] ^ 1]), b"a message")
    assert not public.verifies(b"", b"a message")
    assert not create(tmp_path / "other").verifies(signature, b"a message")


def test_openssl_reads_the_private_key_and_agrees_on_the_public_one(tmp_path):
    made = create(tmp_path / "site")
    command = ["openssl", "pkey", "-in", str(tmp_path / "site.key"), "-pubout", "-outform", "DER"]
    found = subprocess.run(command, capture_output=True, check=True).stdout
    assert found[-32:] == made.raw


def test_the_private_key_is_its_owners_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        create(tmp_path / "site")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "site.key").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "site.pub").stat().st_mode) == 0o644


@pytest.mark.parametrize("there", ["site.key", "site.pub"])
def test_a_key_is_never_overwritten(tmp_path, there):
    (tmp_path / there).write_text("mine")
    with pytest.raises(BundleError, match=f"{there} exists already"):
        create(tmp_path / "site")
    assert [path.name for path in tmp_path.iterdir()] == [there]
    assert (tmp_path / there).read_text() == "mine"


def test_a_link_is_not_followed(tmp_path):
    (tmp_path / "site.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="exists already"):
        create(tmp_path / "site")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("name", ["a b", "-x", ".hidden", "a\nb", "x" * 65, "ü"])
def test_names_that_would_be_trouble(tmp_path, name):
    with pytest.raises(BundleError, match="no name for a key"):
        create(tmp_path / name)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FedaliError, match="cannot write"):
        create(tmp_path / "file" / "site")


def test_a_public_key_is_one_line_for_people(tmp_path):
    made = create(tmp_path / "site")
    kind, text, name = (tmp_path / "site.pub").read_text().split()
    assert (kind, base64.b64decode(text), name) == ("fedali-ed25519", made.raw, "site")
    assert len(made.fingerprint) == 32
    (tmp_path / "unnamed.pub").write_text(f"{kind} {text}")
    assert load_public(tmp_path / "unnamed.pub") == PublicKey(made.raw)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "fedali-ed25519",
        "fedali-ed25519 !!! site",
        "fedali-ed25519 AAAA site",
        "ssh-ed25519 " + base64.b64encode(bytes(32)).decode(),
        "fedali-ed25519 " + base64.b64encode(bytes(32)).decode() + " a b",
        "fedali-ed25519 " + base64.b64encode(bytes(32)).decode() + "\nfedali-ed25519 "
        + base64.b64encode(bytes(32)).decode(),
        "ü",
        "x" * 20_000,
    ],
)  # fmt: skip
def test_what_is_no_public_key(tmp_path, text):
    path = tmp_path / "odd.pub"
    path.write_text(text)
    with pytest.raises(BundleError, match=r"odd\.pub is no public key"):
        load_public(path)


def test_a_device_is_not_given_the_private_key_by_mistake_nor_the_other_way(tmp_path):
    create(tmp_path / "site")
    with pytest.raises(BundleError, match=r"site\.key is a private key: a device gets the \.pub"):
        load_public(tmp_path / "site.key")
    with pytest.raises(BundleError, match=r"site\.pub is a public key: signing takes the \.key"):
        load_private(tmp_path / "site.pub")


def test_a_private_key_that_others_may_read_is_refused(tmp_path):
    create(tmp_path / "site")
    (tmp_path / "site.key").chmod(0o640)
    with pytest.raises(BundleError, match=r"can be read by others \(mode 0640\): chmod 600"):
        load_private(tmp_path / "site.key")


def test_private_keys_of_other_kinds(tmp_path):
    def load(data):
        path = tmp_path / "odd.key"
        path.unlink(missing_ok=True)
        path.touch(0o600)
        path.write_bytes(data)
        return load_private(path)

    key, pem = Ed25519PrivateKey.generate(), (Encoding.PEM, PrivateFormat.PKCS8)
    assert public_of(load(key.private_bytes(*pem, NoEncryption()))) == public_of(key)
    with pytest.raises(BundleError, match="is encrypted"):
        load(key.private_bytes(*pem, BestAvailableEncryption(b"secret")))
    with pytest.raises(BundleError, match="another kind, not Ed25519"):
        load(generate_private_key(SECP384R1()).private_bytes(*pem, NoEncryption()))
    for nothing in (b"", b"-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n", b"\x00" * 100):
        with pytest.raises(BundleError, match="no private key"):
            load(nothing)


def test_missing_files_are_named(tmp_path):
    for load in (load_public, load_private):
        with pytest.raises(BundleError, match="nowhere: No such file"):
            load(tmp_path / "nowhere")
