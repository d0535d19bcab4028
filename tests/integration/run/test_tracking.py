"""Callbacks and trackers of whole runs: each round once, whatever fails or is resumed."""

from __future__ import annotations

import json

import pytest

from fedali.errors import FedaliError, MissingExtraError, SettingsError
from fedali_simulations import Callback, resume, simulate
from fedali_simulations.tracking import trackers
from tests.integration.run.test_simulate import SMALL, _files


class Seen(Callback):
    """Notes what it is told; fails where it is asked to."""

    def __init__(self, fails_in=0):
        self.fails_in, self.clients, self.rounds, self.ends = fails_in, [], [], []

    def on_client(self, ended):
        self.clients.append((ended.round, ended.client, ended.numbers["personalisation"]))

    def on_round(self, ended):
        self.rounds.append(ended)
        if ended.round == self.fails_in:
            raise ValueError("no\nspace")

    def on_end(self, ended):
        self.ends.append((ended.method, ended.seed, ended.rounds, ended.facts["best_round"]))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose callback has failed in its second round, and what it left then; it has been resumed with others."""
    folder = tmp_path_factory.mktemp("tracking") / "run"
    settings = {"overrides": [*SMALL, "methods=fedavg", "training.keep_models=none"], "workers": 1}
    first, second = Seen(fails_in=2), Seen()
    with pytest.raises(FedaliError) as caught:
        simulate("digits", **settings, out=folder, callbacks=[first])
    results = resume(folder, workers=1, callbacks=[second])
    return folder, caught.value, first, second, results


def test_each_round_is_told_once_and_a_callback_that_fails_is_one_line(run):
    folder, error, first, second, results = run
    assert str(error) == (
        "callback Seen.on_round failed after round 2 of fedavg, seed 0: ValueError: no space. "
        f"The run's files are whole: fedali simulate --resume {folder} goes on"
    )
    assert [one.round for one in (*first.rounds, *second.rounds)] == [1, 2, 3]
    assert (first.ends, second.ends) == ([], [("fedavg", 0, 3, results.selected["fedavg", 0])])
    frame = results.clients.sort_values(["round", "client"])
    expected = list(zip(frame["round"], frame.client, frame.personalisation, strict=True))
    assert sorted([*first.clients, *second.clients]) == expected
    for one in (*first.rounds, *second.rounds):
        rows = frame[frame["round"] == one.round]
        assert one.means["global"] == pytest.approx(rows["global"].mean())
        assert (one.clients, one.rounds) == (5, 3)


def again(folder, name):
    """Track rounds that are over, and once more as if the process had been killed before it noted the last."""
    files = _files(folder / "fedavg")
    resume(folder, workers=1, callbacks=[name])
    note = folder / f"tracking/{name}.json"
    assert json.loads(note.read_text()) == {"fedavg/seed-0": 3}
    note.write_text('{"fedavg/seed-0": 2}')
    resume(folder, workers=1, callbacks=[name])
    assert _files(folder / "fedavg") == files, "what a run found is what it was"


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_tensorboard_has_every_round_once(run):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder, *_, results = run
    again(folder, "tensorboard")
    curve = EventAccumulator(str(folder / "tensorboard/fedavg/seed-0")).Reload().Scalars("personalisation")
    assert [point.step for point in curve] == [1, 2, 3]
    means = results.clients.groupby("round").personalisation.mean().tolist()
    assert [point.value for point in curve] == pytest.approx(means)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
def test_mlflow_has_every_round_once(run, monkeypatch):
    pytest.importorskip("mlflow")
    from mlflow import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder, *_, results = run
    again(folder, "mlflow")
    client = MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow/mlflow.db")
    (one,) = client.search_runs([client.get_experiment_by_name("digits").experiment_id])
    assert (one.info.status, one.data.params["training.rounds"]) == ("FINISHED", "3")
    history = client.get_metric_history(one.info.run_id, "personalisation")
    means = results.clients.groupby("round").personalisation.mean().tolist()
    assert [(point.step, point.value) for point in history] == list(enumerate(means, 1))


def test_what_is_no_callback_or_not_there_is_one_line(monkeypatch, tmp_path):
    with pytest.raises(SettingsError, match="unknown tracker 'tensorbord'; did you mean 'tensorboard'"):
        simulate("digits", out=tmp_path / "run", callbacks=["tensorbord"])
    with pytest.raises(SettingsError, match="is no callback: give an object that has on_round"):
        simulate("digits", out=tmp_path / "run", callbacks=[Seen])
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"mlflow.*fedali\[track\]"):
        simulate("digits", out=tmp_path / "run", callbacks=["mlflow"])
    with pytest.raises(SettingsError, match="tracker wandb is not installed: pip install wandb"):
        simulate("digits", out=tmp_path / "run", callbacks=["wandb"])
    assert not (tmp_path / "run").exists()
