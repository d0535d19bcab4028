"""Data that a function of yours makes: here scikit-learn's digits, as if eight people had written them.

python examples/own_data.py
fedali simulate my_study.toml            with source = "examples/own_data.py:load" in its [data]
"""

import numpy as np
from sklearn.datasets import load_digits

from fedali import simulate


def load(people=8):
    """Images [n, 1, 8, 8], labels [n], and whose each is [n]."""
    digits = load_digits()
    images = digits.images[:, None].astype("float32")
    return images, digits.target, np.arange(len(images)) % people


def main(**settings):
    """Compare two methods on them."""
    return simulate(data=load, methods=["fedali", "fedavg"], **{"rounds": 10, **settings})


if __name__ == "__main__":
    print(main())
