"""The server's end of Flower: a run on a SuperLink whose server side is this process.

Flower wants a run submitted as a bundle of code, which a worker beside the SuperLink unpacks and runs. Here the bundle is
empty and this process is the worker: it submits a run, takes it, sends and receives messages, and reports the run
finished. So no code travels, and what a run leaves is written where the command was started. The SuperLink has to be
started with ``--isolation process``, that is without a worker of its own.

What it takes from inside Flower 1.41 is imported in this file alone; ``tests/e2e/test_machines.py`` runs it against a
real SuperLink.
"""

from __future__ import annotations

import hashlib
import io
import json
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

import httpx
from flwr.app import Error, Message, UserConfig
from flwr.app.message import make_message
from flwr.common.constant import ErrorCode, Status, SubStatus
from flwr.common.serde import message_from_proto, run_from_proto, user_config_from_proto, user_config_to_proto
from flwr.proto.control_pb2 import ListRunsRequest, StartRunRequest, StopRunRequest
from flwr.proto.fab_pb2 import Fab
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest
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
    inflate_object_from_contents,
    pull_objects,
)
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.run import RunNotRunningException
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid import HttpGrid

from fedali.errors import FedaliError
from fedali_server.connection import beating, is_distrust, refusal
from fedali_server.link import Link

# Codes of error replies that mean: the site is gone, or its reply was lost. Others come from the site's app.
LOST = (ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.REPLY_MESSAGE_UNAVAILABLE, ErrorCode.NODE_UNAVAILABLE)

_PATIENCE, _FIRST_PATIENCE = 60.0, 5.0  # seconds without a SuperLink before giving up; at the beginning
_HEARTBEAT = 10.0  # seconds; the SuperLink waits for 30 at first, then 60
_POLLS = 0.02, 0.5  # seconds between looks for replies: a twentieth of the time waited so far, within these


class SuperlinkGrid(HttpGrid):
    """A grid that looks for replies more often than every three seconds, as Flower's own does.

    Args:
        link: where the SuperLink is.
        token: of the run.

    ``sites`` are the nodes that the strategy sees, in its order; all that are online where it is None. ``check`` is
    called with each reply and the node that was asked, since an error reply does not name it; it may raise.
    """

    def __init__(self, link: Link, token: str) -> None:
        super().__init__(link.address, link.insecure, link.trusted, token=token)
        self._retry_invoker: Any = _Retry()  # Flower's would try for ever
        self.sites: list[int] | None = None
        self.check: Callable[[int, Message], None] = lambda node, reply: None

    def get_node_ids(self) -> list[int]:
        """The nodes that take part."""
        return sorted(super().get_node_ids()) if self.sites is None else self.sites

    @property
    def online(self) -> set[int]:
        """All nodes that are there."""
        return set(super().get_node_ids())

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Replies that are there, with their content."""
        request = PullAppMessagesRequest(message_ids=message_ids)
        found = self._runtime_client.PullMessages(request)
        run, replies = self.run.run_id, []
        pull = make_pull_object_fn_protobuf(self._runtime_client.PullObject, self.node, run)
        for head, tree in zip(found.messages_list, found.message_object_trees, strict=True):
            ids, name = [part.object_id for part in iterate_object_tree(tree)], head.metadata.message_id
            try:  # the sender may still be at it; what it leaves half done is forgotten after three minutes
                contents = pull_objects(ids, pull, initial_backoff=_POLLS[0], backoff_cap=_POLLS[1])
            except ObjectPullError as error:
                lost = Error(ErrorCode.REPLY_MESSAGE_UNAVAILABLE, f"its reply is incomplete: {error}")
                replies.append(make_message(metadata=message_from_proto(head).metadata, error=lost))
                continue
            self._runtime_client.ConfirmMessageReceived(
                ConfirmMessageReceivedRequest(node=self.node, run_id=run, message_object_id=name)
            )
            reply = cast(Message, inflate_object_from_contents(name, contents))
            reply.metadata.__dict__["_message_id"] = name
            replies.append(reply)
        return replies

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

    Raises ``FedaliError`` when no SuperLink answers, it refuses, or stops the run.
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
            raise FedaliError(
                f"the SuperLink at {link.address} does not know this run: was it restarted? Resuming the run goes on"
            ) from error
        raise refusal(error, link) from error
    except RunNotRunningException:
        raise FedaliError(f"the run was stopped at the SuperLink {link.address}") from None


class _Retry:
    """Calls again what failed for want of a connection."""

    seconds = _PATIENCE

    def invoke(self, call: Callable[..., Any], *args: Any) -> Any:
        """The result of ``call``; what it raises in the end."""
        started = time.monotonic()
        while True:
            try:
                return call(*args)
            except httpx.TransportError as error:
                if is_distrust(error) or time.monotonic() - started > self.seconds:
                    raise
                time.sleep(1.0)


def _start(link: Link, config: UserConfig) -> tuple[int, str]:
    """Submit a run and take it: its id, and the token that makes this process its server."""
    words, retry = (link.address, link.insecure, link.trusted), _Retry()
    retry.seconds = _FIRST_PATIENCE
    versions = [RuntimeVersionHttpInterceptor(component_name="flwr CLI")]
    with ControlHttpClient.from_server_address(
        *words, interceptors=versions, retry_invoker=cast(Any, retry)
    ) as control:
        _stop_former(control, config)
        bundle = _bundle(config)
        fab = Fab(hash_str=hashlib.sha256(bundle).hexdigest(), content=bundle)
        run = control.StartRun(StartRunRequest(fab=fab, override_config=user_config_to_proto(config))).run_id
    versions = [RuntimeVersionHttpInterceptor(component_name="SuperExec")]
    with RuntimeHttpClient.from_server_address(*words, interceptors=versions) as runtime:
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


def _bundle(config: UserConfig) -> bytes:
    """Flower's app bundle without an app: what has to be in it for a run to be accepted, the same bytes each time."""
    empty = {str: '""', bool: "false", int: "0", float: "0.0"}
    lines = [
        "[project]",
        'name = "fedali"',
        'version = "1.0.0"',
        "[tool.flwr.app]",
        'publisher = "fedali"',
        "[tool.flwr.app.components]",
        'serverapp = "installed:app"',
        'clientapp = "installed:app"',
        "[tool.flwr.app.config]",
        *(f"{json.dumps(key)} = {empty[type(value)]}" for key, value in config.items()),
    ]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo("pyproject.toml"), "\n".join(lines) + "\n")
    return buffer.getvalue()
