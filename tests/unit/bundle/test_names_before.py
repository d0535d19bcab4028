"""Bundles of earlier versions: ``fedali`` was the paper's method then."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from fedali.bundle.file import parse_bundle
from fedali.methods import FedAli, FedAliPaper, build_method, name_of, options_of
from fedali.slots import PrototypeUpload
from fedali.version import __version__
from tests.unit.bundle.altered import TRUSTED, altered

RECORDED = Path(__file__).parents[3] / "proto/vectors/model.fedali"


def written_by(version, **changes):
    """What changes a manifest to one of another version, whose method is called ``fedali``."""

    def change(manifest):
        manifest["fedali"] = version
        manifest["method"]["name"] = "fedali"
        manifest.update(changes)
        if manifest["format"] == 1:
            for name in ("answer", "phases", "prototypes", "data"):
                manifest.pop(name, None)

    return change


@pytest.mark.parametrize(("version", "format_"), [("0.1.0", 1), ("0.2.0", 2), ("0.2.11.dev3", 2)])
@pytest.mark.parametrize("mode", ["full", "head"])
def test_fedali_of_before_is_the_papers(good, mode, version, format_):
    bundle = parse_bundle(altered(good[mode], written_by(version, format=format_)), TRUSTED)
    now = parse_bundle(good[mode], TRUSTED).manifest
    assert bundle.manifest.method == dataclasses.replace(now.method, name="fedali-paper")
    assert bundle.manifest.prototypes == PrototypeUpload("aligned") == now.prototypes
    assert build_method(bundle.manifest.method.name, bundle.manifest.method.options) == FedAliPaper("head")


@pytest.mark.parametrize("version", [__version__, "0.3.0", "0.20.0", "1.0.0"])
def test_fedali_of_now_is_the_new_one(good, version):
    own = options_of(FedAli())
    data = altered(good["full"], written_by(version, method={"name": "fedali", "options": own}))
    found = parse_bundle(data, TRUSTED).manifest.method
    assert (found.name, found.options) == ("fedali", own)
    assert own["answer"] == "gate"
    assert build_method(found.name, found.options) == FedAli()
    assert options_of(FedAli(answer="trained"))["answer"] == "trained"
    assert "answer" not in options_of(FedAliPaper())


def test_the_bundle_that_was_recorded_is_the_papers():
    bundle = parse_bundle(RECORDED.read_bytes(), None, allow_unsigned=True)
    method = build_method(bundle.manifest.method.name, bundle.manifest.method.options)
    assert (bundle.manifest.fedali, name_of(method)) == ("0.2.0", "fedali-paper")
    assert bundle.manifest.method.options == {}  # the name alone says nothing of when it was written
