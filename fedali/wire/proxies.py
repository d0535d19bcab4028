"""Addresses of this machine are not asked for by way of a proxy."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def never_for_loopback(environment: MutableMapping[str, str] = os.environ) -> None:
    """Tell gRPC, httpx and requests, here and in processes that are started, to reach the loopback interface directly.

    Where a proxy is set they would ask it for this very machine, and wait.

    >>> environment = {"http_proxy": "http://proxy:3128", "NO_PROXY": "example.org"}
    >>> never_for_loopback(environment)
    >>> environment["NO_PROXY"]
    'example.org,localhost,127.0.0.1,::1'
    """
    if not any(name.lower().endswith("_proxy") and value for name, value in environment.items()):
        return
    given = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    hosts = [host.strip() for host in given.split(",") if host.strip()]
    if "*" not in hosts:
        hosts += [host for host in _LOOPBACK if host not in hosts]
    for name in ("no_proxy", "NO_PROXY"):  # which of them counts differs
        environment[name] = ",".join(hosts)
