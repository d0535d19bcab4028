"""The exported step, run by onnxruntime, against the step itself; and the rewrites it is exported with."""

from __future__ import annotations

import sys
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.fx.experimental.proxy_tensor import make_fx

from fedali.capture.captures import STEP_INPUTS, Graph, capture_adapt, capture_predict, capture_step
from fedali.capture.decompositions_onnx import ONNX
from fedali.capture.graph import open_batch
from fedali.capture.onnx_export import OPSET, export_graph, finish, output_names
from fedali.errors import MissingExtraError
from fedali.methods import build_method
from fedali.models import ALPSettings, Model, build_model
from fedali.optimizers.rules import SGD, Adam
from fedali.step import Batch, Hyper, Shared, State, make_step
from tests.marks import slow

aten = torch.ops.aten
BATCH, CLASSES = 8, 3


def _alp(**options):
    return ALPSettings(num_prototypes=(4,), decay=0.7, **options)


SMALL = {
    "mlp": ((12,), {"hidden": (8, 6)}),
    "cnn1d": ((33, 6), {"channels": (8, 16), "hidden": 5}),
    "cnn2d": ((2, 9, 8), {"kernel": 3, "channels": (4, 8), "embedding": 6}),
    "hart": ((32, 6), {"dim": 32, "kernels": (3,), "hidden": 16}),
}
CASES = {  # every model without ALP layers and with them, and every setting of those
    "mlp-plain-sgd": ("mlp", None, SGD(0.05, 0.0)),
    "mlp-euclidean-single-last": (
        "mlp",
        _alp(matcher="euclidean", update="single", duplicates="last"),
        Adam(),
    ),
    "cnn1d-plain": ("cnn1d", None, Adam()),
    "cnn1d-cosine-single": ("cnn1d", _alp(matcher="cosine", update="single", gated=False), SGD(0.05)),
    "cnn2d-plain": ("cnn2d", None, Adam()),
    "cnn2d-euclidean-bulk": ("cnn2d", _alp(matcher="euclidean"), Adam()),
    "hart-plain": ("hart", None, Adam()),
    "hart-ot-bulk": ("hart", ALPSettings(num_prototypes=(2,), decay=0.7, scale=3.0), Adam()),
}


class Exported(NamedTuple):
    """A case with its graph, its ONNX model and a session for it."""

    model: Model
    optimizer: Adam | SGD
    graph: Graph
    bytes: bytes
    session: onnxruntime.InferenceSession

    def step(self, *inputs):
        state, metrics = make_step(self.model, build_method("fedali-paper"), self.optimizer)(
            State(*inputs[:4]), Batch(*inputs[4:7]), Shared(*inputs[7:9]), Hyper(*inputs[9:])
        )
        return (*state, *metrics)

    def run(self, *inputs):
        feed = {name: tensor.numpy() for name, tensor in zip(self.graph.inputs, inputs, strict=True)}
        return tuple(map(torch.from_numpy, map(np.asarray, self.session.run(None, feed))))

    def inputs(self, seed=0):
        """A training that is under way, at a batch whose last two samples are padding."""
        random = torch.Generator().manual_seed(seed)
        found = {}
        for name, example in zip(self.graph.inputs, self.graph.example, strict=True):
            found[name] = torch.randn(example.shape, generator=random) if example.dim() else example
        found["theta"] = self.model.theta()
        found["first_moment"] *= 1e-2
        found["second_moment"] = 1e-4 * (0.5 + found["second_moment"].abs())
        found["y"] = torch.randint(0, CLASSES, (BATCH,), generator=random)
        found["weights"] = torch.tensor([1.0] * (BATCH - 2) + [0.0] * 2)
        found["step_size"], found["correction"] = map(torch.tensor, self.optimizer.schedule(5))
        return list(found.values())


def _export(case):
    name, alp, optimizer = CASES[case]
    shape, options = SMALL[name]
    model = build_model(name, shape, CLASSES, alp=alp, seed=0, **options)
    graph = capture_step(
        model, build_method("fedali-paper"), optimizer, input_shape=shape, batch=BATCH, table=ONNX
    )
    made = export_graph(graph)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(made, options, providers=["CPUExecutionProvider"])
    return Exported(model, optimizer, graph, made, session)


def _relative(found, expected, start):
    return ((found - expected).norm() / (expected - start).norm()).item()


def _one_step_is_the_eager_step(exported):
    inputs = exported.inputs()
    expected, found = exported.step(*inputs), exported.run(*inputs)
    assert _relative(found[0], expected[0], inputs[0]) <= 1e-5
    decayed = getattr(exported.optimizer, "beta1", None) or exported.optimizer.momentum
    assert _relative(found[1], expected[1], decayed * inputs[1]) <= 1e-5  # that is, the gradient
    torch.testing.assert_close(found[2], expected[2])
    if inputs[3].numel():
        assert _relative(found[3], expected[3], inputs[3]) <= 1e-5
    torch.testing.assert_close(found[4:], expected[4:])


def _ten_steps_stay_close(exported):
    ours = theirs = start = exported.inputs()[:4]
    for t in range(1, 11):
        rest = exported.inputs(t)[4:]
        rest[5:7] = map(torch.tensor, exported.optimizer.schedule(t))
        ours, theirs = exported.run(*ours, *rest)[:4], exported.step(*theirs, *rest)[:4]
    assert torch.isfinite(torch.cat(ours)).all()
    assert (
        _relative(ours[0], theirs[0], start[0]) < 0.02
    )  # a token between two prototypes may choose the other
    torch.testing.assert_close(ours[3], theirs[3], atol=0.02, rtol=0)


def _no_gradient_moves_nothing(exported):
    """What Adam's epsilon is for; optimizers of graphs have been seen to delete it."""
    inputs = exported.inputs()
    inputs[1:3] = map(torch.zeros_like, inputs[1:3])
    inputs[6] = torch.zeros(BATCH)
    found = exported.run(*inputs)
    for i in range(4):
        torch.testing.assert_close(found[i], inputs[i], atol=0, rtol=0)
    assert found[4:] == (0, 0, 0)


def _epsilon_is_a_number_of_the_graph(exported):
    if isinstance(exported.optimizer, Adam):
        inputs = exported.inputs()
        inputs[1:3] = [torch.full_like(inputs[1], 1e-8), torch.zeros_like(inputs[2])]
        inputs[6] = torch.zeros(BATCH)
        expected, found = exported.step(*inputs), exported.run(*inputs)
        assert _relative(found[0], expected[0], inputs[0]) < 1e-4  # 0.9 of a step; without it, infinite


def _padding_changes_nothing(exported):
    inputs = exported.inputs()
    known = exported.run(*inputs)
    inputs[4][-2:] = 100 * torch.randn(inputs[4][-2:].shape)
    inputs[5][-2:] = CLASSES - 1
    for a, b in zip(known, exported.run(*inputs), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def _the_model_is_one_plain_graph_with_all_inputs(exported):
    model = onnx.load_from_string(exported.bytes)
    onnx.checker.check_model(model, full_check=True)
    assert tuple(value.name for value in model.graph.input) == STEP_INPUTS
    assert tuple(value.name for value in model.graph.output) == output_names(exported.graph)
    assert output_names(exported.graph)[0] == "new_theta"
    for value, example in zip(model.graph.input, exported.graph.example, strict=True):
        assert [d.dim_value for d in value.type.tensor_type.shape.dim] == list(example.shape)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 18)]
    assert model.ir_version <= 10  # the newest that onnxruntime 1.19 reads
    assert not model.functions
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    assert len(exported.bytes) < 150_000


@pytest.mark.parametrize("case", slow(CASES, lambda case: case.startswith("hart") or case == "cnn2d-plain"))
def test_the_exported_step(case):
    """All at once: an export takes seconds."""
    exported = _export(case)
    _the_model_is_one_plain_graph_with_all_inputs(exported)
    _one_step_is_the_eager_step(exported)
    _ten_steps_stay_close(exported)
    _no_gradient_moves_nothing(exported)
    _epsilon_is_a_number_of_the_graph(exported)
    _padding_changes_nothing(exported)


@pytest.mark.filterwarnings("ignore")  # torch's own
@pytest.mark.slow
@pytest.mark.parametrize("case", ["mlp-euclidean-single-last", "cnn2d-ot"])
def test_a_translated_graph_is_the_bytes_of_torchs_exporter(case):
    """Which traces it again, and would find what a translation of one for one has missed."""
    name, alp, optimizer = CASES.get(case, ("cnn2d", _alp(), Adam()))
    shape, options = SMALL[name]
    model = build_model(name, shape, CLASSES, alp=alp, seed=0, **options)
    given = {"input_shape": shape, "table": ONNX}
    graphs = [
        capture_step(model, build_method("fedali-paper"), optimizer, batch=BATCH, **given),
        capture_adapt(model, batch=BATCH, **given),
        capture_predict(model, matcher="cosine", batch=None, **given),
    ]
    for graph in graphs:
        program = torch.onnx.export(
            graph.module,
            graph.example,
            input_names=graph.inputs,
            output_names=output_names(graph),
            dynamic_shapes=open_batch(graph.inputs) if graph.open_batch else None,
            opset_version=OPSET,
            dynamo=True,
            optimize=False,
            verbose=False,
        )
        assert finish(program.model, graph) == export_graph(graph)


def test_a_missing_package_is_named(monkeypatch):
    model = build_model("mlp", (4,), 2, hidden=(3,))
    graph = capture_step(model, build_method("fedavg"), SGD(), input_shape=(4,), batch=2)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingExtraError, match=r"onnxscript is not installed.*fedali\[export\]"):
        export_graph(graph)


def _rewritten(function, *tensors):
    module = make_fx(function, decomposition_table=ONNX)(*tensors)
    return module, module(*tensors)


@settings(max_examples=15)
@given(
    dimensions=st.integers(1, 2),
    channels=st.tuples(st.integers(1, 3), st.integers(1, 4)),
    size=st.integers(3, 9),
    kernel=st.integers(1, 4),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
)
def test_gradients_of_convolutions(dimensions, channels, size, kernel, stride, padding, dilation):
    assume(size + 2 * padding >= dilation * (kernel - 1) + 1)
    random = torch.Generator().manual_seed(0)
    (inputs, outputs), shape = channels, (size, size + 1)[:dimensions]
    x = torch.randn(2, inputs, *shape, generator=random, dtype=torch.float64)
    weight = torch.randn(outputs, inputs, *(kernel,) * dimensions, generator=random, dtype=torch.float64)
    many = ([stride] * dimensions, [padding] * dimensions, [dilation] * dimensions)
    nothing = [0] * dimensions
    y = aten.convolution.default(x, weight, None, *many, False, nothing, 1)
    gradient = torch.randn(y.shape, generator=random, dtype=torch.float64)

    def backward(gradient, x, weight):
        return aten.convolution_backward.default(
            gradient, x, weight, [outputs], *many, False, nothing, 1, [True, True, True]
        )

    module, found = _rewritten(backward, gradient, x, weight)
    assert "convolution_backward" not in module.code
    for a, b in zip(found, backward(gradient, x, weight), strict=True):
        torch.testing.assert_close(a, b)


@given(
    size=st.integers(1, 9),
    start=st.integers(-9, 9),
    length=st.integers(0, 9),
    step=st.integers(1, 4),
    axis=st.sampled_from([0, 1, 2, -1]),
)
def test_gradients_of_slices(size, start, length, step, axis):
    shape = [2, 3, 4]
    shape[axis] = size
    end = max(start, 0) + length
    taken = aten.slice.Tensor(torch.zeros(shape), axis, start, end, step)
    gradient = torch.arange(1.0, taken.numel() + 1).reshape(taken.shape)

    def backward(gradient):
        return aten.slice_backward.default(gradient, shape, axis, start, end, step)

    module, found = _rewritten(backward, gradient)
    assert "slice_backward" not in module.code
    torch.testing.assert_close(found, backward(gradient))


def test_the_other_rewrites():
    random = torch.Generator().manual_seed(0)
    x = torch.randn(4, 6, 5, generator=random, dtype=torch.float64)
    scale = torch.randn(6, generator=random, dtype=torch.float64)
    functions = (
        lambda x: aten.gelu.default(x),
        lambda x: aten.gelu_backward.default(x + 1, x),
        lambda x: aten.silu.default(x),
        lambda x: aten.silu_backward.default(x + 1, x),
        lambda x: aten.masked_fill.Scalar(x, x > 0, 0),
        lambda x: aten.index.Tensor(x, [torch.tensor([3, 0, 3, 1])]),
        lambda x: aten.index.Tensor(x, [torch.tensor([[2], [1]])]),
        lambda x: aten.index.Tensor(x, [None, torch.tensor([5, 0])]),
        lambda x: aten.index.Tensor(x, [x[:, 0, 0] > 0]),
        lambda x: aten.select_backward.default(x[0], [4, 6, 5], 0, -2),
        lambda x: torch.cat(
            [p.flatten() for p in aten.native_layer_norm.default(x + 9, [5], None, None, 1e-5)]
        ),
        lambda x: torch.cat(
            [p.flatten() for p in aten.native_layer_norm.default(x, [6, 5], x[0], x[1], 1e-6)]
        ),
        lambda x: torch.cat(
            [p.flatten() for p in aten.native_group_norm.default(x, scale, scale + 1, 4, 6, 5, 3, 1e-5)]
        ),
    )
    for function in functions:
        torch.testing.assert_close(_rewritten(function, x)[1], function(x))
