"""The command ``fedali status``."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from fedali.errors import SettingsError
from fedali.wire.kit import FILE, DeviceKit, OperatorKit, SiteKit, read_kit


def status(
    where: Annotated[
        Path,
        typer.Argument(help="The operator's kit, a site's kit (on its machine), or the folder of a run."),
    ],
    state: Annotated[
        Path | None,
        typer.Option(help="A site's state folder, if it was started with another.", show_default="KIT/state"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, and nothing else.")] = False,
) -> None:
    r"""Who is online, which round is under way, who is late and why.

    \b
    Examples:
      fedali status kits/operator         sites, by the server
      fedali status kits/hospital-a       devices of a site, by its gateway
      fedali status runs/wards-20260101   a run: its latest round, device by device
    """
    from fedali_server.console import Console

    if (where / FILE).exists():
        kit = read_kit(where)
        if isinstance(kit, SiteKit):
            facts, tables = _site(kit, state)
        elif isinstance(kit, OperatorKit):
            facts, tables = _server(kit)
        else:
            what = "device" if isinstance(kit, DeviceKit) else "server"
            raise SettingsError(f"{where} is the kit of a {what}: give the operator's, or a site's")
    elif (where / "status.json").exists() or any(where.glob("*/*/status.json")):
        facts, tables = _runs(where)
    else:
        raise SettingsError(f"{where} is neither a kit ({FILE}) nor the folder of a run (status.json)")
    if as_json:
        typer.echo(json.dumps(facts))
        return
    console = Console()
    for heading, columns, rows in tables:
        console.print(_table(heading, columns, rows))


_Rows = Sequence[Sequence[str]]
_Tables = list[tuple[str, Sequence[str], _Rows]]


def _site(kit: SiteKit, state: Path | None) -> tuple[dict[str, Any], _Tables]:
    """A site's devices."""
    from google.protobuf.json_format import MessageToDict

    from fedali_server.site.relay import RelayConnection

    gateway = RelayConnection((state or kit.folder / "state") / "relay.sock", patience=5.0)
    try:
        found = gateway.status()
    finally:
        gateway.close()
    rows = []
    for device in found.devices:
        seen = "never" if device.seen_seconds < 0 else f"{device.seen_seconds:.0f} s ago"
        there = "revoked" if device.revoked else "online" if device.online else "offline"
        rows.append((device.device, str(device.number), there, seen, device.doing, device.software))
    what = (
        f"round {found.round} of {found.run}, {found.seconds_left:.0f} s left"
        if found.run
        else "no round open"
    )
    heading = f"site {found.site} of {found.federation}: {what}"
    facts = MessageToDict(found, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    return facts, [(heading, ("device", "number", "", "heard of", "doing", "software"), rows)]


def _server(kit: OperatorKit) -> tuple[dict[str, Any], _Tables]:
    """The federation's sites, as the server knows them."""
    from fedali_server.flower.link import Link
    from fedali_server.flower.superlink import list_sites

    found = list_sites(Link.of_operator(kit), kit.node_keys)
    rows = [(site.name, "online" if site.online else "offline", site.since) for site in found]
    facts = {"federation": kit.federation, "sites": [vars(site) for site in found]}
    return facts, [(f"federation {kit.federation}, server {kit.server}", ("site", "", "since"), rows)]


def _runs(folder: Path) -> tuple[dict[str, Any], _Tables]:
    """The runs in a folder, as they were when a round was last complete."""
    from fedali_server.run.folder import RunFolder

    parts = (
        [folder]
        if (folder / "status.json").exists()
        else sorted(p.parent for p in folder.glob("*/*/status.json"))
    )
    facts, tables = [], []
    for part in parts:
        found = RunFolder(part).status()
        facts.append({"folder": str(part), **found})
        tables.append(_run(found))
    return {"runs": facts}, tables


def _run(found: Mapping[str, Any]) -> tuple[str, Sequence[str], _Rows]:
    reports = [report for report in found["reports"] if report.get("kind", "train") == "train"]
    rows = [
        (
            str(report["site"]),
            str(report["device"]),
            str(report["state"]),
            str(report["reason"]),
            f"{report['seconds']:.1f} s",
            f"{(report['sent'] + report['received']) / 1e3:.0f} kB",
        )
        for report in reports
    ]
    ago = time.time() - float(found["written"])
    sites = ", ".join(found["sites"]) or "no site"
    heading = f"{found['run']}: {found['state']}, round {found['round']} of {found['rounds']}, {sites}; {ago:.0f} s ago"
    return heading, ("site", "device", "state", "why", "took", "moved"), rows


def _table(heading: str, columns: Sequence[str], rows: _Rows) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(title=heading, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table
