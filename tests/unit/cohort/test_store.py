from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedali.cohort.recordfile import RecordFile, as_vector
from fedali.cohort.store import ClientStore
from fedali.errors import CheckpointError, FedaliError
from fedali.layout import Layout
from fedali.methods import Layouts, SharedState, build_method

LAYOUTS = Layouts(
    Layout.of({"body": (4,), "head.weight": (2, 3), "head.bias": (3,)}), Layout.of({"alp.0": (2, 2)})
)
HEAD = build_method("fedali-paper", {"personal": "head", "local_prototypes": "keep"})
SHARED = SharedState(np.zeros(13, np.float32), np.zeros(4, np.float32))


def trained(client, round_):
    """A model that nobody else has."""
    rng = np.random.default_rng([client, round_])
    return rng.normal(size=13).astype(np.float32), rng.normal(size=4).astype(np.float32)


def train(store, clients, round_):
    for client in clients:
        store.remember(client, *trained(client, round_))


def assert_holds(store, client, round_):
    theta, prototypes = store.compose(client, SHARED)
    expected, expected_prototypes = trained(client, round_) if round_ else (SHARED.theta, SHARED.prototypes)
    assert not theta[:4].any(), "the body is the server's"
    np.testing.assert_array_equal(theta[4:], expected[4:])
    np.testing.assert_array_equal(prototypes, expected_prototypes)


def test_what_clients_keep_survives_the_process(tmp_path):
    store = ClientStore(HEAD, LAYOUTS, tmp_path / "run/clients.f32")
    train(store, [3, 1], 1)
    table = store.checkpoint()
    del store
    again = ClientStore(HEAD, LAYOUTS, tmp_path / "run/clients.f32")
    again.restore(table)
    for client, round_ in ((3, 1), (1, 1), (2, 0)):
        assert_holds(again, client, round_)
    assert again.sizes == {"personal": 9, "local_prototypes": 4}
    assert again.bytes_per_client == 2 * 4 * 13
    assert (tmp_path / "run/clients.f32").stat().st_size <= 2 * again.bytes_per_client


def test_killed_between_a_write_and_its_checkpoint(tmp_path):
    whole = ClientStore(HEAD, LAYOUTS, tmp_path / "whole.f32")
    cut = ClientStore(HEAD, LAYOUTS, tmp_path / "cut.f32")
    for store in (whole, cut):
        train(store, [0, 1, 2], 1)
        table = store.checkpoint()
    train(cut, [1, 5, 2], 2)
    del cut  # its checkpoint was never written
    resumed = ClientStore(HEAD, LAYOUTS, tmp_path / "cut.f32")
    resumed.restore(table)
    for client, round_ in ((0, 1), (1, 1), (2, 1), (5, 0)):
        assert_holds(resumed, client, round_)
    tables = []
    for store in (whole, resumed):
        train(store, [1, 5, 2], 2)
        tables.append(store.checkpoint())
    assert (tmp_path / "whole.f32").read_bytes() == (tmp_path / "cut.f32").read_bytes()
    for name in tables[0]:
        np.testing.assert_array_equal(tables[0][name], tables[1][name])


@given(st.lists(st.tuples(st.lists(st.integers(0, 5), max_size=6), st.booleans()), max_size=8))
def test_any_history_of_rounds_and_kills(tmp_path_factory, history):
    path = tmp_path_factory.mktemp("store") / "clients.f32"
    store, table, holds = ClientStore(HEAD, LAYOUTS, path), {}, {}
    for round_, (clients, survives) in enumerate(history, 1):
        train(store, clients, round_)  # a client may come twice before the checkpoint
        if survives:
            table, holds = store.checkpoint(), {**holds, **dict.fromkeys(clients, round_)}
        else:
            store = ClientStore(HEAD, LAYOUTS, path)
            store.restore(table)
        for client in range(6):
            assert_holds(store, client, holds.get(client, 0))


def test_without_a_path_it_works_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    store = ClientStore(HEAD, LAYOUTS)
    train(store, [0, 1], 1)
    assert_holds(store, 1, 1)
    assert not list(tmp_path.iterdir())


def test_a_method_that_keeps_nothing_makes_no_file(tmp_path):
    store = ClientStore(build_method("fedavg", {}), LAYOUTS, tmp_path / "clients.f32")
    train(store, [0], 1)
    assert store.checkpoint() == {}
    assert store.bytes_per_client == 0
    assert 0 not in store
    assert_holds(store, 0, 0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("harm", ["missing", "short", "changed", "sizes", "table"])
def test_a_broken_store_is_named(tmp_path, harm):
    path = tmp_path / "clients.f32"
    store = ClientStore(HEAD, LAYOUTS, path)
    train(store, [0, 1], 1)
    table = store.checkpoint()
    method = HEAD
    if harm == "missing":
        path.unlink()
    elif harm == "short":
        path.write_bytes(path.read_bytes()[:-4])
    elif harm == "changed":
        path.write_bytes(b"\1" + path.read_bytes()[1:])
    elif harm == "sizes":
        method = build_method("fedper", {})
    else:
        table["store.slots"] = table["store.slots"][:1]
    again = ClientStore(method, LAYOUTS, path)

    def take_up():
        again.restore(table)
        again.compose(0, SHARED)

    with pytest.raises(CheckpointError, match=r"cannot read .*clients\.f32: .* Delete the folder"):
        take_up()


def test_a_record_file_says_what_it_cannot_do(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FedaliError, match=r"cannot write .*file/clients\.f32: File exists"):
        RecordFile(3, tmp_path / "file/clients.f32")
    records = RecordFile.temporary(3, tmp_path)
    records.write(2, np.float32([1, 2]), np.float32([3]))
    assert as_vector(records.read(2)).tolist() == [1, 2, 3]
    with pytest.raises(CheckpointError, match="ends before record 3"):
        records.read(3)
    with pytest.raises(ValueError, match="2 values for a record of 3"):
        records.write(0, np.float32([1, 2]))


def test_clients_that_wait_cost_no_memory(tmp_path):
    program = """
import resource, sys
import numpy as np
from fedali.layout import Layout
from fedali.methods import Layouts, SharedState, build_method
from fedali.cohort.store import ClientStore

layouts = Layouts(Layout.of({"head.weight": (100_000,)}), Layout.of({}))
store = ClientStore(build_method("fedper", {}), layouts, sys.argv[1])
theta, none = np.ones(100_000, np.float32), np.empty(0, np.float32)
peaks = []
for clients in (10, 500):
    for client in range(clients):
        store.remember(client, theta * client, none)
    store.checkpoint()
    for client in range(clients):
        assert store.compose(client, SharedState(theta, none))[0][7] == client
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
unit = 1 if sys.platform == "darwin" else 1024
print((peaks[1] - peaks[0]) * unit)
"""
    program = program.replace("sys.argv[1]", "__import__('pathlib').Path(sys.argv[1])")
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "clients.f32"], capture_output=True, text=True, check=True
    )
    kept = (tmp_path / "clients.f32").stat().st_size
    assert kept > 200e6
    assert int(done.stdout) < kept / 10
