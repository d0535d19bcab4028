"""A simulation whose clients are on other machines: the server's side.

Each machine runs ``fedali site`` (``fedali_simulations.machines.site``) and has joined a SuperLink; this side drives the rounds over
it with the same strategy and writes the same folder as a run in one process.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from functools import partial

import structlog
from flwr.app import Message, UserConfig

from fedali.cohort.contract import ClientMetrics
from fedali.cohort.store import ClientStore, Table
from fedali.cohort.tensorfile import Piece
from fedali.engines.base import Vector
from fedali.errors import FedaliError
from fedali.methods import SharedState
from fedali.version import __version__
from fedali_server.flower.superlink import LOST, SuperlinkGrid, running
from fedali_server.run.folder import Checkpoint
from fedali_simulations.jobs import Job, Report
from fedali_simulations.machines import questions
from fedali_simulations.machines.remote_sites import RemoteSites
from fedali_simulations.run import folder_of, report_done, run_rounds
from fedali_simulations.setup import Plan, build_plan

WAIT = 600.0  # seconds for sites to come, or to come back

log = structlog.get_logger("fedali.server")


class SiteLostError(FedaliError):
    """A site is gone, or what it said did not arrive."""


def run_remote_job(job: Job, remote: RemoteSites, report: Report = lambda _: None) -> None:
    """Run or resume a job over the sites that have joined a SuperLink; what it leaves is in its folder.

    When a site is lost, the server waits until it is back, for ten minutes, and repeats the round. Raises ``FedaliError``
    when a site fails, when none comes, or when a site's part, version or data are not what the run needs.
    """
    folder = folder_of(job)
    if folder.done:
        report_done(job, report)
        return
    plan = build_plan(job.scenario, job.line, job.seed)
    folder.sweep()
    with running(remote.link, run_config(job, remote.study)) as grid:
        while not folder.done:
            clients = _RemoteClients(grid, plan, remote.link.address)
            clients.gather(job.scenario.sites)
            checkpoint = folder.read_checkpoint() or Checkpoint(0, plan.initial)
            try:
                run_rounds(job, folder, plan, checkpoint, grid, clients, report)
            except SiteLostError as lost:
                log.warning("waiting for a site, then repeating the round", why=str(lost))


def run_config(job: Job, study: str) -> UserConfig:
    """What a site has to know of a run; see ``fedali_simulations.machines.site``."""
    return {
        "study": study,
        "scenario": json.dumps(job.scenario.model_dump(mode="json")),
        "line": job.scenario.methods.index(job.line),
        "seed": job.seed,
    }


class _RemoteClients:
    """Clients of sites behind a SuperLink; what they keep between rounds stays with their sites."""

    def __init__(self, grid: SuperlinkGrid, plan: Plan, address: str) -> None:
        self._grid, self._plan, self._address = grid, plan, address
        self._kept = ClientStore(plan.method, plan.layouts)  # for its sizes: this one stays empty
        self._names: dict[int, str] = {}

    def gather(self, parts: int) -> None:
        """Wait until each part of the federation has a site, and check what they are."""
        self._grid.sites, self._grid.check = None, lambda node, reply: None
        asked: dict[str, int] = {}
        found: dict[int, int] = {}  # by part, its node
        waiting_since, told = time.monotonic(), False
        while len(found) < parts:
            online = self._grid.online
            new = [questions.ask("hello", node) for node in online - set(asked.values())]
            asked |= zip(self._grid.push_messages(new), (m.metadata.dst_node_id for m in new), strict=True)
            for reply in self._grid.pull_messages(asked) if asked else []:
                node = asked[reply.metadata.reply_to_message_id]
                if not (reply.has_error() and reply.error.code in LOST):
                    self._welcome(reply, node, parts, found)
            missing = [f"{part}/{parts}" for part in range(1, parts + 1) if part not in found]
            waited = time.monotonic() - waiting_since
            if waited > 5 and missing and not told:
                log.warning("waiting for sites", missing=missing)
                told = True
            if waited > WAIT and not online - set(found.values()):  # else one is there and still busy
                raise FedaliError(
                    f"no site came for part {missing[0]}: start it with fedali site --superlink "
                    f"{self._address} --part {missing[0]}; fedali simulate --resume then goes on"
                )
            time.sleep(0.1)
        self._names = {node: f"{part}/{parts}" for part, node in found.items()}
        self._grid.sites = [found[part] for part in sorted(found)]
        self._grid.check = self._check

    def pieces(self) -> Iterator[tuple[int, Piece]]:
        """What the shared state does not say of each client's personal model."""
        layouts = self._plan.layouts
        whole = {"theta": layouts.parameters.size, "local_prototypes": layouts.prototypes.size}
        for node in self._grid.get_node_ids():
            held, trained = questions.read_held(self._ask(questions.ask("held", node)))
            sizes = {client: whole if client in trained else self._kept.sizes for client in held}
            reader = _Reader(self, node, {client: sum(sizes[client].values()) for client in held})
            for client in held:
                yield client, Piece(sizes[client], partial(reader.read, client))

    def models(self, shared: SharedState) -> Iterator[tuple[int, Vector, Vector]]:
        """Each client's personal model."""
        pieces, size = dict(self.pieces()), self._plan.layouts.parameters.size
        for client in self._plan.seen:
            theta, prototypes = shared.theta.copy(), shared.prototypes.copy()
            if client in pieces:
                values, where = pieces[client].read(), self._kept.where
                if "theta" in pieces[client].sizes:
                    theta, prototypes = values[:size], values[size:]
                else:
                    theta[where] = values[: where.size]
                    if "local_prototypes" in self._kept.sizes:
                        prototypes = values[where.size :]
            yield client, theta, prototypes

    def adapt(self, clients: Sequence[int], round_: int, shared: SharedState) -> ClientMetrics:
        """Ask the first site: each has everyone's data."""
        node = self._grid.get_node_ids()[0]
        return questions.read_columns(self._ask(questions.ask_to_adapt(node, clients, round_, shared)))

    def checkpoint(self) -> Table:
        """Nothing: a site keeps the records of the last two rounds itself."""
        return {}

    def read(self, node: int, clients: Sequence[int]) -> Vector:
        """The numbers of some clients of a site."""
        return questions.read_values(self._ask(questions.ask("read", node, clients)))

    def _ask(self, question: Message) -> Message:
        (reply,) = self._grid.send_and_receive([question])
        return reply

    def _check(self, node: int, reply: Message) -> None:
        if reply.has_error():
            kind = SiteLostError if reply.error.code in LOST else FedaliError
            raise kind(f"site {self._names[node]}: {reply.error.reason}")

    def _welcome(self, reply: Message, node: int, parts: int, found: dict[int, int]) -> None:
        """Note a site, or say why it cannot take part."""
        if reply.has_error():
            raise FedaliError(f"a site cannot take part: {reply.error.reason}")
        facts = questions.read_introduction(reply)
        name = f"site {facts['part']}/{facts['parts']}"
        if facts["parts"] != parts:
            raise FedaliError(f"{name} has joined a run of {parts} sites: give --sites {facts['parts']}")
        if facts["version"] != __version__:
            raise FedaliError(
                f"{name} runs FedAli {facts['version']}, this is {__version__}: install one version"
            )
        if facts["data"] != questions.fingerprint(self._plan.federation):
            raise FedaliError(f"{name} has other data than this machine: copy one data set to both")
        part = int(facts["part"])
        if part in found:
            raise FedaliError(f"{name} was started twice: end one of them")
        found[part] = node


class _Reader:
    """Fetches the numbers of a site's clients some at a time, since a message costs more than its content."""

    def __init__(self, clients: _RemoteClients, node: int, sizes: dict[int, int]) -> None:
        self._clients, self._node, self._sizes = clients, node, sizes
        self._order = list(sizes)
        self._fetched: dict[int, Vector] = {}

    def read(self, client: int) -> Vector:
        """The numbers of one client; clients are read in order, each once."""
        if client not in self._fetched:
            start, total = self._order.index(client), 0
            chunk: list[int] = []
            for following in self._order[start:]:
                total += self._sizes[following]
                if chunk and total > questions.CHUNK:
                    break
                chunk.append(following)
            values, self._fetched = self._clients.read(self._node, chunk), {}
            for following in chunk:
                size = self._sizes[following]
                self._fetched[following], values = values[:size], values[size:]
        return self._fetched.pop(client)
