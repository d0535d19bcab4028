from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

from fedali.support.memory import collect_rarely
from tests.marks import scope

# A busy machine is not a fault, and a test that passed passes again; FEDALI_HYPOTHESIS=explore draws other examples each time.
settings.register_profile("fedali", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None)
settings.load_profile(os.environ.get("FEDALI_HYPOTHESIS", "fedali"))

collect_rarely()  # a worker imports everything, and looks through all of it for garbage

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared"


def golden(kind: str) -> list[Path]:
    """Recorded vectors of the reference implementation: the small ones are in the tree, the large ones beside it."""
    here = sorted((ROOT / "tests/data/golden" / kind).glob("case_*.npz"))
    names = {path.name for path in here}
    beside = Path(os.environ.get("FEDALI_GOLDEN", SHARED / "golden")) / kind
    return here + [path for path in sorted(beside.glob("case_*.npz")) if path.name not in names]


@pytest.fixture(scope="session")
def motionsense_folder() -> Path:
    folder = Path(os.environ.get("FEDALI_DATA", SHARED / "data"))
    if not (folder / "motionsense.npz").exists():
        pytest.skip("MotionSense is not at hand: set FEDALI_DATA")
    return folder


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Tests of a file are spread over the workers; see ``tests.marks``."""
    from xdist.scheduler import LoadScopeScheduling

    class Spread(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return scope(nodeid)

    return Spread(config, log)
