"""A site's end of Flower: a process that joins a SuperLink and answers with a ``ClientApp`` installed here.

Flower's own SuperNode starts a process for each message and runs what the server sends. This one never asks for code: it
answers with the app it is given, in this process, message after message.

What it takes from inside Flower 1.41 is imported in this file alone; ``tests/e2e/test_machines.py`` runs it against a
real SuperLink.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import cast

import httpx
import structlog
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.app import Context, Error, Message, RecordDict, UserConfig
from flwr.app.message import remove_content_from_message
from flwr.clientapp import ClientApp
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
from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import generate_key_pairs, public_key_to_bytes
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from fedali.errors import FedaliError, SettingsError
from fedali_server.connection import beating, is_distrust, refusal
from fedali_server.link import Link

APP_FAILED = 2  # Flower's code of a reply that says that the app raised an exception

_HEARTBEAT = 10.0  # seconds, Flower's least: a node that was killed counts as gone after twice that
_POLL, _IDLE_POLL, _IDLE_AFTER = (
    0.05,
    0.5,
    30.0,
)  # seconds between looks for a message; slower when none came for long
_REJOIN = 2.0  # seconds between attempts to join

_Keys = tuple[ec.EllipticCurvePrivateKey, ec.EllipticCurvePublicKey]

log = structlog.get_logger("fedali.site")


def serve(
    link: Link,
    app: ClientApp,
    *,
    node_config: UserConfig | None = None,
    key: Path | None = None,
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
        joined: called after each time that the node joined.

    Raises ``FedaliError`` when the SuperLink and this node do not trust each other.
    """
    pair = None if key is None else _read_key(key)
    contexts: dict[int, Context] = {}
    told = False
    while True:
        try:
            with _joined(link, pair) as session:
                told = False
                joined()
                session.answer(app, contexts, node_config or {})
        except httpx.HTTPError as error:
            if is_distrust(error):
                raise refusal(error, link) from error
            if not told:
                log.warning("not connected, trying again", why=str(refusal(error, link)))
                told = True
        except (ObjectPullError, ObjectPushError) as error:
            log.warning("a message was lost, joining anew", why=str(error))
        time.sleep(_REJOIN)


class _Session:
    """A node between joining and leaving."""

    def __init__(self, client: FleetHttpClient, node: Node) -> None:
        self._client, self._node = client, node

    def heartbeat(self) -> None:
        """Tell the SuperLink that this node is there."""
        self._client.SendNodeHeartbeat(
            SendNodeHeartbeatRequest(node=self._node, heartbeat_interval=_HEARTBEAT)
        )

    def answer(self, app: ClientApp, contexts: dict[int, Context], node_config: UserConfig) -> None:
        """Answer messages; ends with an exception."""
        busy = time.monotonic()
        while True:
            found = self._client.PullMessages(PullMessagesRequest(node=self._node))
            if not found.messages_list:
                time.sleep(_IDLE_POLL if time.monotonic() - busy > _IDLE_AFTER else _POLL)
                continue
            head, tree = message_from_proto(found.messages_list[0]), found.message_object_trees[0]
            run, started = head.metadata.run_id, time.monotonic()
            try:
                message = self._fetch(head, tree)
                if run not in contexts:
                    contexts.clear()  # one run at a time
                    contexts[run] = self._context(run, node_config)
                contexts[run].node_id = TaskIdentity.node_id = self._node.node_id
                TaskIdentity.task_id, TaskIdentity.run_id = 1, run
                self._send(_call(app, message, contexts[run]), started)
            except httpx.HTTPStatusError as error:
                if error.response.status_code != httpx.codes.FORBIDDEN:
                    raise
                log.info("message dropped: its run is over")
            busy = time.monotonic()

    def _context(self, run: int, node_config: UserConfig) -> Context:
        found = run_from_proto(self._client.GetRun(GetRunRequest(node=self._node, run_id=run)).run)
        return Context(run, self._node.node_id, dict(node_config), RecordDict(), dict(found.override_config))

    def _fetch(self, head: Message, tree: ObjectTree) -> Message:
        """The message with its content."""
        run = head.metadata.run_id
        pull = make_pull_object_fn_protobuf(self._client.PullObject, self._node, run)
        ids = [part.object_id for part in iterate_object_tree(tree)]
        contents = pull_objects(ids, pull, initial_backoff=_POLL, backoff_cap=_IDLE_POLL)
        make_confirm_message_received_fn_protobuf(self._client.ConfirmMessageReceived, self._node, run)(
            head.metadata.message_id
        )
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


@contextmanager
def _joined(link: Link, keys: _Keys | None) -> Iterator[_Session]:
    """Join, send heartbeats, and leave at the end; a node without a key of its own makes one for the time being."""
    private, public = generate_key_pairs() if keys is None else keys
    identity = public_key_to_bytes(public)
    client = FleetHttpClient.from_server_address(
        link.address,
        link.insecure,
        link.trusted,
        interceptors=[
            RuntimeVersionHttpInterceptor(component_name="SuperNode"),
            NodeAuthHttpInterceptor(private, public),
        ],
    )
    with client:
        if keys is None:
            client.RegisterNode(RegisterNodeFleetRequest(public_key=identity))
        request = ActivateNodeRequest(public_key=identity, heartbeat_interval=_HEARTBEAT)
        node = Node(node_id=client.ActivateNode(request).node_id)
        session = _Session(client, node)
        try:
            with beating(session.heartbeat, _HEARTBEAT / 2):
                yield session
        finally:
            with suppress(httpx.HTTPError):
                client.DeactivateNode(DeactivateNodeRequest(node_id=node.node_id))
                if keys is None:
                    client.UnregisterNode(UnregisterNodeFleetRequest(node_id=node.node_id))


def _call(app: ClientApp, message: Message, context: Context) -> Message:
    """The app's reply; what it raises becomes an error reply of one line."""
    try:
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
