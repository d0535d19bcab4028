from __future__ import annotations

import pytest

from fedali.bundle.file import read_bundle
from tests.bundles import write_full


@pytest.fixture(scope="session")
def bundle_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("bundle") / "small.fedali"
    write_full(path)
    return path


@pytest.fixture(scope="session")
def bundle(bundle_path):
    return read_bundle(bundle_path, None, allow_unsigned=True)
