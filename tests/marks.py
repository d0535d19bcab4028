"""Which tests `make test` leaves to `make test-all`: those that take long for their kind, and repeat what a shorter one shows.

``pytest.mark.slow`` for a test, ``slow`` for some of a test's cases. Tests of a file that share a place which takes seconds to
build, or that go on from each other, stay with one worker: ``together``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest


def slow(cases: Iterable[Any], where: Callable[[Any], bool]) -> list[Any]:
    """The cases of a ``parametrize``, those marked slow that ``where`` is true of."""
    return [pytest.param(case, marks=pytest.mark.slow) if where(case) else case for case in cases]


def together(name: str) -> pytest.MarkDecorator:
    """A module's ``pytestmark``: its tests run one after another on one worker."""
    return pytest.mark.xdist_group(name)
