"""Small logs of people who do three things: a sine of its own frequency for each, 50 rows a second."""

from __future__ import annotations

import numpy as np

HEAD = ("client", "label", "recording", "time", "x", "y", "z")
LABELS = ("run", "sit", "walk")


def rows(clients=("c1", "c2", "c3"), labels=LABELS, n=160):
    """Rows as of ``HEAD``, times in seconds."""
    chance = np.random.default_rng(0)
    found = []
    for client in clients:
        for k, label in enumerate(labels):
            for i in range(n):
                t = 0.02 * (k * n + i)
                x, y, z = (
                    np.sin(2 * np.pi * (1 + k) * t + np.arange(3)) + chance.normal(0, 0.3, 3) + (0, 0, 9.81)
                )
                found.append((client, label, "r1", f"{t:.2f}", f"{x:.4f}", f"{y:.4f}", f"{z:.4f}"))
    return found


def write(path, table, head=HEAD, separator=",", encoding="utf-8"):
    """A CSV of such rows."""
    lines = [separator.join(map(str, row)) for row in [head, *table]]
    path.write_bytes(("\n".join(lines) + "\n").encode(encoding))
    return path


def renamed(table):
    """As somebody else's logger calls them, with a word that says nothing."""
    head = ("seconds_elapsed", "x", "y", "z", "activity", "user", "model")
    return [(t, x, y, z, label, client, "nexus4") for client, label, _, t, x, y, z in table], head
