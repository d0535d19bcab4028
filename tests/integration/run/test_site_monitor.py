"""What a person sees of devices while they train, by a real gateway."""

from __future__ import annotations

import io
import math
import queue
import threading
import time

from fedali.v1 import relay_pb2
from fedali_server.console import Console
from fedali_server.run.federated import RunProgress
from fedali_simulations.machines.site_monitor import SiteMonitor
from fedali_simulations.report.run_display import RunDisplay, site_line
from tests.gateways import ProvisionedSite


def test_devices_are_seen_from_waiting_to_gone(tmp_path):
    told = queue.Queue()

    def until(words):
        """The first line with these words."""
        ends = time.monotonic() + 60
        while time.monotonic() < ends:
            (line,) = (site_line(site, status) for site, status in told.get(timeout=60).items())
            if words in line:
                return line
        raise AssertionError(f"never seen: {words}")

    with ProvisionedSite(tmp_path) as site:
        site.put_bundle()
        with SiteMonitor({"a": site.socket}, told.put):
            assert until("a-0") == "a: a-0 not here yet, a-1 not here yet, a-2 not here yet"
            device = site.device(1)
            waiting = threading.Thread(target=device.wait_for_task, daemon=True)
            waiting.start()
            assert "a-0 not here yet, a-1 waiting" in until("waiting")
            outcome = site.begin(site.order(devices=[1]))
            waiting.join(30)
            task = device.wait_for_task()
            assert "a-1 training," in until("a-1 training,")
            assert device.heartbeat(task.id)
            assert "a-1 training 50%" in until("training 50%")
            device.upload(task.id, site.update(1, task.id))
            outcome.result()
            site.kill()
            assert until("does not answer") == "a: its gateway does not answer"


def test_a_device_that_left_or_was_revoked_is_said_to_be():
    devices = [
        relay_pb2.DeviceStatus(device="a-0", seen_seconds=61.7, doing=""),
        relay_pb2.DeviceStatus(device="a-1", online=True, doing="training", revoked=True),
        relay_pb2.DeviceStatus(device="a-2", online=True, doing=""),
    ]
    assert (
        site_line("a", relay_pb2.SiteStatus(devices=devices))
        == "a: a-0 offline for 62 s, a-1 revoked, a-2 online"
    )


def test_devices_are_below_the_bars_and_gone_at_the_end(tmp_path):
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=80)
    with RunDisplay(tmp_path, console) as display:
        display.report("fedali-paper", RunProgress(0, 3, ("a",)))
        display.devices(
            {"[bold]": relay_pb2.SiteStatus(devices=[relay_pb2.DeviceStatus(device="a-0", seen_seconds=-1)])}
        )
        shown = out.getvalue()
        assert shown.index("0/3") < shown.index("[bold]: a-0 not here yet")
        display.report("fedali-paper", RunProgress(1, 3, ("a",), math.nan, (), 1.0))
    assert "not here yet" not in out.getvalue()[out.getvalue().rindex("1/3") :]
