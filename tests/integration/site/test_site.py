"""What a site keeps between rounds, and which runs it refuses."""

from __future__ import annotations

import json
import secrets

import numpy as np
import pytest
from flwr.app import Context, RecordDict

from fedali.cohort.contract import RoundSettings
from fedali.errors import CheckpointError, FedaliError, SettingsError
from fedali_simulations.jobs import Job
from fedali_simulations.machines.machines import run_config
from fedali_simulations.machines.site import SitePart
from fedali_simulations.scenario import load_scenario
from fedali_simulations.setup import build_plan

SCENARIO = load_scenario(
    "digits",
    [
        *(
            "partition.clients=4",
            "alp.num_prototypes=4",
            "model.options.channels=[2, 4]",
            "training.epochs=1",
        ),
        *("methods=fedali-head", "seeds=1", "sites=2", "evaluation.transductive=false"),
    ],
)
ROUNDS = [RoundSettings(round_) for round_ in range(5)]


@pytest.fixture(scope="module")
def start():
    return build_plan(SCENARIO, SCENARIO.methods[0], 0).initial


def config(tmp_path, scenario=SCENARIO):
    job = Job(scenario, scenario.methods[0], 0, tmp_path)
    return run_config(job, secrets.token_hex(16))


def joined(folder, run, **options):
    """The run as a freshly started site sees it."""
    part = SitePart(2, 2, folder, **options)
    return part, part._part_of_run(Context(1, 2, {}, RecordDict(), dict(run)))


def numbers(reply):
    return reply.upload.sums["theta"].total.tobytes() + reply.upload.sums["prototypes"].total.tobytes()


def test_any_round_can_be_asked_for_twice_even_of_a_site_that_was_restarted(tmp_path, start):
    run = config(tmp_path)
    part, site = joined(tmp_path / "site", run)
    first = numbers(site.train(ROUNDS[1], start))
    second = numbers(site.train(ROUNDS[2], start))
    assert first != second
    assert numbers(site.train(ROUNDS[2], start)) == second
    third = numbers(site.train(ROUNDS[3], start))
    models = {client: theta for client, theta, _ in site.site.models(start)}
    del part, site
    _part, site = joined(tmp_path / "site", run)
    assert numbers(site.train(ROUNDS[3], start)) == third
    for client, theta, _ in site.site.models(start):
        np.testing.assert_array_equal(theta, models[client])
    fourth = numbers(site.train(ROUNDS[4], start))
    _, whole = joined(tmp_path / "other", run)
    assert [numbers(whole.train(ROUNDS[i], start)) for i in (1, 2, 3, 4)] == [first, second, third, fourth]


def test_a_run_begun_anew_starts_from_nothing(tmp_path, start):
    _part, site = joined(tmp_path / "site", config(tmp_path))
    first = numbers(site.train(ROUNDS[1], start))
    site.train(ROUNDS[2], start)
    assert numbers(site.train(ROUNDS[1], start)) == first


def test_a_site_without_its_folder_or_with_another_engine_says_so(tmp_path, start):
    run = config(tmp_path)
    part, site = joined(tmp_path / "site", run)
    site.train(ROUNDS[1], start)
    with pytest.raises(CheckpointError, match="part 2/2 has nothing of round 3 of this run"):
        site.train(ROUNDS[4], start)
    del part, site
    _part, site = joined(tmp_path / "site", run, engine="onnx")
    with pytest.raises(CheckpointError, match="engine loop, not onnx: start it with --engine loop"):
        site.train(ROUNDS[2], start)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"study": "../../up"}, "no simulation of FedAli's"),
        ({"line": 7}, "no simulation of FedAli's"),
        ({"line": -1}, "no simulation of FedAli's"),
        ({"scenario": "{"}, "no simulation of FedAli's"),
        ({"scenario": "[]"}, "no simulation of FedAli's"),
        ({"scenario": '"digits"'}, "no simulation of FedAli's"),
        ({"scenario": '"/etc/x.toml"'}, "no simulation of FedAli's"),
        ({"scenario": json.dumps({"data": {"source": "digits"}, "sites": 3})}, "the run has 3 sites"),
        ({"scenario": json.dumps({"data": {"source": "digits"}, "code": "x"})}, "unknown setting 'code'"),
        (
            {"scenario": json.dumps({"data": {"source": "/etc/x.npz"}, "sites": 2})},
            "start it with --data PATH",
        ),
        (
            {"scenario": json.dumps({"data": {"source": "digits"}, "methods": ["os:path"], "sites": 2})},
            "'os:path' is no part of FedAli, and its code is not run here",
        ),
    ],
)
def test_a_run_that_is_not_what_it_should_be_is_refused(tmp_path, change, message):
    with pytest.raises(FedaliError, match=message):
        joined(tmp_path / "site", {**config(tmp_path), **change})
    with pytest.raises(FedaliError, match="no simulation of FedAli's"):
        joined(tmp_path / "empty", {})


def test_two_sites_do_not_share_a_folder(tmp_path):
    first = SitePart(1, 2, tmp_path)
    with pytest.raises(FedaliError, match="another site uses"):
        SitePart(2, 2, tmp_path)
    assert first.number == 1


def test_a_part_without_clients_is_refused(tmp_path):
    scenario = load_scenario(SCENARIO.model_dump(mode="json"), ["partition.clients=2", "sites=3"])
    with pytest.raises(SettingsError, match="3 sites for 2 clients"):
        SitePart(3, 3, tmp_path)._part_of_run(Context(1, 2, {}, RecordDict(), config(tmp_path, scenario)))
