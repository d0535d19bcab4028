"""What every federated method should beat, and does not always: lines of a table that are no federated methods.

They have the clients, splits and evaluation of the others, and are no methods for devices, bundles or tuning.
"""

from __future__ import annotations

BASELINES = {
    "pooled": "one model of everybody's training data together, as if they could be sent; rounds x epochs over all of them",
    "forest-pooled": "a random forest of everybody's training data together, on simple statistics of each window",
    "forest": "a random forest of each client's own training data, on simple statistics of each window",
}
"""Names, each with a line on what it is."""
