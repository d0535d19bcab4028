"""A Flower ``Grid`` in this process: a ``ClientApp`` called directly, without Ray and without a SuperLink.

``Grid`` is public API; ``TaskIdentity`` and ``Run`` are not: a ``Message`` cannot be made without the one, nor a ``Grid``
without the other. ``docs/flower.md`` lists what else of Flower's inside is used.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any

from flwr.app import Context, Message, RecordDict, UserConfig
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

_SERVER = 1


class LocalGrid(Grid):
    """Nodes 2, 3, ... of one ``ClientApp``, called one after another in the order of the messages.

    An exception of the app is raised, not turned into an error reply: in one process the cause is worth more.

    Args:
        app: what each node runs.
        nodes: their number; ``node_config`` holds ``partition-id`` and ``num-partitions`` as in Flower's simulation.
        run_config: given to each node's ``Context``.
    """

    def __init__(self, app: ClientApp, nodes: int, run_config: UserConfig | None = None) -> None:
        self._app = app
        self._run = Run.create_empty(run_id=1)
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, _SERVER
        self._contexts = {
            _SERVER + 1 + i: Context(
                run_id=1,
                node_id=_SERVER + 1 + i,
                node_config={"partition-id": i, "num-partitions": nodes},
                state=RecordDict(),
                run_config=run_config or {},
            )
            for i in range(nodes)
        }
        self._replies: dict[str, Message] = {}

    def set_run(self, run: Run) -> None:
        """Replace the run's description."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run's description."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """A message to a node."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> list[int]:
        """Ids of all nodes."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Answer each message at once; the replies wait for ``pull_messages``."""
        ids = []
        for message in messages:
            message_id = uuid.uuid4().hex
            message.metadata.__dict__["_message_id"] = message_id
            # Strategies share one content between messages, apps may change theirs: each gets its own records.
            message.content = RecordDict({name: _copy(record) for name, record in message.content.items()})
            self._replies[message_id] = self._app(message, self._contexts[message.metadata.dst_node_id])
            ids.append(message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Replies that wait, in the order asked for."""
        return [self._replies.pop(i) for i in message_ids if i in self._replies]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """All replies; there is nothing to wait for, so ``timeout`` has no effect."""
        return self.pull_messages(self.push_messages(messages))


def _copy(record: Any) -> Any:
    return type(record)(dict(record))  # arrays' bytes are immutable and stay shared
