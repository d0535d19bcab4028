"""A bundle of a model and a method: graphs exported from the very functions that simulations run, and checked.

Nothing is written unless every graph, run by onnxruntime, does what torch does: see ``fedali_server.export.parity``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.numpy import save

from fedali.answers import BUNDLED, PROTOTYPES, slots_of
from fedali.bundle.file import Bundle, write_bundle
from fedali.bundle.manifest import ALPNumbers, BundleLayouts, Component, Mode, Parity
from fedali.capture.captures import (
    capture_adapt,
    capture_begin,
    capture_embed,
    capture_finish,
    capture_gated,
    capture_head_step,
    capture_measure,
    capture_predict,
    capture_step,
)
from fedali.capture.decompositions_onnx import ONNX
from fedali.capture.graph import Graph
from fedali.capture.onnx_cache import exported
from fedali.capture.onnx_export import OPSET
from fedali.capture.structure import structure_key
from fedali.capture.unknown import located
from fedali.errors import SettingsError
from fedali.methods import name_of, options_of, personal_indices
from fedali.methods.base import begins, finishes
from fedali.optimizers.rules import described
from fedali.slots import layout_of, slot_slice
from fedali.step import Vectors
from fedali.support.memory import collecting_rarely
from fedali_server.export.draws import Subject
from fedali_server.export.parity import check_parity
from fedali_server.export.source import Source

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from fedali_server.export.int8 import Int8

Vector = npt.NDArray[np.floating[Any]]
_GATED = "gated "  # what a graph that a method's name does not tell of is kept under
ONNXRUNTIME = ">=1.19"  # the oldest that the tests run graphs with


def export_bundle(
    path: Path | str,
    source: Source,
    *,
    mode: Mode = "full",
    batch: int = 32,
    key: Ed25519PrivateKey | None = None,
    created: str | None = None,
    int8: Int8 | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> Bundle:
    """Export, check and write a bundle.

    Args:
        path: of the file.
        source: what it is of.
        mode: ``"full"``: a device trains all parameters and moves prototypes; ``"head"``: the head alone, on embeddings.
        batch: samples of a training step on the device; fewer are padded.
        key: to sign with.
        created: ISO 8601 in UTC; now without.
        int8: makes graphs of inference in int8, which are kept where they help; mode head alone.
        report: is told what is being done, in a line.

    Raises ``BundleError`` when a graph does not do what torch does, ``SettingsError`` for what makes no sense.
    """
    if batch < 1:
        raise SettingsError(f"batch is {batch}; it has to be at least 1")
    if int8 is not None and mode != "head":
        raise SettingsError("int8 goes with mode 'head': in mode 'full' training changes what was quantised")
    if source.model.takes_tokens:
        raise SettingsError(
            "samples are ids of tokens, and bundles are for measurements: such models are for simulations"
        )
    if source.method.answer not in BUNDLED:
        raise SettingsError(
            f"+{source.method.answer} is for simulations; a bundle answers by {' or '.join(BUNDLED)}"
        )
    if int8 is not None and source.method.answer != "trained":
        raise SettingsError(
            f"int8 is for bundles whose trained model answers, not for +{source.method.answer}"
        )
    if int8 is not None and source.task.kind != "classes":
        raise SettingsError(
            f"int8 is kept by its accuracy, and task {source.task.name!r} has none: leave --int8 away"
        )
    with collecting_rarely():
        graphs = export_graphs(source, mode, batch, report=lambda name: report(f"exporting {name}.onnx ..."))
    report("comparing every graph with torch ...")
    size = Vectors(source.model, source.method).whole.size
    vector = torch.from_numpy(np.array(source.start.theta[:size], np.float32))
    subject = Subject(
        model=source.model,
        method=source.method,
        optimizer=source.optimizer,
        vector=vector,
        input_shape=source.input_shape,
        classes=len(source.classes),
        mode=mode,
        batch=batch,
        task=source.task,
    )
    parity = check_parity(subject, graphs)
    facts: dict[str, Any] | None = None
    if int8 is not None:
        from fedali_server.export.int8 import describe

        report("quantising, and comparing with float ...")
        found = int8.quantise(source, graphs)
        report(describe(found.facts, found.kept))
        if found.kept:
            graphs |= found.graphs
            parity |= found.parity
            facts = found.facts
    return _write(path, source, mode, batch, graphs, parity, facts, key, created)


def export_graphs(
    source: Source,
    mode: Mode,
    batch: int,
    *,
    from_the_end: bool = False,
    report: Callable[[str], None] | None = None,
) -> dict[str, bytes]:
    """The graphs of a bundle by name, made or known; their parameters are inputs, so that ``source``'s own are not read.

    ``from_the_end``: for a second process that meets the first in the middle.
    """
    captures = _captures(source, mode, batch)
    if from_the_end:
        captures = dict(reversed(captures.items()))
    structure = structure_key(
        source.model, source.method, source.optimizer, source.input_shape, mode, batch, task=source.task
    )
    with located(source.model, source.input_shape):
        found = exported(captures, structure, report=report)
    return {name.removeprefix(_GATED): graph for name, graph in found.items()}


def _captures(source: Source, mode: Mode, batch: int) -> dict[str, Callable[[], Graph]]:
    model, shape = source.model, source.input_shape
    given: dict[str, Any] = {"input_shape": shape, "table": ONNX}
    step = capture_head_step if mode == "head" else capture_step
    found: dict[str, Callable[[], Graph]] = {
        "train": lambda: step(model, source.method, source.optimizer, batch=batch, task=source.task, **given),
        "infer": lambda: capture_predict(model, matcher="cosine", batch=None, **given),
    }
    gated = source.method.answer == "gate"
    if gated:
        del found["infer"]
        found[f"{_GATED}infer"] = lambda: capture_gated(
            model, matcher="cosine", batch=None, prototypes=PROTOTYPES, kind=source.task.kind, **given
        )
    if mode == "head" or gated:
        found["embed"] = lambda: capture_embed(model, matcher="cosine", batch=None, **given)
    if mode == "full" and model.alp_layers:
        found["adapt"] = lambda: capture_adapt(model, batch=batch, **given)
    if mode == "full" and begins(source.method):
        found["begin"] = lambda: capture_begin(model, source.method, table=ONNX)
    if mode == "full" and finishes(source.method):
        if Vectors(model, source.method).measured.size:
            found["measure"] = lambda: capture_measure(
                model, source.method, batch=batch, task=source.task, **given
            )
        found["finish"] = lambda: capture_finish(model, source.method, table=ONNX)
    return found


def _write(
    path: Path | str,
    source: Source,
    mode: Mode,
    batch: int,
    graphs: dict[str, bytes],
    parity: dict[str, Parity],
    int8: dict[str, Any] | None,
    key: Ed25519PrivateKey | None,
    created: str | None,
) -> Bundle:
    model, method = source.model, source.method
    vectors = Vectors(model, method)
    layouts = BundleLayouts(
        layout_of(model.facts, (*method.slots, *slots_of(method.answer))),
        model.prototype_layout,
        model.head_layout if mode == "head" else vectors.trained,
    )
    answer = slot_slice(vectors.whole, method.answer_slot)
    fields = {
        "name": source.name,
        "model": source.component,
        "method": Component(name_of(method), options_of(method)),
        "mode": mode,
        "batch": batch,
        "input_shape": source.input_shape,
        "classes": source.classes,
        "normalisation": source.normalisation,
        "layouts": layouts,
        "personal": stretches(personal_indices(method, layouts.parameters)),
        "optimizer": described(source.optimizer),
        "hyper": ALPNumbers(method.influence(source.round), source.decay),
        "keeps_local_prototypes": method.keeps_local_prototypes,
        "prototypes": method.prototypes,
        "answer": (answer.start, answer.stop),
        "phases": tuple(phase.epochs for phase in method.phases),
        "round": source.round,
        "opset": OPSET,
        "onnxruntime": ONNXRUNTIME,
        "parity": parity,
        "int8": int8,
        "data": source.data,
        "answers_by": method.answer,
        "task": source.bundled_task,
        "schedule": source.schedule,
        **({"created": created} if created else {}),
    }
    state = source.start.tensors()
    parts = {f"{name}.onnx": graph for name, graph in graphs.items()}
    return write_bundle(path, fields, {**parts, "state.safetensors": save(state)}, key)


def stretches(indices: Sequence[int] | npt.NDArray[np.int64]) -> tuple[tuple[int, int], ...]:
    """Sorted indices as stretches without a gap, each from its first to after its last.

    >>> stretches([2, 3, 4, 9])
    ((2, 5), (9, 10))
    """
    array = np.asarray(indices, np.int64)
    parts = np.split(array, np.flatnonzero(np.diff(array) > 1) + 1)
    return tuple((int(part[0]), int(part[-1]) + 1) for part in parts if part.size)
