"""The sites of a run, over a SuperLink that loses messages."""

from __future__ import annotations

import pytest
from flwr.app import Message
from flwr.supercore.task_identity import TaskIdentity

from fedali.v1 import relay_pb2
from fedali_server.flower import relay_records, site_grid
from fedali_server.flower.site_grid import SiteGrid, Wanted


class LossyLink:
    """Stands for a SuperLink and its one site, ``node``, which the first ``lost`` questions never reach."""

    node = 7

    def __init__(self, lost):
        self.lost, self.asked, self.replies = lost, [], {}

    @property
    def joined(self):
        return {self.node: "today"}

    def push_messages(self, messages):
        names = []
        for message in messages:
            names.append(str(len(self.asked)))
            self.asked.append(message.metadata.message_type)
            if len(self.asked) > self.lost:
                self.replies[names[-1]] = message
        return names

    def pull_messages(self, names):
        return [self._answer(self.replies.pop(name), name) for name in names if name in self.replies]

    def _answer(self, question, name):
        if question.metadata.message_type == "query.hello":
            status = relay_pb2.SiteStatus(site="ward", federation="hospital")
            reply = Message(relay_records.answer_hello(status), reply_to=question)
        else:
            reply = Message(relay_records.answer_has_bundle(True), reply_to=question)
        reply.metadata.__dict__["_reply_to_message_id"] = name
        return reply


@pytest.mark.parametrize("lost", [0, 1, 3])
def test_a_newcomer_is_asked_again_when_a_question_was_lost(monkeypatch, lost):
    monkeypatch.setattr(site_grid, "_AGAIN", 0.01)
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)
    link = LossyLink(lost)
    sites = SiteGrid(link, Wanted("hospital", b"", bytes(32), patience=20.0))
    assert list(sites.get_node_ids()) == [link.node]
    assert sites.names == {link.node: "ward"}
    assert link.asked[: lost + 1] == ["query.hello"] * (lost + 1)
    assert link.asked[-1] == "query.has_bundle"
