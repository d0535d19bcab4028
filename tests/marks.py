"""Which tests `make test` leaves to `make test-all`, and which stay with one worker.

``pytest.mark.slow`` for a test, ``slow`` for some of a test's cases: those that take long for their kind, and repeat what a shorter
one shows. Files in ``TOGETHER`` build a place that takes seconds and that their tests share, or go on from each other.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

import pytest

TOGETHER = (
    "tests/e2e/test_federation.py",
    "tests/e2e/test_federation_faults.py",
    "tests/e2e/test_schema.py",
    "tests/e2e/test_sites.py",
    "tests/integration/edge/test_device_round.py",
    "tests/integration/edge/test_client.py",
    "tests/integration/edge/test_head.py",
    "tests/integration/gateway/test_doors.py",
    "tests/integration/gateway/test_harm.py",
    "tests/integration/run/test_large.py",
    "tests/integration/run/test_tracking.py",
    "tests/integration/site/test_site.py",
    "tests/unit/data/test_motionsense.py",
)


compiling = pytest.mark.skipif(
    os.environ.get("FEDALI_PARITY") != "all", reason="compiling takes minutes: make parity"
)


def slow(cases: Iterable[Any], where: Callable[[Any], bool]) -> list[Any]:
    """The cases of a ``parametrize``, those marked slow that ``where`` is true of."""
    return [pytest.param(case, marks=pytest.mark.slow) if where(case) else case for case in cases]


def scope(nodeid: str) -> str:
    """What a worker takes at once: a test, or all of a file's."""
    file = nodeid.partition("::")[0]
    return file if file in TOGETHER else nodeid
