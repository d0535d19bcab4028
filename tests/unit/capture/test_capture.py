"""The captured step against the step itself, and every rewrite against the operation it replaces."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.fx.experimental.proxy_tensor import make_fx

from fedali.capture.captures import STEP_INPUTS, STEP_OUTPUTS, capture_predict, capture_step, stack
from fedali.capture.decompositions import CHANNELS_LAST, MATMUL
from fedali.errors import SettingsError
from fedali.methods import FedAvg
from fedali.models import ALPSettings, build_model
from fedali.optimizers.rules import SGD, Adam
from fedali.step import Batch, Hyper, Shared, State, make_predict, make_step

TABLES = {"channels last": CHANNELS_LAST, "matrix products": MATMUL}
aten = torch.ops.aten


def _rewritten(function, table, *tensors):
    module = make_fx(function, decomposition_table=table)(*tensors)
    return module, module(*tensors)


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
@settings(max_examples=40)
@given(
    dimensions=st.integers(1, 2),
    inputs=st.integers(1, 3),
    outputs=st.integers(1, 4),
    size=st.integers(3, 9),
    kernel=st.integers(1, 4),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
    seed=st.integers(0, 99),
)
def test_convolutions_and_their_gradients(
    table, dimensions, inputs, outputs, size, kernel, stride, padding, dilation, seed
):
    assume(size + 2 * padding >= dilation * (kernel - 1) + 1)
    generator = torch.Generator().manual_seed(seed)
    shape = (size, size + 1)[:dimensions]
    x = torch.randn(2, inputs, *shape, generator=generator, dtype=torch.float64)
    weight = torch.randn(outputs, inputs, *(kernel,) * dimensions, generator=generator, dtype=torch.float64)
    bias = torch.randn(outputs, generator=generator, dtype=torch.float64)
    many = ([stride] * dimensions, [padding] * dimensions, [dilation] * dimensions)

    def forward(x, weight, bias):
        return aten.convolution.default(x, weight, bias, *many, False, [0] * dimensions, 1)

    expected = forward(x, weight, bias)
    _, found = _rewritten(forward, table, x, weight, bias)
    torch.testing.assert_close(found, expected)
    gradient = torch.randn(expected.shape, generator=generator, dtype=torch.float64)

    def backward(gradient, x, weight):
        return aten.convolution_backward.default(
            gradient, x, weight, [outputs], *many, False, [0] * dimensions, 1, [True, True, True]
        )

    _, found = _rewritten(backward, table, gradient, x, weight)
    for a, b in zip(found, backward(gradient, x, weight), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
@settings(max_examples=25)
@given(
    height=st.integers(1, 7),
    width=st.integers(1, 9),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    seed=st.integers(0, 99),
)
def test_pooling_and_its_gradient_also_where_values_are_equal(table, height, width, kernel, seed):
    assume(height >= kernel[0] and width >= kernel[1])
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 3, (2, 2, height, width), generator=generator).double()  # many ties

    def pooled(x):
        values, positions = aten.max_pool2d_with_indices.default(x, kernel)
        gradient = values * 2 + 1
        return values, aten.max_pool2d_with_indices_backward.default(
            gradient, x, kernel, [], [0, 0], [1, 1], False, positions
        )

    module, found = _rewritten(pooled, table, x)
    assert "max_pool" not in module.code
    for a, b in zip(found, pooled(x), strict=True):
        torch.testing.assert_close(a, b)


def test_what_no_rewrite_is_for_stays_as_it_is():
    x = torch.randn(1, 4, 6, 6, dtype=torch.float64)
    weight = torch.randn(4, 1, 3, 3, dtype=torch.float64)

    def overlapping_and_grouped(x):
        y = aten.convolution.default(x, weight, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 4)
        return aten.max_pool2d_with_indices.default(y, [3, 3], [1, 1])[0]

    for table in TABLES.values():
        _, found = _rewritten(overlapping_and_grouped, table, x)
        torch.testing.assert_close(found, overlapping_and_grouped(x))


MODELS = [
    ("mlp", (12,), {}, ALPSettings(num_prototypes=(4,), update="single")),
    ("cnn1d", (32, 6), {"channels": (8, 16)}, ALPSettings(num_prototypes=(4,))),
    ("cnn1d", (32, 6), {"channels": (8, 16)}, None),
    (
        "cnn2d",
        (1, 8, 8),
        {"kernel": 3, "channels": (4, 8)},
        ALPSettings(num_prototypes=(4,), matcher="cosine"),
    ),
    ("hart", (32, 6), {"dim": 32, "kernels": (3,), "hidden": 16}, ALPSettings(num_prototypes=(4,))),
]


def _inputs(graph, seed=0):
    generator = torch.Generator().manual_seed(seed)
    found = []
    for name, example in zip(graph.inputs, graph.example, strict=True):
        if name == "y":
            found.append(torch.randint(0, 3, example.shape, generator=generator))
        elif name in {"theta", "shared_theta", "weights"} or example.dim() == 0:
            found.append(example)
        else:
            found.append(torch.rand(example.shape, generator=generator, dtype=example.dtype))
    return found


@pytest.mark.parametrize("table", [None, *TABLES.values()], ids=["plain", *TABLES])
@pytest.mark.parametrize(("name", "shape", "options", "alp"), MODELS)
def test_the_graph_is_the_step(name, shape, options, alp, table):
    model = build_model(name, shape, 3, alp=alp, seed=0, **options).double()
    for optimizer in (Adam(), SGD(momentum=0.0)) if name == "mlp" else (Adam(),):
        graph = capture_step(
            model,
            FedAvg(),
            optimizer,
            input_shape=shape,
            batch=5,
            dtype=torch.float64,
            table=table,
        )
        assert (graph.inputs, graph.outputs) == (STEP_INPUTS, STEP_OUTPUTS)
        inputs = _inputs(graph)
        step = make_step(model, FedAvg(), optimizer)
        state, metrics = step(
            State(*inputs[:4]), Batch(*inputs[4:7]), Shared(*inputs[7:9]), Hyper(*inputs[9:])
        )
        for a, b in zip(graph(*inputs), (*state, *metrics), strict=True):
            torch.testing.assert_close(a, b, atol=1e-10, rtol=1e-9)


def test_a_stacked_graph_is_the_graph_of_each_client():
    model = build_model("cnn1d", (32, 6), 3, alp=ALPSettings(num_prototypes=(4,)), channels=(8, 16)).double()
    graph = capture_step(
        model, FedAvg(), Adam(), input_shape=(32, 6), batch=5, dtype=torch.float64, table=MATMUL
    )
    stacked = stack(graph, 3)
    clients = [_inputs(graph, seed) for seed in range(3)]
    together = [
        torch.stack([client[i] for client in clients])
        if name in {*State._fields, *Batch._fields}
        else clients[0][i]
        for i, name in enumerate(graph.inputs)
    ]
    for client, inputs in enumerate(clients):
        inputs[7:9] = clients[0][7:9]
        for a, b in zip(stacked(*together), graph(*inputs), strict=True):
            torch.testing.assert_close(a[client], b, atol=1e-10, rtol=1e-9)


def test_inference_is_captured_too():
    model = build_model("cnn1d", (32, 6), 3, alp=ALPSettings(num_prototypes=(4,)), channels=(8, 16))
    graph = capture_predict(model, matcher="cosine", input_shape=(32, 6), batch=5, table=CHANNELS_LAST)
    theta, prototypes, x, _ = _inputs(graph)
    expected = make_predict(model, matcher="cosine")(theta, prototypes, x, 0.3)
    torch.testing.assert_close(graph(theta, prototypes, x, torch.tensor(0.3))[0], expected)


def test_the_fingerprint_is_of_what_is_computed():
    def captured(seed=0, batch=4, **options):
        model = build_model("mlp", (12,), 3, alp=ALPSettings(num_prototypes=(4,)), seed=seed, **options)
        return capture_step(model, FedAvg(), Adam(), input_shape=(12,), batch=batch).fingerprint()

    known = captured()
    assert captured(seed=1) == known  # another start, the same computation
    assert len({known, captured(batch=5), captured(hidden=(128, 32))}) == 3


@dataclass(frozen=True)
class Branching(FedAvg):
    def objective(self, step):
        return step.loss() * 2 if step.loss() > 3 else step.loss()


@dataclass(frozen=True)
class WithoutASlot(FedAvg):
    def finish(self, end):
        return {"memory": end.steps}


def test_a_method_that_makes_no_graph_is_one_line():
    model = build_model("mlp", (12,), 3, alp=None)
    with pytest.raises(SettingsError, match=r"branches on a value.*engine 'loop' alone"):
        capture_step(model, Branching(), Adam(), input_shape=(12,), batch=4)
    with pytest.raises(SettingsError, match="WithoutASlot has a finish, and no slot for it to fill"):
        capture_step(model, WithoutASlot(), Adam(), input_shape=(12,), batch=4)
