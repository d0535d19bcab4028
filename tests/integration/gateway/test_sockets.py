"""A gateway whose socket's path is longer than the system takes."""

from __future__ import annotations

import re

import pytest

from fedali.errors import FedaliError
from fedali_server.site.relay import RelayConnection
from tests.gateways import ANSWER, ProvisionedSite

DEEP = ["twenty-bytes-of-a-way"] * 8


def test_a_socket_in_a_folder_too_deep_for_its_path_is_found(tmp_path):
    folder = tmp_path.joinpath(*DEEP)
    folder.mkdir(parents=True)
    folder.chmod(0o700)
    site = ProvisionedSite(tmp_path / "site")
    site.socket = folder / "relay.sock"
    with site:
        for _ in range(2):
            connection = RelayConnection(site.socket, patience=ANSWER)
            try:
                assert [d.device for d in connection.status().devices] == ["a-0", "a-1", "a-2"]
            finally:
                connection.close()
        assert site.socket.is_socket()
        assert site.stop() == 0
        assert not site.socket.exists()


def test_a_deep_socket_that_nobody_made_is_named(tmp_path):
    nowhere = tmp_path.joinpath(*DEEP, "relay.sock")
    with pytest.raises(FedaliError, match=f"cannot reach {re.escape(str(nowhere.parent))}: No such file"):
        RelayConnection(nowhere)
