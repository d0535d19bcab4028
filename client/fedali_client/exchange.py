"""A client's side of a round: what it takes from a server, and what it sends."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fedali.bundle.file import Bundle
from fedali.bundle.manifest import Manifest
from fedali.errors import DataError
from fedali.transport.assignment import align
from fedali_client.results import Update
from fedali_client.state.personal import PersonalState

Vector = npt.NDArray[np.float32]


def shared_mask(manifest: Manifest) -> npt.NDArray[np.bool_]:
    """Which of the parameters [P] a client shares."""
    mask = np.ones(manifest.layouts.parameters.size, bool)
    for begin, end in manifest.personal:
        mask[begin:end] = False
    return mask


def update(state: PersonalState, bundle: Bundle, aligned: bool = True) -> Update:
    """The shared part of a client's parameters, and its prototypes: as its method uploads them, or as trained where not ``aligned``.

    Raises ``DataError`` when it was not trained since the round began.
    """
    if not state.progress.trained_on:
        raise DataError("there is no update: this client was not trained since the round began; fit it first")
    manifest, local = bundle.manifest, state.local_prototypes.copy()
    if aligned and manifest.prototypes is not None and manifest.prototypes.kind == "aligned":
        local = align(local, state.shared_prototypes, manifest.layouts.prototypes)
    return Update(
        theta=state.theta()[shared_mask(state.manifest)],
        prototypes=local,
        samples=state.progress.trained_on,
        round=state.checkpoint.round,
        bundle=bundle.digest,
    )


def receive(
    state: PersonalState,
    theta: npt.ArrayLike,
    prototypes: npt.ArrayLike,
    round_: int,
    influence: float,
    task: str = "",
) -> None:
    """Take a server's shared parameters [S] and prototypes [L]; local prototypes start from those, or stay.

    Raises ``DataError`` for arrays that do not fit or are not finite, before anything is changed.
    """
    shared, reference = shared_model(state, theta, prototypes, influence)
    mask, own = shared_mask(state.manifest), state.theta()
    own[mask] = shared[mask]
    local = state.local_prototypes.copy() if state.manifest.keeps_local_prototypes else reference
    state.receive(own, shared, reference, local, round_, influence, task)


def shared_model(
    state: PersonalState, theta: npt.ArrayLike, prototypes: npt.ArrayLike, influence: float
) -> tuple[Vector, Vector]:
    """A server's model, theta [P] and prototypes [L], from its shared parameters [S]; personal ones as the bundle had them.

    Raises ``DataError`` for arrays that do not fit or are not finite.
    """
    mask = shared_mask(state.manifest)
    sent = _checked("theta", theta, int(mask.sum()))
    reference = _checked("prototypes", prototypes, state.manifest.layouts.prototypes.size)
    if not 0 <= influence <= 1:
        raise DataError(f"influence is {influence}; it has to be from 0 to 1")
    shared = state.shared_theta.copy()
    shared[mask] = sent
    return shared, reference


def _checked(name: str, value: npt.ArrayLike, size: int) -> Vector:
    array = np.ascontiguousarray(value, np.float32)
    if array.shape != (size,):
        raise DataError(f"{name} has shape {list(array.shape)}; this bundle's shared part is [{size}]")
    if not np.isfinite(array).all():
        raise DataError(f"{name} holds NaN or infinite values")
    return array
