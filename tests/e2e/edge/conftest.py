from __future__ import annotations

import numpy as np
import pytest

from tests.bundles import CLASSES, toy_data, write_full


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a bundle and data."""
    folder = tmp_path_factory.mktemp("home")
    write_full(folder / "m.fedali")
    x, y = toy_data(60)
    np.savez(folder / "data.npz", x=x, y=y)
    np.savez(folder / "named.npz", x=x, y=np.array(CLASSES)[y])
    return folder
