"""Reading protobuf messages strictly, field by field: what a schema does not name is refused, not skipped.

Lenient parsers keep the last of two values, merge repeated messages and skip unknown fields, each in its own way; a
check made with one of them says little about what another will see. Here every message has one meaning or none.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["int", "float", "double", "bytes", "text"]

_WIRES = {"int": 0, "double": 1, "float": 5}  # the rest has its length before it: 2
_CODES = {"float": "<f", "double": "<d"}


class ProtobufError(ValueError):
    """What is wrong with the bytes, in words that follow the name of a message."""


@dataclass(frozen=True)
class Field:
    """One field of a message: its name, what it holds (a schema for a message), and whether it may occur often.

    Repeated numbers may be packed. ``most`` is how many values a repeated field may have.
    """

    name: str
    kind: Kind | Schema
    repeated: bool = False
    most: int = 1 << 20

    @property
    def wire(self) -> int:
        """The wire type of one value."""
        return _WIRES.get(self.kind, 2) if isinstance(self.kind, str) else 2


@dataclass(frozen=True)
class Schema:
    """A message: its name and its fields by number; ``forbidden`` says in words what some others would mean."""

    name: str
    fields: Mapping[int, Field]
    forbidden: Mapping[int, str] = field(default_factory=dict)


def parse(data: memoryview, schema: Schema, *, most: int = 200_000) -> dict[str, Any]:
    """Values of a message by field name: repeated fields as lists, messages as dictionaries, bytes as memoryviews.

    Raises ``ProtobufError`` for anything ``schema`` does not allow, more than ``most`` values of all kinds together, a
    second value of a field that has one, or bytes that are cut short. No schema contains itself: nothing nests deeply.
    """
    return _Parser(most).message(data, schema)


class _Parser:
    """One parse: how many more values it may find."""

    def __init__(self, left: int) -> None:
        self.left = left

    def message(self, data: memoryview, schema: Schema) -> dict[str, Any]:
        found: dict[str, Any] = {known.name: [] for known in schema.fields.values() if known.repeated}
        at = 0
        while at < len(data):
            tag, at = _varint(data, at)
            known = schema.fields.get(tag >> 3)
            if known is None:
                unknown = f"field {tag >> 3} of {schema.name} is unknown"
                raise ProtobufError(schema.forbidden.get(tag >> 3, unknown))
            name = f"{schema.name}.{known.name}"
            if not known.repeated and known.name in found:
                raise ProtobufError(f"{name} occurs twice")
            values, at = self.values(data, at, tag & 7, known, name)
            if known.repeated:
                found[known.name] += values
                if len(found[known.name]) > known.most:
                    raise ProtobufError(f"{name} has more than {known.most} values")
            else:
                found[known.name] = values[0]
        return found

    def values(self, data: memoryview, at: int, wire: int, known: Field, name: str) -> tuple[list[Any], int]:
        """The value or packed values that begin at ``at``, and where they end."""
        self.spend(1)
        packed = wire == 2 and known.repeated and known.wire != 2
        if wire != known.wire and not packed:
            raise ProtobufError(f"{name} has wire type {wire}, not {known.wire}")
        if wire == 0:
            value, at = _varint(data, at)
            return [_signed(value)], at
        if wire == 2:
            size, at = _varint(data, at)
        else:
            size = 8 if wire == 1 else 4
        if size > len(data) - at:
            raise ProtobufError(f"{name} is cut short")
        piece, end = data[at : at + size], at + size
        if packed:
            return self.packed(piece, known, name), end
        if isinstance(known.kind, Schema):
            return [self.message(piece, known.kind)], end
        if known.kind == "text":
            try:
                return [bytes(piece).decode("utf-8")], end
            except UnicodeDecodeError:
                raise ProtobufError(f"{name} is not UTF-8 text") from None
        return [piece if known.kind == "bytes" else struct.unpack(_CODES[known.kind], piece)[0]], end

    def packed(self, piece: memoryview, known: Field, name: str) -> list[Any]:
        if isinstance(known.kind, str) and known.kind in _CODES:
            code = _CODES[known.kind]
            if len(piece) % struct.calcsize(code):
                raise ProtobufError(f"{name} is cut short")
            self.spend(len(piece) // struct.calcsize(code))
            return [value for (value,) in struct.iter_unpack(code, piece)]
        found, at = [], 0
        while at < len(piece):
            self.spend(1)
            value, at = _varint(piece, at)
            found.append(_signed(value))
        return found

    def spend(self, values: int) -> None:
        self.left -= values
        if self.left < 0:
            raise ProtobufError("it holds more values than any graph needs")


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise ProtobufError("it is cut short")
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            if value >> 64:
                break
            return value, at
    raise ProtobufError("a number has more than 64 bits")


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value
