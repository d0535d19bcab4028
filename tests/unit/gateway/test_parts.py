"""What the gateway is made of: exact sums, the journal, clocks that are not compared."""

from __future__ import annotations

import json
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedali.aggregation import WeightedSum
from fedali.errors import CheckpointError, DataError, WireError
from fedali.methods import Layouts, SharedState, Trained, Upload, build_method
from fedali.v1 import relay_pb2
from fedali_server.gateway.limits import Bucket
from fedali_server.gateway.rounds.elapsed import Stopwatch, boot_id
from fedali_server.gateway.rounds.journal import Journal
from fedali_server.gateway.rounds.orders import check_order, content
from fedali_server.gateway.rounds.sums import ExactSum, RoundSums, check_fits, fits
from tests.small_bundles import PARAMETERS, PROTOTYPES

NUMBERS = st.floats(-1e9, 1e9, width=32)
TERMS = st.lists(
    st.tuples(st.lists(NUMBERS, min_size=3, max_size=3), st.integers(1, 10**9)), min_size=1, max_size=8
)


def summed(terms):
    found = ExactSum(3)
    for vector, weight in terms:
        found.add(np.array(vector, np.float32).astype(np.float64) * weight, float(weight))
    return found.total()


@given(TERMS, st.randoms(use_true_random=False))
def test_a_sum_has_the_same_bits_in_any_order(terms, random):
    mixed = list(terms)
    random.shuffle(mixed)
    assert summed(terms).tobytes() == summed(mixed).tobytes()


@given(TERMS)
def test_a_sum_is_right_to_the_last_bit_or_so(terms):
    for index, found in enumerate(summed(terms)):
        exact = sum(Fraction(float(np.float32(v[index])) * float(w)) for v, w in terms)
        # each term loses what is below 2^-80, the sum what float64 cannot hold
        assert (
            abs(Fraction(float(found)) - exact)
            <= len(terms) * Fraction(2) ** -80 + abs(exact) * Fraction(2) ** -51
        )


@given(st.lists(NUMBERS, min_size=1, max_size=5), st.integers(1, 10**9), st.integers(1, 100_000))
def test_terms_that_fit_do_not_overflow(numbers, weight, terms):
    vector = np.array(numbers, np.float32)
    largest = abs(Fraction(float(np.abs(vector).max()))) * weight * terms
    assert (
        fits(vector.astype(np.float64) * weight, terms) == (largest < 2**62)
        or abs(largest / 2**62 - 1) < 1e-6
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
def test_what_is_too_large_to_be_summed_is_refused(value):
    layouts = Layouts(PARAMETERS, PROTOTYPES)
    theta = np.zeros(PARAMETERS.size, np.float32)
    shared = SharedState(theta.copy(), np.zeros(PROTOTYPES.size, np.float32))
    theta[3] = value
    with pytest.raises(DataError, match=r"NaN or infinite|did training diverge"):
        check_fits(
            build_method("fedavg").upload(Trained(theta, shared.prototypes, 10**9), shared, layouts), 500
        )


def term(weight, theta, prototypes=None):
    """What a client of ``weight`` samples sends."""
    theta_sum = WeightedSum()
    theta_sum.add(theta, weight)
    return Upload({"theta": theta_sum}, [] if prototypes is None else [(weight, prototypes)], clients=1)


def test_sums_come_back_from_the_disk_as_they_were(tmp_path):
    random, sums = np.random.default_rng(0), RoundSums()
    for number in (5, 2):
        vector = random.standard_normal(70_000).astype(np.float32)
        sums.add(number, term(3.0, vector, random.standard_normal(6)))
    sums.save(tmp_path / "sums.npz")
    back = RoundSums.load(tmp_path / "sums.npz")
    assert back.members == {2, 5}
    before, after = sums.upload(3), back.upload(3)
    assert (after.clients, after.population) == (2, 3)
    assert after.sums["theta"].weight == 6.0
    assert after.sums["theta"].total.tobytes() == before.sums["theta"].total.tobytes()
    assert set(after.sums) == {"theta"}
    assert [one.tobytes() for _, one in after.sets] == [one.tobytes() for _, one in before.sets]
    with pytest.raises(ValueError, match="in the sum already"):
        back.add(2, term(1.0, np.zeros(70_000, np.float32)))


def test_a_damaged_sum_is_one_line(tmp_path):
    sums = RoundSums()
    sums.add(1, term(1.0, np.ones(1000, np.float32)))
    sums.save(tmp_path / "sums.npz")
    data = bytearray((tmp_path / "sums.npz").read_bytes())
    data[len(data) // 2] ^= 1
    for damaged in (bytes(data), bytes(data[:-100]), b"", b"PK\x03\x04"):
        (tmp_path / "sums.npz").write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"cannot read .*sums\.npz"):
            RoundSums.load(tmp_path / "sums.npz")


@given(st.lists(st.integers(0, 1000), max_size=6), st.integers(0, 60))
def test_a_journal_survives_being_cut_anywhere(tmp_path_factory, numbers, cut):
    path = tmp_path_factory.mktemp("journal") / "j"
    journal = Journal(path)
    for number in numbers:
        journal.commit({"n": number})
    journal.close()
    data = path.read_bytes()
    kept = data[: max(0, len(data) - cut)]
    path.write_bytes(kept)
    again = Journal(path)
    whole = kept.count(b"\n")
    assert [record["n"] for record in again.records] == numbers[:whole]
    again.commit({"n": -1})
    again.close()
    last = Journal(path)
    assert [record["n"] for record in last.records] == [*numbers[:whole], -1]
    last.close()


def test_a_journal_whose_last_block_never_reached_the_disk_goes_on(tmp_path):
    path = tmp_path / "j"
    path.write_bytes(b'{"n":1}\n' + b"\0" * 40 + b"\n")
    journal = Journal(path)
    assert journal.records == [{"n": 1}]
    journal.close()
    assert path.read_bytes() == b'{"n":1}\n'


def test_a_journal_that_is_damaged_within_says_where(tmp_path):
    path = tmp_path / "j"
    path.write_bytes(b'{"n":1}\n{"n":\n{"n":3}\n')
    with pytest.raises(CheckpointError, match="damaged in line 2"):
        Journal(path)


FULL = """
import resource, signal, sys
from pathlib import Path
from fedali.errors import FedaliError
from fedali_server.gateway.rounds.journal import Journal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
journal = Journal(Path(sys.argv[1]))
journal.commit({"n": 1})
resource.setrlimit(resource.RLIMIT_FSIZE, (12, resource.RLIM_INFINITY))
try:
    journal.commit({"n": 2})
except FedaliError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
journal.commit({"n": 3})
"""


def test_a_line_that_finds_no_room_leaves_the_journal_whole(tmp_path):
    path = tmp_path / "j"
    said = subprocess.run([sys.executable, "-c", FULL, path], capture_output=True, text=True, check=True)
    assert said.stdout.startswith(f"cannot write {path}")
    assert path.read_bytes() == b'{"n":1}\n{"n":3}\n'


def test_a_stopwatch_goes_on_where_another_process_began_it():
    first = Stopwatch.begin()
    again = Stopwatch.resume(first.start, first.boot, 0.0)
    if boot_id():
        assert again == first
    ahead = Stopwatch.resume(first.start, "another boot", 100.0)
    assert 100.0 <= ahead.elapsed() < 200.0


def test_a_bucket_lets_its_burst_through_and_then_its_rate():
    bucket = Bucket(1e-9, 3)
    assert [bucket.take() for _ in range(5)] == [True, True, True, False, False]
    assert not Bucket(1e9, 3).take(4)


def order(**changes):
    plain = {"run": "r", "round": 1, "kind": 1, "epochs": 1, "seconds": 1.0, "quorum": 1.0, "encoding": 1}
    return relay_pb2.RoundOrder(**{**plain, **changes})


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"run": "A b"}, "cannot name a run"),
        ({"run": ""}, "cannot name a run"),
        ({"run": "../up"}, "cannot name a run"),
        ({"round": 0}, "round is 0"),
        ({"kind": 9}, "kind is 9"),
        ({"epochs": 0}, "epochs is 0"),
        ({"seconds": float("nan")}, "seconds is nan"),
        ({"seconds": -1.0}, "seconds is -1"),
        ({"quorum": 1.5}, "quorum is 1.5"),
        ({"grace_seconds": float("inf")}, "grace_seconds is inf"),
        ({"largest_step": -1.0}, "largest_step is -1"),
        ({"influence": 2.0}, "influence is 2"),
        ({"encoding": 9}, "encoding is 9"),
    ],
)
def test_orders_that_make_no_sense_are_refused(changes, why):
    check_order(order())
    with pytest.raises(WireError, match=why):
        check_order(order(**changes))


def test_two_orders_are_the_same_round_when_devices_see_the_same():
    assert content(order()) == content(order(seconds=2.0, quorum=0.5, grace_seconds=3.0))
    for change in ({"theta": b"1234"}, {"seed": 1}, {"epochs": 2}, {"bundle": b"x"}, {"largest_step": 1.0}):
        assert content(order()) != content(order(**change))


def test_the_gateway_needs_neither_torch_nor_flower():
    code = (
        "import sys, json, fedali_server.gateway.__main__;"
        "print(json.dumps([n for n in ('torch', 'flwr', 'pydantic', 'sklearn', 'scipy') if n in sys.modules]))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(said.stdout) == []
