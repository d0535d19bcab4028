"""Who gets which samples: as collected, or one data set spread over nominal clients."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedali.data.dataset import Dataset
from fedali.errors import SettingsError

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Partition:
    """Disjoint, sorted index arrays, one per client, that cover a data set; what was done, in words; clients' names."""

    assignments: tuple[Indices, ...]
    notes: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.names:
            object.__setattr__(self, "names", tuple(f"client-{k + 1}" for k in range(len(self.assignments))))
        if len(self.names) != len(self.assignments):
            raise SettingsError(f"a partition of {len(self.assignments)} clients has {len(self.names)} names")


def natural(dataset: Dataset) -> Partition:
    """Each client keeps its own samples."""
    order = np.argsort(dataset.client, kind="stable")
    ends = np.cumsum(np.bincount(dataset.client, minlength=len(dataset.client_names)))
    rows = tuple(np.split(order, ends[:-1]))
    return Partition(rows, ("each client keeps its own samples",), dataset.client_names)


def dirichlet(
    y: npt.ArrayLike, clients: int, alpha: float, rng: np.random.Generator, *, minimum: int = 10
) -> Partition:
    """Label skew: of each class, clients get shares drawn from Dirichlet(``alpha``, ..., ``alpha``) [1].

    Small ``alpha`` gives each class to few clients, large ``alpha`` an even spread. Clients left with fewer than
    ``minimum`` samples then get random ones of whoever has most at that moment; the notes say how many, so that the
    draw always ends. Raises ``SettingsError`` when ``clients * minimum`` exceeds the samples, or ``alpha`` is not
    positive.

    [1] Hsu, Qi, Brown: Measuring the Effects of Non-Identical Data Distribution. arXiv:1909.06335.

    >>> dirichlet([0, 0, 0, 1, 1, 1], 2, 100.0, np.random.default_rng(0), minimum=2).names
    ('client-1', 'client-2')
    """
    labels = _labels(y, clients)
    if not math.isfinite(alpha) or alpha <= 0:
        raise SettingsError(f"alpha must be a positive number, not {alpha}; 0.1 skews strongly, 100 hardly")
    if minimum < 0 or clients * minimum > len(labels):
        raise SettingsError(
            f"{clients} clients with at least {minimum} samples each do not fit {len(labels)} samples; "
            "lower the minimum or the number of clients"
        )
    owners: list[list[int]] = [[] for _ in range(clients)]
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        shares = rng.dirichlet(np.full(clients, alpha))
        if not math.isclose(float(shares.sum()), 1.0, rel_tol=1e-6):  # an alpha too small for floating point
            shares = np.eye(clients)[rng.integers(clients)]
        ends = np.rint(np.cumsum(shares)[:-1] * len(rows)).astype(np.int64)
        for owner, part in zip(owners, np.split(rows, ends), strict=True):
            owner.extend(part.tolist())
    notes = [f"classes shared out by Dirichlet({alpha:g}) over {clients} clients"]
    notes += _fill_up(owners, minimum, rng)
    return Partition(tuple(np.sort(np.array(rows, np.int64)) for rows in owners), tuple(notes))


def _fill_up(owners: list[list[int]], minimum: int, rng: np.random.Generator) -> list[str]:
    """Move random samples from the largest clients to those below ``minimum``; the note that says so, if any."""
    sizes = np.array([len(rows) for rows in owners])
    poor = np.flatnonzero(sizes < minimum)
    moved = 0
    for k in poor:
        while sizes[k] < minimum:
            donor = int(np.argmax(sizes))  # it has more than the minimum, because all together have enough
            owners[k].append(owners[donor].pop(int(rng.integers(sizes[donor]))))
            sizes[donor] -= 1
            sizes[k] += 1
            moved += 1
    return [f"moved {moved} samples to {len(poor)} clients below {minimum}"] if moved else []


def shards(y: npt.ArrayLike, clients: int, shards_per_client: int, rng: np.random.Generator) -> Partition:
    """Pathological label skew: sort by label, cut into equal shards, deal each client ``shards_per_client`` [1].

    Raises ``SettingsError`` when there are more shards than samples.

    [1] McMahan, Moore, Ramage, Hampson, Agüera y Arcas: Communication-Efficient Learning of Deep Networks from
    Decentralized Data. AISTATS 2017.

    >>> part = shards([0, 1, 0, 1], 2, 1, np.random.default_rng(0))
    >>> sorted(rows.tolist() for rows in part.assignments)
    [[0, 2], [1, 3]]
    """
    labels = _labels(y, clients)
    pieces = clients * shards_per_client
    if shards_per_client < 1 or pieces > len(labels):
        raise SettingsError(
            f"{clients} clients with {shards_per_client} shards each need 1..{len(labels)} shards in all, "
            f"not {pieces}: there are {len(labels)} samples"
        )
    shuffled = rng.permutation(len(labels))
    by_label = shuffled[np.argsort(labels[shuffled], kind="stable")]
    cut = np.array_split(by_label, pieces)
    dealt = rng.permutation(pieces).reshape(clients, shards_per_client)
    rows = tuple(
        np.sort(np.concatenate([cut[int(piece)] for piece in hand])).astype(np.int64) for hand in dealt
    )
    return Partition(
        rows, (f"{pieces} shards sorted by label, {shards_per_client} for each of {clients} clients",)
    )


def _labels(y: npt.ArrayLike, clients: int) -> npt.NDArray[np.int64]:
    """``y`` as an array [N], when it can be given to so many clients."""
    labels = np.asarray(y)
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise SettingsError(f"labels must be integers [N], not {labels.dtype} {list(labels.shape)}")
    if not 1 <= clients <= len(labels):
        raise SettingsError(f"{len(labels)} samples can be given to 1..{len(labels)} clients, not {clients}")
    return labels.astype(np.int64)
