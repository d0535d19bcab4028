import subprocess
import sys

import numpy as np
from sklearn.datasets import load_digits

from fedali.data import load_digits_dataset


def test_digits_are_the_published_ones():
    data = load_digits_dataset()
    assert data.x.shape == (1797, 1, 8, 8)
    assert data.x.dtype == np.float32
    assert (data.x.min(), data.x.max()) == (0.0, 1.0)
    # class counts from the UCI page of the test set that scikit-learn ships
    assert np.bincount(data.y).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    # scikit-learn's documentation prints the first image; its first row is 0 0 5 13 9 1 0 0
    assert (data.x[0, 0, 0] * 16).tolist() == [0, 0, 5, 13, 9, 1, 0, 0]


def test_digits_are_what_scikit_learn_loads():
    data, theirs = load_digits_dataset(), load_digits()
    assert np.array_equal(data.x[:, 0] * 16, theirs.images)
    assert np.array_equal(data.y, theirs.target)


def test_importing_the_package_needs_numpy_alone():
    heavy = "{'torch', 'sklearn', 'scipy', 'pandas', 'requests', 'platformdirs'}"
    code = f"import sys, fedali.data; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
