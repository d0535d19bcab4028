from __future__ import annotations

import pytest

from tests.bundles import write_full
from tests.gateways import ProvisionedSite


@pytest.fixture
def site(tmp_path):
    with ProvisionedSite(tmp_path) as site:
        write_full(tmp_path / "m.fedali", key=site.signer, personal=True, options={"personal": "head"})
        site.put(tmp_path / "m.fedali")
        yield site


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    """Another federation with the same names."""
    with ProvisionedSite(tmp_path_factory.mktemp("stranger")) as other:
        yield other
