"""A site's end of Flower: a process that joins a SuperLink and answers with a ``ClientApp`` installed here.

Flower's own SuperNode starts a process for each message and runs what the server sends. This one never asks for code: it
answers with the app it is given, in this process, message after message.

A message is in hand from the moment that the SuperLink gave it away until the SuperLink has its whole reply. What is in hand
outlives a lost connection, a restart of the SuperLink and of its database: the node joins again and goes on where it was.
Flower gives a message once; one that was in hand of a node that was killed is never answered, and Flower says so only if the
node stays away long enough. So whoever asks has to ask again when a node has joined anew since.

What it takes from inside Flower is listed in ``docs/flower.md``; ``tests/e2e/test_machines.py`` and
``tests/e2e/test_sites.py`` run it against a real SuperLink.
"""

from __future__ import annotations

import json
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import cast

import httpx
import structlog
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.app import Context, Error, Message, RecordDict, UserConfig
from flwr.app.message import remove_content_from_message
from flwr.clientapp import ClientApp
from flwr.common.constant import TIMESTAMP_HEADER
from flwr.common.serde import message_from_proto, message_to_proto, run_from_proto
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
    RegisterNodeFleetRequest,
    UnregisterNodeFleetRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import ObjectTree
from flwr.proto.node_pb2 import Node
from flwr.proto.run_pb2 import GetRunRequest
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_protobuf_utils import (
    make_confirm_message_received_fn_protobuf,
    make_pull_object_fn_protobuf,
    make_push_object_fn_protobuf,
)
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPullError,
    ObjectPushError,
    inflate_object_from_contents,
    pull_objects,
    push_objects,
)
from flwr.supercore.primitives.asymmetric import generate_key_pairs, public_key_to_bytes, sign_message
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufRequestContext
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from fedali.errors import FedaliError, SettingsError
from fedali.support.files import write_text
from fedali_server.flower.connection import beating, client_of, is_distrust, refusal
from fedali_server.flower.link import Link
from fedali_server.flower.packing import pack, unpack

APP_FAILED = 2  # Flower's code of a reply that says that the app raised an exception

_HEARTBEAT = 10.0  # seconds, Flower's least: a node that was killed counts as gone after twice that
_POLL, _IDLE_POLL = (
    0.05,
    0.5,
)  # seconds between looks for a message: a twentieth of the time waited so far, within these
_REJOIN = 0.25, 2.0  # seconds between attempts to join: the first, twice as many each time, the most
_WRONG_CLOCK = 2.0  # seconds; the server tells its time in whole ones
_ATTEMPTS = 3  # to send a reply that the SuperLink does not take whole
_GATEWAY_ERRORS = (502, 503, 504)  # a door is there, and no SuperLink behind it

_Keys = tuple[ec.EllipticCurvePrivateKey, ec.EllipticCurvePublicKey]

log = structlog.get_logger("fedali.site")


def serve(
    link: Link,
    app: ClientApp,
    *,
    node_config: UserConfig | None = None,
    key: Path | None = None,
    state: Path | None = None,
    joined: Callable[[], object] = lambda: None,
) -> None:
    """Join the SuperLink and answer with ``app`` until ``KeyboardInterrupt``, which leaves it cleanly.

    While no SuperLink answers, or when it was restarted, the node tries again. ``Context.state`` lives as long as this
    process: an app that has to remember writes files.

    Args:
        link: where the SuperLink is.
        app: what answers; an exception of it becomes an error reply.
        node_config: for the app's ``Context``.
        key: private key of this node (ECDSA, OpenSSH format), where the SuperLink knows its nodes by their keys.
        state: a file for what the node has to know after a kill to join at once; without, the SuperLink lets it wait for
            up to 20 seconds. Two processes with one key must not share it.
        joined: called after each time that the node joined.

    Raises ``FedaliError`` when the SuperLink and this node do not trust each other.
    """
    node = _Node(link, app, node_config or {}, None if key is None else _read_key(key), state)
    pause, told = _REJOIN[0], ""
    try:
        while True:
            try:
                with node.joined():
                    pause, told = _REJOIN[0], ""
                    joined()
                    node.answer()
            except httpx.HTTPError as error:
                if is_distrust(error):
                    raise refusal(error, link) from error
                why = str(refusal(error, link))
                if why != told:
                    log.warning("not connected, trying again", why=why)
                    told = why
            except (ObjectPullError, ObjectPushError) as error:
                log.warning("a message was lost, joining anew", why=str(error))
            time.sleep(pause)
            pause = min(2 * pause, _REJOIN[1])
    finally:
        node.end()


@dataclass
class _Hand:
    """A message in hand: what is known of it, and what is done already."""

    head: Message
    tree: ObjectTree
    started: float
    message: Message | None = None
    reply: Message | None = None
    attempts: int = 0


class _Node:
    """A node over all its connections."""

    def __init__(
        self, link: Link, app: ClientApp, node_config: UserConfig, keys: _Keys | None, state: Path | None
    ) -> None:
        self._app, self._node_config, self._state = app, node_config, state
        self._registers = keys is None
        private, public = generate_key_pairs() if keys is None else keys
        self._identity = public_key_to_bytes(public)
        self._client = client_of(FleetHttpClient, link, "SuperNode", [_Signing(private, public)])
        self._node = Node(node_id=_read_state(state))
        self._contexts: dict[int, Context] = {}
        self._hand: _Hand | None = None

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Join, send heartbeats, and leave at the end."""
        if self._node.node_id:  # a SuperLink that thinks that this node is there lets nobody join as it
            with suppress(httpx.HTTPStatusError):
                self._leave()
        request = ActivateNodeRequest(public_key=self._identity, heartbeat_interval=_HEARTBEAT)
        try:
            number = self._client.ActivateNode(request).node_id
        except httpx.HTTPStatusError as error:
            if not self._registers or error.response.status_code in _GATEWAY_ERRORS:
                raise
            self._client.RegisterNode(RegisterNodeFleetRequest(public_key=self._identity))
            number = self._client.ActivateNode(request).node_id
        if number != self._node.node_id:
            self._node, self._hand = Node(node_id=number), None  # what is in hand was another's
            self._contexts.clear()
            _write_state(self._state, number)
        try:
            with beating(self._heartbeat, _HEARTBEAT / 2):
                yield
        finally:
            with suppress(httpx.HTTPError):
                self._leave()

    def end(self) -> None:
        """Forget a node that registered itself, and end the connection."""
        if self._registers and self._node.node_id:
            with suppress(httpx.HTTPError):
                self._client.UnregisterNode(UnregisterNodeFleetRequest(node_id=self._node.node_id))
        self._client.close()

    def answer(self) -> None:
        """Answer messages; ends with an exception."""
        busy = time.monotonic()
        while True:
            if self._hand is None:
                found = self._client.PullMessages(PullMessagesRequest(node=self._node))
                if not found.messages_list:
                    time.sleep(min(max((time.monotonic() - busy) / 20, _POLL), _IDLE_POLL))
                    continue
                head = message_from_proto(found.messages_list[0])
                self._hand = _Hand(head, found.message_object_trees[0], time.monotonic())
            try:
                self._go_on(self._hand)
            except httpx.HTTPStatusError as error:
                if error.response.status_code != httpx.codes.FORBIDDEN:
                    if error.response.status_code not in (*_GATEWAY_ERRORS, httpx.codes.UNAUTHORIZED):
                        self._hand = None
                    raise
                log.info("message dropped: its run is over")
            except ObjectPullError:
                self._hand = None
                raise
            except ObjectPushError:
                self._hand.attempts += 1
                if self._hand.attempts < _ATTEMPTS:
                    continue
                self._hand = None
                raise
            self._hand, busy = None, time.monotonic()

    def _go_on(self, hand: _Hand) -> None:
        """Do what is left to do for the message in hand."""
        if hand.reply is None:
            if hand.message is None:
                hand.message = self._fetch(hand.head, hand.tree)
            hand.reply = _call(self._app, hand.message, self._context(hand.head.metadata.run_id))
            pack(hand.reply)
            hand.message = None
        self._send(hand.reply, hand.started)

    def _context(self, run: int) -> Context:
        if run not in self._contexts:
            found = run_from_proto(self._client.GetRun(GetRunRequest(node=self._node, run_id=run)).run)
            self._contexts.clear()  # one run at a time
            self._contexts[run] = Context(
                run, self._node.node_id, dict(self._node_config), RecordDict(), dict(found.override_config)
            )
        TaskIdentity.node_id = self._node.node_id
        TaskIdentity.task_id, TaskIdentity.run_id = 1, run
        return self._contexts[run]

    def _fetch(self, head: Message, tree: ObjectTree) -> Message:
        """The message with its content."""
        run = head.metadata.run_id
        pull = make_pull_object_fn_protobuf(self._client.PullObject, self._node, run)
        ids = [part.object_id for part in iterate_object_tree(tree)]
        contents = pull_objects(ids, pull, initial_backoff=_POLL, backoff_cap=_IDLE_POLL)
        confirm = make_confirm_message_received_fn_protobuf(
            self._client.ConfirmMessageReceived, self._node, run
        )
        with suppress(
            httpx.TransportError
        ):  # the SuperLink keeps the content until the run is over, that is all
            confirm(head.metadata.message_id)
        message = cast(Message, inflate_object_from_contents(tree.object_id, contents))
        message.metadata.__dict__["_message_id"] = tree.object_id
        return message

    def _send(self, reply: Message, started: float) -> None:
        """Head first; then the parts of the content that the SuperLink asks for."""
        reply.metadata.__dict__["_message_id"] = reply.object_id
        with no_object_id_recompute():
            answer = self._client.PushMessages(
                PushMessagesRequest(
                    node=self._node,
                    messages_list=[message_to_proto(remove_content_from_message(reply))],
                    message_object_trees=[get_object_tree(reply)],
                    clientapp_runtime_list=[time.monotonic() - started],
                )
            )
            push = make_push_object_fn_protobuf(
                self._client.PushObject, self._node, reply.metadata.run_id, answer.session_id
            )
            parts = get_all_nested_objects(reply)
            push_objects(parts, push, object_ids_to_push=set(answer.objects_to_push))

    def _heartbeat(self) -> None:
        self._client.SendNodeHeartbeat(
            SendNodeHeartbeatRequest(node=self._node, heartbeat_interval=_HEARTBEAT)
        )

    def _leave(self) -> None:
        self._client.DeactivateNode(DeactivateNodeRequest(node_id=self._node.node_id))


class _Signing(NodeAuthHttpInterceptor):
    """Flower's signature of each call, by the server's clock where this one is wrong: Flower takes none that is older than five
    minutes or from the future.
    """

    _behind = timedelta(0)

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        """Sign, send, and once more when the server's clock is another."""
        response = self._signed(context, call_next)
        if response.status_code == httpx.codes.UNAUTHORIZED:
            with suppress(KeyError, ValueError, TypeError):
                behind = parsedate_to_datetime(response.headers["date"]) - datetime.now(timezone.utc)
                if abs((behind - self._behind).total_seconds()) > _WRONG_CLOCK:
                    self._behind = behind
                    response = self._signed(context, call_next)
        return response

    def _signed(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        time_ = (datetime.now(timezone.utc) + self._behind).isoformat()
        signature = sign_message(self._private_key, time_.encode("ascii"))
        context.request.headers.update(
            {
                FLEET_HTTP_PUBLIC_KEY_HEADER: b64encode(self._public_key_bytes).decode("ascii"),
                TIMESTAMP_HEADER: time_,
                FLEET_HTTP_SIGNATURE_HEADER: b64encode(signature).decode("ascii"),
            }
        )
        return call_next(context)


def _call(app: ClientApp, message: Message, context: Context) -> Message:
    """The app's reply; what it raises becomes an error reply of one line."""
    try:
        unpack(message)
        return app(message, context)
    except FedaliError as error:
        why = str(error)
        log.error("cannot answer", why=why)
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        log.exception("cannot answer")
    return Message(Error(APP_FAILED, why), reply_to=message)


def _read_key(path: Path) -> _Keys:
    try:
        private = load_ssh_private_key(path.read_bytes(), None)
    except (OSError, ValueError) as error:
        raise SettingsError(f"cannot read the key {path}: {error}") from None
    if not isinstance(private, ec.EllipticCurvePrivateKey):
        raise SettingsError(f"{path} is no ECDSA key; make one: ssh-keygen -t ecdsa -b 384 -N '' -f {path}")
    return private, private.public_key()


def _read_state(path: Path | None) -> int:
    """The node's number at its SuperLink; 0 where it is not known."""
    try:
        return 0 if path is None else int(json.loads(path.read_text("utf-8"))["node"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def _write_state(path: Path | None, number: int) -> None:
    if path is not None:
        write_text(path, json.dumps({"node": number}) + "\n")
