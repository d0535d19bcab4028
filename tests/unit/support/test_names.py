from __future__ import annotations

import string
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from fedali.support.names import file_name

NAMES = st.one_of(
    st.text(),
    st.text(alphabet=string.ascii_letters + "._-/=0 "),
    st.text(min_size=70, max_size=400),
    st.sampled_from(["..", ".", "", "table.csv", "a/b", "a_b", "con", "\ud800"]),
)


@given(NAMES, NAMES)
def test_different_names_are_different_files_wherever_they_lie(one: str, other: str) -> None:
    """Also where a file system takes upper case for lower, or one way to write an accent for another."""
    plain = [unicodedata.normalize("NFD", file_name(name)).lower() for name in (one, other)]
    assert (plain[0] == plain[1]) == (one == other)


@given(NAMES)
def test_a_files_name_is_short_plain_and_no_path(name: str) -> None:
    found = file_name(name)
    assert 0 < len(found) <= 80
    assert set(found) <= set(string.ascii_lowercase + string.digits + "._-=")
    assert found[0] != "."
    assert "." not in found or found == name


@given(st.from_regex(r"[a-z][a-z0-9-]{0,60}", fullmatch=True))
def test_usual_names_stay(name: str) -> None:
    assert file_name(name) == name


def test_what_is_a_name_of_something_else_is_none() -> None:
    for name in ("table.csv", "scenario.toml", "fedali=19c5fce426132f67", "Ann", "x" * 81):
        assert file_name(name) != name
