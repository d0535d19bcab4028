"""A captured graph as one plain ONNX graph: standard operations alone, for any runtime, without torch.

Capture with ``fedali.capture.decompositions_onnx.ONNX``: other operations of a backward pass have no counterpart in ONNX.

The graph declares every input of ``Graph.inputs``, also those it does not read: a runner feeds the same names
whatever the model, the optimizer and the method. Inputs of length 0 (prototypes of a model that has none, a moment
that the optimizer does not use) are fed as they are; 0-d inputs are 0-d. An output may be an input unchanged; one
that has the name of an input, as all of the state have, is called ``new_<name>``. Whoever binds buffers binds one as
input or as output of a step, never as both.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fedali.capture.graph import Graph
from fedali.errors import MissingExtraError

if TYPE_CHECKING:
    import onnx_ir

OPSET = 18  # the oldest that torch writes; onnxruntime 1.19 reads up to 21
_FOLDED = 1024  # constants up to this size are computed when the graph is made


def output_names(graph: Graph) -> tuple[str, ...]:
    """The outputs' names in ONNX, where no two values share one: ``new_theta`` becomes the next step's ``theta``."""
    return tuple(f"new_{name}" if name in graph.inputs else name for name in graph.outputs)


def export_graph(graph: Graph) -> bytes:
    """The ONNX model of a captured graph, in one piece: from ``graph.inputs`` to ``output_names(graph)``.

    Raises ``MissingExtraError`` without the packages of the extra ``export``.
    """
    try:
        import onnx_ir  # noqa: F401
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtraError((error.name or "onnx").partition(".")[0], "export") from error
    from fedali.capture.onnx_translate import translate

    with _quiet():
        return finish(translate(graph, OPSET), graph)


def finish(model: onnx_ir.Model, graph: Graph) -> bytes:
    """A translated graph without what nobody reads, as bytes that depend on the graph alone.

    Torch's own optimizer would take numbers near 0 and 1 for 0 and 1: Adam would lose its epsilon.
    """
    import onnx_ir

    model = _clean(model)
    _rename(model.graph, graph.inputs, output_names(graph))
    written = onnx_ir.to_proto(model)
    del written.graph.value_info[:]
    for value in (*written.graph.input, *written.graph.output):
        del value.metadata_props[:]
    found: bytes = written.SerializeToString(deterministic=True)
    return found


def _clean(model: onnx_ir.Model) -> onnx_ir.Model:
    """What ``onnxscript.optimizer.optimize`` does, without its rewrite rules: they are what compares with a tolerance."""
    import onnx_ir
    from onnx_ir.passes import common
    from onnxscript.optimizer import fold_constants

    model = common.InlinePass()(model).model
    for _ in range(2):
        fold_constants(model, input_size_limit=_FOLDED, output_size_limit=_FOLDED)
        common.RemoveUnusedNodesPass()(model)
    _drop_transposes_of_nothing(model.graph)
    passes = onnx_ir.passes.Sequential(
        common.RemoveUnusedOpsetsPass(),
        common.IdentityEliminationPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
        common.RemoveUnusedNodesPass(),
        common.OutputFixPass(),
        common.ClearMetadataAndDocStringPass(),
    )
    return passes(model).model


def _drop_transposes_of_nothing(graph: onnx_ir.Graph) -> None:
    """Remove transposes that leave every axis in its place: onnxruntime 1.19 takes one before a ``Gemm`` for a real one."""
    from onnx_ir import convenience

    for node in list(graph):
        if node.op_type != "Transpose" or node.outputs[0] in graph.outputs:
            continue
        order, source = node.attributes.get("perm"), node.inputs[0]
        if order is None or source is None:
            continue
        if list(order.as_ints()) == list(range(len(order.as_ints()))):
            convenience.replace_all_uses_with(node.outputs[0], source)
            graph.remove(node, safe=True)


def _rename(graph: onnx_ir.Graph, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Short names inside; unique ones for nodes, which fusions of onnxruntime 1.19 insist on."""
    for i, constant in enumerate(list(graph.initializers.values())):
        constant.name = f"c{i}"
    values = 0
    for i, node in enumerate(graph):
        node.name = f"n{i}"
        for value in node.outputs:
            value.name = f"v{values}"
            values += 1
    # An input that is an output too was renamed on the way.
    for name, outer in zip((*inputs, *outputs), (*graph.inputs, *graph.outputs), strict=True):
        outer.name = name


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on packages that are not installed and on its own calls."""
    logs = [logging.getLogger(name) for name in ("torch.onnx", "onnx_ir", "onnxscript")]
    levels = [log.level for log in logs]
    try:
        for log in logs:
            log.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)
