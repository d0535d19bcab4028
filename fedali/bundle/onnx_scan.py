"""What an ONNX file holds, checked without a runtime: a plain graph of standard operations, or it is refused.

An ONNX file can name other files to read (external data), operations of other domains that a runtime may have been
given, functions, and graphs within graphs. None of that belongs in a bundle. Nor does a tensor whose shape does not
fit its bytes: everything a file allocates when it is loaded, it brings along.

What running a graph takes in time and memory cannot be told from here: that is what signatures are for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedali.bundle.protobuf_reader import Field, ProtobufError, Schema, parse
from fedali.errors import BundleError

NEWEST_IR = 10  # what onnxruntime 1.19 reads
OPSETS = range(17, 22)
_OPERATIONS = """
Abs Add And ArgMax ArgMin AveragePool Cast CastLike Ceil Clip Concat Constant ConstantOfShape Conv
ConvTranspose Cos CumSum DequantizeLinear Div Einsum Equal Erf Exp Expand Flatten Floor Gather
GatherElements GatherND Gemm GlobalAveragePool Greater GreaterOrEqual HardSigmoid Identity
InstanceNormalization LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax MatMul Max
MaxPool Mean Min Mod Mul Neg Not OneHot Or Pad Pow QuantizeLinear Range Reciprocal ReduceL2
ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize Round
ScatterElements ScatterND Shape Sigmoid Sign Sin Slice Softmax Softplus Split Sqrt Squeeze Sub Sum
Tanh Tile TopK Transpose Trilu Unsqueeze Where Xor
"""
OPERATIONS = frozenset(_OPERATIONS.split())
_SIZES = {1: 4, 2: 1, 3: 1, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8}  # bytes of an element by ONNX data type
_DTYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    11: "float64",
}
_MOST_NODES = 50_000
_MOST_DIMENSIONS = 8

_ENTRY = Schema("StringStringEntryProto", {1: Field("key", "text"), 2: Field("value", "text")})
_TENSOR = Schema(
    "TensorProto",
    {
        1: Field("dims", "int", True, _MOST_DIMENSIONS),
        2: Field("data_type", "int"),
        4: Field("float_data", "float", True),
        5: Field("int32_data", "int", True),
        7: Field("int64_data", "int", True),
        8: Field("name", "text"),
        9: Field("raw_data", "bytes"),
        10: Field("double_data", "double", True),
        13: Field("external_data", _ENTRY, True, 16),
        14: Field("data_location", "int"),
    },
    {3: "a tensor is stored in segments", 6: "a tensor holds strings"},
)
_ATTRIBUTE = Schema(
    "AttributeProto",
    {
        1: Field("name", "text"),
        2: Field("f", "float"),
        3: Field("i", "int"),
        4: Field("s", "bytes"),
        5: Field("t", _TENSOR),
        7: Field("floats", "float", True, 4096),
        8: Field("ints", "int", True, 4096),
        9: Field("strings", "bytes", True, 64),
        20: Field("type", "int"),
    },
    {
        6: "a node holds a graph of its own (control flow)",
        11: "a node holds graphs of its own (control flow)",
        21: "a node refers to a function's attribute",
        22: "a node holds a sparse tensor",
        23: "a node holds sparse tensors",
    },
)
_NODE = Schema(
    "NodeProto",
    {
        1: Field("input", "text", True, 4096),
        2: Field("output", "text", True, 64),
        3: Field("name", "text"),
        4: Field("op_type", "text"),
        5: Field("attribute", _ATTRIBUTE, True, 64),
        7: Field("domain", "text"),
    },
    {8: "a node calls an overload of a function"},
)
_DIMENSION = Schema("Dimension", {1: Field("dim_value", "int"), 2: Field("dim_param", "text")})
_SHAPE = Schema("TensorShapeProto", {1: Field("dim", _DIMENSION, True, _MOST_DIMENSIONS)})
_TENSOR_TYPE = Schema("TypeProto.Tensor", {1: Field("elem_type", "int"), 2: Field("shape", _SHAPE)})
_TYPE = Schema("TypeProto", {1: Field("tensor_type", _TENSOR_TYPE)})
_VALUE = Schema("ValueInfoProto", {1: Field("name", "text"), 2: Field("type", _TYPE)})
_GRAPH = Schema(
    "GraphProto",
    {
        1: Field("node", _NODE, True, _MOST_NODES),
        2: Field("name", "text"),
        5: Field("initializer", _TENSOR, True, _MOST_NODES),
        11: Field("input", _VALUE, True, 64),
        12: Field("output", _VALUE, True, 64),
    },
    {15: "the graph has sparse initializers"},
)
_OPSET = Schema("OperatorSetIdProto", {1: Field("domain", "text"), 2: Field("version", "int")})
_MODEL = Schema(
    "ModelProto",
    {
        1: Field("ir_version", "int"),
        2: Field("producer_name", "text"),
        3: Field("producer_version", "text"),
        7: Field("graph", _GRAPH),
        8: Field("opset_import", _OPSET, True, 16),
    },
    {
        14: "it has metadata, which can hold settings for a runtime",
        20: "it has training information",
        25: "it defines functions",
    },
)


@dataclass(frozen=True)
class Value:
    """An input or output: its dtype (a numpy name) and shape; None is a dimension that each run chooses."""

    dtype: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class Scan:
    """What a graph takes and gives, by name and in order, and how large it is."""

    inputs: dict[str, Value]
    outputs: dict[str, Value]
    opset: int
    nodes: int
    constants: int
    """Bytes of all constants."""


def scan(data: bytes | memoryview, name: str = "the graph") -> Scan:
    """Check one ONNX model.

    Args:
        data: the file.
        name: what messages call it.

    Raises ``BundleError`` for anything but a plain graph of standard operations.
    """
    try:
        model = parse(memoryview(data), _MODEL)
        return _model(model)
    except ProtobufError as error:
        raise BundleError(f"{name} is refused: {error}") from None


def _model(model: Mapping[str, Any]) -> Scan:
    ir = model.get("ir_version", 0)
    if not 3 <= ir <= NEWEST_IR:
        raise ProtobufError(f"its IR version is {ir}; 3 to {NEWEST_IR} are known")
    if "graph" not in model:
        raise ProtobufError("it has no graph")
    opset = 0
    for imported in model["opset_import"]:
        _standard(imported.get("domain", ""), "it imports operations")
        if opset:
            raise ProtobufError("it imports the standard operations twice")
        opset = imported.get("version", 0)
    if opset not in OPSETS:
        raise ProtobufError(f"its operator set is {opset}; {OPSETS[0]} to {OPSETS[-1]} are known")
    graph = model["graph"]
    constants = sum(_tensor(tensor) for tensor in graph["initializer"])
    for node in graph["node"]:
        constants += _node(node)
    inputs, outputs = _named(graph["input"], "inputs"), _named(graph["output"], "outputs")
    shadowed = set(inputs) & {tensor.get("name", "") for tensor in graph["initializer"]}
    if shadowed:
        raise ProtobufError(f"its input {min(shadowed)!r} has a value already")
    return Scan(inputs, outputs, opset, len(graph["node"]), constants)


def _standard(domain: str, what: str) -> None:
    if domain not in ("", "ai.onnx"):
        raise ProtobufError(f"{what} of the domain {domain!r}, where only ONNX's own are allowed")


def _node(node: Mapping[str, Any]) -> int:
    operation = node.get("op_type", "")
    _standard(node.get("domain", ""), f"it uses the operation {operation!r}")
    if operation not in OPERATIONS:
        raise ProtobufError(f"it uses the operation {operation!r}, which no bundle needs")
    return sum(_tensor(attribute["t"]) for attribute in node["attribute"] if "t" in attribute)


def _tensor(tensor: Mapping[str, Any]) -> int:
    """Bytes of a constant whose shape, type and data fit each other."""
    name = tensor.get("name", "")
    if tensor.get("data_location", 0) or tensor["external_data"]:
        raise ProtobufError(f"its constant {name!r} lies in another file (external data)")
    kind = tensor.get("data_type", 0)
    if kind not in _SIZES:
        raise ProtobufError(f"its constant {name!r} is of type {kind}, which no bundle needs")
    if any(size < 0 for size in tensor["dims"]):
        raise ProtobufError(f"its constant {name!r} has the shape {tensor['dims']}")
    count: int = math.prod(tensor["dims"])
    typed: Sequence[Sequence[Any]] = [
        tensor[key] for key in ("float_data", "int32_data", "int64_data", "double_data") if tensor[key]
    ]
    if "raw_data" in tensor:
        fits = len(tensor["raw_data"]) == count * _SIZES[kind] and not typed
    else:
        fits = sum(map(len, typed)) == count and len(typed) <= 1
    if not fits:
        raise ProtobufError(f"its constant {name!r} of shape {tensor['dims']} does not fit its data")
    return count * _SIZES[kind]


def _named(values: Sequence[Mapping[str, Any]], what: str) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for value in values:
        name, kind = value.get("name", ""), value.get("type", {}).get("tensor_type")
        if not name or name in found:
            raise ProtobufError(f"its {what} have no names of their own")
        dtype = _DTYPES.get(kind.get("elem_type", 0))
        if dtype is None or "shape" not in kind:
            raise ProtobufError(f"{name!r} of its {what} has no known type and shape")
        dims = [d.get("dim_value") if "dim_param" not in d else None for d in kind["shape"]["dim"]]
        if any(size is not None and size < 0 for size in dims):
            raise ProtobufError(f"{name!r} of its {what} has the shape {dims}")
        found[name] = Value(dtype, tuple(dims))
    return found
