"""What the server of a simulation asks its sites besides training: who they are, and their clients' models.

A simulated client's model may leave its site, since all machines are one researcher's. A deployed site has no such
questions: ``fedali_server`` knows training and evaluation alone.

A question is a Flower message of type ``query`` with a record ``ask``; an answer is one or two records. Arrays are few and
flat, since Flower's transport costs per array.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from fedali.cohort.contract import ClientMetrics
from fedali.cohort.site import CohortSite
from fedali.data import Federation
from fedali.engines.base import Vector
from fedali.errors import FedaliError
from fedali.methods import SharedState
from fedali.version import __version__
from fedali_server.flower import records

QUERY = "query"
CHUNK = 4_000_000  # float32 numbers in an answer: 16 MB


def ask(what: str, node: int, clients: Sequence[int] = (), round_: int = 0) -> Message:
    """A question to a site: ``hello``, ``held``, ``read`` with the clients to read, or ``adapt``."""
    question = ConfigRecord({"what": what, "clients": list(clients), "round": round_})
    return Message(RecordDict({"ask": question}), node, QUERY)


def ask_to_adapt(node: int, clients: Sequence[int], round_: int, shared: SharedState) -> Message:
    """The question for ``CohortSite.adapt``."""
    message = ask("adapt", node, clients, round_)
    message.content["shared"] = records.from_shared(shared)
    return message


def introduction(part: int, parts: int, federation: Federation) -> RecordDict:
    """The answer to ``hello``: what the server has to know of a site before the first round."""
    facts = {"part": part, "parts": parts, "version": __version__, "data": fingerprint(federation)}
    return RecordDict({"hello": ConfigRecord(facts)})  # type: ignore[arg-type]


def read_introduction(message: Message) -> Mapping[str, Any]:
    """What ``introduction`` wrote."""
    return message.content.config_records["hello"]


def answer(message: Message, site: CohortSite) -> RecordDict:
    """The answer to any other question."""
    question = message.content.config_records["ask"]
    what, clients = question["what"], [int(client) for client in question["clients"]]  # type: ignore[union-attr]
    if what == "adapt":
        shared = records.to_shared(message.content.array_records["shared"])
        columns = site.adapt(clients, int(question["round"]), shared)  # type: ignore[arg-type]
        return RecordDict({"clients": MetricRecord(dict(columns))})
    pieces = dict(site.pieces())
    if what == "held":
        whole = [client for client, piece in pieces.items() if "theta" in piece.sizes]
        return RecordDict({"held": ConfigRecord({"all": list(pieces), "whole": whole})})
    if what == "read":
        try:
            values = np.concatenate([np.asarray(pieces[client].read(), np.float32) for client in clients])
        except KeyError as error:
            raise FedaliError(f"this site holds no model of client {error}") from None
        return RecordDict({"values": ArrayRecord({"values": Array(values)})})
    raise FedaliError(f"this site does not know the question {what!r}")


def read_held(message: Message) -> tuple[list[int], set[int]]:
    """Clients that a site holds something of, in order; and those of them it holds a whole model of."""
    held = message.content.config_records["held"]
    return [int(c) for c in held["all"]], {int(c) for c in held["whole"]}  # type: ignore[union-attr]


def read_values(message: Message) -> Vector:
    """The numbers of the clients asked for, one after another."""
    return message.content.array_records["values"]["values"].numpy()


def read_columns(message: Message) -> ClientMetrics:
    """What ``CohortSite.adapt`` returned."""
    columns = message.content.metric_records["clients"].items()
    return {name: [float(v) for v in values] for name, values in columns if isinstance(values, list)}


def fingerprint(federation: Federation) -> str:
    """A checksum of which samples each client has: machines that hold different data must not be mixed.

    Labels and shapes alone: samples that were computed, as a shift is, may differ in their last bits.
    """
    check = 0
    for client in federation.clients:
        check = zlib.crc32(repr((client.name, client.x_train.shape)).encode(), check)
        for labels in (client.y_train, client.y_validation, client.y_test):
            check = zlib.crc32(np.ascontiguousarray(labels).data, check)
    return f"{check:08x}"
