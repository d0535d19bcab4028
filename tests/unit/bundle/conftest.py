from __future__ import annotations

import pytest

from fedali.bundle.file import write_bundle
from tests.unit.bundle.altered import KEY


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """The bytes of a good bundle by mode."""
    from tests import small_bundles as bundles  # made by onnx, which is not where devices test their keys

    folder = tmp_path_factory.mktemp("bundles")
    found = {}
    for mode in ("full", "head"):
        write_bundle(folder / mode, bundles.fields(mode), bundles.parts(mode), KEY)
        found[mode] = (folder / mode).read_bytes()
    return found
