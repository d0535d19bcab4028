"""Checking a manifest: every key, of the right kind, and all of them fit each other."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta
from typing import Any, get_args

import numpy as np

from fedali.answers import BUNDLED, GATE, PROTOTYPES
from fedali.bundle.json_reader import JsonError, JsonReader, is_plain, read_json
from fedali.bundle.manifest import (
    LARGEST_MANIFEST,
    LAYOUTS,
    READABLE,
    ALPNumbers,
    BundleLayouts,
    BundleNormalisation,
    BundlePart,
    BundleTask,
    Component,
    Manifest,
    Mode,
    NormalisationKind,
    Parity,
)
from fedali.data.facts import DataFacts
from fedali.errors import BundleError, SettingsError
from fedali.layout import Layout
from fedali.optimizers.schedules import CONSTANT, KINDS, RateSchedule
from fedali.slots import PrototypeUpload
from fedali.targets import KINDS as TASK_KINDS
from fedali.targets import Targets
from fedali.transport.solvers import Solver

_NEEDED = {"full": {"train.onnx", "infer.onnx"}, "head": {"train.onnx", "infer.onnx", "embed.onnx"}}
_ALLOWED = {
    "full": {"adapt.onnx", "begin.onnx", "measure.onnx", "finish.onnx"},
    "head": {"embed_int8.onnx", "infer_int8.onnx"},
}
_OPTIMIZERS: dict[str, tuple[str, ...]] = {
    "adam": ("learning_rate", "beta1", "beta2", "epsilon"),
    "sgd": ("learning_rate", "momentum"),
}


def read_manifest(data: bytes) -> Manifest:
    """The manifest in ``data``; ``BundleError`` naming what is missing, unknown or of the wrong kind."""
    if len(data) > LARGEST_MANIFEST:
        raise BundleError(f"the manifest is larger than {LARGEST_MANIFEST} bytes")
    try:
        return _manifest(read_json(data, "the manifest"))
    except JsonError as error:
        raise BundleError(str(error)) from None


def _manifest(read: JsonReader) -> Manifest:
    """Every key in turn; then whether they fit each other."""
    format_ = read.take("format", int)
    if format_ not in READABLE:
        raise JsonError(
            f"{read.where} is of format {format_}, known are {READABLE}: a newer fedali may read it"
        )
    mode = read.choice("mode", get_args(Mode))
    shape = _shape(read, "input_shape")
    layouts = _layouts(read.inside("layouts"), mode)
    written = read.text("fedali")
    method = _method(read.inside("method"), written)
    inner = read.inside("task") if read.has("task") else None
    classes = _classes(read, "classes", 2 if inner is None else 1)
    task = None if inner is None else _task(inner, classes)
    travel = _travel(read) if format_ > 1 else _travel_before(method, layouts)
    manifest = Manifest(
        format=format_,
        fedali=written,
        name=read.text("name"),
        created=_time(read, "created"),
        model=_component(read.inside("model"), alp=True),
        method=method,
        mode=mode,
        batch=read.integer("batch", 1, 1 << 16),
        input_shape=shape,
        classes=classes,
        normalisation=_normalisation(read.inside("normalisation"), shape),
        layouts=layouts,
        personal=_ranges(read, "personal", layouts.parameters.size),
        optimizer=_optimizer(read.inside("optimizer")),
        hyper=_hyper(read.inside("hyper")),
        keeps_local_prototypes=read.take("keeps_local_prototypes", bool),
        **travel,
        round=read.integer("round", 0),
        opset=read.integer("opset", 17, 21),
        onnxruntime=_version(read, "onnxruntime"),
        parts={name: _part(part) for name, part in read.each("parts").items()},
        parity={name: _parity(parity) for name, parity in read.each("parity").items()},
        int8=read.take("int8", dict, type(None)),
        data=_data(read, shape),
        answers_by=read.choice("answers_by", BUNDLED) if read.has("answers_by") else "trained",
        task=task,
        schedule=_schedule(read.inside("schedule")) if read.has("schedule") else CONSTANT,
    )
    read.done()
    _check_parts(manifest, read.where)
    return manifest


def _check_parts(manifest: Manifest, where: str) -> None:
    needed = _NEEDED[manifest.mode] | {"state.safetensors"}
    if manifest.answers_by == "gate":
        needed |= {"embed.onnx"}
    odd = sorted((needed - set(manifest.parts)) | (set(manifest.parts) - needed - _ALLOWED[manifest.mode]))
    if odd:
        raise JsonError(
            f"{where}: parts for mode {manifest.mode!r} lack {odd[0][:60]!r}, or should not have it"
        )
    _check_answer(manifest, where)
    graphs = {name.removesuffix(".onnx") for name in manifest.parts if name.endswith(".onnx")}
    if set(manifest.parity) != graphs:
        raise JsonError(f"{where}: parity has to say something of each of {', '.join(sorted(graphs))}")
    if (manifest.int8 is None) != (not any(name.endswith("_int8") for name in graphs)):
        raise JsonError(f"{where}: int8 goes with parts in int8")


def _check_answer(manifest: Manifest, where: str) -> None:
    """The vector begins with a model, and what answers is as long."""
    parameters = manifest.layouts.parameters
    model = sum(entry.size for entry in parameters.entries if "/" not in entry.name)
    begin, end = manifest.answer
    if end - begin != model or end > parameters.size:
        raise JsonError(f"{where}: answer is not a stretch of the parameters as long as the model")
    slot = parameters.entries[-1]
    named = [entry.name for entry in parameters.entries if entry.name == f"{GATE.name}/"]
    if (manifest.answers_by == "gate") != bool(named):
        raise JsonError(f"{where}: who answers by the gate has a slot {GATE.name!r}, and nobody else")
    if named and (slot.name != named[0] or len(slot.shape) != 2 or slot.shape[0] != PROTOTYPES):
        raise JsonError(f"{where}: the slot {GATE.name!r} has to be the last, of {PROTOTYPES} prototypes")
    if end > manifest.known or manifest.layouts.trained.size > manifest.known:
        raise JsonError(f"{where}: what is trained and what answers lie before the slot {GATE.name!r}")


def _shape(read: JsonReader, key: str) -> tuple[int, ...]:
    value = read.take(key, list)
    if not 1 <= len(value) <= 6 or not all(type(n) is int and 1 <= n <= 1 << 20 for n in value):
        raise read.wrong(key, value)
    return tuple(value)


def _data(read: JsonReader, shape: tuple[int, ...]) -> DataFacts:
    """Which may be missing: nothing is known of the data then."""
    plain = read.take("data", dict) if read.has("data") else {}
    try:
        return DataFacts.from_plain(plain, shape, f"{read.where}: data")
    except SettingsError as error:
        raise JsonError(str(error)) from None


def _time(read: JsonReader, key: str) -> str:
    value = read.text(key, 40)
    try:
        if datetime.fromisoformat(value).utcoffset() != timedelta(0):
            raise ValueError
    except ValueError:
        raise read.wrong(key, value) from None
    return value


def _version(read: JsonReader, key: str) -> str:
    value = read.text(key, 20)
    if not re.fullmatch(r">=[0-9]{1,3}\.[0-9]{1,3}", value):
        raise read.wrong(key, value)
    return value


def _method(read: JsonReader, written: str) -> Component:
    """What devices train, by the name it has now: before 0.3.0 ``fedali`` was the paper's."""
    found = _component(read, alp=False)
    before = re.match(r"0\.[012](?!\d)", written) is not None
    return Component("fedali-paper", found.options) if before and found.name == "fedali" else found


def _component(read: JsonReader, *, alp: bool) -> Component:
    found = Component(read.text("name"), read.take("options", dict))
    if alp:
        found = Component(found.name, found.options, read.take("alp", dict, type(None)))
    read.done()
    return found


def _task(read: JsonReader, names: tuple[str, ...]) -> BundleTask:
    """What is learnt; units, means and deviations are of numbers alone, one each."""
    name, options, kind = read.text("name"), read.take("options", dict), read.choice("kind", TASK_KINDS)
    units = read.take("units", list)
    count = len(names) if kind == "numbers" else 0
    if len(units) not in (0, count) or not all(isinstance(unit, str) and len(unit) <= 40 for unit in units):
        raise read.wrong("units", units)
    if kind == "classes" and len(names) < 2:
        raise JsonError(f"{read.where}: a task of classes has two or more")
    parts = []
    for key in ("mean", "std"):
        value = read.take(key, list)
        if len(value) != count or not all(type(n) in (int, float) and abs(n) < 1e300 for n in value):
            raise read.wrong(key, value)
        parts.append(np.array(value, np.float64))
    if not (parts[1] > 0).all():
        raise read.wrong("std", parts[1].tolist())
    read.done()
    if kind == "numbers":
        return BundleTask(name, options, Targets(names, "numbers", tuple(units), parts[0], parts[1]))
    return BundleTask(name, options, Targets(names, kind))


def _classes(read: JsonReader, key: str, least: int) -> tuple[str, ...]:
    value = read.take(key, list)
    if not least <= len(value) <= 10_000 or not all(map(is_plain, value)) or len(set(value)) != len(value):
        raise read.wrong(key, value)
    return tuple(value)


def _normalisation(read: JsonReader, shape: tuple[int, ...]) -> BundleNormalisation:
    kind = read.choice("kind", get_args(NormalisationKind))
    parts = []
    for key in ("mean", "std"):
        value = read.take(key, list, int, float)
        try:
            numbers = np.array(value, np.float64)
            fits = numbers.ndim <= len(shape) and np.broadcast_shapes(numbers.shape, shape) == shape
        except (ValueError, TypeError, OverflowError):
            raise read.wrong(key, value) from None
        small = np.finfo(np.float32).tiny if key == "std" else -np.inf
        if not fits or not (np.abs(numbers) < 1e30).all() or not (numbers >= small).all():
            raise read.wrong(key, value)
        parts.append(numbers.astype(np.float32))
    read.done()
    return BundleNormalisation(kind, *parts)


def _layouts(read: JsonReader, mode: Mode) -> BundleLayouts:
    found = []
    for key in LAYOUTS:
        value = read.take(key, list)
        try:
            layout = Layout.from_json(json.dumps(value))
        except SettingsError:
            raise read.wrong(key, value) from None
        if layout.size > 1 << 28:
            raise read.wrong(key, f"{layout.size} numbers")
        found.append(layout)
    read.done()
    parameters, prototypes, trained = found
    expected = [e for e in parameters.entries if e.name.startswith("head.")]
    if mode == "full":
        expected = list(parameters.entries[: max(1, len(trained.entries))])
    if [(e.name, e.shape) for e in trained.entries] != [(e.name, e.shape) for e in expected]:
        raise JsonError(f"{read.where}: trained is not what mode {mode!r} trains")
    if not trained.size or sum(e.size for e in expected) != expected[-1].where.stop - expected[0].offset:
        raise JsonError(f"{read.where}: trained is not one stretch of the parameters")
    return BundleLayouts(parameters, prototypes, trained)


def _travel(read: JsonReader) -> dict[str, Any]:
    """What says how a client's slots travel, answer and train; new in format 2."""
    prototypes, inner = None, read.maybe_inside("prototypes")
    if inner is not None:
        prototypes = PrototypeUpload(
            inner.choice("kind", ("mean", "aligned", "sets")),
            inner.choice("solver", get_args(Solver)),
            inner.choice("masses", ("uniform", "occupancy")),
        )
        inner.done()
    answer, phases = read.take("answer", list), read.take("phases", list)
    if len(answer) != 2 or not all(type(n) is int for n in answer) or not 0 <= answer[0] < answer[1]:
        raise read.wrong("answer", answer)
    if len(phases) > 100 or not all(n is None or (type(n) is int and 1 <= n <= 10**6) for n in phases):
        raise read.wrong("phases", phases)
    return {"prototypes": prototypes, "answer": tuple(answer), "phases": tuple(phases)}


def _travel_before(method: Component, layouts: BundleLayouts) -> dict[str, Any]:
    """The same of a bundle of 0.1.0, which left it to its method's name."""
    prototypes, options = None, method.options
    if method.name == "fedali-paper":
        way = options.get("aggregation", "ot")
        kind = "sets" if way == "kmeans" or options.get("barycentre_iterations") else way
        masses = options.get("masses", "uniform")
        ways: dict[str, Any] = {
            "sets": PrototypeUpload("sets"),
            "mean": PrototypeUpload("mean"),
            "ot": PrototypeUpload("aligned", options.get("solver", "auto"), masses),
        }
        prototypes = ways.get(kind)
    return {"prototypes": prototypes, "answer": (0, layouts.parameters.size), "phases": ()}


def _ranges(read: JsonReader, key: str, size: int) -> tuple[tuple[int, int], ...]:
    value = read.take(key, list)
    last = 0
    for pair in value:
        if type(pair) is not list or len(pair) != 2 or not all(type(n) is int for n in pair):
            raise read.wrong(key, value)
        if not last <= pair[0] < pair[1] <= size:
            raise read.wrong(key, value)
        last = pair[1]
    return tuple((begin, end) for begin, end in value)


def _optimizer(read: JsonReader) -> dict[str, Any]:
    name = read.choice("name", tuple(_OPTIMIZERS))
    found: dict[str, Any] = {"name": name}
    for key in _OPTIMIZERS[name]:
        found[key] = read.number(key, 0, 1 if key.startswith(("beta", "momentum")) else 1e6)
    for key in ("weight_decay", "clip_norm"):  # which may be missing: off
        if read.has(key):
            found[key] = read.number(key, 0, 1e6)
    read.done()
    return found


def _schedule(read: JsonReader) -> RateSchedule:
    """Of the learning rate over rounds; what is missing is as it is without being set."""
    found: dict[str, Any] = {}
    if read.has("kind"):
        found["kind"] = read.choice("kind", KINDS)
    found |= {key: read.integer(key, 0) for key in ("warmup", "rounds", "every") if read.has(key)}
    found |= {key: read.number(key, 0, 1) for key in ("floor", "drop") if read.has(key)}
    read.done()
    try:
        return RateSchedule(**found)
    except SettingsError as error:
        raise JsonError(f"{read.where}: {error}") from None


def _hyper(read: JsonReader) -> ALPNumbers:
    found = ALPNumbers(read.number("influence", 0, 1), read.number("decay", 0, 1))
    read.done()
    return found


def _part(read: JsonReader) -> BundlePart:
    found = BundlePart(read.text("sha256", 64), read.integer("bytes", 0))
    if not re.fullmatch("[0-9a-f]{64}", found.sha256):
        raise read.wrong("sha256", found.sha256)
    read.done()
    return found


def _parity(read: JsonReader) -> Parity:
    found = Parity(read.number("error", 0), read.text("what"))
    read.done()
    return found
