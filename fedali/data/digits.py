"""Scikit-learn's handwritten digits: a real image task that needs no download."""

from __future__ import annotations

import numpy as np

from fedali.data.dataset import Dataset
from fedali.data.extras import require


def load_digits_dataset() -> Dataset:
    """The 1,797 digits as images ``x`` [1797, 1, 8, 8] float32 in 0..1, of one nominal client.

    Who wrote which digit is unknown, so that a partitioner has to spread them over clients. Raises
    ``MissingExtraError`` when scikit-learn is not installed.

    >>> load_digits_dataset().x.shape
    (1797, 1, 8, 8)
    """
    digits = require("sklearn.datasets").load_digits()
    images = np.asarray(digits.images, np.float32)[:, None] / np.float32(16)
    samples = len(images)
    return Dataset(
        name="digits",
        x=images,
        y=np.asarray(digits.target, np.int64),
        client=np.zeros(samples, np.int64),
        client_names=("everyone",),
        class_names=tuple(str(k) for k in range(10)),
        channel_names=("grey",),
        recording=np.arange(samples),
        start=np.zeros(samples, np.int64),
        length=0,
        licence="CC BY 4.0",
        citation="Alpaydin, Kaynak: Optical Recognition of Handwritten Digits. UCI, 1998. doi:10.24432/C50P49",
    )
