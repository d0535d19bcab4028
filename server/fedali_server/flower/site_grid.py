"""The sites of a federation as a strategy sees them: they come, go, are killed and come back.

A message that a site was given and then lost is given to it again: a round is named by its run, its number and its kind, and
a gateway that has done it answers as before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog
from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from fedali.errors import FedaliError
from fedali.version import __version__
from fedali_server.flower import relay_records
from fedali_server.flower.relay_records import DeviceState, Hello
from fedali_server.flower.superlink import LOST, SuperlinkGrid

_POLLS = 0.02, 0.5  # seconds between looks: a twentieth of the time waited so far, within these
_LOOK = 10.0  # seconds that a site has to say who is there
_AGAIN = 30.0  # seconds of silence after which a site is asked again, then twice as long

log = structlog.get_logger("fedali.server")

_Steps = Generator[Message, Message, Hello]


@dataclass(frozen=True)
class Wanted:
    """What a site has to be and to have before it takes part.

    Args:
        federation: its name.
        bundle: the file's bytes.
        sha256: of those.
        revocations: the latest signed list of certificates not to be trusted: list and signature; None without any.
        sites: names of those that may take part; empty for all.
        least: how many have to be there for a round to begin.
        patience: seconds to wait for them.
    """

    federation: str
    bundle: bytes
    sha256: bytes
    revocations: tuple[bytes, bytes] | None = None
    sites: tuple[str, ...] = ()
    least: int = 1
    patience: float = 600.0


class SiteGrid(Grid):
    """A grid of the sites that have joined a SuperLink, know the bundle, and are online.

    Args:
        grid: of a run.
        wanted: what sites have to be.
        report: is told each time that the sites that are there change, with their names.
        meanwhile: is called while waiting, several times a second; what it raises ends the waiting.
    """

    def __init__(
        self,
        grid: SuperlinkGrid,
        wanted: Wanted,
        report: Callable[[list[str]], None] = lambda _: None,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> None:
        self._grid, self._wanted, self._report, self._meanwhile = grid, wanted, report, meanwhile
        self.names: dict[int, str] = {}  # of nodes that take part
        self.hellos: dict[str, Hello] = {}
        self._steps: dict[int, _Steps] = {}
        self._since: dict[int, str] = {}  # when a node that is being introduced had joined
        self._asked: dict[str, int] = {}  # questions of introductions
        self._questions: dict[int, _PendingMessage] = {}  # the last one to each newcomer
        self._refused: dict[int, str] = {}  # when a node that was refused had joined
        self._told: list[str] = []

    def set_run(self, run: Any) -> None:
        """See ``Grid``; Flower's type of a run is not public."""
        self._grid.set_run(run)

    @property
    def run(self) -> Any:
        """See ``Grid``."""
        return self._grid.run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """See ``Grid``."""
        return self._grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        """Nodes of the sites that are there, in the order of their names; waits until there are enough.

        Raises ``FedaliError`` when they do not come.
        """
        started, told = time.monotonic(), False
        while True:
            there = self._there()
            waited = time.monotonic() - started
            if len(there) >= self._wanted.least and not self._steps:
                return there
            if (
                len(there) >= self._wanted.least and waited > _AGAIN
            ):  # a newcomer that does not answer is not waited for
                return there
            if waited > self._wanted.patience:
                raise FedaliError(
                    f"{len(there)} of {self._wanted.least} sites are there after {waited:.0f} s: start them with fedali site "
                    "start KIT; fedali run --resume then goes on"
                )
            if waited > 5 and not told:
                log.warning("waiting for sites", there=len(there), wanted=self._wanted.least)
                told = True
            time.sleep(min(max(waited / 20, _POLLS[0]), _POLLS[1]))

    def look(self) -> list[DeviceState]:
        """The devices of the sites that are there, as they are now; those of a site that does not answer as they last were."""
        questions = [relay_records.ask_hello(node) for node in self.get_node_ids()]
        for reply in self.send_and_receive(questions, timeout=_LOOK):
            if not reply.has_error():
                hello = relay_records.read_hello(reply)
                self.hellos[hello.site] = hello
        return [device for node in self._there() for device in self._devices(node)]

    def devices_of(self, node: int) -> set[int]:
        """Numbers of the devices of a node's site."""
        return {device.number for device in self._devices(node)}

    def _devices(self, node: int) -> tuple[DeviceState, ...]:
        hello = self.hellos.get(self.names.get(node, ""))
        return () if hello is None else hello.devices

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """See ``Grid``."""
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """See ``Grid``."""
        return self._grid.pull_messages(message_ids)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """The first reply of each site, of those that came within ``timeout`` seconds; lost messages are sent again."""
        pending = {message.metadata.dst_node_id: _PendingMessage(message) for message in messages}
        asked: dict[str, int] = {}
        replies: dict[int, Message] = {}
        started = time.monotonic()
        while len(replies) < len(pending):
            self._send(pending, asked, replies)
            for reply in self._grid.pull_messages(list(asked)) if asked else []:
                node = asked.pop(reply.metadata.reply_to_message_id)
                if node in replies:
                    continue
                if reply.has_error() and reply.error.code in LOST:
                    log.warning(
                        "site lost, asking it again", site=self.names.get(node), why=reply.error.reason
                    )
                    pending[node].lost()
                else:
                    replies[node] = reply
            self._there()  # sites that come back are greeted meanwhile
            waited = time.monotonic() - started
            if timeout is not None and waited > timeout:
                for node in pending.keys() - replies.keys():
                    log.warning("site did not answer in time", site=self.names.get(node))
                break
            if len(replies) < len(pending):
                time.sleep(min(max(waited / 20, _POLLS[0]), _POLLS[1]))
        return list(replies.values())

    def _send(
        self, pending: Mapping[int, _PendingMessage], asked: dict[str, int], replies: Mapping[int, Message]
    ) -> None:
        """Send what is due to sites that are there."""
        now, joined = time.monotonic(), self._grid.joined
        due = [
            node
            for node, message in pending.items()
            if node not in replies and node in joined and message.is_due(now, joined[node])
        ]
        copies = [pending[node].copy() for node in due]
        for node, name in zip(due, self._grid.push_messages(copies) if copies else (), strict=True):
            pending[node].sent(now, joined[node])
            if name:
                asked[name] = node

    def _there(self) -> list[int]:
        """Nodes that take part and are online; newcomers are introduced."""
        self._meanwhile()
        online = self._grid.joined
        for node in [node for node in self._steps if online.get(node) != self._since[node]]:
            del self._steps[node]  # what it was asked is lost
            self._hear_no_more(node)
        self._refused = {node: since for node, since in self._refused.items() if online.get(node) == since}
        for node in online.keys() - self.names.keys() - self._steps.keys() - self._refused.keys():
            self._steps[node], self._since[node] = self._introduction(node), online[node]
            self._ask(node, next(self._steps[node]))
        for node in list(self._steps):
            if self._questions[node].is_due(time.monotonic(), self._since[node]):
                self._ask(node)
        for reply in self._grid.pull_messages(list(self._asked)) if self._asked else []:
            node = self._asked.get(reply.metadata.reply_to_message_id, -1)
            self._hear_no_more(node)
            if node in self._steps:
                self._go_on(node, reply)
        names = sorted((name, node) for node, name in self.names.items() if node in online)
        found = [name for name, _ in names]
        if found != self._told:
            self._told = found
            self._report(found)
        return [node for _, node in names]

    def _hear_no_more(self, node: int) -> None:
        """A second answer to a question that was asked twice is no answer to the next one."""
        self._asked = {name: asked for name, asked in self._asked.items() if asked != node}

    def _ask(self, node: int, question: Message | None = None) -> None:
        """Ask a newcomer; again, without a question."""
        if question is not None:
            self._questions[node] = _PendingMessage(question)
        (name,) = self._grid.push_messages([self._questions[node].copy()])
        self._questions[node].sent(time.monotonic(), self._since[node])
        if name:
            self._asked[name] = node
        else:
            del self._steps[node]  # it is gone already

    def _go_on(self, node: int, reply: Message) -> None:
        steps = self._steps[node]
        try:
            if reply.has_error():
                if reply.error.code in LOST:
                    del self._steps[node]  # and begins anew when it is back
                    return
                raise FedaliError(reply.error.reason)
            self._ask(node, steps.send(reply))
        except StopIteration as end:
            hello: Hello = end.value
            del self._steps[node]
            self.names = {n: name for n, name in self.names.items() if name != hello.site} | {
                node: hello.site
            }
            self.hellos[hello.site] = hello
            log.info("site takes part", site=hello.site, devices=len(hello.devices))
        except FedaliError as error:
            del self._steps[node]
            self._refused[node] = self._since[node]
            log.warning("a site cannot take part", node=node, why=str(error))

    def _introduction(self, node: int) -> _Steps:
        """Questions to a newcomer, answers in; ends with what it is."""
        wanted = self._wanted
        hello = relay_records.read_hello((yield relay_records.ask_hello(node)))
        if hello.federation != wanted.federation:
            raise FedaliError(
                f"site {hello.site} is of federation {hello.federation!r}, not {wanted.federation!r}"
            )
        if wanted.sites and hello.site not in wanted.sites:
            raise FedaliError(f"site {hello.site} is none of {', '.join(wanted.sites)}")
        if hello.version != __version__:
            raise FedaliError(
                f"site {hello.site} runs FedAli {hello.version}, this is {__version__}: install one version"
            )
        if wanted.revocations is not None:
            yield relay_records.ask_revoke(node, *wanted.revocations)
        answer = yield relay_records.ask_has_bundle(node, wanted.sha256)
        if not relay_records.read_has_bundle(answer):
            yield relay_records.ask_put_bundle(node, wanted.bundle)
        return hello


class _PendingMessage:
    """A message that is sent until it is answered."""

    def __init__(self, message: Message) -> None:
        self._message, self._pause = message, _AGAIN
        self._due, self._joined = 0.0, ""

    def copy(self) -> Message:
        """The message to send; a Flower message is sent once."""
        head = self._message.metadata
        return Message(self._message.content, head.dst_node_id, head.message_type, group_id=head.group_id)

    def is_due(self, now: float, joined: str) -> bool:
        """Whether to send it now, to a node that joined at ``joined``; one that joined after it was sent has lost it."""
        return now >= self._due or joined != self._joined

    def sent(self, now: float, joined: str) -> None:
        """Note when to send again."""
        self._due, self._pause, self._joined = now + self._pause, 2 * self._pause, joined

    def lost(self) -> None:
        """Send it again as soon as its node is there."""
        self._due = 0.0
