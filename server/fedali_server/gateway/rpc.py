"""Binding services to gRPC: what is malformed is refused as such, and nothing else than one line goes back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import structlog
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from fedali.errors import FedaliError
from fedali_server.gateway.refusal import Refusal, malformed

log = structlog.get_logger("fedali.gateway")

Context = grpc.aio.ServicerContext[Any, Any]
Method = Callable[[Any, Context], Awaitable[Any]]


def handler(service: ServiceDescriptor, methods: dict[str, Method]) -> grpc.GenericRpcHandler:
    """All methods of ``service``, each ``async def method(request, context)``.

    A request that comes as a stream is an asynchronous iterator; a reply that is a stream is written to ``context``. A
    reply may be bytes, serialised already. A ``Refusal`` becomes its status, another ``FedaliError`` FAILED_PRECONDITION.
    """
    return grpc.method_handlers_generic_handler(
        service.full_name, {name: _bind(service.methods_by_name[name], methods[name]) for name in methods}
    )


def _bind(described: MethodDescriptor, method: Method) -> grpc.RpcMethodHandler[Any, Any]:
    kind = GetMessageClass(described.input_type)
    parse = _parser(kind)

    async def answer(request: Any, context: Context) -> Any:
        try:
            if described.client_streaming:
                return await method(_Messages(context, kind), context)
            _check(request, kind)
            return await method(request, context)
        except Refusal as refusal:
            await context.abort(refusal.status, refusal.why)
        except FedaliError as error:
            log.error("cannot answer", call=described.name, why=str(error))
            await context.abort(
                grpc.StatusCode.FAILED_PRECONDITION, "the gateway cannot do this now; its log says why"
            )
        except (asyncio.CancelledError, grpc.aio.AbortError, grpc.aio.UsageError):
            raise
        except Exception:
            log.exception("a fault of the gateway", call=described.name)
            await context.abort(grpc.StatusCode.INTERNAL, "a fault of the gateway; its log says more")

    if described.client_streaming:
        return grpc.stream_unary_rpc_method_handler(answer, parse, _serialise)
    if described.server_streaming:
        return grpc.unary_stream_rpc_method_handler(answer, parse, _serialise)
    return grpc.unary_unary_rpc_method_handler(answer, parse, _serialise)


def _parser(kind: type[Message]) -> Callable[[bytes], Message | None]:
    def parse(data: bytes) -> Message | None:
        try:
            return kind.FromString(data)
        except DecodeError:
            return None  # raising here would end the call as a fault of ours

    return parse


def _check(message: Message | None, kind: type[Message]) -> None:
    if message is None:
        raise malformed(f"these bytes are no {kind.DESCRIPTOR.name}")


class _Messages:
    """A stream of requests. Not gRPC's own iterator: that is a generator, and keeps its last message while its call is kept."""

    def __init__(self, context: Context, kind: type[Message]) -> None:
        self._context, self._kind = context, kind

    def __aiter__(self) -> _Messages:
        return self

    async def __anext__(self) -> Message:
        message = await self._context.read()
        if message is grpc.aio.EOF:
            raise StopAsyncIteration
        _check(message, self._kind)
        assert isinstance(message, Message)
        return message


def _serialise(message: Message | bytes) -> bytes:
    return message if isinstance(message, bytes) else message.SerializeToString()
