"""What FedAli makes of the data of a scenario, or why it cannot read them and how it might."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from fedali.data.dataset import Dataset
from fedali.data.look.facts import ClientFacts, Look, look_at
from fedali.data.look.first import WINDOWS, FirstLook, first_look, refused_file
from fedali.errors import DataError, SettingsError
from fedali.support.places import user_path
from fedali_simulations.beginning import beginning, to_text
from fedali_simulations.data import federation_of, load_dataset, reading_of
from fedali_simulations.scenario import Scenario, load_scenario


@dataclass(frozen=True)
class Parts:
    """What a simulation's clients train and are tested on.

    Args:
        kind: of the partition.
        clients: after the partition.
        training: samples of all clients, also ``validation`` and ``test``.
        notes: what was done after reading.
        refusal: why there is no such simulation; "" where there is one, and nothing else where there is none.
    """

    kind: str
    clients: tuple[ClientFacts, ...] = ()
    training: int = 0
    validation: int = 0
    test: int = 0
    notes: tuple[str, ...] = ()
    refusal: str = ""


@dataclass(frozen=True)
class Seen:
    """What FedAli makes of data.

    Args:
        source: as it was named.
        reading: settings that somebody made, under ``data``.
        look: the facts; None of data that cannot be read.
        parts: what a simulation makes of them; None likewise.
        refusal: why they cannot be read; "" where they can.
        first: a first look at them all the same; None where there is nothing to see.
        beginning: the first settings of a scenario that trains on them; None for a scenario, and where nothing is known to.
        guessed: where ``beginning`` is a guess, the facts of the data as it reads them.
    """

    source: str
    reading: dict[str, Any]
    look: Look | None = None
    parts: Parts | None = None
    refusal: str = ""
    first: FirstLook | None = None
    beginning: dict[str, Any] | None = None
    guessed: Look | None = None

    def to_dict(self) -> dict[str, Any]:
        """For machines: the same keys whatever was found."""
        found = asdict(self)
        del found["reading"]
        found["scenario"] = None if self.beginning is None else to_text(self.beginning, ascii_alone=True)
        return found


@dataclass(frozen=True)
class _Attempt:
    """What settings make of data: the beginning of a scenario with them, facts, and what a simulation does."""

    beginning: dict[str, Any]
    look: Look
    parts: Parts


def see(source: str, scenario: Scenario, *, own: bool) -> Seen:
    """The data of a scenario; ``own`` ones are all that is known of it, and it is not written down yet."""
    settings = scenario.model_dump(mode="json", exclude_unset=True, exclude_none=True)
    seen = Seen(source, settings["data"])
    try:
        found = _attempt(settings, complete=not own)
    except DataError as error:
        return _refused(replace(seen, refusal=str(error)), scenario, settings)
    seen = replace(seen, look=found.look, parts=found.parts)
    if not own:
        return seen
    better = _shorter(found, settings, settings["data"]) if found.parts.refusal else found
    if better is None:
        return seen
    return replace(seen, beginning=better.beginning, guessed=None if better is found else better.look)


def _refused(seen: Seen, scenario: Scenario, settings: dict[str, Any]) -> Seen:
    """A first look at data that cannot be read, and what they would be by a guess."""
    reading, data = reading_of(scenario.data), scenario.data
    where = refused_file(user_path(str(data.source)), reading)
    first = where and first_look(*where, reading, data.window, data.stride)
    if not first:
        return seen
    if {"window", "stride"} & set(settings["data"]):  # which is no matter of guessing, then
        guess = {key: value for key, value in first.guess.items() if key not in ("window", "stride")}
        first = replace(first, guess=guess)
    columns = {**settings["data"].get("columns", {}), **first.guess.get("columns", {})}
    guess = {**settings["data"], **first.guess, **({"columns": columns} if columns else {})}
    guessed = {**settings, "data": guess}
    seen = replace(seen, first=first, beginning=guessed if first.guess else None)
    if first.refusal:
        return seen
    try:
        found = _attempt(guessed)
        if found.parts.refusal:
            found = _shorter(found, guessed, settings["data"]) or found
    except DataError as error:
        return replace(seen, first=replace(first, refusal=str(error)))
    first = replace(first, refusal=found.parts.refusal)
    return replace(seen, first=first, beginning=found.beginning, guessed=found.look)


def _shorter(found: _Attempt, settings: dict[str, Any], told: Collection[str]) -> _Attempt | None:
    """With the longest of some shorter windows that a simulation can split; None where none can, or ``told`` settings say how windows are cut."""
    if not found.look.rows or "window" in told or "stride" in told:
        return None
    for window in (n for n in WINDOWS if n < found.look.length):
        cut = {**settings["data"], "window": window, "stride": window // 2}
        tried = _attempt({**settings, "data": cut})
        if not tried.parts.refusal:
            return tried
    return None


def _attempt(settings: dict[str, Any], *, complete: bool = False) -> _Attempt:
    """Data by settings that are those of a ``complete`` scenario, or are to be one's beginning. Raises ``DataError`` for what cannot be read."""
    scenario = load_scenario(settings)
    dataset = load_dataset(scenario, scenario.seed)
    look = look_at(dataset)
    if complete:
        return _Attempt(settings, look, _parts(scenario, dataset))
    data = settings["data"]
    if look.rows:  # a window's length is what a user changes first
        window = {"window": scenario.data.window, "stride": scenario.data.stride}
        data = {"source": data["source"], **window, **data}
    begins = beginning(
        {**settings, "data": data},
        look.shape,
        overlap=look.length > 0,
        clients=[one.samples for one in look.clients],
    )
    return _Attempt(begins, look, _parts(load_scenario(begins), dataset))


def _parts(scenario: Scenario, dataset: Dataset) -> Parts:
    kind = scenario.partition.kind
    try:
        federation = federation_of(scenario, dataset, scenario.seed)
    except (DataError, SettingsError) as error:
        return Parts(kind, refusal=str(error))
    sizes = np.array([[len(c.y_train), len(c.y_validation), len(c.y_test)] for c in federation.clients])
    training, validation, test = sizes.sum(axis=0).tolist()
    clients = zip(federation.clients, federation.counts(), strict=True)
    return Parts(
        kind,
        tuple(ClientFacts(one.name, int(row.sum()), tuple(row.tolist()), 0) for one, row in clients),
        training,
        validation,
        test,
        federation.notes[len(dataset.notes) :],
    )
