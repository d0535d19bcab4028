"""FedAli's states as Flower records and back: always few flat arrays, since Flower's transport costs per array."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from fedali.cohort.contract import RoundSettings
from fedali.cohort.weights import Weights
from fedali.errors import FedaliError
from fedali.methods import SharedState, Upload


def from_shared(shared: SharedState) -> ArrayRecord:
    """``theta`` [P] and ``prototypes`` [L], float32."""
    return ArrayRecord(
        {
            "theta": Array(np.asarray(shared.theta, np.float32)),
            "prototypes": Array(np.asarray(shared.prototypes, np.float32)),
        }
    )


def to_shared(arrays: ArrayRecord) -> SharedState:
    """What ``from_shared`` wrote."""
    return SharedState(_vector(arrays, "theta"), _vector(arrays, "prototypes"))


def instructions(settings: RoundSettings, arrays: ArrayRecord) -> RecordDict:
    """What the server sends a site for one round."""
    config = ConfigRecord(
        {
            "round": settings.round,
            "generalisation": settings.generalisation,
            "influence": float(settings.influence),
            **from_weights(settings.weights),
        }
    )
    return RecordDict({"shared": arrays, "settings": config})


def read_instructions(content: RecordDict) -> tuple[RoundSettings, SharedState]:
    """What ``instructions`` wrote."""
    settings = content.config_records["settings"]
    return (
        RoundSettings(
            int(settings["round"]),  # type: ignore[arg-type]
            bool(settings["generalisation"]),
            float(settings["influence"]),  # type: ignore[arg-type]
            read_weights(settings),
        ),
        to_shared(content.array_records["shared"]),
    )


def from_weights(weights: Weights) -> dict[str, Any]:
    """Values of a ``ConfigRecord``; none where nothing is bounded."""
    if not weights.most:
        return {}
    own = {"weights.numbers": list(weights.own), "weights.own": list(weights.own.values())}
    return {"weights.most": weights.most, **(own if weights.own else {})}


def read_weights(record: Mapping[str, Any]) -> Weights:
    """What ``from_weights`` made."""
    numbers, own = record.get("weights.numbers", []), record.get("weights.own", [])
    return Weights(int(record.get("weights.most", 0)), dict(zip(numbers, own, strict=True)))


def from_upload(upload: Upload) -> RecordDict:
    """Sums in float64 with their weights, so that adding sites up in any grouping gives the same mean."""
    return RecordDict({"upload": ArrayRecord({n: Array(a) for n, a in upload.to_arrays().items()})})


def read_upload(content: RecordDict) -> Upload:
    """What ``from_upload`` wrote; ``FedaliError`` when a sum is not finite or lacks its weight."""
    try:
        record = content.array_records["upload"]
    except KeyError:
        raise FedaliError("the message has no upload") from None
    return Upload.from_arrays({name: array.numpy() for name, array in record.items()})


def from_reports(reports: Sequence[Mapping[str, Any]]) -> RecordDict:
    """What a site says of its devices in a round: a flat mapping each."""
    return RecordDict({"reports": ConfigRecord({"json": json.dumps(list(reports))})})


def read_reports(content: RecordDict) -> list[dict[str, Any]]:
    """What ``from_reports`` wrote; nothing where it was not there or is none."""
    record = content.config_records.get("reports")
    try:
        reports = json.loads(str(record["json"])) if record is not None else []
    except (ValueError, KeyError):
        return []
    return [report for report in reports if isinstance(report, dict)] if isinstance(reports, list) else []


def _vector(arrays: ArrayRecord, name: str) -> npt.NDArray[Any]:
    if name not in arrays:
        raise FedaliError(f"the message has no array {name!r}")
    return arrays[name].numpy()
