"""The command ``fedali-client join``."""

from __future__ import annotations

import argparse
from pathlib import Path

from fedali.data.sources.settings import parse_settings
from fedali.errors import FedaliError, SettingsError
from fedali.support.places import user_path
from fedali.wire.kit import DeviceKit, read_kit_as
from fedali_client.client import EdgeClient
from fedali_client.compute.graphs import Runtime
from fedali_client.join.opening import open_verified
from fedali_client.join.report import Report
from fedali_client.join.samples import DataFiles
from fedali_client.join.session import Session
from fedali_client.state.lock import Lock


def join(options: argparse.Namespace) -> None:
    """Take part in a federation until the process is stopped."""
    kit = read_kit_as(user_path(options.kit), DeviceKit)
    report = Report(quiet=options.quiet, as_json=options.json)
    if options.split and (options.validation or options.test):
        raise SettingsError("--split takes all of one file: leave --validation and --test away")
    train, validation, test = (
        path and user_path(path) for path in (options.data, options.validation, options.test)
    )
    files = DataFiles(
        train,
        validation,
        test,
        settings=parse_settings(options.settings),
        whole=options.split,
        tell=report.note,
    )
    files.counts()
    root: Path = user_path(options.state, "--state DIR")
    folder = root / "joined" / f"{kit.federation}.{kit.name}"
    _make(folder)
    lock = Lock(folder / "lock")

    def open_client(path: Path) -> EdgeClient:
        return open_verified(path, root, kit.trusted_key, Runtime(options.threads, options.provider))

    try:
        counted = Session(kit, folder, files, open_client, report, once=options.once).run()
    finally:
        lock.release()
    if not counted:
        raise FedaliError("the training did not count")


def _make(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise FedaliError(
            f"cannot make the folder {folder}: {error.strerror}; give another for the state"
        ) from error
