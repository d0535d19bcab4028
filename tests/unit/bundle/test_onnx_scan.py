"""What is refused in an ONNX file, each thing really built; and agreement with the onnx package on what is accepted."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from fedali.bundle.onnx_scan import OPERATIONS, Value, scan
from fedali.errors import BundleError
from tests.small_bundles import changed, value


def _good():
    weight = numpy_helper.from_array(np.arange(6, dtype=np.float32).reshape(2, 3), "w")
    typed = helper.make_tensor("t", TensorProto.INT64, [2], [1, 3])
    shape = helper.make_node(
        "Constant", [], ["s"], value=helper.make_tensor("s", TensorProto.INT64, [1], [-1])
    )
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"], "first"),
        shape,
        helper.make_node("Reshape", ["y", "s"], ["z"], allowzero=0),
        helper.make_node("LeakyRelu", ["z"], ["out"], alpha=0.1),
    ]
    inputs = [value("x", ("batch", 2)), value("number", ()), value("which", (3,), TensorProto.INT64)]
    graph = helper.make_graph(nodes, "main", inputs, [value("out", ("n",))], [weight, typed])
    opsets = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


GOOD = _good()


def refused(data, words):
    with pytest.raises(BundleError, match=words) as caught:
        scan(data, "train.onnx")
    assert str(caught.value).startswith("train.onnx is refused: ")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_plain_graph_is_described():
    found = scan(GOOD)
    assert found.inputs == {
        "x": Value("float32", (None, 2)),
        "number": Value("float32", ()),
        "which": Value("int64", (3,)),
    }
    assert found.outputs == {"out": Value("float32", (None,))}
    assert (found.opset, found.nodes, found.constants) == (18, 4, 6 * 4 + 2 * 8 + 8)
    onnx.checker.check_model(onnx.load_from_string(GOOD))


def _external(model):
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    tensor.ClearField("raw_data")


def _external_in_a_node(model):
    tensor = model.graph.node[1].attribute[0].t
    tensor.external_data.add(key="location", value="/etc/passwd")


def _location_alone(model):
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL


def _domain(model):
    model.graph.node[0].domain = "com.microsoft"


def _hidden_domain(model):
    model.opset_import.add(domain="evil", version=1)


def _function(model):
    graph = model.graph
    model.functions.append(
        helper.make_function(
            "evil", "MatMul", ["a", "b"], ["c"], list(graph.node[:1]), list(model.opset_import)
        )
    )


def _control_flow(model):
    body = helper.make_graph([], "body", [], [])
    model.graph.node.append(helper.make_node("If", ["number"], [], then_branch=body, else_branch=body))


def _a_graph_in_a_plain_node(model):
    model.graph.node[0].attribute.append(helper.make_attribute("body", helper.make_graph([], "body", [], [])))


def _many_graphs(model):
    model.graph.node[0].attribute.append(helper.make_attribute("b", [helper.make_graph([], "body", [], [])]))


def _sparse(model):
    values = helper.make_tensor("v", 1, [1], [1.0])
    indices = helper.make_tensor("i", TensorProto.INT64, [1], [0])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [1 << 40]))


def _strings(model):
    model.graph.initializer.append(helper.make_tensor("text", TensorProto.STRING, [1], [b"text"]))


def _huge(model):
    del model.graph.initializer[0].dims[:]
    model.graph.initializer[0].dims.extend([1 << 30, 1 << 30])


def _negative(model):
    model.graph.initializer[0].dims[0] = -2


def _two_kinds_of_data(model):
    model.graph.initializer[0].float_data.append(1.0)


def _segment(model):
    model.graph.initializer[0].segment.begin = 0


def _complex(model):
    model.graph.initializer[0].data_type = TensorProto.COMPLEX64


def _ranks(model):
    model.graph.initializer[0].dims.extend([1] * 9)


def _metadata(model):
    model.metadata_props.add(key="ort_config", value="{}")


def _training(model):
    model.training_info.add()


def _reference(model):
    model.graph.node[2].attribute[0].ref_attr_name = "outer"


def _overload(model):
    model.graph.node[0].overload = "evil"


def _ir(model):
    model.ir_version = 99


def _no_opset(model):
    del model.opset_import[:]


def _two_opsets(model):
    model.opset_import.add(domain="ai.onnx", version=18)


def _opset(model):
    model.opset_import[0].version = 26


def _unknown(model):
    model.graph.node[0].op_type = "StringNormalizer"


def _twice(model):
    model.graph.input[1].name = "x"


def _shadowed(model):
    model.graph.input[1].name = "w"


def _no_shape(model):
    model.graph.input[0].type.tensor_type.ClearField("shape")


def _sequence(model):
    model.graph.input[0].type.sequence_type.elem_type.tensor_type.elem_type = 1


def _text_input(model):
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.STRING


def _no_graph(model):
    model.ClearField("graph")


def _documented(model):
    model.graph.doc_string = "anything"


def _many_attributes(model):
    for _ in range(65):
        model.graph.node[0].attribute.add()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_external, r"'w' lies in another file"),
        (_external_in_a_node, r"'s' lies in another file"),
        (_location_alone, r"'w' lies in another file"),
        (_domain, r"'MatMul' of the domain 'com\.microsoft'"),
        (_hidden_domain, "imports operations of the domain 'evil'"),
        (_function, "it defines functions"),
        (_control_flow, "a graph of its own"),
        (_a_graph_in_a_plain_node, "a graph of its own"),
        (_many_graphs, "graphs of its own"),
        (_sparse, "sparse initializers"),
        (_strings, "holds strings|is of type 8"),
        (_huge, "does not fit its data"),
        (_negative, r"has the shape \[-2, 3\]"),
        (_two_kinds_of_data, "does not fit its data"),
        (_segment, "stored in segments"),
        (_complex, "of type 14"),
        (_ranks, "dims has more than 8 values"),
        (_metadata, "it has metadata"),
        (_training, "training information"),
        (_reference, "a function's attribute"),
        (_overload, "an overload"),
        (_ir, "its IR version is 99"),
        (_no_opset, "its operator set is 0"),
        (_two_opsets, "standard operations twice"),
        (_opset, "its operator set is 26"),
        (_unknown, "'StringNormalizer', which no bundle needs"),
        (_twice, "no names of their own"),
        (_shadowed, "input 'w' has a value already"),
        (_no_shape, "'x' of its inputs has no known type and shape"),
        (_sequence, "field 4 of TypeProto is unknown"),
        (_text_input, "'x' of its inputs has no known type and shape"),
        (_no_graph, "it has no graph"),
        (_documented, "field 10 of GraphProto is unknown"),
        (_many_attributes, "attribute has more than 64 values"),
    ],
)  # fmt: skip
def test_what_is_refused(change, words):
    refused(changed(GOOD, change), words)


def test_a_second_graph_is_not_merged_into_the_first():
    """Protobuf merges a repeated message: a check of one of the two graphs would miss what a runtime sees."""
    second = onnx.ModelProto(
        graph=helper.make_graph([helper.make_node("Evil", [], [], domain="evil")], "", [], [])
    )
    whole = GOOD + second.SerializeToString()
    assert any(node.domain == "evil" for node in onnx.load_from_string(whole).graph.node)
    refused(whole, r"ModelProto\.graph occurs twice")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x08", "cut short"),
        (b"\x08" + b"\xff" * 9 + b"\x7f", "more than 64 bits"),
        (b"\x08" + b"\xff" * 11, "more than 64 bits"),
        (b"\x0b\x0c", "wire type 3"),
        (b"\x3a\x05ab", "graph is cut short"),
        (b"\x3d\x00\x00\x00\x00", "graph has wire type 5"),
        (b"\x12\x01\xff", "producer_name is not UTF-8"),
        (b"\xa2\x06\x00", "field 100 of ModelProto is unknown"),
        (b"\x00", "field 0 of ModelProto is unknown"),
    ],
)
def test_bytes_that_are_no_model(data, words):
    refused(data, words)


def test_a_small_file_does_not_become_a_large_one_in_memory():
    empty = onnx.ModelProto(ir_version=8, opset_import=[helper.make_opsetid("", 18)])
    for field, count in (("node", 60_000), ("initializer", 60_000), ("input", 100)):
        model = onnx.ModelProto()
        model.CopyFrom(empty)
        for _ in range(count):
            getattr(model.graph, field).add()
        refused(model.SerializeToString(), "has more than")
    model = onnx.ModelProto()
    model.CopyFrom(empty)
    for _ in range(5000):
        model.graph.node.add().input.extend([""] * 50)
    refused(model.SerializeToString(), "more values than any graph needs")
    tensor = helper.make_tensor("many", TensorProto.INT64, [300_000], [0] * 300_000)
    refused(changed(GOOD, lambda m: m.graph.initializer.append(tensor)), "more values than any graph needs")
    floats = helper.make_tensor("many", TensorProto.FLOAT, [300_000], [0.0] * 300_000)
    refused(changed(GOOD, lambda m: m.graph.initializer.append(floats)), "more values than any graph needs")


@given(st.binary(max_size=200))
def test_noise_is_refused_in_one_line(data):
    refused(data, ".")


@given(position=st.integers(0, len(GOOD) - 1), change=st.integers(1, 255))
@example(position=0, change=1)
def test_what_is_accepted_is_what_onnx_reads(position, change):
    """Any byte changed: refused, or the onnx package sees a plain graph in it too."""
    data = bytearray(GOOD)
    data[position] ^= change
    try:
        found = scan(bytes(data))
    except BundleError:
        return
    try:
        model = onnx.load_from_string(bytes(data))
    except DecodeError:  # stricter than the scan: a runtime refuses it as well
        return
    assert [v.name for v in model.graph.input] == list(found.inputs)
    assert [v.name for v in model.graph.output] == list(found.outputs)
    assert {v.domain for v in model.opset_import} <= {"", "ai.onnx"}
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
    assert {node.op_type for node in model.graph.node} <= OPERATIONS
    assert not model.functions
    assert not model.metadata_props
    assert not any(a.HasField("g") or a.graphs for node in model.graph.node for a in node.attribute)
    assert not any(t.external_data or t.data_location for t in model.graph.initializer)


def test_operations_are_those_of_onnx():
    known = {schema.name for schema in onnx.defs.get_all_schemas() if not schema.domain}
    assert known >= OPERATIONS
    assert not OPERATIONS & {"If", "Loop", "Scan", "SequenceMap", "RandomNormal", "Optional"}
