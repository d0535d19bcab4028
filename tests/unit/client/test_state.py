"""A client's state on disk: kills, power cuts, rounds, and who may change it."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from fedali.data.normalisation import Normalisation
from fedali.errors import CheckpointError, FedaliError
from fedali_client.state.personal import PersonalState
from fedali_client.state.slots import boot_id


def _train(state, steps, value):
    """So many steps, each of which adds ``value``."""
    for _ in range(steps):
        slots = state.slots
        for name, array in slots.current.items():
            slots.spare[name][...] = array + np.float32(value)
        now = slots.progress
        slots.commit(now._replace(step=now.step + 1, steps=now.steps + 1))


def _power_cut(folder):
    """What remains when the machine starts again: the mapped file, if at all, of another boot."""
    path = folder / "training.map"
    data = path.read_bytes()
    assert boot_id() in data
    path.write_bytes(data.replace(boot_id(), b"1" * 36))


def _killed(state):
    """Leave the state as a killed process does: nothing is saved."""
    state.close()


def test_it_begins_with_the_bundles_own_state(tmp_path, bundle):
    state = PersonalState(tmp_path / "s", bundle)
    initial = bundle.state()
    assert (state.theta() == initial["theta"]).all()
    assert (state.local_prototypes == initial["local_prototypes"]).all()
    assert (state.shared_theta == initial["shared_theta"]).all()
    assert state.checkpoint.round == 3
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o700


def test_a_kill_loses_nothing_and_a_power_cut_what_came_after_the_checkpoint(tmp_path, bundle):
    folder = tmp_path / "s"
    state = PersonalState(folder, bundle)
    start = state.theta()
    state.begin(b"d" * 32, 10, 45)
    assert (state.slots.current["first_moment"] == 0).all()
    _train(state, 3, 1)
    state.save(normalisation=Normalisation(np.float32([1, 2, 3]), np.float32([4, 5, 6.1])))
    _train(state, 2, 1)
    _killed(state)
    state = PersonalState(folder, bundle)
    assert state.progress.step == 5
    np.testing.assert_allclose(state.theta(), start + 5, atol=1e-5)
    _killed(state)
    _power_cut(folder)
    state = PersonalState(folder, bundle)
    assert state.progress[:6] == (1, 3, 10, 3, 0, 45)
    assert state.progress.identity == b"d" * 32
    np.testing.assert_allclose(state.theta(), start + 3, atol=1e-5)
    assert (state.slots.current["second_moment"] == 3).all()
    assert state.checkpoint.normalisation.std.tolist() == np.float32([4, 5, 6.1]).tolist()


def test_without_a_checkpoint_a_power_cut_leads_back_to_the_bundle(tmp_path, bundle):
    folder = tmp_path / "s"
    state = PersonalState(folder, bundle)
    state.begin(b"d" * 32, 10, 45)
    _train(state, 3, 1)
    _killed(state)
    _power_cut(folder)
    state = PersonalState(folder, bundle)
    assert (state.theta() == bundle.state()["theta"]).all()
    assert state.progress.fit == 0


@pytest.mark.parametrize("moment", ["base written", "checkpoint written"])
def test_a_kill_in_the_middle_of_saving_loses_nothing(tmp_path, bundle, moment):
    folder = tmp_path / "s"
    state = PersonalState(folder, bundle)
    state.begin(b"d" * 32, 10, 45)
    _train(state, 4, 1)
    now = state.theta()
    if moment == "checkpoint written":  # but the mapped file does not know of it yet
        old = (folder / "training.map").read_bytes()
        state.save()
        _killed(state)
        (folder / "training.map").write_bytes(old)
    else:
        _killed(state)
        (folder / "base-2.safetensors").write_bytes(b"half of it")
        (folder / ".checkpoint.safetensors.x.safetensors").write_bytes(b"half of it")
    state = PersonalState(folder, bundle)
    assert (state.theta() == now).all()
    assert state.progress.step == 4
    assert sorted(path.name for path in folder.iterdir()) == [
        *(["checkpoint.safetensors"] if moment == "checkpoint written" else []),
        "lock",
        "training.map",
    ]


def test_a_round_replaces_what_is_shared_and_survives_a_power_cut_at_once(tmp_path, bundle):
    folder = tmp_path / "s"
    state = PersonalState(folder, bundle)
    state.begin(b"d" * 32, 10, 45)
    _train(state, 2, 1)
    size, prototypes = bundle.manifest.layouts.parameters.size, bundle.manifest.layouts.prototypes.size
    sent = [np.full(n, k, np.float32) for k, n in enumerate((size, size, prototypes, prototypes))]
    for round_ in (4, 5):
        state.receive(*sent, round_, 0.5)
        assert not state.progress.under_way
        _killed(state)
        _power_cut(folder)
        state = PersonalState(folder, bundle)
        assert (state.theta() == 0).all()
        assert (state.shared_theta == 1).all()
        assert (state.shared_prototypes == 2).all()
        assert (state.local_prototypes == 3).all()
        assert (state.checkpoint.round, state.checkpoint.influence) == (round_, 0.5)
        assert state.progress.fit == 1
        assert len(list(folder.glob("base-*"))) == 1


def test_what_is_not_finite_is_never_saved(tmp_path, bundle):
    state = PersonalState(tmp_path / "s", bundle)
    state.begin(b"d" * 32, 3, 45)
    _train(state, 1, 1)
    state.save()
    good = state.theta()
    _train(state, 1, np.nan)
    with pytest.raises(FedaliError, match="training diverged"):
        state.save()
    assert (state.theta() == good).all()


def test_a_damaged_checkpoint_is_said_to_be_one(tmp_path, bundle):
    folder = tmp_path / "s"
    state = PersonalState(folder, bundle)
    state.save()
    state.close()
    path = folder / "checkpoint.safetensors"
    whole = path.read_bytes()
    for position in (0, 3, *range(8, 600, 13), len(whole) // 2, len(whole) - 1):
        data = bytearray(whole)
        data[position] ^= 1
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match=r"checkpoint.safetensors .*(damaged|another bundle)"):
            PersonalState(folder, bundle)
    path.write_bytes(whole[:-7])
    with pytest.raises(CheckpointError, match="damaged"):
        PersonalState(folder, bundle)
    path.write_bytes(whole)
    PersonalState(folder, bundle).close()


def test_a_second_process_may_look_and_not_touch(tmp_path, bundle, bundle_path):
    folder = tmp_path / "s"
    state = PersonalState(folder, bundle)
    state.begin(b"d" * 32, 10, 45)
    _train(state, 2, 1)
    program = f"""
from pathlib import Path
from fedali.bundle.file import read_bundle
from fedali.errors import FedaliError
from fedali_client.state.personal import PersonalState
bundle = read_bundle({str(bundle_path)!r}, None, allow_unsigned=True)
looked = PersonalState(Path({str(folder)!r}), bundle, read_only=True)
print(looked.progress.step, float(looked.theta().sum()))
try:
    PersonalState(Path({str(folder)!r}), bundle)
except FedaliError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    seen, refused = done.stdout.splitlines()
    assert seen == f"2 {float(state.theta().sum())}"
    assert f"in use by process {os.getpid()}" in refused
    state.close()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 1


def test_looking_at_nothing_makes_nothing(tmp_path, bundle):
    state = PersonalState(tmp_path / "s", bundle, read_only=True)
    assert (state.theta() == bundle.state()["theta"]).all()
    assert not (tmp_path / "s").exists()
    with pytest.raises(FedaliError, match="read alone"):
        state.begin(b"d" * 32, 1, 1)


def test_a_reader_can_follow_a_writer(tmp_path, bundle):
    writer = PersonalState(tmp_path / "s", bundle)
    reader = PersonalState(tmp_path / "s", bundle, read_only=True)
    assert not reader.refresh()
    writer.begin(b"d" * 32, 2, 45)
    _train(writer, 2, 1)
    writer.save()
    assert reader.refresh()
    assert (reader.theta() == writer.theta()).all()
    assert not reader.refresh()
