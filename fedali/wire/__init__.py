"""What devices, gateways and sites say to each other, and who they are to each other (kits)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedali.support.lazy import lazily

if TYPE_CHECKING:
    from fedali.wire.messages import ClientUpdate as ClientUpdate
    from fedali.wire.messages import decode_update as decode_update
    from fedali.wire.messages import encode_update as encode_update
    from fedali.wire.tensors import Encoding as Encoding

_HOMES = {
    "ClientUpdate": "messages",
    "Encoding": "tensors",
    "decode_update": "messages",
    "encode_update": "messages",
}

__all__ = ["ClientUpdate", "Encoding", "decode_update", "encode_update"]
if not TYPE_CHECKING:
    __getattr__ = lazily(__name__, _HOMES)
