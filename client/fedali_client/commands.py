"""What the commands do; results go to stdout, everything else to stderr."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from fedali.bundle.file import Bundle
from fedali.bundle.manifest import Manifest
from fedali.data.device import UNLABELLED, FileSamples, Need, Pair, read_file, read_parts
from fedali.data.sources.settings import parse_settings, plain_settings
from fedali.errors import DataError, MissingExtraError, SettingsError
from fedali.support.memory import stay_small
from fedali.support.places import user_path
from fedali.support.terminal import printable
from fedali_client.client import EdgeClient
from fedali_client.compute.saying import line_of, seen_of
from fedali_client.data import read_line
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
        parts = _parts(options, client)
        pair = parts["train"]
        if pair is None:
            raise DataError(f"{options.data} holds nothing to train on")
        tests = {name: parts[name] for name in ("validation", "test") if options.split}

        def tested() -> dict[str, Any]:
            return {name: client.evaluate(*part).plain() for name, part in tests.items() if part is not None}

        held_back = None if parts["validation"] is None else parts["validation"][0]

        def train(show: ProgressLine) -> FitReport:
            return client.fit(*pair, options.epochs, seed=options.seed, progress=show, validation=held_back)

        _train(options, client, train, tested=tested, seen=seen_of(client.manifest.targets.kind))


def predict(options: argparse.Namespace) -> None:
    """Classify a file, or lines of stdin."""
    with _open(options, read_only=True) as client:
        if options.data is not None:
            found = _read(options, client, "none")
            _predictions(client, found.x, found)
            return
        if options.settings:
            raise SettingsError("--set says how a file is read: it goes with --data")
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
        pair = _parts(options, client)["test"]
        if pair is None:
            raise DataError(f"{options.data} is too short for a part to test on; leave --split away")
        found = client.evaluate(*pair)
    if options.json:
        _print_json(found.plain())
    else:
        _say(_in_words(found.plain()))


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
                client,
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


def _read(options: argparse.Namespace, client: EdgeClient, labels: Need = "all") -> FileSamples:
    """The samples of ``--data``; notes go to stderr."""
    settings = parse_settings(options.settings)
    found = read_file(user_path(options.data), client.manifest, settings, labels=labels)
    _tell(options, found.notes)
    return found


def _parts(options: argparse.Namespace, client: EdgeClient) -> dict[str, Pair | None]:
    """What of ``--data`` trains and what tests; without ``--split`` all of it does either."""
    if not options.split:
        found = _read(options, client)
        return {"train": (found.x, found.y), "validation": None, "test": (found.x, found.y)}
    settings = parse_settings(options.settings)
    parts, notes = read_parts(user_path(options.data), client.manifest, settings)
    _tell(options, notes)
    return parts


def _tell(options: argparse.Namespace, notes: Sequence[str]) -> None:
    for note in notes:
        print(printable(f"fedali-client: note: {options.data}: {note}"), file=sys.stderr)  # noqa: T201


def _train(
    options: argparse.Namespace,
    client: EdgeClient,
    train: Callable[[ProgressLine], FitReport],
    facts: dict[str, Any] | None = None,
    tested: Callable[[], dict[str, Any]] = dict,
    seen: str = "accuracy",
) -> None:
    line = ProgressLine(seen=seen)
    try:
        report = train(line)
    except (KeyboardInterrupt, SystemExit):
        if line.last is not None:
            line.close()
            now = client.status()  # it may have taken a step that the line did not show
            where = f"stopped after step {now.fit_step} of {now.fit_steps}"
            print(f"fedali-client: {where}; the same command goes on from there", file=sys.stderr)  # noqa: T201
        raise
    line.close()
    if options.json:
        told = {seen if name == "accuracy" else name: value for name, value in asdict(report).items()}
        _print_json({**(facts or {}), **told, **tested()})
        return
    went_on = f", went on from step {report.resumed_at}" if report.resumed_at else ""
    _say(
        f"fit {report.fit}: {report.epochs} epochs of {report.samples} samples in {report.seconds:.1f} s{went_on}; "
        f"last epoch: loss {report.loss:.4f}, {seen} {report.accuracy:.4f}"
    )
    for name, found in tested().items():
        _say(f"{name}: {_in_words(found)}")


def _in_words(found: dict[str, Any]) -> str:
    """An ``Evaluation`` or ``Scores`` as one line."""
    if "scores" not in found:
        return f"accuracy {found['accuracy']:.4f}, macro-F1 {found['macro_f1']:.4f} on {found['samples']} samples"
    units = found["units"]
    parts = []
    for name, value in found["scores"].items():
        what, _, target = name.partition("_")
        unit = units.get(target, "") if what in ("mae", "rmse") else ""
        if value is not None:
            parts.append(f"{name.replace('_', ' ')} {value:.4g} {unit}".rstrip())
    return f"{', '.join(parts)} on {found['samples']} samples"


def _learns(manifest: Manifest) -> dict[str, Any]:
    """What is learnt, for people."""
    targets = manifest.targets
    if manifest.task is None:
        return {"classes": list(targets.names)}
    units = targets.units or ("",) * len(targets.names)
    shown = [
        f"{name} {f'({unit})' if unit else ''}".rstrip()
        for name, unit in zip(targets.names, units, strict=True)
    ]
    return {"task": manifest.task.name, targets.kind if targets.kind != "numbers" else "targets": shown}


def _windows(options: argparse.Namespace, client: EdgeClient) -> Iterator[tuple[Any, Any]]:
    shape = client.manifest.input_shape
    if options.data is not None:
        found = _read(options, client, "known")
        yield from zip(found.x, (None if y == UNLABELLED else y for y in found.y.tolist()), strict=True)
        return
    if options.settings:
        raise SettingsError("--set says how a file is read: it goes with --data")
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


def _predictions(client: EdgeClient, x: Any, file: FileSamples | None = None) -> None:
    """A line for each sample; of windows of a ``file`` with the row that they begin with, and its time."""
    for start in range(0, len(x), 256):
        found, weights = client.answer(x[start : start + 256])
        for sample, (row, weight) in enumerate(zip(found, weights, strict=True), start):
            where: dict[str, Any] = {}
            if file is not None and file.rows is not None:
                where = {"row": int(file.rows[sample]), "rows": len(x[sample])}
                where |= {} if file.times is None else {"time": file.moment(sample)}
            answer = line_of(client.manifest, row)
            if client.manifest.answers_by == "gate":
                answer["weight"] = round(float(weight), 6)
            _print_json({**where, **answer})


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
        "answers by": manifest.answers_by,
        "mode": manifest.mode,
        "batch": manifest.batch,
        "sample": list(manifest.input_shape),
        "channels": list(manifest.data.channels),
        "read with": plain_settings(manifest.data.reading) or None,
        "stride": manifest.data.stride_of(manifest.input_shape) if len(manifest.input_shape) == 2 else None,
        **_learns(manifest),
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
