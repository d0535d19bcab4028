from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load_file

from fedali.cohort.tensorfile import Piece, write_tensors
from fedali.errors import CheckpointError, FedaliError
from fedali.methods import SharedState
from fedali_server.run.folder import RunFolder, read_best

SHARED = SharedState(np.arange(6, dtype=np.float32), np.float32([10, 11]))


def piece(**tensors):
    flat = np.concatenate([np.float32(value) for value in tensors.values()])
    return Piece({name: len(value) for name, value in tensors.items()}, lambda: flat)


def test_the_best_models_are_what_is_theirs_over_what_is_shared(tmp_path):
    clients = [
        ("ann", piece(theta=[9] * 6, local_prototypes=[7, 8])),  # trained in this round
        ("bob", piece(personal=[20, 21, 22])),  # in another
    ]
    RunFolder(tmp_path, {"method": "m"}).write_best(SHARED, clients, 4, np.array([1, 2, 5]))
    path = tmp_path / "best.safetensors"
    expected = {
        "ann": ([9] * 6, [7, 8]),
        "bob": ([0, 20, 21, 3, 4, 22], [10, 11]),
        "cyd": ([0, 1, 2, 3, 4, 5], [10, 11]),  # never
    }
    for client, model in expected.items():
        theta, prototypes = read_best(path, client)
        assert (theta.tolist(), prototypes.tolist()) == model
    assert sorted(load_file(path)) == [
        "ann/local_prototypes",
        "ann/theta",
        "bob/personal",
        "shared.prototypes",
        "shared.theta",
    ]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"cannot read .*best\.safetensors"):
        read_best(path, "ann")


def test_a_file_of_many_tensors_is_written_one_at_a_time(tmp_path):
    alive = 0

    class Counted(np.ndarray):
        def __del__(self):
            nonlocal alive
            alive -= 1

    def make(value):
        nonlocal alive
        assert alive <= 1
        alive += 1
        return np.full(3, value, np.float32).view(Counted)

    def pieces():
        return [Piece({f"{i}/a": 2, f"{i}/b": 1}, lambda i=i: make(i)) for i in range(500)]

    for name in ("one", "two"):
        write_tensors(tmp_path / name, pieces(), {"b": "2", "a": "1"})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    found = load_file(tmp_path / "one")
    assert len(found) == 1000
    assert all(found[f"{i}/a"].tolist() == [i, i] and found[f"{i}/b"].tolist() == [i] for i in range(500))


def test_a_tensor_file_is_whole_or_not_there(tmp_path):
    def lost():
        raise OSError(28, "No space left on device")

    with pytest.raises(FedaliError, match=r"cannot write .*models: the disk is full"):
        write_tensors(tmp_path / "models", [piece(a=[1]), Piece({"b": 1}, lost)], {})
    assert not list(tmp_path.iterdir())
