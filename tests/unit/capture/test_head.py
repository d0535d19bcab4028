"""What devices need besides the step: the head's step on embeddings, embeddings, prototypes moved without labels."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from fedali.capture.captures import (
    ADAPT_INPUTS,
    PREDICT_INPUTS,
    STEP_INPUTS,
    STEP_OUTPUTS,
    capture_adapt,
    capture_embed,
    capture_head_step,
    capture_predict,
)
from fedali.capture.decompositions_onnx import ONNX
from fedali.methods import FedAvg
from fedali.models import ALPSettings, build_model
from fedali.optimizers.rules import SGD, Adam
from fedali.step import (
    Batch,
    Hyper,
    Shared,
    State,
    make_adapt,
    make_embed,
    make_head_step,
    make_predict,
    make_step,
)
from tests.marks import slow

ALP = ALPSettings(num_prototypes=(4,), decay=0.7, scale=3.0)
MODELS = {
    "mlp": ((12,), None, {"hidden": (8, 6)}),
    "cnn1d": ((32, 6), ALP, {"channels": (8, 16), "hidden": 5}),
    "cnn2d": ((1, 8, 8), None, {"kernel": 3, "channels": (4, 8)}),
    "hart": ((32, 6), ALP, {"dim": 32, "kernels": (3, 7), "hidden": 16}),
}
each_model = pytest.mark.parametrize("name", slow(MODELS, lambda name: name == "hart"))


def _model(name):
    shape, alp, options = MODELS[name]
    return build_model(name, shape, 4, alp=alp, seed=1, **options).double(), shape


def _numbers(*values):
    return tuple(torch.tensor(value, dtype=torch.float64) for value in values)


def _given(model, shape, seed=0, size=8):
    """Random local and global prototypes, a batch whose last two samples are padding."""
    random = torch.Generator().manual_seed(seed)
    prototypes = torch.randn(2, model.prototype_layout.size, generator=random, dtype=torch.float64)
    x = torch.randn(size, *shape, generator=random, dtype=torch.float64)
    weights = torch.ones(size, dtype=torch.float64)
    weights[-2:] = 0
    return *prototypes, Batch(x, torch.randint(0, 4, (size,), generator=random), weights)


@each_model
@pytest.mark.parametrize("kind", ["adam", "sgd"])
def test_the_head_trains_as_an_ordinary_module_on_fixed_embeddings(name, kind):
    model, shape = _model(name)
    ours = Adam(1e-2) if kind == "adam" else SGD(1e-2, 0.9)
    local, global_, _ = _given(model, shape)
    embed, step = make_embed(model, matcher="cosine"), make_head_step(model, FedAvg(), ours)
    start = model.theta()[-model.head_layout.size :]
    state, shared = State(start, *ours.initial(start), local), Shared(start.clone(), global_)
    head = copy.deepcopy(model.head)
    theirs = (
        torch.optim.Adam(head.parameters(), 1e-2)
        if kind == "adam"
        else torch.optim.SGD(head.parameters(), 1e-2, momentum=0.9)
    )
    for t in range(1, 11):
        *_, batch = _given(model, shape, t)
        z = embed(model.theta(), local, batch.x, 0.3)
        hyper = Hyper(*_numbers(*ours.schedule(t), 0.3, 0.7))
        state, metrics = step(state, batch._replace(x=z), shared, hyper)
        theirs.zero_grad()
        logits = head(z[:-2])
        loss = F.cross_entropy(logits, batch.y[:-2])
        loss.backward()
        theirs.step()
        assert metrics.loss.item() == pytest.approx(6 * loss.item(), rel=1e-9)
        assert metrics.correct.item() == (logits.argmax(1) == batch.y[:-2]).sum().item()
    trained = torch.cat([p.detach().reshape(-1) for p in head.parameters()])
    torch.testing.assert_close(state.theta, trained, atol=1e-10, rtol=1e-9)
    assert state.local_prototypes is local


@each_model
def test_the_head_is_the_end_of_theta(name):
    model, _ = _model(name)
    layout, head = model.parameter_layout, model.head_layout
    assert head.size > 0
    assert all(n.startswith("head.") for n in head.names)
    assert layout.select(["head.*"]).tolist() == list(range(layout.size - head.size, layout.size))


@each_model
def test_the_head_of_an_embedding_is_the_prediction(name):
    model, shape = _model(name)
    local, _, batch = _given(model, shape)
    given = (model.theta(), local, batch.x, *_numbers(0.3))
    logits = model.head(make_embed(model, matcher="cosine")(*given))
    torch.testing.assert_close(logits, make_predict(model, matcher="cosine")(*given))


@pytest.mark.parametrize("name", [name for name, (_, alp, _) in MODELS.items() if alp])
def test_adapting_moves_prototypes_as_a_training_step_does(name):
    model, shape = _model(name)
    local, global_, batch = _given(model, shape)
    hyper = Hyper(*_numbers(0.0, 0.0, 0.3, 0.7))
    theta = model.theta()
    state, shared = State(theta, *SGD().initial(theta), local), Shared(theta, global_)
    stepped, _ = make_step(model, FedAvg(), SGD())(state, batch, shared, hyper)
    adapt = make_adapt(model)
    moved = adapt(theta, local, batch.x, batch.weights, global_, hyper.influence, hyper.decay)
    assert not torch.equal(moved, local)
    torch.testing.assert_close(moved, stepped.local_prototypes, atol=0, rtol=0)
    nothing = torch.zeros_like(batch.weights)
    still = adapt(theta, local, batch.x, nothing, global_, hyper.influence, hyper.decay)
    torch.testing.assert_close(still, local, atol=0, rtol=0)


def _check(graph, given, expected):
    for found, wanted in zip(graph(*given), expected, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-12, rtol=1e-10)


@each_model
def test_captured_graphs_are_the_functions(name):
    model, shape = _model(name)
    local, global_, batch = _given(model, shape)
    numbers = _numbers(0.01, 1.5, 0.3, 0.7)
    options = {"input_shape": shape, "dtype": torch.float64, "table": ONNX}
    theta = model.theta()

    embed = make_embed(model, matcher="cosine")
    given = (theta, local, batch.x, numbers[2])
    graph = capture_embed(model, matcher="cosine", batch=8, **options)
    assert (graph.inputs, graph.outputs) == (PREDICT_INPUTS, ("embedding",))
    _check(graph, given, [embed(*given)])

    head = theta[-model.head_layout.size :]
    state = State(head, torch.rand_like(head), torch.rand_like(head), local)
    parts = (state, batch._replace(x=embed(*given)), Shared(head * 0.9, global_), Hyper(*numbers))
    graph = capture_head_step(model, FedAvg(), Adam(), batch=8, **options)
    assert (graph.inputs, graph.outputs) == (STEP_INPUTS, STEP_OUTPUTS)
    expected = make_head_step(model, FedAvg(), Adam())(*parts)
    _check(graph, [tensor for part in parts for tensor in part], [*expected[0], *expected[1]])

    if model.alp_layers:
        given = (theta, local, batch.x, batch.weights, global_, *numbers[2:])
        graph = capture_adapt(model, batch=8, **options)
        assert (graph.inputs, graph.outputs) == (ADAPT_INPUTS, ("local_prototypes",))
        _check(graph, given, [make_adapt(model)(*given)])


@each_model
def test_inference_with_an_open_batch_takes_any(name):
    model, shape = _model(name)
    options = {"matcher": "cosine", "input_shape": shape, "dtype": torch.float64, "table": ONNX}
    for capture, make in ((capture_predict, make_predict), (capture_embed, make_embed)):
        graph = capture(model, batch=None, **options)
        assert graph.open_batch
        assert graph.fingerprint() != capture(model, batch=4, **options).fingerprint()
        for size in (1, 2, 7):
            local, _, batch = _given(model, shape, size=size)
            given = (model.theta(), local, batch.x, *_numbers(0.3))
            _check(graph, given, [make(model, matcher="cosine")(*given)])
