"""What the commands do; results go to stdout, everything else to stderr."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from fedali.bundle.file import Bundle
from fedali.data.samples import read_samples
from fedali.errors import DataError, MissingExtraError
from fedali.support.memory import stay_small
from fedali.support.places import user_path
from fedali_client.client import EdgeClient
from fedali_client.data import read_line
from fedali_client.observations import UNLABELLED
from fedali_client.progress import ProgressLine
from fedali_client.results import FitReport
from fedali_client.trust import open_bundle


def info(options: argparse.Namespace) -> None:
    """What a bundle is, and where this device stands with it."""
    with _open(options, read_only=True) as client:
        facts = {**_about(client.bundle), "state": asdict(client.status())}
    if options.json:
        _print_json(facts)
        return
    state = facts.pop("state")
    _print_table(facts)
    under_way = (
        f", step {state['fit_step']} of {state['fit_steps']} done"
        if state["fit_step"] < state["fit_steps"]
        else ""
    )
    trained = f"{state['fits']} fits{under_way}, {state['steps']} steps, accuracy {state['last_accuracy']:.3f} while training"
    _print_table({"this device": trained if state["fits"] else "not trained yet"})


def verify(options: argparse.Namespace) -> None:
    """Say who made a bundle, or refuse it."""
    bundle = _bundle(options)
    if options.json:
        _print_json(_about(bundle))
        return
    signed = (
        f"signed by key {bundle.signed_by}"
        if bundle.signed_by
        else "NOT verified: no signature, or no key for it"
    )
    _say(f"{options.bundle} is whole: {len(bundle.parts)} parts, {signed}")


def fit(options: argparse.Namespace) -> None:
    """Train the personal model."""
    with _open(options) as client:
        x, y = read_samples(options.data, client.manifest)
        if y is None:
            raise DataError(f"{options.data} has no labels; training takes an array y beside x")
        _train(options, lambda show: client.fit(x, y, options.epochs, seed=options.seed, progress=show))


def predict(options: argparse.Namespace) -> None:
    """Classify a file, or lines of stdin."""
    with _open(options, read_only=True) as client:
        if options.data is not None:
            _predictions(client, read_samples(options.data, client.manifest)[0])
            return
        refused = 0
        for number, line in _lines():
            client.refresh()
            try:
                _predictions(client, read_line(line, client.manifest.input_shape, number))
            except DataError as error:  # one answer to each line, so that who reads them stays in step
                refused += 1
                _print_json({"error": str(error)})
                print(f"fedali-client: {error}", file=sys.stderr)  # noqa: T201
        if refused:
            raise DataError(f"{refused} lines were no samples")


def evaluate(options: argparse.Namespace) -> None:
    """How good the personal model is."""
    with _open(options, read_only=True) as client:
        x, y = read_samples(options.data, client.manifest)
        if y is None:
            raise DataError(f"{options.data} has no labels; evaluating takes an array y beside x")
        found = client.evaluate(x, y)
    if options.json:
        _print_json(asdict(found))
    else:
        _say(f"accuracy {found.accuracy:.4f}, macro-F1 {found.macro_f1:.4f} on {found.samples} samples")


def observe(options: argparse.Namespace) -> None:
    """Fill the store, then learn from it."""
    with _open(options, capacity=options.capacity) as client:
        for window, label in _windows(options, client):
            client.observe(window, label)
        counts = client.observations.counts()
        names = {-1: "without label", **dict(enumerate(client.manifest.classes))}
        facts: dict[str, Any] = {"observations": {names[label]: count for label, count in counts.items()}}
        if options.adapt:
            facts["adapted"] = client.adapt(client.observations.unlabelled()) if UNLABELLED in counts else 0
        if not options.json:
            _print_table(facts.pop("observations"))
        if options.train:
            _train(
                options,
                lambda show: client.train_observed(options.epochs, seed=options.seed, progress=show),
                facts,
            )
        elif options.json:
            _print_json(facts)


def examine(options: argparse.Namespace) -> None:
    """What this machine can do with a bundle."""
    from fedali_client.doctor import doctor

    state = user_path(options.state, "--state DIR")
    doctor(_bundle(options), user_path(options.bundle), state, as_json=options.json)


def join(options: argparse.Namespace) -> None:
    """Take part in a federation."""
    stay_small()
    os.environ.setdefault(
        "GRPC_VERBOSITY", "NONE"
    )  # read when it is loaded; a device says itself what is wrong
    for module in ("google.protobuf", "grpc", "onnxruntime"):
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise MissingExtraError(error.name or module, "join") from error
    from fedali_client.join import command

    command.join(options)


COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {
    "info": info,
    "verify": verify,
    "fit": fit,
    "predict": predict,
    "evaluate": evaluate,
    "observe": observe,
    "join": join,
    "doctor": examine,
}


def _bundle(options: argparse.Namespace) -> Bundle:
    return open_bundle(
        user_path(options.bundle),
        user_path(options.state, "--state DIR"),
        options.key,
        allow_unsigned=options.allow_unsigned,
        remember=True,
    )


def _open(options: argparse.Namespace, *, read_only: bool = False, capacity: int | None = None) -> EdgeClient:
    return EdgeClient.open(
        options.bundle,
        options.state,
        trusted_key=options.key,
        allow_unsigned=options.allow_unsigned,
        read_only=read_only,
        threads=getattr(options, "threads", 1),
        provider=getattr(options, "provider", "CPUExecutionProvider"),
        capacity=capacity,
    )


def _train(
    options: argparse.Namespace,
    train: Callable[[ProgressLine], FitReport],
    facts: dict[str, Any] | None = None,
) -> None:
    line = ProgressLine()
    try:
        report = train(line)
    except (KeyboardInterrupt, SystemExit):
        if line.last is not None:
            line.close()
            where = f"stopped after step {line.last.step} of {line.last.total}"
            print(f"fedali-client: {where}; the same command goes on from there", file=sys.stderr)  # noqa: T201
        raise
    line.close()
    if options.json:
        _print_json({**(facts or {}), **asdict(report)})
        return
    went_on = f", went on from step {report.resumed_at}" if report.resumed_at else ""
    _say(
        f"fit {report.fit}: {report.epochs} epochs of {report.samples} samples in {report.seconds:.1f} s{went_on}; "
        f"last epoch: loss {report.loss:.4f}, accuracy {report.accuracy:.4f}"
    )


def _windows(options: argparse.Namespace, client: EdgeClient) -> Iterator[tuple[Any, Any]]:
    shape = client.manifest.input_shape
    if options.data is not None:
        x, y = read_samples(options.data, client.manifest)
        yield from zip(x, [None] * len(x) if y is None else y.tolist(), strict=True)
        return
    if sys.stdin.isatty() and (options.train or options.adapt):
        return  # learn from what is there
    for number, line in _lines():
        value = json.loads(line) if line.startswith("{") else {}
        label = value.get("label") if isinstance(value, dict) else None
        for window in read_line(line, shape, number):
            yield window, label


def _lines() -> Iterator[tuple[int, str]]:
    for number, line in enumerate(sys.stdin, 1):
        if line.strip():
            yield number, line.strip()


def _predictions(client: EdgeClient, x: Any) -> None:
    for start in range(0, len(x), 256):
        for row in client.predict_proba(x[start : start + 256]):
            best = int(row.argmax())
            _print_json({"label": client.manifest.classes[best], "probability": round(float(row[best]), 6)})


def _about(bundle: Bundle) -> dict[str, Any]:
    manifest = bundle.manifest
    return {
        "name": manifest.name,
        "digest": bundle.digest,
        "signed by": bundle.signed_by,
        "created": manifest.created,
        "model": manifest.model.name,
        "parameters": manifest.layouts.parameters.size,
        "trained on device": manifest.layouts.trained.size,
        "prototypes": [list(entry.shape) for entry in manifest.layouts.prototypes.entries],
        "method": manifest.method.name,
        "mode": manifest.mode,
        "batch": manifest.batch,
        "sample": list(manifest.input_shape),
        "classes": list(manifest.classes),
        "round": manifest.round,
        "onnxruntime": manifest.onnxruntime,
        "bytes": {name: part.bytes for name, part in sorted(manifest.parts.items())},
    }


def _print_json(value: dict[str, Any]) -> None:
    print(json.dumps(value), flush=True)  # noqa: T201


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


def _print_table(facts: dict[str, Any]) -> None:
    for name, value in facts.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {one}" for key, one in value.items())
        elif isinstance(value, list):
            value = ", ".join(map(str, value))
        _say(f"{name:18} {'-' if value is None else value}")
