"""Schedules, weight decay and clipping against torch's own, on the eager step and on the captured one."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR, StepLR

from fedali.capture.captures import STEP_INPUTS, capture_step
from fedali.errors import SettingsError
from fedali.methods import APFL, Ditto, FedAvg, FedRep
from fedali.models import build_model
from fedali.optimizers.rules import SGD, Adam
from fedali.optimizers.schedules import RateSchedule
from fedali.slots import slot_slice
from fedali.step import Batch, Hyper, Shared, State, Vectors, make_step

CLIP = 1.5  # between the norms of the gradients here


def _model():
    return build_model("mlp", (12,), 4, alp=None, seed=0, hidden=(10,)).double()


def _batch(seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(8, 12, generator=generator, dtype=torch.float64)
    return Batch(x, torch.arange(8) % 4, torch.ones(8, dtype=torch.float64))


def _start(model, method, optimizer):
    vectors = Vectors(model, method)
    whole = torch.cat([model.theta()] * -(-vectors.whole.size // model.theta().numel()))[: vectors.whole.size]
    theta = whole[: vectors.trained.size]
    state = State(theta, *optimizer.initial(theta), theta.new_zeros(0))
    shared = Shared(whole.clone() if vectors.rest.size else theta.clone(), theta.new_zeros(0))
    extra = [whole[vectors.trained.size :]] if vectors.rest.size else []
    return vectors, state, shared, extra


def _numbers(optimizer, t, factor=1.0):
    size, correction, *more = (
        torch.tensor(value, dtype=torch.float64) for value in optimizer.schedule(t, factor)
    )
    return Hyper(size, correction, torch.zeros_like(size), torch.zeros_like(size)), more


OPTIMIZERS = {
    "adamw": (
        Adam(1e-2, weight_decay=0.3, clip_norm=CLIP),
        lambda p: torch.optim.AdamW(p, 1e-2, weight_decay=0.3),
    ),
    "sgd": (
        SGD(0.1, 0.9, weight_decay=0.03, clip_norm=CLIP),
        lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.03),
    ),
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_decay_clipping_and_a_cosine_are_those_of_torch(kind):
    ours, theirs = OPTIMIZERS[kind]
    model, schedule = _model(), RateSchedule("cosine", warmup=2, rounds=8, floor=0.1)
    _, state, shared, _ = _start(model, FedAvg(), ours)
    step = make_step(model, FedAvg(), ours, eager=True)
    optimizer = theirs(model.parameters())
    rates = SequentialLR(
        optimizer,
        [LinearLR(optimizer, 1 / 3, total_iters=2), CosineAnnealingLR(optimizer, 6, ours.learning_rate / 10)],
        milestones=[2],
    )
    norms = []
    for t in range(1, 9):  # a round is a step here, and the optimizer goes on
        assert ours.learning_rate * schedule.factor(t) == pytest.approx(rates.get_last_lr()[0], rel=1e-12)
        hyper, more = _numbers(ours, t, schedule.factor(t))
        state, _ = step(state, _batch(t % 3), shared, hyper, *more)
        optimizer.zero_grad()
        F.cross_entropy(model.train()(_batch(t % 3).x).logits, _batch(t % 3).y).backward()
        norms.append(nn.utils.clip_grad_norm_(model.parameters(), CLIP).item())
        optimizer.step()
        rates.step()
    assert min(norms) < CLIP < max(norms)  # some are shortened, others are not
    torch.testing.assert_close(state.theta, model.theta(), atol=1e-12, rtol=1e-10)


def test_a_step_schedule_is_torchs_and_a_constant_one_is_one():
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], 0.8)
    theirs, ours = StepLR(optimizer, 3, 0.5), RateSchedule("step", every=3, drop=0.5)
    for round_ in range(1, 11):
        assert 0.8 * ours.factor(round_) == pytest.approx(theirs.get_last_lr()[0], rel=1e-12)
        optimizer.step()
        theirs.step()
    assert {RateSchedule().factor(round_) for round_ in range(100)} == {1.0}


def test_two_models_that_train_side_by_side_are_clipped_each_by_its_own_norm():
    model, plain = _model(), SGD(1.0, 0.0)
    for method in (Ditto(strength=0.0), APFL(adaptive=True)):
        found = []
        for optimizer in (plain, SGD(1.0, 0.0, clip_norm=0.1)):
            vectors, state, shared, extra = _start(model, method, optimizer)
            if isinstance(method, APFL):
                state.theta[slot_slice(vectors.trained, "alpha")] = 0.25
            state.theta[slot_slice(vectors.trained, "personal")] *= 3.0  # has another gradient
            new, _ = make_step(model, method, optimizer, eager=True)(
                state, _batch(0), shared, _numbers(optimizer, 1)[0], *extra
            )
            found.append(new.theta - state.theta)
        for slot in ("", "personal"):
            where = slot_slice(vectors.trained, slot)
            moved, clipped = found[0][where], found[1][where]
            assert moved.norm() > 0.1
            torch.testing.assert_close(clipped, moved * (0.1 / (moved.norm() + 1e-6)), rtol=1e-10, atol=1e-14)
        if isinstance(method, APFL):  # has a descent of its own, which nothing clips
            where = slot_slice(vectors.trained, "alpha")
            assert torch.equal(*(moved[where] for moved in found))
            assert found[0][where] != 0


def test_what_a_phase_does_not_train_counts_in_no_norm_and_does_not_decay():
    model, method = _model(), FedRep()
    optimizer = SGD(1.0, 0.0, weight_decay=0.1, clip_norm=1e-3)
    vectors, state, shared, extra = _start(model, method, optimizer)
    step = make_step(model, method, optimizer, eager=True)
    for phase in range(2):
        now = torch.tensor(float(phase), dtype=torch.float64)
        new, _ = step(state, _batch(0), shared, _numbers(optimizer, 1)[0], *extra, now)
        moved = new.theta - state.theta
        trained = torch.cat(
            [torch.full((e.size,), e.name in method.phases[phase]) for e in vectors.trained.entries]
        )
        assert not moved[~trained].any()
        taken = moved[trained] + 0.1 * state.theta[trained]
        assert taken.norm().item() == pytest.approx(1e-3, rel=1e-2)  # all of the norm is the phase's


def test_the_captured_step_is_the_eager_one_and_takes_no_more_than_it_has_to():
    model = _model()
    for optimizer, more in ((Adam(), ()), (SGD(clip_norm=1.0), ()), (OPTIMIZERS["adamw"][0], ("shrink",))):
        graph = capture_step(model, FedAvg(), optimizer, input_shape=(12,), batch=8, dtype=torch.float64)
        assert graph.inputs == (*STEP_INPUTS, *more)
        _, state, shared, _ = _start(model, FedAvg(), optimizer)
        hyper, numbers = _numbers(optimizer, 1, 0.5)
        expected, _ = make_step(model, FedAvg(), optimizer, eager=True)(
            state, _batch(0), shared, hyper, *numbers
        )
        found = graph.module(*state, *_batch(0), *shared, *hyper, *numbers)
        torch.testing.assert_close(found[0], expected.theta, rtol=1e-11, atol=1e-13)


def test_without_settings_a_step_has_none_of_their_operations():
    plain, decays, clips = (
        [
            str(node.target)
            for node in capture_step(
                _model(), FedAvg(), optimizer, input_shape=(12,), batch=8
            ).module.graph.nodes
        ]
        for optimizer in (SGD(), SGD(weight_decay=0.1), SGD(clip_norm=1.0))
    )
    assert not any("sqrt" in name for name in plain)
    assert any("sqrt" in name for name in clips)
    assert len(decays) == len(plain) + 2  # a product and a sum


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        (lambda: Adam(weight_decay=-0.1), "weight_decay is -0.1"),
        (lambda: SGD(clip_norm=float("nan")), "clip_norm is nan"),
        (lambda: RateSchedule("cosinus"), "did you mean 'cosine'"),  # type: ignore[arg-type]
        (lambda: RateSchedule("cosine", warmup=4, rounds=4), "none left after a warm-up of 4"),
        (lambda: RateSchedule("step", every=0), "drops every 1 or more"),
        (
            lambda: RateSchedule("cosine", rounds=5).check_rounds(6, "Do."),
            "ends after 5 rounds, and there are 6",
        ),
    ],
)
def test_what_makes_no_sense_is_one_line(wrong, line):
    with pytest.raises(SettingsError, match=line) as error:
        wrong()
    assert "\n" not in str(error.value)


def test_a_schedule_is_read_back_from_what_a_bundle_says():
    for kind, warmup in itertools.product(("constant", "cosine", "step"), (0, 2)):
        schedule = RateSchedule(kind, warmup, 9 if kind == "cosine" else 0, drop=0.3)
        assert RateSchedule(**schedule.to_plain()) == schedule
    assert RateSchedule().to_plain() == {}
