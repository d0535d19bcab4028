"""Who is drawn, how often, with what weight; who is on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedali.cohort.sampling.availability import DayNight, Trace
from fedali.cohort.sampling.draws import by_loss, by_size
from fedali.cohort.sampling.sampler import Sampler, availability_of
from fedali.cohort.sampling.settings import Sampling
from fedali.errors import CheckpointError, DataError

SIZES = np.array([5, 10, 10, 20, 30, 40, 400])  # the last is always in, and so is none but it


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=40), st.data())
def test_by_size_draws_so_many_whose_weights_are_everybodys_samples(sizes, given_):
    count = given_.draw(st.integers(1, len(sizes)))
    places, weights = by_size(np.array(sizes), count, np.random.default_rng(given_.draw(st.integers(0, 99))))
    assert len(set(places.tolist())) == count
    assert sorted(places.tolist()) == places.tolist()
    assert weights.sum() == pytest.approx(sum(sizes))


def test_by_size_the_chances_are_as_said_and_the_mean_is_fedavgs():
    rng, values = np.random.default_rng(0), np.arange(7.0)
    drawn, means = np.zeros(7), []
    for _ in range(4000):
        places, weights = by_size(SIZES, 3, rng)
        drawn[places] += 1
        means.append(np.average(values[places], weights=weights))
    chances = np.append(2 * SIZES[:-1] / SIZES[:-1].sum(), 1.0)  # two places are left for the others
    np.testing.assert_allclose(drawn / 4000, chances, atol=0.03)
    assert np.mean(means) == pytest.approx(np.average(values, weights=SIZES), abs=0.02)


def test_by_loss_takes_the_highest_of_the_candidates_and_first_those_never_heard_of():
    losses = np.array([0.1, 0.9, np.inf, 0.3, 0.5, 0.7, 0.2])
    rng = np.random.default_rng(0)
    assert by_loss(losses, SIZES, 3, 7, rng).tolist() == [1, 2, 5]
    once = [tuple(by_loss(losses, SIZES, 1, 2, rng)) for _ in range(300)]
    assert len(set(once)) > 2  # of two candidates, which are drawn
    assert (0,) not in once, "it has the lowest loss of all"


def test_a_trace_says_who_is_on(tmp_path):
    path = tmp_path / "on.csv"
    path.write_text("client,from_round,to_round\nann,1,2\nbob,2,2\nann,5,5\n")
    trace = Trace(path, ["ann", "bob", "cyd"])
    on = [trace.on(round_ - 1).astype(int).tolist() for round_ in range(1, 6)]
    assert on == [[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 0, 0], [1, 0, 0]]
    path.write_text("client,from_hour,to_hour\nbob,6,12\n")
    hours = Trace(path, ["ann", "bob"], round_hours=4)  # rounds begin at 0, 4, 8, 12
    assert [hours.on(round_ - 1)[1] for round_ in range(1, 5)] == [False, False, True, False]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,from,to\n", "the first line is 'name,from,to'; it has to be client,from_round,to_round or"),
        ("client,from_round,to_round\nan,1,2\n", "line 2: no client is called 'an'; did you mean 'ann'"),
        ("client,from_round,to_round\nann,3,2\n", "line 2: 'ann,3,2'; a row is a client and two numbers"),
        ("client,from_round,to_round\n", "has no rows: nobody would ever be on"),
    ],
)
def test_a_trace_that_is_none_is_one_line(tmp_path, text, message):
    (tmp_path / "on.csv").write_text(text)
    with pytest.raises(DataError) as caught:
        Trace(tmp_path / "on.csv", ["ann", "bob"])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=r"cannot read .*none\.csv: No such file"):
        Trace(tmp_path / "none.csv", ["ann"])


def test_phones_are_charged_at_night():
    there = DayNight(3, 5000, 1.0, 0.9, 0.1, 1)
    shares = [there.on(hour).mean() for hour in range(48)]
    assert shares[2] == pytest.approx(0.9, abs=0.03)
    assert shares[13] == shares[37] or abs(shares[13] - shares[37]) < 0.03
    assert shares[13] == pytest.approx(0.1, abs=0.03)
    assert (there.on(13) != there.on(37)).any(), "not the same ones every day"
    spread = [DayNight(3, 5000, 1.0, 0.9, 0.1, 24).on(hour).mean() for hour in range(24)]
    assert max(spread) - min(spread) < 0.05


def test_who_drops_out_was_chosen_as_without_it():
    clients = np.arange(100, 300)
    sizes = np.arange(1, 401)
    sure, unsure = (Sampler(Sampling(dropout=chance), 7, sizes) for chance in (0.0, 0.4))
    gone = []
    for round_ in range(1, 30):
        every, some = sure.draw(round_, clients, 0.2), unsure.draw(round_, clients, 0.2)
        assert sorted([*some.clients, *some.dropped]) == every.clients
        assert len(every.clients) == 40
        gone.append(len(some.dropped) / 40)
    assert np.mean(gone) == pytest.approx(0.4, abs=0.06)
    assert len(set(gone)) > 3


def test_of_those_who_are_on_and_no_more(tmp_path):
    path = tmp_path / "on.csv"
    path.write_text("client,from_round,to_round\n" + "".join(f"{c},1,1\n" for c in (1, 4, 5)))
    for kind in ("availability", "uniform", "size", "loss"):
        sampling = Sampling(kind, availability=str(path))  # type: ignore[arg-type]
        sampler = Sampler(sampling, 0, np.arange(1, 9), availability_of(sampling, 0, range(8)))
        drawn = sampler.draw(1, np.arange(2, 8), 0.5)  # three would train
        assert (drawn.clients, drawn.on) == ([4, 5], 2)
        assert sampler.draw(2, np.arange(2, 8), 0.5).clients == []
    table = sampler.checkpoint()
    path.write_text("client,from_round,to_round\n1,1,9\n")
    other = Sampler(sampling, 0, np.arange(1, 9), availability_of(sampling, 0, range(8)))
    with pytest.raises(CheckpointError, match=r"on\.csv is not what it was when the run began"):
        other.restore(table)
