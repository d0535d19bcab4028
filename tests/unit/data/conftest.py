import functools
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from fedali.data import Dataset


@pytest.fixture(scope="session")
def shared_data():
    """The folder with motionsense.npz and motionsense.json, where there is one."""
    beside = Path(__file__).resolve().parents[3].parent / "shared" / "data"
    folder = Path(os.environ.get("FEDALI_DATA") or beside)
    if not (folder / "motionsense.npz").is_file() or not (folder / "motionsense.json").is_file():
        pytest.skip("needs FEDALI_DATA with motionsense.npz and motionsense.json")
    return folder


@pytest.fixture
def make_dataset():
    """A small valid data set, any field of which can be replaced."""

    def make(**changes):
        n = 12
        fields = {
            "name": "toy",
            "x": np.random.default_rng(0).normal(size=(n, 8, 3)).astype(np.float32),
            "y": np.arange(n) % 2,
            "client": np.arange(n) // 6,
            "client_names": ("ada", "bob"),
            "class_names": ("rest", "walk"),
            "channel_names": ("a", "b", "c"),
            "recording": np.arange(n),
            "start": np.zeros(n, np.int64),
            "length": 0,
            "licence": "CC0",
            "citation": "",
        }
        return Dataset(**{**fields, **changes})

    return make


class FileServer:
    """A real HTTP server of one file; ``ranges`` honours Range, ``break_after`` cuts the first answers short."""

    def __init__(self, content, *, ranges=True, break_after=(), statuses=()):
        self.content, self.ranges = content, ranges
        self.break_after, self.statuses = list(break_after), list(statuses)
        self.asked = []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Handler, self))
        self.url = f"http://127.0.0.1:{self.server.server_port}/data.zip"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, owner, *args):
        self.owner = owner
        super().__init__(*args)

    def do_GET(self):
        asked = self.headers.get("Range")
        self.owner.asked.append(asked)
        if self.owner.statuses:
            self.send_response(self.owner.statuses.pop(0))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content, begin = self.owner.content, 0
        if asked and self.owner.ranges:
            begin = int(asked.removeprefix("bytes=").removesuffix("-"))
            if begin >= len(content):
                self.send_response(416)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content) - begin))
        self.end_headers()
        stop = len(content)
        if self.owner.break_after:
            stop = begin + self.owner.break_after.pop(0)
        self.wfile.write(content[begin:stop])

    def log_message(self, *args):
        pass


@pytest.fixture
def serve():
    servers = []

    def start(content, **options):
        servers.append(FileServer(content, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.close()
