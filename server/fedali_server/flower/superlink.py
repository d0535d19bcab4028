"""The server's end of Flower: a run on a SuperLink whose server side is this process.

Flower wants a run submitted as a bundle of code, which a worker beside the SuperLink unpacks and runs. Here the bundle is
empty and this process is the worker: it submits a run, takes it, sends and receives messages, and reports the run
finished. So no code travels, and what a run leaves is written where the command was started. The SuperLink has to be
started with ``--isolation process``, that is without a worker of its own.

A SuperLink with a database may be killed and started again while a run goes on: calls are repeated until it is back, for up
to a minute, after which Flower itself gives the run up. What was on its way then may be lost: see ``SuperlinkGrid.joined``.

What it takes from inside Flower is listed in ``docs/flower.md``; ``tests/e2e/test_machines.py`` runs it against a real
SuperLink.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, cast

import httpx
from flwr.app import Error, Message, UserConfig
from flwr.app.message import make_message
from flwr.common.constant import ErrorCode, Status, SubStatus
from flwr.common.serde import message_from_proto, run_from_proto, user_config_from_proto, user_config_to_proto
from flwr.proto.control_pb2 import ListNodesRequest, ListRunsRequest, StartRunRequest, StopRunRequest
from flwr.proto.fab_pb2 import Fab
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, ObjectTree
from flwr.proto.runtime_pb2 import (
    AcquireTaskRequest,
    PullAppMessagesRequest,
    PullTaskInputRequest,
    PushTaskOutputRequest,
    SendTaskHeartbeatRequest,
)
from flwr.supercore.constant import TaskType
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_protobuf_utils import make_pull_object_fn_protobuf
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPullError,
    ObjectPushError,
    inflate_object_from_contents,
    pull_objects,
)
from flwr.supercore.interceptors import RuntimeTokenHttpInterceptor
from flwr.supercore.run import RunNotRunningException
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid import HttpGrid

from fedali.errors import FedaliError
from fedali.wire.kit import RegisteredSite
from fedali_server.flower.connection import LinkLostError, beating, client_of, is_away, refusal
from fedali_server.flower.hosting.empty_bundle import empty_bundle
from fedali_server.flower.hosting.node_keys import read_node_key
from fedali_server.flower.link import Link
from fedali_server.flower.packing import pack, unpack

# Codes of error replies that mean: the site is gone, or its reply was lost. Others come from the site's app.
LOST = (ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.REPLY_MESSAGE_UNAVAILABLE, ErrorCode.NODE_UNAVAILABLE)

_PATIENCE, _FIRST_PATIENCE = 60.0, 5.0  # seconds without a SuperLink before giving up; at the beginning
_HEARTBEAT = 10.0  # seconds; the SuperLink waits for 30 at first, then 60
_POLLS = 0.02, 0.5  # seconds between looks for replies: a twentieth of the time waited so far, within these
_BRIEFLY = 0.2  # seconds that the rest of a reply is waited for at a time
_FORGOTTEN = 180.0  # seconds: what a sender leaves half done for so long is lost; Flower forgets it then
_PAUSES = 0.1, 1.0  # seconds between attempts to reach a SuperLink, twice as many each time
_ATTEMPTS = 5  # to push messages that a restart cut off


class _Arriving:
    """A reply whose head is there.

    Args:
        head: without content.
        tree: of the parts of its content.
    """

    def __init__(self, head: Message, tree: ObjectTree) -> None:
        self.head, self.since = head, time.monotonic()
        self.parts = [part.object_id for part in iterate_object_tree(tree)]
        self.contents: dict[str, bytes] = {}


class SuperlinkGrid(HttpGrid):
    """A grid that looks for replies more often than every three seconds, as Flower's own does.

    Args:
        link: where the SuperLink is.
        token: of the run.

    ``sites`` are the nodes that the strategy sees, in its order; all that are online where it is None. ``check`` is
    called with each reply and the node that was asked, since an error reply does not name it; it may raise.
    """

    def __init__(self, link: Link, token: str) -> None:
        super().__init__(link.address, link.insecure, token=token)
        self._link = link
        self._retry_invoker: Any = _Retry()  # Flower's would try for ever
        self._arriving: dict[str, _Arriving] = {}  # replies of which parts have not come, by their ids
        self.sites: list[int] | None = None
        self.check: Callable[[int, Message], None] = lambda node, reply: None

    def get_node_ids(self) -> list[int]:
        """The nodes that take part."""
        return sorted(super().get_node_ids()) if self.sites is None else self.sites

    @property
    def online(self) -> set[int]:
        """All nodes that are there."""
        return set(super().get_node_ids())

    @property
    def joined(self) -> dict[int, str]:
        """When the nodes that are there joined, by the SuperLink's clock: another text each time that one joins.

        A node that joined after a message was sent to it may have lost it, and Flower does not give it again.
        """
        return {node.node_id: node.last_activated_at for node in self.get_nodes()}

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Send messages; their ids, "" for one whose node is not known any more."""
        messages = list(messages)
        for message in messages:
            pack(message)
        for attempt in range(_ATTEMPTS):
            try:  # a message is stored once, whatever is repeated
                return list(super().push_messages(messages))
            except ObjectPushError:
                if attempt == _ATTEMPTS - 1:
                    raise LinkLostError(
                        f"the SuperLink at {self._link.address} did not take a message"
                    ) from None
        raise AssertionError

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Replies that are there as a whole; one that is not yet, since its sender is slow or was killed, does not hold up others."""
        wanted = set(message_ids)
        here = {arriving.head.metadata.reply_to_message_id for arriving in self._arriving.values()}
        if wanted - here:
            found = self._runtime_client.PullMessages(PullAppMessagesRequest(message_ids=wanted - here))
            for head, tree in zip(found.messages_list, found.message_object_trees, strict=True):
                self._arriving[head.metadata.message_id] = _Arriving(message_from_proto(head), tree)
        now, replies = time.monotonic(), []
        for name, arriving in list(self._arriving.items()):
            if arriving.head.metadata.reply_to_message_id in wanted:
                reply = self._go_on(name, arriving)
                if reply is not None:
                    replies.append(reply)
            elif now - arriving.since > _FORGOTTEN:  # nobody waits for it any more
                del self._arriving[name]
        return replies

    def _go_on(self, name: str, arriving: _Arriving) -> Message | None:
        """Pull what is missing of a reply: the reply, or that it is lost; None while there is hope."""
        run, missing = self.run.run_id, [one for one in arriving.parts if one not in arriving.contents]
        pull, gone = make_pull_object_fn_protobuf(self._runtime_client.PullObject, self.node, run), False

        def keep(part: str) -> bytes:
            nonlocal gone
            try:
                arriving.contents[part] = pull(part)
            except ObjectPullError:
                gone = True
                raise
            return arriving.contents[part]

        try:
            pull_objects(
                missing, keep, max_time=_BRIEFLY, initial_backoff=_POLLS[0], backoff_cap=_BRIEFLY / 2
            )
        except ObjectPullError as error:
            if not gone and time.monotonic() - arriving.since < _FORGOTTEN:
                return None
            del self._arriving[name]
            lost = Error(ErrorCode.REPLY_MESSAGE_UNAVAILABLE, f"its reply is incomplete: {error}")
            return make_message(metadata=arriving.head.metadata, error=lost)
        del self._arriving[name]
        self._runtime_client.ConfirmMessageReceived(
            ConfirmMessageReceivedRequest(node=self.node, run_id=run, message_object_id=name)
        )
        reply = cast(Message, inflate_object_from_contents(name, arriving.contents))
        reply.metadata.__dict__["_message_id"] = name
        unpack(reply)
        return reply

    def _connect(self) -> None:
        interceptors = [RuntimeTokenHttpInterceptor(token=self._token)]
        self._client = client_of(
            RuntimeHttpClient, self._link, "flwr-serverapp", interceptors, self._retry_invoker
        )

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Replies to ``messages``, those that came within ``timeout`` seconds."""
        messages = list(messages)
        asked = dict(
            zip(self.push_messages(messages), (m.metadata.dst_node_id for m in messages), strict=True)
        )
        replies: list[Message] = []
        started = time.monotonic()
        while asked:
            for reply in self.pull_messages(asked):
                self.check(asked.pop(reply.metadata.reply_to_message_id), reply)
                replies.append(reply)
            waited = time.monotonic() - started
            if timeout is not None and waited > timeout:
                break
            if asked:
                time.sleep(min(max(waited / 20, _POLLS[0]), _POLLS[1]))
        return replies


@contextmanager
def running(link: Link, config: UserConfig) -> Iterator[SuperlinkGrid]:
    """A run on the SuperLink, whose server side is the body of ``with``.

    Args:
        link: where the SuperLink is.
        config: what each node finds in its ``Context.run_config``.

    Raises ``LinkLostError`` when no SuperLink answers or it has forgotten the run, ``FedaliError`` when it refuses or stops it.
    """
    try:
        run, token = _start(link, config)
        grid = SuperlinkGrid(link, token)
        try:
            client = grid._runtime_client
            given = client.PullTaskInput(PullTaskInputRequest())
            TaskIdentity.task_id, TaskIdentity.run_id = given.task_id, run
            TaskIdentity.node_id = given.context.node_id
            grid.set_run(run_from_proto(given.run))
            output = PushTaskOutputRequest(sub_status=SubStatus.FAILED, details="the server stopped")
            with beating(lambda: client.SendTaskHeartbeat(SendTaskHeartbeatRequest()), _HEARTBEAT):
                try:
                    yield grid
                    output = PushTaskOutputRequest(sub_status=SubStatus.COMPLETED)
                finally:
                    grid._retry_invoker.seconds = 0.0  # a SuperLink that is gone need not be told
                    with suppress(httpx.HTTPError):
                        client.PushTaskOutput(output)
        finally:
            grid.close()
    except httpx.HTTPError as error:
        if (
            isinstance(error, httpx.HTTPStatusError)
            and error.response.status_code == httpx.codes.UNAUTHORIZED
        ):
            raise LinkLostError(
                f"the SuperLink at {link.address} does not know this run: was it restarted? Resuming the run goes on"
            ) from error
        raise refusal(error, link) from error
    except RunNotRunningException:
        raise FedaliError(f"the run was stopped at the SuperLink {link.address}") from None


@dataclass(frozen=True)
class SiteNode:
    """A site's node as the SuperLink knows it: ``since`` when it is online or offline, as it says; empty for never."""

    name: str
    online: bool
    since: str


def list_sites(link: Link, sites: Iterable[RegisteredSite]) -> list[SiteNode]:
    """What the SuperLink knows of the nodes of ``sites``; raises as ``running`` does."""
    retry = _Retry()
    retry.seconds = _FIRST_PATIENCE
    try:
        with _control(link, retry) as control:
            nodes = {
                bytes(node.public_key): node for node in control.ListNodes(ListNodesRequest()).nodes_info
            }
    except httpx.HTTPError as error:
        raise refusal(error, link) from error
    found = []
    for site in sites:
        node = nodes.get(read_node_key(site.node_public_key))
        online = node is not None and node.status == "online"
        since = "" if node is None else node.last_activated_at if online else node.last_deactivated_at
        found.append(SiteNode(site.name, online, since))
    return found


class _Retry:
    """Calls again what failed because the SuperLink was away."""

    seconds = _PATIENCE

    def invoke(self, call: Callable[..., Any], *args: Any) -> Any:
        """The result of ``call``; what it raises in the end."""
        started, pause = time.monotonic(), _PAUSES[0]
        while True:
            try:
                return call(*args)
            except httpx.HTTPError as error:
                if not is_away(error) or time.monotonic() - started > self.seconds:
                    raise
                time.sleep(pause)
                pause = min(2 * pause, _PAUSES[1])


def _control(link: Link, retry: _Retry) -> ControlHttpClient:
    return client_of(ControlHttpClient, link, "flwr CLI", retry=retry)


def _start(link: Link, config: UserConfig) -> tuple[int, str]:
    """Submit a run and take it: its id, and the token that makes this process its server."""
    retry = _Retry()
    retry.seconds = _FIRST_PATIENCE
    with _control(link, retry) as control:
        _stop_former(control, config)
        bundle = empty_bundle(config)
        fab = Fab(hash_str=hashlib.sha256(bundle).hexdigest(), content=bundle)
        run = control.StartRun(StartRunRequest(fab=fab, override_config=user_config_to_proto(config))).run_id
    with client_of(RuntimeHttpClient, link, "SuperExec") as runtime:
        request = AcquireTaskRequest(supported_task_types=[TaskType.SERVER_APP])
        taken = runtime.AcquireTask(request)
        while taken.token and taken.task.run_id != run:  # of a server killed before it took its run
            taken = runtime.AcquireTask(request)
    if not taken.token:
        raise FedaliError(
            f"the SuperLink at {link.address} gave the run to another process: start it with --isolation process"
        )
    return run, taken.token


def _stop_former(control: ControlHttpClient, config: UserConfig) -> None:
    """Stop runs with this very config: their server was killed, and nodes may wait for the rest of a message."""
    for run in control.ListRuns(ListRunsRequest()).run_dict.values():
        if run.status.status != Status.FINISHED and user_config_from_proto(run.override_config) == config:
            control.StopRun(StopRunRequest(run_id=run.run_id))
