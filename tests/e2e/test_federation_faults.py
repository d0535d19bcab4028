"""Real kills: whoever dies in the middle of a round, the run ends with the same bits as one that nobody disturbed.

Same bits say it all: an update that was lost, or counted twice, would change them. One device is stopped where a test needs a
round that cannot end before the fault.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.federations import Place, same

pytestmark = pytest.mark.slow
CLOCK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/time.h>
#include <time.h>
#define AHEAD 300
int clock_gettime(clockid_t id, struct timespec *t) {
  int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
  int failed = real(id, t);
  if (!failed && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) t->tv_sec += AHEAD;
  return failed;
}
int gettimeofday(struct timeval *t, void *zone) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  t->tv_sec = now.tv_sec;
  t->tv_usec = now.tv_nsec / 1000;
  return 0;
}
time_t time(time_t *t) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (t) *t = now.tv_sec;
  return now.tv_sec;
}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = Place(tmp_path_factory.mktemp("faults"), devices=4)
    place.bundle()
    with place:
        yield place


@pytest.fixture(scope="module")
def undisturbed(place):
    place.finish(start(place, "undisturbed"), "undisturbed")
    return place.state("undisturbed")


@pytest.fixture
def held(place):
    """A device that is stopped, so that no round ends; it goes on with ``release``."""
    device = place.local.processes["device-3"]
    device.signal(signal.SIGSTOP)
    yield lambda: device.signal(signal.SIGCONT)
    device.signal(signal.SIGCONT)


def trained(place, device):
    """How many rounds a device has told to be done."""
    return place.local.processes[device].said().count("trained on")


def start(place, name):
    """Three rounds from the same untrained model, which a run does not have to export."""
    return place.start_run(name, "--rounds", "3", bundle=place.bundle())


def in_the_middle(place, name, device="device-2"):
    """A run whose first round has an acknowledged update, and cannot end."""
    before = trained(place, device)
    run = start(place, name)
    place.wait(lambda: trained(place, device) > before, meanwhile=lambda: place.alive(run, name))
    return run


def pid_of(*words):
    """The process whose command line has all words."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if all(word in line for word in words):
            return int(path.parent.name)
    return None


def check(place, run, name, undisturbed):
    place.finish(run, name)
    assert same(place.state(name), undisturbed)
    for facts in place.rounds(name):
        assert [r["state"] for r in facts["reports"] if r["kind"] == "train"] == ["done"] * 4


def test_a_device_is_killed_in_the_middle_of_a_round_and_comes_back(place, undisturbed, held):
    run = in_the_middle(place, "device")
    for device in ("device-2", "device-3"):  # one whose update was acknowledged, and one that is at work
        place.local.processes[device].kill_all()
        place.local.start_device(device)
    check(place, run, "device", undisturbed)


def test_a_gateway_is_killed_in_the_middle_of_a_round(place, undisturbed, held):
    run = in_the_middle(place, "gateway")
    gateway = pid_of("fedali_server.gateway", str(place.local.kit("site-b")))
    os.kill(gateway, signal.SIGKILL)
    held()
    check(place, run, "gateway", undisturbed)


def test_a_site_is_killed_in_the_middle_of_a_round_and_comes_back(place, undisturbed, held):
    run = in_the_middle(place, "site")
    place.local.processes["site-b"].kill_all()
    place.local.processes["site-b"].start()
    held()
    check(place, run, "site", undisturbed)


def test_a_sites_supervisor_alone_is_killed(place, undisturbed, held):
    run = in_the_middle(place, "supervisor")
    site = place.local.processes["site-b"]
    os.kill(site.running.pid, signal.SIGKILL)
    site.running.wait()
    site.start()
    held()
    check(place, run, "supervisor", undisturbed)


def test_the_server_is_killed_in_the_middle_of_a_run(place, undisturbed, held):
    run = in_the_middle(place, "server")
    place.local.processes["server"].kill_all()
    place.local.processes["server"].start()
    held()
    check(place, run, "server", undisturbed)


def test_a_run_is_killed_and_resumed(place, undisturbed, held):
    run = in_the_middle(place, "run")
    run.kill()
    run.wait()
    again = place.start_run("run")  # there is a folder: it is resumed
    held()
    check(place, again, "run", undisturbed)


def test_the_network_is_cut_for_twenty_seconds(place, undisturbed, held):
    run = in_the_middle(place, "cut")
    gateway = pid_of("fedali_server.gateway", str(place.local.kit("site-b")))
    node = place.local.processes["site-b"]
    os.kill(gateway, signal.SIGSTOP)  # to its devices and its server as if the line were dead
    node.signal(signal.SIGSTOP)
    held()
    with pytest.raises(subprocess.TimeoutExpired):
        run.wait(20)
    os.kill(gateway, signal.SIGCONT)
    node.signal(signal.SIGCONT)
    check(place, run, "cut", undisturbed)


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no C compiler to shift a clock with")
def test_clocks_are_five_minutes_off(place, undisturbed, tmp_path):
    (tmp_path / "clock.c").write_text(CLOCK)
    library = tmp_path / "clock.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, tmp_path / "clock.c", "-ldl"], check=True)
    device, site = place.local.processes["device-0"], place.local.processes["site-b"]
    for process in (device, site):
        process.kill_all()
        process.extra["LD_PRELOAD"] = str(library)
        process.start()
    try:
        check(place, start(place, "clock"), "clock", undisturbed)
    finally:
        for process in (device, site):
            process.kill_all()
            del process.extra["LD_PRELOAD"]
            process.start()
