"""The update of each method with state or phases, against numpy: a linear model of one layer, whose gradient is a formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fedali.data import Normalisation
from fedali.engines.base import Samples, TrainJob
from fedali.engines.loop import LoopEngine
from fedali.errors import SettingsError
from fedali.methods import Layouts, SharedState, Trained, Upload, build_method, shared_indices
from fedali.models.base import Model
from fedali.optimizers.rules import SGD, Adam
from fedali.recipe import Recipe
from fedali.slots import initial_vector, slot_slice

D, E, C = 4, 3, 2  # input, embedding, classes
RATE = 0.1


class Linear(Model):
    """embedding = W x, logits = V embedding."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = nn.Linear(D, E, bias=False), nn.Linear(E, C, bias=False)

    def features(self, x, alignment):
        return self.body(x)


RNG = np.random.default_rng(5)
X, Y = RNG.standard_normal((6, D)).astype(np.float32), np.array([0, 1, 1, 0, 1, 0])


def split(theta):
    return theta[: E * D].reshape(E, D), theta[E * D : E * D + C * E].reshape(C, E)


def joined(W, V):
    return np.concatenate([W.reshape(-1), V.reshape(-1)])


def gradient(theta, pull_z=0.0):
    """Of the mean cross-entropy, and of a term whose gradient by the embeddings is ``pull_z`` [n, E]."""
    W, V = split(theta)
    Z = X @ W.T
    logits = Z @ V.T
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    p[np.arange(len(Y)), Y] -= 1
    p /= len(Y)
    return joined((p @ V + pull_z).T @ X, p.T @ Z)


def train(name, options=None, *, epochs=2, optimizer=None, vector=None, server=None, model=None, batch=6):
    """One client after ``epochs`` steps of all its samples: its vector before, the server's, and after."""
    model, method = model or Linear(), build_method(name, options)
    recipe = Recipe(model, method, optimizer or SGD(RATE, 0.0), (D,), epochs, batch)
    start = initial_vector(model.facts, method.slots, model.theta().numpy())
    vector = start if vector is None else vector
    server = start if server is None else server
    samples = Samples(X, Y, Normalisation(np.zeros(D, np.float32), np.ones(D, np.float32)))
    none = np.zeros(0, np.float32)
    job = TrainJob(samples, vector, none, server, none, 0.0, np.random.SeedSequence(0))
    (result,) = LoopEngine(recipe, dtype=torch.float64).train([job])
    return recipe, vector.astype(np.float64), server.astype(np.float64), result.theta


M = E * D + C * E


def noisy(vector, seed, scale=0.3):
    return (vector + scale * np.random.default_rng(seed).standard_normal(vector.size)).astype(np.float32)


def start_of(name, options=None, model=None):
    model, method = model or Linear(), build_method(name, options)
    return initial_vector(model.facts, method.slots, model.theta().numpy())


def test_fedprox_is_pulled_to_the_servers_model():
    _, w, server, found = train("fedprox", {"mu": 0.7}, vector=noisy(start_of("fedprox"), 1))
    for _ in range(2):
        w = w - RATE * (gradient(w) + 0.7 * (w - server))
    np.testing.assert_allclose(found, w, rtol=1e-10)


@pytest.mark.parametrize(
    ("options", "of_head", "of_body", "extra"),
    [({}, 1, 4, 1), ({"head_epochs": 3}, 3, 2, 3), ({"body_epochs": 1}, 4, 1, 0)],
)
def test_fedrep_trains_the_head_then_the_body(options, of_head, of_body, extra):
    """The body has all of a training's epochs, and the head more; or both share them."""
    recipe, w, _, found = train("fedrep", options, epochs=5)
    head = np.arange(M) >= E * D
    for step in range(of_head + of_body):
        w = w - RATE * gradient(w) * (head if step < of_head else ~head)
    np.testing.assert_allclose(found, w, rtol=1e-10)
    assert recipe.method.extra_epochs == extra


def test_a_phase_begins_with_a_fresh_optimizer():
    """Adam's first step is as long as its rate, in each phase."""
    _, w, _, found = train("fedrep", epochs=2, optimizer=Adam(RATE))
    expected = w - RATE * np.sign(gradient(w)) * (np.arange(M) >= E * D)
    expected -= RATE * np.sign(gradient(expected)) * (np.arange(M) < E * D)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_too_few_epochs_for_phases_are_one_line():
    with pytest.raises(SettingsError, match="trains in phases, of 2 epochs at least: epochs is 1"):
        train("fedrep", {"body_epochs": 1}, epochs=1)


def test_ditto_trains_a_second_model_near_the_servers():
    start = noisy(start_of("ditto"), 2)
    _, _, server, found = train("ditto", {"strength": 0.4}, vector=start)
    w, v = start[:M].astype(np.float64), start[M:].astype(np.float64)
    for _ in range(2):
        w, v = w - RATE * gradient(w), v - RATE * (gradient(v) + 0.4 * (v - server[:M]))
    np.testing.assert_allclose(found, np.concatenate([w, v]), rtol=1e-9)


def test_scaffold_corrects_the_drift_and_moves_its_variates():
    start = start_of("scaffold")
    vector, server = noisy(start, 3), noisy(start, 4)
    vector[:M] = server[:M]
    recipe, before, sent, found = train("scaffold", vector=vector, server=server)
    x, c, own = sent[:M], sent[M : 2 * M], before[2 * M :]
    y = x.copy()
    for _ in range(2):
        y = y - RATE * (gradient(y) - own + c)
    new = own - c + (x - y) / (2 * RATE)
    np.testing.assert_allclose(found[:M], y, rtol=1e-9)
    np.testing.assert_allclose(found[2 * M :], new, rtol=1e-9)
    np.testing.assert_allclose(found[M : 2 * M], c + new - own, rtol=1e-9)  # sent in the place of c
    # the server: two of eight clients took part
    method, layouts = recipe.method, Layouts(recipe.vectors.whole, Linear().prototype_layout)
    none = np.zeros(0, np.float32)
    shared = SharedState(server, none)
    other = Trained(noisy(found, 6).astype(np.float32), none, 30)
    total = Upload(population=6)
    for client in (Trained(found.astype(np.float32), none, 10), other):
        upload = method.upload(client, shared, layouts)
        upload.population = 1
        total += upload
    after = method.aggregate(total, shared, layouts).theta
    mean = 0.25 * found.astype(np.float32) + 0.75 * other.theta
    np.testing.assert_allclose(after[:M], mean[:M], rtol=1e-5)
    np.testing.assert_allclose(after[M : 2 * M], c + 2 / 8 * (mean[M : 2 * M] - c), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(after[2 * M :], server[2 * M :])  # a new client's start
    assert shared_indices(method, layouts.parameters).tolist() == list(range(2 * M))


def test_moon_is_drawn_to_the_server_and_away_from_its_last_model():
    start = noisy(start_of("moon"), 7)
    server = noisy(start_of("moon"), 8)
    _, before, sent, found = train(
        "moon", {"mu": 2.0, "temperature": 0.4}, epochs=1, vector=start, server=server
    )
    w, previous = before[:M], before[M:]

    def contrast(theta):
        def z(t):
            return X @ split(t)[0].T

        def cosine(a, b):
            return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)

        g, p = cosine(z(theta), z(sent[:M])) / 0.4, cosine(z(theta), z(previous)) / 0.4
        return 2.0 * np.mean(-np.log(np.exp(g) / (np.exp(g) + np.exp(p))))

    slope = np.array([(contrast(w + h) - contrast(w - h)) / 2e-6 for h in 1e-6 * np.eye(M)])
    np.testing.assert_allclose(found[:M], w - RATE * (gradient(w) + slope), rtol=1e-6, atol=1e-8)
    np.testing.assert_array_equal(found[M:], found[:M])


def test_fedproto_shares_class_means_alone():
    start = start_of("fedproto")
    recipe, before, _, first = train("fedproto", {"strength": 0.5})
    whole = recipe.vectors.whole
    where, shares = slot_slice(whole, "class_prototypes"), slot_slice(whole, "class_shares")
    w = before[:M]
    for _ in range(2):
        w = w - RATE * gradient(w)  # nobody knows a class yet
    np.testing.assert_allclose(first[:M], w, rtol=1e-9)
    Z = X @ split(w)[0].T
    sums = np.stack([Z[k == Y].sum(0) for k in range(C)])
    np.testing.assert_allclose(first[where].reshape(C, E), sums / len(Y), rtol=1e-6)
    np.testing.assert_allclose(first[shares], [3 / 6, 3 / 6])
    # the server averages by samples of the class; one client has class 0 alone
    layouts, none = Layouts(whole, Linear().prototype_layout), np.zeros(0, np.float32)
    shared, one = SharedState(start, none), first.astype(np.float32)
    other = one.copy()
    other[where], other[shares] = [9, 9, 9, 0, 0, 0], [1, 0]
    total = Upload()
    for vector, samples in ((one, 6), (other, 2)):
        total += recipe.method.upload(Trained(vector, none, samples), shared, layouts)
    after = recipe.method.aggregate(total, shared, layouts).theta
    wanted = np.stack([(sums[0] + 18) / 5, sums[1] / 3])
    np.testing.assert_allclose(after[where].reshape(C, E), wanted, rtol=1e-5)
    np.testing.assert_array_equal(after[shares], [1, 1])
    np.testing.assert_array_equal(after[:M], start[:M])
    assert not recipe.method.has_global_model
    # and the next round pulls
    vector = first.astype(np.float32)
    vector[M:] = after[M:]
    _, before, _, found = train("fedproto", {"strength": 0.5}, epochs=1, vector=vector, server=after)
    Z = X @ split(before[:M])[0].T
    pull = 0.5 * 2 * (Z - wanted[Y]) / E / len(Y)
    np.testing.assert_allclose(
        found[:M], before[:M] - RATE * gradient(before[:M], pull), rtol=1e-5, atol=1e-7
    )


def test_a_class_that_nobody_has_keeps_its_prototype():
    recipe, _, _, first = train("fedproto")
    whole = recipe.vectors.whole
    where, shares = slot_slice(whole, "class_prototypes"), slot_slice(whole, "class_shares")
    start = start_of("fedproto")
    start[where], start[shares] = 7.0, [0, 1]
    vector, none = first.astype(np.float32), np.zeros(0, np.float32)
    vector[where], vector[shares] = [1, 1, 1, 0, 0, 0], [1, 0]
    layouts = Layouts(whole, Linear().prototype_layout)
    shared = SharedState(start, none)
    upload = recipe.method.upload(Trained(vector, none, 4), shared, layouts)
    after = recipe.method.aggregate(upload, shared, layouts).theta
    np.testing.assert_array_equal(after[where].reshape(C, E), [[1, 1, 1], [7, 7, 7]])
    np.testing.assert_array_equal(after[shares], [1, 1])
