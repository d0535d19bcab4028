"""FedBuff's clock, beside one that is written plainly."""

from __future__ import annotations

import numpy as np
import pytest

from fedali.cohort.buffered.fits import why_not
from fedali.cohort.buffered.schedule import Buffered, Schedule
from fedali.cohort.sampling.availability import DayNight
from fedali.errors import SettingsError
from fedali.methods import build_method

SIZES = np.array([5, 30, 12, 8, 40, 22, 9, 17, 25, 14])


def plainly(steps, size, concurrency, spread, seed=3):
    """Algorithm 1 by hand: for each step, who reported, from which version, and when."""
    n = len(SIZES)
    normal = np.random.default_rng(np.random.SeedSequence([seed, 31])).standard_normal(n)
    needs = [np.exp(spread * normal[c]) * SIZES[c] / SIZES.mean() for c in range(n)]
    training, now, found = {}, 0.0, []
    for version in range(steps):
        rng = np.random.default_rng(np.random.SeedSequence([seed, 32, version]))
        buffer = []

        def begin(now, rng=rng, buffer=buffer, version=version):
            while len(training) < concurrency and len(training) + len(buffer) < n:
                client = int(rng.integers(n))
                if client not in training and client not in [one[0] for one in buffer]:
                    training[client] = (now + needs[client], version)

        begin(now)
        while len(buffer) < size:
            client = min(training, key=lambda c: training[c][0])
            now, since = training.pop(client)
            buffer.append((client, since, now))
            if len(buffer) < size:
                begin(now)
        found.append(buffer)
    return found


@pytest.mark.parametrize(
    ("size", "concurrency", "spread"), [(1, 1, 0.0), (3, 5, 1.0), (2, 8, 2.0), (4, 3, 0.5)]
)
def test_it_is_the_published_clock(size, concurrency, spread):
    schedule = Schedule(Buffered(size, concurrency, spread), 3, np.arange(10), SIZES)
    steps = [[(r.client, r.version, r.time) for r in schedule.step().reports] for _ in range(30)]
    assert steps == plainly(30, size, concurrency, spread)
    if (size, concurrency) == (2, 8):
        assert max(version - since for version, step in enumerate(steps) for _, since, _ in step) > 3


def test_it_goes_on_from_any_step_as_if_it_had_not_stopped():
    def made():
        on = DayNight(1, 10, 1.0, 0.9, 0.2, 1)
        return Schedule(Buffered(3, 6, 1.0), 5, np.arange(1, 10), SIZES, on, dropout=0.3)

    whole = made()
    steps = [whole.step() for _ in range(12)]
    assert sum(len(step.dropped) for step in steps) > 3
    assert all(len({r.client for r in step.reports}) == 3 for step in steps)
    for stop in (0, 1, 7):
        part = made()
        for _ in range(stop):
            part.step()
        rest = made()
        rest.restore(part.checkpoint())
        assert [rest.step() for _ in range(stop, 12)] == steps[stop:]


def test_what_cannot_be_is_one_line():
    with pytest.raises(SettingsError, match=r"buffered\.size is 11, and there are 10 clients"):
        Schedule(Buffered(11, 5), 0, np.arange(10), SIZES)
    can = {"fedavg", "fedprox", "fedper", "fedrep", "ditto", "fedbn", "local", "fedavg+between"}
    cannot = {"fedali", "fedali-paper", "fedproto", "scaffold", "pfedme", "fedavg+gate"}
    assert {name for name in can | cannot if not why_not(build_method(name))} == can
