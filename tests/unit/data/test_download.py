import numpy as np
import pytest

from fedali.data.sources.download import download
from fedali.errors import DataError

CONTENT = np.random.default_rng(0).bytes(300_000)


def fetch(server, path, **options):
    download(server.url, path, **{"max_bytes": 1_000_000, "pause": 0.01, "timeout": 5.0, **options})


def test_a_break_is_resumed_where_it_happened(serve, tmp_path):
    server = serve(CONTENT, break_after=[70_000, 50_000])
    seen = []
    fetch(server, tmp_path / "file", progress=lambda size, total: seen.append((size, total)))
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.asked[0] is None
    offsets = [int(asked.removeprefix("bytes=").removesuffix("-")) for asked in server.asked[1:]]
    assert len(offsets) == 2
    assert 0 < offsets[0] <= 70_000
    assert offsets[0] < offsets[1] <= 120_000
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_an_earlier_process_left_a_part(serve, tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT[:1234])
    server = serve(CONTENT)
    fetch(server, tmp_path / "file")
    assert server.asked == ["bytes=1234-"]
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_server_without_ranges_starts_over(serve, tmp_path):
    (tmp_path / "file.part").write_bytes(b"x" * 1000)
    server = serve(CONTENT, ranges=False)
    fetch(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_part_longer_than_the_file_is_thrown_away(serve, tmp_path):
    (tmp_path / "file.part").write_bytes(b"x" * 400_000)
    server = serve(CONTENT)
    fetch(server, tmp_path / "file")
    assert server.asked == ["bytes=400000-", None]
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_busy_server_is_asked_again_and_a_missing_file_is_not(serve, tmp_path):
    server = serve(CONTENT, statuses=[503, 503])
    fetch(server, tmp_path / "file")
    assert len(server.asked) == 3
    server = serve(CONTENT, statuses=[404])
    with pytest.raises(DataError, match="the server answered 404"):
        fetch(server, tmp_path / "other")
    assert len(server.asked) == 1


def test_too_much_is_refused(serve, tmp_path):
    with pytest.raises(DataError, match="larger than the 1000 bytes"):
        fetch(serve(CONTENT), tmp_path / "file", max_bytes=1000)
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_always_breaks_off_gives_up_and_keeps_the_part(serve, tmp_path):
    server = serve(CONTENT, break_after=[10_000, *[0] * 10])
    with pytest.raises(DataError, match=r"cannot download .*: the connection") as caught:
        fetch(server, tmp_path / "file")
    assert "\n" not in str(caught.value)
    assert 4 <= len(server.asked) <= 6
    assert [p.name for p in tmp_path.iterdir()] == ["file.part"]


def test_offline_is_one_line(tmp_path):
    with pytest.raises(DataError, match="cannot be reached") as caught:
        download("http://127.0.0.1:9/x", tmp_path / "file", max_bytes=10, attempts=2, pause=0.01, timeout=2.0)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="cannot download nonsense"):
        download("nonsense", tmp_path / "file", max_bytes=10)
