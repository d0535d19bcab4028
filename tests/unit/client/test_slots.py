"""The mapped file: what counts after a kill, and what does not after a power cut."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from fedali.errors import FedaliError
from fedali_client.state.slots import ARRAYS, Progress, Sizes, Slots, boot_id

PURPOSE = bytes(range(32))
SIZES = Sizes(17, 17, 0, 5)


def _create(path, generation=1):
    arrays = {
        name: np.arange(size, dtype=np.float32) + i
        for i, (name, size) in enumerate(zip(ARRAYS, SIZES, strict=True))
    }
    return Slots.create(path, PURPOSE, generation, arrays, Progress(fit=1, total=9))


def _reopen(path, generation=1, purpose=PURPOSE, sizes=SIZES, **options):
    return Slots.open(path, purpose, generation, sizes, **options)


def test_what_was_committed_is_there_and_what_was_not_is_not(tmp_path):
    path = tmp_path / "map"
    slots = _create(path)
    for step in range(1, 4):
        slots.spare["theta"][...] = step
        slots.spare["local_prototypes"][...] = 10 * step
        slots.commit(Progress(fit=1, step=step, total=9, loss=0.25, identity=b"x" * 32))
    slots.spare["theta"][...] = np.nan  # a step that was never finished
    again = _reopen(path)
    assert (again.current["theta"] == 3).all()
    assert (again.current["local_prototypes"] == 30).all()
    assert again.progress == Progress(fit=1, step=3, total=9, loss=0.25, identity=b"x" * 32)
    assert again.progress.under_way
    assert again.current["second_moment"].shape == (0,)


def test_arrays_lie_on_cache_lines_and_do_not_overlap(tmp_path):
    slots = _create(tmp_path / "map")
    places = sorted(
        (array.ctypes.data, array.nbytes) for held in slots.arrays for array in held.values() if array.size
    )
    assert all(start % 64 == 0 for start, _ in places)
    assert all(start + size <= after for (start, size), (after, _) in itertools.pairwise(places))


def test_a_file_counts_for_one_boot_one_purpose_one_generation_and_its_sizes_alone(tmp_path):
    path = tmp_path / "map"
    _create(path, generation=4)
    assert _reopen(path, 4) is not None
    assert _reopen(path, 5) is None
    assert _reopen(path, 4, purpose=bytes(32)) is None
    assert _reopen(path, 4, sizes=Sizes(17, 17, 17, 5)) is None
    whole = path.read_bytes()
    another = whole.replace(boot_id(), b"0" * 36)
    assert another != whole
    path.write_bytes(another)
    assert _reopen(path, 4) is None
    path.write_bytes(whole[:-1])
    assert _reopen(path, 4) is None
    path.write_bytes(b"")
    assert _reopen(path, 4) is None
    path.unlink()
    assert _reopen(path, 4) is None


def test_a_reader_sees_the_complete_slot_and_can_change_nothing(tmp_path):
    path = tmp_path / "map"
    slots = _create(path)
    reader = _reopen(path, read_only=True)
    slots.spare["theta"][...] = 7
    slots.commit(Progress(step=1, total=2))
    arrays, progress = reader.snapshot()
    assert (arrays["theta"] == 7).all()
    assert progress.step == 1
    with pytest.raises(ValueError, match="read-only"):
        reader.spare["theta"][...] = 1


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    with pytest.raises(FedaliError, match=r"cannot write .*missing.map: No such file"):
        _create(tmp_path / "missing" / "map")
