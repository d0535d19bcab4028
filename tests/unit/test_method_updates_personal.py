"""The updates of methods with personal models, mixtures and shifts, against numpy; as in ``test_method_updates``."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fedali.errors import SettingsError
from fedali.methods import Layouts, SharedState, Trained, Upload, build_method, shared_indices
from fedali.models.base import Model
from fedali.slots import slot_slice
from tests.unit.test_method_updates import (
    RATE,
    C,
    D,
    E,
    Linear,
    M,
    X,
    Y,
    gradient,
    noisy,
    split,
    start_of,
    train,
)

NONE = np.zeros(0, np.float32)


def aggregated(recipe, model, shared, clients):
    """The server's next vector from those of clients, with their numbers of samples."""
    layouts = Layouts(recipe.vectors.whole, model.prototype_layout)
    before, total = SharedState(shared.astype(np.float32), NONE), Upload()
    for vector, samples in clients:
        total += recipe.method.upload(Trained(vector.astype(np.float32), NONE, samples), before, layouts)
    return recipe.method.aggregate(total, before, layouts).theta


def test_apfl_trains_a_mixture_and_answers_with_it():
    start = noisy(start_of("apfl", {"alpha": 0.3}), 1)
    recipe, before, _, found = train("apfl", {"alpha": 0.3}, vector=start)
    w, v = before[:M], before[M : 2 * M]
    for _ in range(2):
        slope = gradient(0.3 * v + 0.7 * w)
        w, v = w - RATE * gradient(w), v - RATE * 0.3 * slope
    np.testing.assert_allclose(found, np.concatenate([w, v, 0.3 * v + 0.7 * w]), rtol=1e-9)
    assert slot_slice(recipe.vectors.whole, recipe.method.answer_slot) == slice(2 * M, 3 * M)
    assert shared_indices(recipe.method, recipe.vectors.whole).tolist() == list(range(M))


def test_apfl_learns_how_much_to_mix():
    options = {"alpha": 0.4, "adaptive": True, "alpha_rate": 0.2}
    start = start_of("apfl", options)
    assert start[2 * M] == np.float32(0.4)
    start[: 2 * M] = noisy(start[: 2 * M], 2)
    _, before, _, found = train("apfl", options, vector=start)
    w, v, a = before[:M], before[M : 2 * M], before[2 * M]
    for _ in range(2):
        slope = gradient(a * v + (1 - a) * w)
        w, v, a = w - RATE * gradient(w), v - RATE * a * slope, a - 0.2 * (v - w) @ slope
    np.testing.assert_allclose(found, [*w, *v, a, *(a * v + (1 - a) * w)], rtol=1e-8)
    assert abs(a - 0.4) > 1e-3


@pytest.mark.parametrize("sign", [1, -1])
def test_apfls_share_stays_between_0_and_1(sign):
    """At 0 it cannot go further down: it ends there, or leads inside by as much as the gradient says."""
    start = start_of("apfl", {"alpha": 0.0, "adaptive": True})
    w, apart = start[:M].astype(np.float64), noisy(start, 3)[:M] - start[:M]
    start[M : 2 * M] += sign * np.sign(apart @ gradient(w)) * apart
    _, before, _, found = train("apfl", {"alpha": 0.0, "adaptive": True}, vector=start, epochs=1)
    moved = -RATE * (before[M : 2 * M] - w) @ gradient(w)
    assert np.sign(moved) == -sign
    assert found[2 * M] == pytest.approx(0.0 if sign > 0 else moved, rel=1e-9, abs=0)


@pytest.mark.parametrize("inner", [1, 3])
def test_pfedme_takes_its_inner_steps_then_one_on_the_shared_model(inner):
    options = {"strength": 2.0, "inner_steps": inner}
    start = noisy(start_of("pfedme"), 4)
    recipe, before, _, found = train("pfedme", options, vector=start)
    w, t = before[:M], before[M:]
    for _ in range(2):
        for _ in range(inner):
            t = t - RATE * (gradient(t) + 2.0 * (t - w))
        w = w - RATE * 2.0 * (w - t)
    np.testing.assert_allclose(found, np.concatenate([w, t]), rtol=1e-9)
    assert shared_indices(recipe.method, recipe.vectors.whole).tolist() == list(range(M))


def test_pfedmes_server_may_go_beyond_the_mean():
    recipe, start, _, found = train("pfedme", {"server_step": 1.5})
    after = aggregated(recipe, Linear(), start, [(found, 6), (noisy(found, 5), 2)])
    mean = (6 * found + 2 * noisy(found, 5)) / 8
    np.testing.assert_allclose(after[:M], (start + 1.5 * (mean - start))[:M], rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(after[M:], start[M:].astype(np.float32))


class Biased(Model):
    """embedding = W x, logits = V embedding + b."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.body, self.head = nn.Linear(D, E, bias=False), nn.Linear(E, C)

    def features(self, x, alignment):
        return self.body(x)


P = M + C  # of Biased


def dbe_step(theta, shift, centre, kappa):
    """One step of all of FedDBE's trained numbers; without a centre, FedAvg's."""
    (W, V), b = split(theta), theta[M:P]
    Z = X @ W.T
    moved = Z + (0 if centre is None else shift)
    p = np.exp(moved @ V.T + b)
    p /= p.sum(1, keepdims=True)
    p[np.arange(len(Y)), Y] -= 1
    p /= len(Y)
    by_z = p @ V
    if centre is None:
        new_shift = shift
    else:
        new_shift = shift - RATE * by_z.sum(0)
        by_z = by_z + kappa * (Z.mean(0) - centre) / E / len(Y)
    slope = np.concatenate([(by_z.T @ X).reshape(-1), (p.T @ moved).reshape(-1), p.sum(0)])
    return theta - RATE * slope, new_shift


def test_feddbe_shifts_embeddings_and_holds_their_mean_near_everybodys():
    model, options = Biased(), {"strength": 3.0}
    recipe, before, start, first = train("feddbe", options, model=model, batch=8)  # two are padding
    where = {name: slot_slice(recipe.vectors.whole, name) for name in ("shift", "centre", "known", "shifted")}
    assert recipe.method.answer_slot == "shifted"
    # the first round is FedAvg's, and finds the mean embedding
    theta, shift = before[:P], np.zeros(E)
    for _ in range(2):
        theta, shift = dbe_step(theta, shift, None, 3.0)
    np.testing.assert_allclose(first[:P], theta, rtol=1e-9)
    np.testing.assert_array_equal(first[where["shift"]], 0)
    np.testing.assert_array_equal(first[where["shifted"]], first[:P])
    mean = (X @ split(theta)[0].T).mean(0)
    np.testing.assert_allclose(first[where["centre"]], mean, rtol=1e-9)
    other = noisy(first, 6)
    other[where["known"]] = 1
    server = aggregated(recipe, model, start, [(first, 6), (other, 2)])
    centre = (6 * mean + 2 * other[where["centre"]]) / 8
    np.testing.assert_allclose(server[where["centre"]], centre, rtol=1e-5)
    np.testing.assert_array_equal(server[where["known"]], [1])
    np.testing.assert_allclose(server[:P], (6 * first[:P] + 2 * other[:P]) / 8, rtol=1e-5)
    np.testing.assert_array_equal(server[where["shift"]], 0)  # stays with its client
    # from then on the shift is trained, and the mean is held
    vector = server.copy()
    vector[where["shift"]] = [0.3, -0.2, 0.1]
    _, before, sent, found = train("feddbe", options, model=model, batch=8, vector=vector, server=server)
    theta, shift = before[:P], before[where["shift"]]
    for _ in range(2):
        theta, shift = dbe_step(theta, shift, sent[where["centre"]], 3.0)
    np.testing.assert_allclose(found[:P], theta, rtol=1e-8)
    np.testing.assert_allclose(found[where["shift"]], shift, rtol=1e-8)
    # what answers is the same model, with the shift in its bias
    (W, V), b = split(found[:P]), found[M:P]
    answer = found[where["shifted"]]
    np.testing.assert_array_equal(answer[:M], found[:M])
    expected = (X @ W.T + shift) @ V.T + b
    np.testing.assert_allclose(X @ W.T @ V.T + answer[M:], expected, rtol=1e-9)
    # and the centre stays
    after = aggregated(recipe, model, server, [(found, 6)])
    np.testing.assert_array_equal(after[where["centre"]], server[where["centre"]])
    np.testing.assert_allclose(after[:P], found[:P], rtol=1e-6)


def test_feddbe_says_which_models_it_cannot_shift():
    with pytest.raises(SettingsError, match="head begins with a linear layer that has a bias"):
        train("feddbe")


def test_fedpac_align_trains_the_head_then_draws_the_body_to_class_means():
    options = {"strength": 0.8}
    start = start_of("fedpac-align")
    recipe, _, _, first = train("fedpac-align", options, vector=start)
    whole = recipe.vectors.whole
    where, shares = slot_slice(whole, "class_prototypes"), slot_slice(whole, "class_shares")
    server = aggregated(recipe, Linear(), start, [(first, 6), (noisy(first, 7), 6)])
    body = np.arange(M) < E * D
    mean = (first + noisy(first, 7)) / 2
    np.testing.assert_allclose(server[:M][body], mean[:M][body], rtol=1e-5)  # the body is everybody's
    np.testing.assert_array_equal(server[:M][~body], start[:M][~body])  # and a head its client's
    np.testing.assert_array_equal(server[shares], 1)
    vector = server.copy()
    vector[:M][~body] = first[:M][~body]
    _, before, sent, found = train("fedpac-align", options, vector=vector, server=server)
    w = before[:M]
    w = w - RATE * gradient(w) * ~body
    Z = X @ split(w)[0].T
    pull = 0.8 * 2 * (Z - sent[where].reshape(C, E)[Y]) / E / len(Y)
    w = w - RATE * gradient(w, pull) * body
    np.testing.assert_allclose(found[:M], w, rtol=1e-8)
    assert recipe.epochs_by_phase == [1, 1]
    assert not recipe.method.has_global_model


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("apfl", {"alpha": 1.2}, "alpha is 1.2, it has to be a number from 0 to 1"),
        ("apfl", {"alpha": -1}, "alpha is -1, it has to be a number of at least 0"),
        ("apfl", {"adaptive": "yes"}, "adaptive is 'yes', it has to be true or false"),
        ("pfedme", {"inner_steps": 0}, "inner_steps is 0, it has to be a whole number of at least 1"),
        ("pfedme", {"inner_steps": 1.5}, "inner_steps is 1.5, it has to be a whole number"),
        ("feddbe", {"strength": "much"}, "strength is 'much', it has to be a number of at least 0"),
    ],
)
def test_wrong_options_are_one_line(name, options, message):
    with pytest.raises(SettingsError, match=message):
        build_method(name, options)
