"""A captured graph translated to ONNX by torch's exporter, without tracing it again.

``torch.onnx.export`` traces a module, then decomposes what it found into what ONNX has, which traces it once more, and
builds its tables of operations at every call. A ``Graph`` is traced and decomposed already: translating it alone gives the same
bytes in a fifth of the time. What is private to torch that this needs is in this file; torch is pinned, and a test compares
with ``torch.onnx.export``.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.export.exported_program import ModuleCallEntry, ModuleCallSignature
from torch.export.graph_signature import (
    ExportGraphSignature,
    InputKind,
    InputSpec,
    OutputKind,
    OutputSpec,
    TensorArgument,
)
from torch.utils import _pytree as pytree

from fedali.capture.graph import Graph
from fedali.capture.unknown import UnknownOperationError

if TYPE_CHECKING:
    import onnx_ir

_DEEP = 4  # what an operation is decomposed into may have to be decomposed itself
_BATCH = "batch"  # the name of the axis that is left open


def translate(graph: Graph, opset: int) -> onnx_ir.Model:
    """The graph in ONNX operations, one for one; inputs and outputs in order, under any names."""
    from torch.onnx._internal.exporter import _core, _fx_passes

    registry, decompositions = _tables(opset)
    program = graph.program if graph.program is not None else _as_program(graph)
    for _ in range(_DEEP):  # of a kind that the capture's own table does not know
        targets = {node.target for node in program.graph.nodes if node.op == "call_function"}
        lacking = {operation: decompositions[operation] for operation in targets & decompositions.keys()}
        if not lacking:
            break
        program = program.run_decompositions(lacking)
    _fx_passes.remove_assertion_nodes(program.graph_module)
    targets = {node.target for node in program.graph.nodes if node.op == "call_function"}
    unknown = {
        str(target)
        for target in targets
        if isinstance(target, torch._ops.OpOverload) and not registry.is_registered(target)
    }
    if unknown:
        raise UnknownOperationError(unknown)
    _fx_passes.insert_type_promotion_nodes(program.graph_module)
    model: onnx_ir.Model = _core._exported_program_to_onnx_program(program, registry=registry).model
    if graph.open_batch:
        _name_axis(model)
    return model


@cache
def _tables(opset: int) -> tuple[Any, Mapping[Any, Any]]:
    """What ONNX has, and how torch decomposes what it has not."""
    from torch.onnx._internal.exporter import _decomp, _registration

    registry = _registration.ONNXRegistry().from_torchlib(opset_version=opset)
    known = set(_decomp.get_onnx_implemented_overloads(registry))
    return registry, _decomp.create_onnx_friendly_decomposition_table(known)


def _name_axis(model: onnx_ir.Model) -> None:
    import onnx_ir

    for value in (*model.graph.inputs, *model.graph.outputs):
        if value.shape is not None:
            sizes = [size if isinstance(size, int) else onnx_ir.SymbolicDim(_BATCH) for size in value.shape]
            value.shape = onnx_ir.Shape(sizes)


def _as_program(graph: Graph) -> ExportedProgram:
    """The captured module as torch's exporter has it: constants are inputs there, and values are known by their shapes."""
    mode = torch._subclasses.FakeTensorMode()
    new, found = fx.Graph(), dict[fx.Node, fx.Node]()
    inputs: list[InputSpec] = []
    outputs: list[OutputSpec] = []
    constants: dict[str, Tensor] = {}
    places: dict[str, fx.Node] = {}
    for node in graph.module.graph.nodes:
        if node.op == "get_attr" and str(node.target) not in constants:
            name = str(node.target)
            constants[name] = getattr(graph.module, name)
            places[name] = new.placeholder(f"c_{name.strip('_')}")
            places[name].meta["val"] = _shape_of(constants[name], mode)
            argument = TensorArgument(places[name].name)
            inputs.append(InputSpec(InputKind.CONSTANT_TENSOR, argument, name, persistent=False))
    for node in graph.module.graph.nodes:
        if node.op == "get_attr":
            found[node] = places[str(node.target)]
            continue
        if node.op == "output":
            results = [found[result] for result in node.args[0]]
            new.output(tuple(results))
            outputs = [OutputSpec(OutputKind.USER_OUTPUT, TensorArgument(r.name), None) for r in results]
            continue
        copied = new.node_copy(node, found.__getitem__)
        copied.target = _IN_PLACE.get(copied.target, node.target)
        copied.meta["val"] = _shape_of(node.meta["val"], mode)
        found[node] = copied
        if node.op == "placeholder":
            inputs.append(InputSpec(InputKind.USER_INPUT, TensorArgument(copied.name), None))
    takes = pytree.tree_structure((graph.example, {}))
    gives = pytree.tree_structure(tuple(range(len(outputs))))
    signature = ModuleCallSignature(inputs=[], outputs=[], in_spec=takes, out_spec=gives)
    return ExportedProgram(
        root=torch.nn.Module(),
        graph=new,
        graph_signature=ExportGraphSignature(inputs, outputs),
        state_dict={},
        range_constraints={},
        module_call_graph=[ModuleCallEntry("", signature)],
        example_inputs=(graph.example, {}),
        constants=constants,  # type: ignore[arg-type]
    )


# A view of a value that nothing else sees, made where it lies: torch's product of a vector and a matrix makes one.
_IN_PLACE: dict[Any, Any] = {torch.ops.aten.squeeze_.dim: torch.ops.aten.squeeze.dim}


def _shape_of(value: Any, mode: Any) -> Any:
    """A value without its numbers."""
    if isinstance(value, Tensor):
        with mode:
            return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype)
    if isinstance(value, tuple | list):
        return type(value)(_shape_of(part, mode) for part in value)
    return value
