"""The pure step against an ordinary torch training loop, and the properties later engines stand on."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch.func import vmap
from torch.fx.experimental.proxy_tensor import make_fx

from fedali.methods import FedAvg, FedProx
from fedali.models import ALPSettings, build_model
from fedali.optimizers.rules import SGD, Adam
from fedali.step import Batch, Hyper, Shared, State, make_occupancy, make_predict, make_step
from tests.marks import slow

CASES = [
    ("mlp", (12,), None),
    ("mlp", (12,), ALPSettings(num_prototypes=(5,), decay=0.7, update="single")),
    ("cnn1d", (32, 6), ALPSettings(num_prototypes=(4,), decay=0.7, scale=3.0)),
    ("cnn2d", (1, 8, 8), ALPSettings(num_prototypes=(4,), decay=0.7, matcher="cosine")),
    ("hart", (32, 6), None),
    ("hart", (32, 6), ALPSettings(num_prototypes=(4,), decay=0.7)),
]
OPTIONS = {"hart": {"dim": 32, "kernels": (3, 7), "hidden": 16}, "cnn2d": {"kernel": 3, "channels": (4, 8)}}
IDS = [f"{n}-{'alp' if a else 'plain'}-{i}" for i, (n, _, a) in enumerate(CASES)]


def _model(name, shape, alp, seed=0):
    return build_model(name, shape, 4, alp=alp, seed=seed, **OPTIONS.get(name, {})).double()


def _batch(shape, seed, size=8):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(size, *shape, generator=generator, dtype=torch.float64)
    return Batch(x, torch.randint(0, 4, (size,), generator=generator), torch.ones(size, dtype=torch.float64))


def _hyper(optimizer, t, decay=0.7, influence=0.3):
    size, correction = optimizer.schedule(t)
    return Hyper(*(torch.tensor(v, dtype=torch.float64) for v in (size, correction, influence, decay)))


def _prototypes(model, kind):
    flat = [getattr(layer, f"{kind}_prototypes").reshape(-1) for layer in model.alp_layers]
    return torch.cat(flat) if flat else torch.zeros(0, dtype=torch.float64)


def _start(model, optimizer):
    theta = model.theta()
    state = State(theta, *optimizer.initial(theta), _prototypes(model, "local").clone())
    return state, Shared(theta.clone(), _prototypes(model, "global").clone())


@pytest.mark.parametrize(("name", "shape", "alp"), CASES, ids=IDS)
def test_the_eager_step_is_the_one_that_is_captured(name, shape, alp):
    model, optimizer = _model(name, shape, alp), SGD(1e-2, 0.9)
    own = model.theta()
    state, shared = _start(model, optimizer)
    steps = [make_step(model, FedProx(mu=0.2), optimizer, eager=eager) for eager in (False, True)]
    for t in range(1, 4):
        batch, hyper = _batch(shape, t), _hyper(optimizer, t)
        (expected, metrics), (found, ours) = (step(state, batch, shared, hyper) for step in steps)
        torch.testing.assert_close(tuple(found), tuple(expected), rtol=1e-11, atol=1e-13)
        torch.testing.assert_close(tuple(ours), tuple(metrics), rtol=1e-12, atol=0)
        assert not any(tensor.requires_grad for tensor in (*found, *ours))
        state, shared = expected, shared._replace(theta=expected.theta)  # the server's changes between rounds
    assert torch.equal(model.theta(), own)


@pytest.mark.parametrize(("name", "shape", "alp"), CASES, ids=IDS)
@pytest.mark.parametrize("kind", slow(["adam", "sgd", "momentum"], lambda kind: kind == "momentum"))
def test_twenty_steps_equal_an_ordinary_training_loop(name, shape, alp, kind):
    model = _model(name, shape, alp)
    ours, theirs = {
        "adam": (Adam(1e-2), lambda p: torch.optim.Adam(p, 1e-2)),
        "sgd": (SGD(1e-2, 0.0), lambda p: torch.optim.SGD(p, 1e-2)),
        "momentum": (SGD(1e-2, 0.9), lambda p: torch.optim.SGD(p, 1e-2, momentum=0.9)),
    }[kind]
    state, shared = _start(model, ours)
    step = make_step(model, FedAvg(), ours)
    optimizer = theirs(model.parameters())
    for layer in model.alp_layers:
        layer.influence = 0.3
    for t in range(1, 21):
        batch = _batch(shape, t)
        state, metrics = step(state, batch, shared, _hyper(ours, t))
        optimizer.zero_grad()
        logits = model.train()(batch.x).logits
        loss = F.cross_entropy(logits, batch.y)
        loss.backward()
        optimizer.step()
        assert metrics.loss.item() == pytest.approx(8 * loss.item(), rel=1e-9)
        assert metrics.correct.item() == (logits.argmax(1) == batch.y).sum().item()
    torch.testing.assert_close(state.theta, model.theta(), atol=1e-10, rtol=1e-9)
    torch.testing.assert_close(state.local_prototypes, _prototypes(model, "local"), atol=1e-10, rtol=1e-9)


@pytest.mark.parametrize(("name", "shape", "alp"), CASES, ids=IDS)
def test_padding_changes_nothing(name, shape, alp):
    model, optimizer = _model(name, shape, alp), Adam()
    state, shared = _start(model, optimizer)
    step = make_step(model, FedAvg(), optimizer)
    batch = _batch(shape, 1, size=6)
    filler = _batch(shape, 2, size=1)  # bulk's k comes from the size of the batch, 6 or 7: 1 for 4 prototypes
    padded = Batch(
        torch.cat([batch.x, filler.x]),
        torch.cat([batch.y, filler.y]),
        torch.cat([batch.weights, 0 * filler.weights]),
    )
    for expected, found in zip(
        step(state, batch, shared, _hyper(optimizer, 1)),
        step(state, padded, shared, _hyper(optimizer, 1)),
        strict=True,
    ):
        for a, b in zip(expected, found, strict=True):
            torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize(("name", "shape", "alp"), CASES, ids=IDS)
def test_the_step_is_pure(name, shape, alp):
    model, optimizer = _model(name, shape, alp), Adam()
    state, shared = _start(model, optimizer)
    step, batch, hyper = (
        make_step(model, FedAvg(), optimizer),
        _batch(shape, 1),
        _hyper(optimizer, 1),
    )
    before = [t.clone() for t in (*state, *shared, *batch, *model.state_dict().values())]
    first, second = step(state, batch, shared, hyper), step(state, batch, shared, hyper)
    after = [*state, *shared, *batch, *model.state_dict().values()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(first[0], second[0], strict=True))


@pytest.mark.parametrize(("name", "shape", "alp"), CASES, ids=IDS)
def test_the_step_can_be_stacked_over_clients(name, shape, alp):
    model, optimizer = _model(name, shape, alp), Adam()
    states, shared = [], None
    for seed in range(3):
        state, shared = _start(_model(name, shape, alp, seed), optimizer)
        states.append(state)
    step, hyper = make_step(model, FedAvg(), optimizer), _hyper(optimizer, 1)
    batches = [_batch(shape, seed) for seed in range(3)]
    stacked = vmap(step, in_dims=(0, 0, None, None))(
        State(*map(torch.stack, zip(*states, strict=True))),
        Batch(*map(torch.stack, zip(*batches, strict=True))),
        shared,
        hyper,
    )
    for i, (state, batch) in enumerate(zip(states, batches, strict=True)):
        alone, _ = step(state, batch, shared, hyper)
        for a, b in zip(alone, stacked[0], strict=True):
            torch.testing.assert_close(a, b[i], atol=1e-10, rtol=1e-8)


@pytest.mark.parametrize(("name", "shape", "alp"), CASES, ids=IDS)
def test_the_step_is_one_graph(name, shape, alp):
    """Captured on one batch, it gives another batch's results: nothing of the data is baked in."""
    model, optimizer = _model(name, shape, alp), Adam()
    state, shared = _start(model, optimizer)
    step = make_step(model, FedAvg(), optimizer)
    graph = make_fx(step)(state, _batch(shape, 1), shared, _hyper(optimizer, 1))
    other = _batch(shape, 2)
    expected, found = (f(state, other, shared, _hyper(optimizer, 7)) for f in (step, graph))
    for a, b in zip([*expected[0], *expected[1]], [*found[0], *found[1]], strict=True):
        torch.testing.assert_close(a, b)


def test_predict_equals_the_module_and_occupancy_counts_every_token():
    model = _model("hart", (32, 6), ALPSettings(num_prototypes=(4,)))
    x, local = _batch((32, 6), 0).x, _prototypes(model, "local")
    for layer in model.alp_layers:
        layer.inference_matcher = "cosine"
    expected = model.eval()(x).logits.detach()
    torch.testing.assert_close(make_predict(model, matcher="cosine")(model.theta(), local, x, 0.2), expected)
    counts = make_occupancy(model)(model.theta(), local, x, 0.2)
    assert counts.shape == (8,)
    assert counts[:4].sum() == counts[4:].sum() == 8 * 2  # samples x tokens
