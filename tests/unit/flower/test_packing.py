from __future__ import annotations

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from fedali.errors import FedaliError
from fedali_server.flower import packing
from fedali_server.flower.packing import pack, unpack


@pytest.fixture(autouse=True)
def _in_a_run(monkeypatch):
    """Flower makes messages within a run alone."""
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


def content():
    arrays = {"theta": np.float32([1.5, np.nan, -0.0]), "sum": np.float64([2.5]), "empty": np.empty(0)}
    return RecordDict(
        {
            "arrays": ArrayRecord({name: Array(value) for name, value in arrays.items()}),
            "config": ConfigRecord({"a": 1, "b": 2.5, "c": "x", "d": b"\0\xff", "e": True, "f": [1, 2]}),
            "metrics": MetricRecord({"client": [1.0, float("nan")], "loss": 0.5}),
        }
    )


def test_what_is_packed_is_one_record_and_comes_out_the_same():
    message = Message(content(), 2, "train")
    pack(message)
    assert list(message.content) == ["packed"]
    pack(message)  # once is enough
    unpack(message)
    expected = content()
    assert list(message.content) == list(expected)
    assert dict(message.content["config"]) == dict(expected["config"])
    for name, array in expected.array_records["arrays"].items():
        found = message.content.array_records["arrays"][name].numpy()
        assert found.dtype == array.numpy().dtype
        assert found.tobytes() == array.numpy().tobytes()
    assert str(dict(message.content["metrics"])) == str(dict(expected["metrics"]))
    unpack(message)  # nor does it hurt
    assert list(message.content) == list(expected)


def test_what_is_empty_an_error_or_large_is_left_alone(monkeypatch):
    empty = Message(RecordDict(), 2, "query")
    pack(empty)
    assert list(empty.content) == []
    failed = Message(Error(2, "no"), reply_to=empty)
    pack(failed)
    unpack(failed)
    assert failed.error.reason == "no"
    monkeypatch.setattr(packing, "LARGEST", 10)
    large = Message(content(), 2, "train")
    pack(large)
    assert list(large.content) == list(content())


@pytest.mark.parametrize("value", [b"\xff\xff garbage", "text", 5])
def test_what_cannot_be_unpacked_is_one_line(value):
    broken = Message(RecordDict({"packed": ConfigRecord({"content": value})}), 2, "train")
    with pytest.raises(FedaliError, match="cannot be unpacked"):
        unpack(broken)
    other = Message(RecordDict({"packed": MetricRecord({"content": 1.0})}), 2, "train")
    with pytest.raises(FedaliError, match="cannot be unpacked"):
        unpack(other)
