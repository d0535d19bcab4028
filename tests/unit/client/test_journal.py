"""Updates on disk: what counts after a kill at any moment, and what an encoding owes."""

from __future__ import annotations

import hashlib
import shutil

import numpy as np
import pytest

from fedali.errors import CheckpointError
from fedali_client.join.journal import COUNTED, Journal, Record

FIRST, SECOND = np.float32([0.5, -1]), np.float32([0.25, 2])


def _record(round_=1, kind="train", run="first", bundle="ab", update=b"update"):
    return Record(
        kind=kind,
        identity=hashlib.sha256(f"{run}{round_}{kind}".encode()).hexdigest(),
        task="t" * 32,
        run=run,
        round=round_,
        bundle=bundle,
        sha256=hashlib.sha256(update).hexdigest(),
        size=len(update),
        facts={"samples": 3},
    )


def _files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_an_update_waits_until_it_is_answered(tmp_path):
    journal = Journal(tmp_path)
    assert journal.waiting() == []
    record = journal.add(_record(), b"update", None)
    journal.add(_record(kind="evaluate"), b"update", None)
    journal = Journal(tmp_path)
    assert [each.kind for each in journal.waiting()] == ["train", "evaluate"]
    assert journal.latest("train") == record
    assert journal.update(record) == b"update"
    journal.settle(record, COUNTED)
    journal = Journal(tmp_path)
    assert [each.kind for each in journal.waiting()] == ["evaluate"]
    assert journal.update(journal.latest("train")) == b"update"  # may be asked for again
    journal.add(_record(2, update=b"other"), b"other", None)
    assert len(list(tmp_path.glob("train-*.update"))) == 1


def test_what_an_encoding_lost_is_owed_from_the_acknowledgement_on(tmp_path):
    journal = Journal(tmp_path)
    assert journal.owed("first", "ab") == ("", None)
    record = journal.add(_record(), b"update", FIRST)
    assert journal.owed("first", "ab") == ("", None)
    journal.settle(record, COUNTED)
    name, owed = Journal(tmp_path).owed("first", "ab")
    assert (owed == FIRST).all()
    assert journal.owed("second", "ab") == journal.owed("first", "cd") == ("", None)

    late = Record(**{**vars(_record(2)), "residual": name})
    late = journal.add(late, b"update", SECOND)
    assert (journal.owed("first", "ab")[1] == FIRST).all()
    journal.settle(late, "late")
    assert (Journal(tmp_path).owed("first", "ab")[1] == FIRST).all()

    counted = journal.add(Record(**{**vars(_record(3)), "residual": name}), b"update", SECOND)
    journal.settle(counted, COUNTED)
    assert (Journal(tmp_path).owed("first", "ab")[1] == SECOND).all()
    journal.add(Record(**{**vars(_record(4)), "residual": counted.next_residual}), b"update", FIRST)
    assert len(list(tmp_path.glob("*.residual"))) == 2  # what was owed, and what will be


@pytest.mark.parametrize("written", [1, 2, 3])
def test_a_kill_between_two_files_leaves_the_old_record(tmp_path, written):
    """The files of a new update are written one after another; the record that names them comes last."""
    folder, new = tmp_path / "j", tmp_path / "new"
    journal = Journal(folder)
    old = journal.add(_record(), b"update", FIRST)
    journal.settle(old, COUNTED)
    shutil.copytree(folder, new)
    again = Record(**{**vars(_record(2, update=b"newer")), "residual": old.next_residual})
    again = Journal(new).add(again, b"newer", SECOND)
    for name in (again.file, again.next_residual, "train.json")[:written]:
        shutil.copy(new / name, folder / name)
    journal = Journal(folder)
    if written < 3:
        assert journal.latest("train").round == 1
        assert journal.waiting() == []
        assert (journal.owed("first", "ab")[1] == FIRST).all()
        assert _files(folder) == sorted([old.file, old.next_residual, "train.json"])
    else:
        assert journal.waiting() == [again]
        assert journal.update(again) == b"newer"
        assert (journal.owed("first", "ab")[1] == FIRST).all()


def test_a_damaged_update_is_none_and_a_damaged_record_is_told(tmp_path):
    journal = Journal(tmp_path)
    record = journal.add(_record(), b"update", None)
    (tmp_path / record.file).write_bytes(b"updatf")
    assert journal.update(record) is None
    (tmp_path / record.file).unlink()
    assert journal.update(record) is None
    (tmp_path / "train.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"train\.json is damaged"):
        Journal(tmp_path)
