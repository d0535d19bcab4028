"""``fedali provision`` and ``fedali revoke`` as people use them."""

from __future__ import annotations

import sys

import pytest

from fedali.cli import main
from fedali.wire.kit import OperatorKit, read_kit_as


@pytest.fixture
def fedali(capsys, monkeypatch, tmp_path):
    """Runs the command line in a folder of its own: exit code, what it printed, what it complained of."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, list[str], list[str]]:
        monkeypatch.setattr(sys, "argv", ["fedali", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out.splitlines(), err.splitlines()

    return run


@pytest.fixture
def file(fedali, tmp_path):
    """The example, as a user would begin."""
    code, out, err = fedali("provision", "--example")
    assert (code, err) == (0, [])
    path = tmp_path / "federation.toml"
    path.write_text("\n".join(out))
    return path


def test_from_the_example_to_a_revoked_device(fedali, file, tmp_path):
    code, out, err = fedali("provision", "federation.toml", "--out", "wards")
    assert (code, err) == (0, [])
    assert out[0] == "made 10 kits; bring each to its machine, its README.txt says how to start it:"
    kits = [line.strip() for line in out if line.startswith("  ")]
    assert len(kits) == 10
    assert all((tmp_path / kit / "kit.json").exists() for kit in kits)
    assert out[-1].startswith("wards/authority can make identities")

    assert fedali("provision", "federation.toml", "--out", "wards") == (0, ["wards is as the file says"], [])

    code, out, err = fedali("revoke", "a-bed-2", "--kits", "wards")
    assert (code, err) == (0, [])
    assert out[0].startswith("a-bed-2 is revoked, by list 1.")
    assert "hospital-a" in out[1]
    assert (tmp_path / out[2].strip()).exists()
    assert len(read_kit_as(tmp_path / "wards/operator", OperatorKit).devices) == 5

    code, out, err = fedali("revoke", "hospital-b", "--kits", "wards")
    assert (code, err) == (0, [])
    assert [line.strip() for line in out[1:3]] == ["wards/server", "wards/operator"]

    code, out, err = fedali(
        "provision", str(file), "-o", "wards", "--renew", "a-bed-2", "--renew", "hospital-b"
    )
    assert (code, err) == (0, [])
    assert [line.strip() for line in out[1:3]] == ["wards/a-bed-2", "wards/hospital-b"]
    assert {line.strip() for line in out[4:7]} == {"wards/server", "wards/operator", "wards/hospital-a"}


def test_warnings_go_where_errors_go(fedali, file):
    assert fedali("provision", "federation.toml")[0] == 0
    file.write_text(file.read_text().replace(', "b-bed-3"', ""))
    code, out, err = fedali("provision", "federation.toml")
    assert code == 0
    assert out[0].startswith("changed 2 kits")
    assert err == [
        "warning: b-bed-3 is not in the federation any more, but not revoked: fedali revoke b-bed-3 --kits kits"
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["provision"], "which federation? `fedali provision --example > federation.toml` is a beginning"),
        (["provision", "nowhere.toml"], "cannot read nowhere.toml: No such file or directory"),
        (["provision", "federation.toml", "--out", "."], ". is there and has no authority/register.json"),
        (
            ["provision", "federation.toml", "--renew", "a-bed-9"],
            "--renew a-bed-9: nobody is called so; did you mean",
        ),
        (
            ["revoke", "a-bed-1"],
            "kits has no authority/register.json: give the folder that `fedali provision` made",
        ),
    ],
)
def test_mistakes_are_one_line(fedali, file, words, message):
    code, out, err = fedali(*words)
    assert (code, out, len(err)) == (2, [], 1)
    assert err[0].startswith(f"fedali: {message}")
