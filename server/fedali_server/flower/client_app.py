"""The Flower ``ClientApp`` of a site: records in, records out; the work is the site's."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fedali.cohort.contract import Site
from fedali_server.flower import records
from fedali_server.flower.packing import Mod


def make_client_app(find_site: Callable[[Context], Site], mods: Sequence[Mod] = ()) -> ClientApp:
    """A Flower ``ClientApp`` whose node answers by a site; the same app runs in one process and on a SuperLink."""
    app = ClientApp(mods=list(mods))

    @app.train()
    def train(message: Message, context: Context) -> Message:
        settings, shared = records.read_instructions(message.content)
        reply = find_site(context).train(settings, shared)
        content = RecordDict({"clients": MetricRecord(dict(reply.metrics))})
        if reply.upload is not None:
            content.update(records.from_upload(reply.upload))
        if reply.reports:
            content.update(records.from_reports(reply.reports))
        return Message(content, reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        settings, shared = records.read_instructions(message.content)
        reply = find_site(context).evaluate(settings, shared)
        content = RecordDict({"clients": MetricRecord(dict(reply.metrics))})
        if reply.reports:
            content.update(records.from_reports(reply.reports))
        return Message(content, reply_to=message)

    return app
