"""The SuperLink of a server: a child of this process, reached over a Unix socket that its user alone can open.

What it takes from inside Flower is listed in ``docs/flower.md``; ``tests/e2e/test_sites.py`` runs it.
"""

from __future__ import annotations

import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import structlog
from flwr.proto.control_pb2 import ListNodesRequest, RegisterNodeRequest, UnregisterNodeRequest
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

from fedali.errors import FedaliError
from fedali.support.files import reporting
from fedali.wire.kit import ServerKit
from fedali_server.children import Child, say
from fedali_server.flower.hosting import superlink_process
from fedali_server.flower.hosting.node_keys import read_node_key

URL = "http://superlink"
_LONGEST = 100  # bytes of a socket's path; the system takes a few more

log = structlog.get_logger("fedali.server")


@contextmanager
def local_superlink(state: Path, lock: int) -> Iterator[Path]:
    """A SuperLink with its database in ``state``, until the end; the path of its socket.

    The socket is this process's, and passed on to each SuperLink: while one is started again, calls wait.
    """
    with _listener(state) as (path, listener):
        words = [
            "fedali_server.flower.hosting.superlink_process",
            str(listener.fileno()),
            str(state / "superlink.db"),
        ]
        inherit = (listener.fileno(), lock)
        with Child("the SuperLink", words, superlink_process.READY, inherit=inherit, say=_say):
            yield path


def register(socket_path: Path, kit: ServerKit) -> None:
    """Make the SuperLink know the sites of ``kit`` by their keys, and no others.

    Raises ``FedaliError`` when it refuses, ``KitError`` for a key that is none.
    """
    wanted = {read_node_key(site.node_public_key): site.name for site in kit.sites}
    client = ControlHttpClient(URL, interceptors=[RuntimeVersionHttpInterceptor(component_name="flwr CLI")])
    client._client.close()
    client._client = httpx.Client(transport=httpx.HTTPTransport(uds=str(socket_path)), timeout=30.0)
    try:
        with client:
            nodes = client.ListNodes(ListNodesRequest()).nodes_info
            known = {bytes(node.public_key): node for node in nodes}
            for key, name in wanted.items():
                if key not in known:
                    client.RegisterNode(RegisterNodeRequest(public_key=key, name=name))
                    log.info("site registered", site=name)
                elif known[key].status == "unregistered":
                    log.warning("a key that was revoked cannot come back: renew the site's kit", site=name)
            for key, node in known.items():
                if key not in wanted and node.status != "unregistered":
                    client.UnregisterNode(UnregisterNodeRequest(node_id=node.node_id))
                    log.info("site unregistered", site=node.name)
    except httpx.HTTPError as error:
        raise FedaliError(f"cannot register the sites' keys at the SuperLink: {error}") from error


@contextmanager
def _listener(state: Path) -> Iterator[tuple[Path, socket.socket]]:
    """A Unix socket in a folder that this user alone can enter."""
    folder, temporary = state / "socket", None
    if len(bytes(folder / "superlink")) > _LONGEST:
        folder = temporary = Path(tempfile.mkdtemp(prefix="fedali-"))
    path = folder / "superlink"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        with reporting(path, "listen at"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.chmod(0o700)
            path.unlink(missing_ok=True)
            listener.bind(str(path))
            listener.listen(1024)
        try:
            yield path, listener
        finally:
            path.unlink(missing_ok=True)
            if temporary is not None:
                shutil.rmtree(temporary, ignore_errors=True)


def _say(line: str) -> None:
    if not line.startswith(superlink_process.READY):
        say(line)
