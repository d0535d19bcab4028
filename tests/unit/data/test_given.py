"""Data that are objects: arrays, clients one by one, torch's and Hugging Face's data sets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import Subset, TensorDataset

from fedali.data import as_dataset, build_federation, load_digits_dataset, natural
from fedali.errors import DataError, FedaliError, SettingsError

DIGITS = load_digits_dataset()
X, Y = DIGITS.x[:200], DIGITS.y[:200]
WHOSE = np.array([f"p{k % 4}" for k in range(200)])


def test_arrays_keep_their_bits_and_their_clients():
    found = as_dataset((X, Y, WHOSE))
    assert np.array_equal(found.x, X)
    assert found.x.dtype == np.float32
    assert np.array_equal(np.array(found.client_names)[found.client], WHOSE)
    assert np.array_equal(np.array(found.class_names)[found.y].astype(int), Y)
    named = as_dataset({"x": X.astype(np.float64), "y": np.array(["b", "a"])[Y % 2], "clients": WHOSE})
    assert named.class_names == ("a", "b")
    assert np.array_equal(named.x, X)


def test_clients_one_by_one_are_the_same_data_as_all_together():
    whole = as_dataset((X, Y, WHOSE))
    tensors = TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
    rows = {name: np.flatnonzero(name == WHOSE) for name in ("p0", "p1", "p2", "p3")}
    of_sets = as_dataset({name: Subset(tensors, some.tolist()) for name, some in rows.items()})
    of_pairs = as_dataset([(X[some], Y[some].tolist()) for some in rows.values()])
    order = np.concatenate(list(rows.values()))
    for found in (of_sets, of_pairs):
        assert np.array_equal(found.x, whole.x[order])
        assert np.array_equal(found.y, whole.y[order])
        assert np.array_equal(found.client, whole.client[order])
    assert of_pairs.client_names == ("client-1", "client-2", "client-3", "client-4")
    assert np.array_equal(as_dataset(tensors).x, X)


def test_what_is_for_tests_stays_so_whatever_the_seed():
    train, test = slice(0, 30), slice(30, 50)
    mine = {
        name: {"train": (X[name == WHOSE][train], Y[name == WHOSE][train]), "test": (X[name == WHOSE][test], Y[name == WHOSE][test])}
        for name in ("p0", "p1")
    }  # fmt: skip
    found = as_dataset(mine)
    for seed in (0, 1):
        federation = build_federation(found, partition=natural(found), seed=seed)
        for client in federation.clients:
            assert np.array_equal(client.x_test, mine[client.name]["test"][0])
            assert len(client.x_train) + len(client.x_validation) == 30
            assert len(client.x_validation) > 0
    again = as_dataset(federation)
    same = build_federation(again, partition=natural(again), seed=5)
    for one, other in zip(federation.clients, same.clients, strict=True):
        assert np.array_equal(one.x_train, other.x_train)
        assert np.array_equal(one.y_validation, other.y_validation)


def test_whole_numbers_are_ids_of_tokens_and_stay_so():
    ids = np.arange(40).reshape(10, 4)
    found = as_dataset((ids.astype(np.int32), [0, 1] * 5, [0] * 5 + [1] * 5))
    assert found.tokens
    federation = build_federation(
        found, partition=natural(found), order="random", fractions=(0.4, 0.2, 0.4), seed=0
    )
    assert federation.tokens
    assert federation.clients[0].x_train.dtype == np.int64
    assert np.array_equal(federation.normalisation[0].std, np.ones(4))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((X, Y[:5]), "own: x has 200 samples and y 5 labels; give one each"),
        ((X, Y, WHOSE[:3]), "own: x has 200 samples and there are 3 clients"),
        ((X, Y - 1), "own: labels go from -1 to 8"),
        ({"a": (X, Y), "b": (X[:, :, :4], Y)}, "client 'b' has samples of shape [1, 4, 8] and client 'a' of"),
        ({"a": {"train": (X, Y)}}, "client 'a' has train; it may have train, validation and test"),
        ([X, Y], "client 'client-1' is ndarray; give (x, y) or a torch data set"),
        (7, "own is int; give arrays (x, y)"),
        ((np.array([["a"]] * 4), [0, 1] * 2), "own: x is <U1; make it numbers"),
        ((-np.ones((4, 3), np.int64), [0, 1] * 2), "ids of tokens are [samples, tokens], 0 or more"),
    ],
)
def test_what_is_wrong_is_one_line_that_says_where(data, message):
    with pytest.raises(FedaliError) as caught:
        as_dataset(data)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_column_or_a_partitioner_that_is_none_is_refused():
    with pytest.raises(SettingsError, match="label names a column of a"):
        as_dataset((X, Y), label="digit")
    with pytest.raises(SettingsError, match="int is no partitioner"):
        as_dataset((X, Y), partitioner=5)


def test_tables_of_hugging_face_and_partitioners_of_flower():
    datasets = pytest.importorskip("datasets")
    partitioners = pytest.importorskip("flwr_datasets.partitioner")
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=list("abcdefghij")),
            "writer": datasets.Value("string"),
        }
    )
    pictures = (X[:, 0] * 255).astype(np.uint8)
    table = datasets.Dataset.from_dict(
        {"image": list(pictures), "label": Y.tolist(), "writer": WHOSE.tolist()}, features=features
    )
    found = as_dataset(table, client="writer")
    assert np.array_equal(found.x[:, 0], pictures)
    assert found.class_names == tuple("abcdefghij")
    assert found.client_names == ("p0", "p1", "p2", "p3")
    spread = as_dataset(table, partitioner=partitioners.NaturalIdPartitioner("writer"))
    assert np.array_equal(spread.counts(), found.counts())
    arrays = as_dataset(
        (X, Y),
        partitioner=partitioners.DirichletPartitioner(num_partitions=3, partition_by="label", alpha=5.0),
    )
    assert len(arrays.client_names) == 3
    assert len(arrays.x) == 200
    with pytest.raises(DataError, match="which column has the labels"):
        as_dataset(table.remove_columns("label"))
