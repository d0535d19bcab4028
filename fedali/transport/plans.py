"""Aligning a client's prototypes to a reference set by optimal transport (numpy, scipy, POT)."""

from __future__ import annotations

import warnings
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedali.errors import DataError, MissingExtraError, SettingsError, did_you_mean
from fedali.transport.distances import squared_distances
from fedali.transport.solvers import Solver as Solver

Array = NDArray[np.float64]
Cost = Literal["sqeuclidean", "cosine"]

_PIVOTS = 10_000_000  # limit of the network simplex, out of reach
_ITERATIONS = 1000  # limit of Sinkhorn and of the unbalanced solver
_LARGEST = 1e100  # squares of larger values overflow
_NOTHING = 1e-15  # a share of the mass that is none


def transport_plan(
    client: ArrayLike,
    reference: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    reference_weights: ArrayLike | None = None,
    method: Solver = "auto",
    cost: Cost = "sqeuclidean",
    regularisation: float = 0.05,
    marginal_penalty: float = 0.3,
) -> Array:
    """How much of each of a client's prototypes goes to each reference prototype: a plan [K, K'], float64.

    ``client`` is [K, d], ``reference`` [K', d]; ``weights`` [K] and ``reference_weights`` [K'] are the masses
    of their rows, for instance how many embeddings each answered for; ``None`` is uniform. Both are scaled
    to sum to 1, and so does the plan (unless unbalanced). Which solver runs:

    - ``"auto"``: ``"assignment"`` when K == K' and all masses are equal, else ``"exact"``.
    - ``"assignment"``: exact OT of equal sizes and masses *is* a permutation; ``linear_sum_assignment`` [1].
    - ``"exact"``: ``ot.emd``, the network simplex; any sizes and masses.
    - ``"entropic"``: ``ot.sinkhorn`` [2], at most 1000 iterations, then rounded onto the exact marginals [3];
      ``regularisation`` is a share of the median cost. Where the kernel underflows: log domain, 20 x slower.
    - ``"unbalanced"``: ``ot.unbalanced.mm_unbalanced`` [4], for clients that lack classes: missing a marginal
      costs ``marginal_penalty`` x median cost (outliers must not set prices) x Kullback-Leibler divergence.
      At 0.3, where a partner was removed at most 33 % of the mass arrived, elsewhere at least 57 % (K 64-256,
      drift 0.1-0.7 sigma). Slow: 7-26 ms for K = 64, 1-5 s for 1024.

    ``cost`` is the squared Euclidean distance, or 1 - cosine (where a zero row has cosine 0 to everything).

    Raises ``DataError`` for prototypes or masses that are misshapen, not finite, negative or all zero;
    ``SettingsError`` for a bad option, an assignment of unequal masses, or no convergence (1 % of the mass
    astray, or a duality gap of 1 % of the median cost); ``MissingExtraError`` without scipy or POT.

    >>> transport_plan([[0.9, 0.1], [0.1, 0.9]], [[0.0, 1.0], [1.0, 0.0]])
    array([[0. , 0.5],
           [0.5, 0. ]])

    [1] Crouse, TAES 2016 [2] Cuturi, NIPS 2013 [3] Altschuler et al., NIPS 2017 [4] Chapel et al., NIPS 2021
    """
    x, y = _prototypes("client", client), _prototypes("reference", reference)
    a, b = _masses("weights", weights, x), _masses("reference_weights", reference_weights, y)
    solver, costs = _solver(method, a, b), _costs(x, y, cost)
    return _solve(solver, a, b, costs, regularisation, marginal_penalty)


def barycentric_projection(
    plan: ArrayLike, client: ArrayLike, fallback: ArrayLike | None = None, *, minimum_mass: ArrayLike = 1e-12
) -> Array:
    """For each reference row the mean of what the plan [K, K'] sends to it: [K', d], float64.

    Row j is sum_i plan[i, j] client[i] / sum_i plan[i, j]. A column that gets no more than ``minimum_mass``
    (one number, or [K']) keeps its row of ``fallback`` [K', d]; without one, ``DataError``.

    >>> barycentric_projection([[0.5, 0.0], [0.5, 0.0]], [[1.0], [3.0]], fallback=[[8.0], [9.0]])
    array([[2.],
           [9.]])
    """
    rows, masses = _prototypes("client", client), np.asarray(plan, np.float64)
    if masses.ndim != 2 or len(masses) != len(rows):
        raise DataError(f"the plan has shape {masses.shape}, {len(rows)} prototypes need ({len(rows)}, K')")
    arrived = masses.sum(axis=0)
    served = arrived > np.asarray(minimum_mass, np.float64)
    projected = (masses.T @ rows) / np.where(served, arrived, 1.0)[:, None]
    if served.all():
        return projected
    if fallback is None:
        raise DataError(f"{np.sum(~served)} columns of the plan have no mass; give their rows as fallback")
    kept = _prototypes("fallback", fallback)
    if kept.shape != projected.shape:
        raise DataError(f"fallback has shape {kept.shape}, the projection has {projected.shape}")
    return np.where(served[:, None], projected, kept)


def ot_align(
    client: ArrayLike,
    reference: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    reference_weights: ArrayLike | None = None,
    method: Solver = "auto",
    cost: Cost = "sqeuclidean",
    regularisation: float = 0.05,
    marginal_penalty: float = 0.3,
    apart: ArrayLike | None = None,
) -> Array:
    """A client's prototypes [K, d] in the order of the reference [K', d]: a row for each of its, float64.

    The barycentric projection of ``transport_plan``, with its options and errors. An assignment re-indexes
    and changes no number. Reference rows that no mass reaches stay as they are; in an unbalanced plan those
    that get less than half of their own, which reads as: this client has nothing like it.

    With ``weights`` give ``reference_weights`` too, or use ``"unbalanced"``: a balanced plan must spread a
    heavy prototype over light reference rows and blurs them (K = 64, uneven masses: by 56 % of their norm).

    Where many clients are aligned to one reference, give ``apart``, its ``separation``: a set whose rows all stayed
    nearer to their own reference row than half its separation is known to be in order, without any costs.

    >>> reference = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> bool((ot_align(reference[[2, 0, 1]] + 0.25, reference) == reference + 0.25).all())
    True
    """
    x, y = _prototypes("client", client), _prototypes("reference", reference)
    a, b = _masses("weights", weights, x), _masses("reference_weights", reference_weights, y)
    solver = _solver(method, a, b)
    if solver == "assignment" and cost == "sqeuclidean" and apart is not None and _in_order(x, y, apart):
        return x.copy()
    costs = _costs(x, y, cost)
    if solver == "assignment":  # multiplying by a permutation costs more than finding it
        return x[_assignment(costs)]
    plan = _solve(solver, a, b, costs, regularisation, marginal_penalty)
    return barycentric_projection(plan, x, y, minimum_mass=0.5 * b if solver == "unbalanced" else 1e-12)


def separation(reference: ArrayLike) -> Array:
    """How far each row of a reference [K, d] is, at least, from the nearest other row: [K], float64; infinite for one row.

    Computed in single precision, less what that may have rounded away.

    >>> separation([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]]).round(3)
    array([1.   , 4.243, 1.   ])
    """
    rows = _prototypes("reference", reference)
    x = (rows - rows.mean(axis=0)).astype(np.float32)
    lengths = np.einsum("kd,kd->k", x, x)
    squares = (-2 * x) @ x.T
    squares += lengths
    np.fill_diagonal(squares, np.inf)
    rounding = (x.shape[1] + 4) * np.finfo(np.float32).eps * 2 * float(lengths.max())
    nearest: Array = squares.min(axis=1).astype(np.float64) + lengths - rounding
    return np.sqrt(np.maximum(nearest, 0.0))


def _in_order(x: Array, y: Array, apart: ArrayLike) -> bool:
    """Whether each row of x is surely nearest to its own row of y: then no other assignment is as cheap.

    By the triangle inequality |x_i - y_j| >= |y_i - y_j| - |x_i - y_i|, so that moving by less than half the
    separation suffices.
    """
    moved = np.sqrt(np.einsum("kd,kd->k", x - y, x - y))
    return bool((moved < 0.5 * np.asarray(apart, np.float64)).all())


def _prototypes(name: str, value: ArrayLike) -> Array:
    rows = np.asarray(value, np.float64)
    if rows.ndim != 2 or 0 in rows.shape:
        raise DataError(f"{name} prototypes have shape {rows.shape}, they must be (prototypes, dimensions)")
    if not (np.abs(rows) < _LARGEST).all():  # also false for NaN
        raise DataError(f"{name} prototypes hold NaN, infinite or huge values; did training diverge?")
    return rows


def _masses(name: str, value: ArrayLike | None, rows: Array) -> Array:
    masses = np.ones(len(rows)) if value is None else np.asarray(value, np.float64)
    if masses.shape != (len(rows),):
        raise DataError(f"{name} have shape {masses.shape}, {len(rows)} prototypes need ({len(rows)},)")
    if not ((masses >= 0) & (masses < _LARGEST)).all():
        raise DataError(f"{name} must be finite and >= 0, they go from {masses.min()} to {masses.max()}")
    if not masses.any():
        raise DataError(f"{name} are all zero; give None for uniform masses, or leave this client out")
    return cast(Array, masses / masses.sum())


def _solver(method: str, a: Array, b: Array) -> Solver:
    if method not in get_args(Solver):
        raise SettingsError(f"unknown method {method!r}; {did_you_mean(str(method), get_args(Solver))}")
    permutable = a.shape == b.shape and max(np.ptp(a), np.ptp(b)) <= 1e-12 * a[0]
    if method == "assignment" and not permutable:
        raise SettingsError(f"{len(a)} to {len(b)} prototypes of these masses are no assignment; use 'exact'")
    if method == "auto":
        return "assignment" if permutable else "exact"
    return cast(Solver, method)


def _costs(x: Array, y: Array, cost: str) -> Array:
    if cost not in get_args(Cost):
        raise SettingsError(f"unknown cost {cost!r}; {did_you_mean(str(cost), get_args(Cost))}")
    if x.shape[1] != y.shape[1]:
        raise DataError(f"client prototypes have {x.shape[1]} dimensions, the reference has {y.shape[1]}")
    if cost == "cosine":
        norms = np.outer(np.linalg.norm(x, axis=1), np.linalg.norm(y, axis=1))
        return np.maximum(1.0 - (x @ y.T) / np.where(norms > 0, norms, 1.0), 0.0)
    return squared_distances(x, y)


def _solve(solver: Solver, a: Array, b: Array, costs: Array, regularisation: float, penalty: float) -> Array:
    if not (0 < regularisation < np.inf and 0 < penalty < np.inf):
        raise SettingsError(f"regularisation {regularisation}, marginal_penalty {penalty}: must be positive")
    plan = np.zeros_like(costs)
    if solver == "assignment":
        plan[_assignment(costs), np.arange(len(b))] = b
        return plan
    rows, columns = a > _NOTHING, b > _NOTHING  # a solver would take the logarithm of an empty mass
    used = np.ix_(rows, columns)
    a, b, costs = a[rows], b[columns], costs[used]
    median, largest = float(np.median(costs)), float(costs.max())
    costs = costs / ((median if median > 1e-9 * largest else largest) or 1.0)  # half may be zero, or all
    if solver == "exact":
        plan[used] = _exact(a, b, costs)
    elif solver == "entropic":
        plan[used] = _entropic(a, b, costs, regularisation)
    else:
        plan[used] = _unbalanced(a, b, costs, penalty)
    return plan


def _assignment(costs: Array) -> NDArray[np.intp]:  # a row for each column
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError as error:
        raise MissingExtraError("scipy", "server") from error
    return np.argsort(linear_sum_assignment(costs)[1])


def _pot() -> Any:
    try:
        import ot
    except ImportError as error:
        raise MissingExtraError("POT", "server") from error
    return ot


def _exact(a: Array, b: Array, costs: Array) -> Array:
    with warnings.catch_warnings():  # the log says the same
        warnings.simplefilter("ignore")
        plan, log = _pot().emd(a, b, costs, numItermax=_PIVOTS, log=True)
    if log["warning"] is not None:
        raise SettingsError(f"exact transport of {costs.shape} prototypes failed; use method 'entropic'")
    return cast(Array, plan)


def _entropic(a: Array, b: Array, costs: Array, regularisation: float) -> Array:
    costs = costs - costs.min(axis=1, keepdims=True)  # shifting rows and columns does not change the plan
    costs = costs - costs.min(axis=0, keepdims=True)
    # not "sinkhorn_stabilized": in POT 0.9.7 it loses all mass on sharp problems of K = 1024
    domain = "sinkhorn" if costs.max() < 200 * regularisation else "sinkhorn_log"
    limits = {"numItermax": _ITERATIONS, "stopThr": 1e-7, "warn": False}
    plan = _pot().sinkhorn(a, b, costs, regularisation, method=domain, **limits)
    astray = float(np.abs(plan.sum(axis=0) - b).sum() + np.abs(plan.sum(axis=1) - a).sum())
    if not astray <= 0.01:
        seen = f"regularisation {regularisation} leaves {astray:.1%} of the mass astray"
        raise SettingsError(f"entropic transport did not converge: {seen}; raise it or use 'exact'")
    plan = plan * np.minimum(a / np.maximum(plan.sum(axis=1), _NOTHING), 1.0)[:, None]
    plan = plan * np.minimum(b / np.maximum(plan.sum(axis=0), _NOTHING), 1.0)
    short_a, short_b = (np.maximum(m, 0.0) for m in (a - plan.sum(axis=1), b - plan.sum(axis=0)))
    return cast(Array, plan + np.outer(short_a, short_b) / max(short_b.sum(), _NOTHING))


def _unbalanced(a: Array, b: Array, costs: Array, penalty: float) -> Array:
    settled = 1e-5 / np.sqrt(len(b))
    plan = _pot().unbalanced.mm_unbalanced(a, b, costs, penalty, numItermax=_ITERATIONS, stopThr=settled)
    # POT does not tell whether it converged, and steps shrink with 1 / penalty: ask the duality gap instead
    log_a, log_b = (np.log(np.maximum(plan.sum(axis=n), 1e-300) / m) for n, m in ((1, a), (0, b)))
    divergences = plan.sum(axis=1) @ log_a + plan.sum(axis=0) @ log_b + 2.0 - 2.0 * plan.sum()
    feasible = (costs + penalty * log_a[:, None]).min(axis=0)
    with np.errstate(over="ignore"):
        dual = 2.0 - a @ np.exp(log_a) - b @ np.exp(-feasible / penalty)
    if (plan * costs).sum() + penalty * (divergences - dual) <= 0.01:  # of the median cost
        return cast(Array, plan)
    raise SettingsError(f"unbalanced transport did not converge; set marginal_penalty ({penalty}) below 1")
