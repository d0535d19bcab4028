"""A run's folder belongs to one run, one process, one set of data; names of people and methods are kept apart."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from safetensors.numpy import load_file

from fedali.errors import CheckpointError, DataError, SettingsError
from fedali.support.files import running_alone
from fedali.support.names import file_name, file_name_before
from fedali_server.run.folder import RunFolder
from fedali_simulations import load_scenario, simulate, study
from fedali_simulations.federate import exporting
from fedali_simulations.federate.deployed import DeployedRun, why_nobody_trained

SMALL = [
    *("partition.clients=4", "alp.num_prototypes=4", "model.options.channels=[4,4]", "training.epochs=1"),
    *("seeds=1", "training.rounds=1", "evaluation.transductive=false", "training.engine=loop"),
]
OWN = [
    *("partition.kind=natural", "shift.kind=", "model.name=mlp", "model.options={hidden=[4]}", "seeds=1"),
    *("training.rounds=1", "training.epochs=8", "methods=fedper", "evaluation.transductive=false"),
    *("split.train=0.5", "split.validation=0.2", "split.test=0.3", "training.engine=loop"),
]


def own_file(path, names, classes=("rest", "walk"), shift=0.0):
    """Samples by name: who they are of does not depend on where they stand."""
    x, y, client = [], [], []
    for name in names:
        rng = np.random.default_rng(list(name.encode()))
        for _ in range(20):
            for index, label in enumerate(classes):
                x.append(rng.normal(index + shift, 0.3, 2))
                y.append(label)
                client.append(name)
    np.savez(path, x=np.array(x, np.float32), y=np.array(y), client=np.array(client))
    return path


def own(path):
    return load_scenario("digits", [f"data.source={path}", "name=own", *OWN[:1], "shift={}", *OWN[2:]])


def test_people_and_methods_whose_names_share_no_ascii_letter_have_files_of_their_own(tmp_path):
    people = ["平均", "本地", "Ann", "ann", "a/b", "a_b", "x" * 300]
    scenario = own(own_file(tmp_path / "mine.npz", people))
    lines = [scenario.methods[0].model_copy(update={"label": label}) for label in ("平均", "本地")]
    results = simulate(scenario.model_copy(update={"methods": tuple(lines)}), out=tmp_path / "run")
    assert {line["method"] for line in results.table.to_dict("records")} == {"平均", "本地"}
    for label in ("平均", "本地"):
        folder = tmp_path / "run" / file_name(label) / "seed-0/personal"
        kept = {json.loads(_head(path)["fedali"])["client"]: path for path in folder.iterdir()}
        assert set(kept) == set(people)
        heads = {load_file(path)["head.weight"].tobytes() for path in kept.values()}
        assert len(heads) == len(people)


def _head(path):
    data = path.read_bytes()
    return json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]


def test_a_folder_that_an_earlier_version_named_is_gone_on_with_unless_two_share_it(tmp_path):
    scenario = load_scenario("digits", [*SMALL, "methods=fedavg"])
    (line,) = scenario.methods
    one, other = (line.model_copy(update={"label": label}) for label in ("Ann/1", "Ann 1"))
    (tmp_path / file_name_before("Ann/1") / "seed-0").mkdir(parents=True)
    alone = scenario.model_copy(update={"methods": (one,)})
    assert study.line_folder(alone, tmp_path, one) == tmp_path / "Ann_1"
    both = scenario.model_copy(update={"methods": (one, other)})
    with pytest.raises(CheckpointError, match="holds the runs of Ann/1 and Ann 1 together"):
        study.jobs_of(both, tmp_path)


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        (
            {"names": ("ben", "ada", "eve")},
            "its clients have changed: ada, ben, eve before, ben, ada, eve now",
        ),
        ({"names": ("ada", "ben", "eve"), "classes": ("rest", "run")}, "its classes have changed"),
        ({"names": ("ada", "ben", "eve"), "shift": 1.0}, "its samples or labels have changed"),
    ],
)
def test_a_run_goes_on_with_the_data_it_began_with_and_no_other(tmp_path, changed, what):
    path = own_file(tmp_path / "mine.npz", ("ada", "ben", "eve"))
    simulate(own(path), out=tmp_path / "run")
    table = (tmp_path / "run/results.json").read_bytes()
    own_file(path, **changed)
    with pytest.raises(DataError, match=what):
        study.resume(tmp_path / "run")
    with pytest.raises(DataError, match=what):
        exporting.export(tmp_path / "run", tmp_path / "m.fedali")
    assert (tmp_path / "run/results.json").read_bytes() == table
    own_file(path, ("ada", "ben", "eve"))
    study.resume(tmp_path / "run")
    (tmp_path / "run/data.json").unlink()  # a run of 0.1.0 has none: an export only reads
    exporting.export(tmp_path / "run", tmp_path / "m.fedali")
    assert not (tmp_path / "run/data.json").exists()


def test_a_folder_has_one_process_at_a_time(tmp_path):
    program = "import sys; from pathlib import Path; from fedali.support.files import running_alone\n"
    program += "with running_alone(Path(sys.argv[1])): print('here', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", program, str(tmp_path / "run")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"here\n"
        with (
            pytest.raises(SettingsError, match=f"is in use by process {other.pid}: wait"),
            running_alone(tmp_path / "run"),
        ):
            pass
        other.kill()
        other.wait()
    with running_alone(tmp_path / "run"):  # a lock ends with its process
        assert (tmp_path / "run/running.lock").read_text() == f"{os.getpid()}\n"
    assert not (tmp_path / "run/running.lock").exists()


def test_runs_begun_at_once_have_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scenario = load_scenario("digits", [*SMALL, "methods=fedavg"])
    ready, found = threading.Barrier(4), []

    def begin(out):
        ready.wait()
        try:
            found.append(study.prepare(scenario, out))
        except SettingsError as error:
            found.append(str(error))

    for out, expected in ((None, 4), ("here", 1)):
        found.clear()
        threads = [threading.Thread(target=begin, args=(out,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        folders = [one for one in found if not isinstance(one, str)]
        assert len(set(folders)) == len(folders) == expected, found
        assert all((folder / "scenario.toml").exists() for folder in folders)


def test_what_is_asked_for_beside_a_scenario_counts(tmp_path):
    scenario = load_scenario("digits", [*SMALL, "methods=fedavg"])
    results = simulate(scenario, rounds=2, seed=7, overrides=["training.batch_size=16"], out=tmp_path / "run")
    assert results.scenario.training.rounds == 2
    assert results.scenario.training.batch_size == 16
    assert results.scenario.seed == 7
    assert set(results.selected) == {("fedavg", 7)}


def test_a_federated_run_that_nobody_trained_in_says_why(tmp_path):
    def report(device, state, reason="", kind="train"):
        return {"device": device, "state": state, "reason": reason, "kind": kind}

    def written(name, *rounds):
        folder = RunFolder(tmp_path / name)
        folder.create(b"", {})
        for number, reports in enumerate(rounds, 1):
            folder.write_round(number, {"reports": reports})
        folder.finish({"rounds": len(rounds)})
        return DeployedRun(name, 0, folder.path)

    declined = report("a-0", "declined", "labels are words that no class has")
    never = written("never", [report("a-0", "late"), report("a-1", "absent")], [declined])
    assert why_nobody_trained(never) == "a-0 declined: labels are words that no class has; a-1 absent"
    tested = report("a-0", "done", kind="evaluate")
    assert why_nobody_trained(written("tested", [declined, tested])) is not None
    assert why_nobody_trained(written("once", [declined], [report("a-0", "done")])) is None
    assert why_nobody_trained(written("empty", [])) == "no site was there"
