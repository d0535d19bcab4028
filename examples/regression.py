"""Regression on real data: disease progression of scikit-learn's diabetes patients, whose hospitals are age groups.

    python examples/regression.py

Targets are normalised by the training samples of all clients, and errors are told in their unit. On a device it goes on with
``fedali export`` and ``fedali-client fit|predict|evaluate``, see docs/tasks.md.
"""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_diabetes

from fedali_simulations import simulate


def write_data(path: Path) -> None:
    """Samples x [n, 10], y [n, 1], and whose they are."""
    data = load_diabetes()
    age_group = np.digitize(data.data[:, 0], np.quantile(data.data[:, 0], [0.25, 0.5, 0.75]))
    x, y = data.data.astype(np.float32), data.target[:, None]
    np.savez(path, x=x, y=y, client=age_group, target_names=["progression"])


def main(rounds: int = 10) -> None:
    """Compare methods."""
    write_data(Path("diabetes.npz"))
    results = simulate(
        {
            "methods": ["fedali", "fedavg", "pooled"],
            "data": {"source": "diabetes.npz"},
            "task": {"name": "regression", "options": {"error": "huber", "units": ["points"]}},
            "model": {"name": "mlp", "options": {"hidden": [32]}},
            "split": {"order": "random"},
            "training": {"rounds": rounds, "batch_size": 16, "learning_rate": 0.003, "engine": "loop"},
        },
        workers=1,
    )
    print(results.targets.to_string(index=False))


if __name__ == "__main__":
    main()
