"""FedAli, FedNTD, FedRoD, FedBABU, FedBN and FedALA against numpy: the linear model of ``test_method_updates``, and one with a hidden head."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fedali.data import Normalisation
from fedali.engines.base import Samples, TrainJob
from fedali.engines.loop import LoopEngine
from fedali.errors import SettingsError
from fedali.methods import build_method, personal_indices, shared_indices
from fedali.models import build_model
from fedali.models.base import Model
from fedali.optimizers.rules import SGD
from fedali.recipe import Recipe
from fedali.slots import initial_vector, layout_of, slot_slice
from tests.unit.test_method_updates import (
    RATE,
    C,
    D,
    E,
    M,
    X,
    Y,
    gradient,
    noisy,
    start_of,
    train,
)

HEAD = np.arange(M) >= E * D


def softmax(logits):
    p = np.exp(logits - logits.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


def cross_entropy(logits, labels):
    return np.mean(-np.log(softmax(logits)[np.arange(len(labels)), labels]))


def slope(function, at, step=1e-6):
    """The derivative of a function by differences."""
    return np.array([(function(at + h) - function(at - h)) / (2 * step) for h in step * np.eye(at.size)])


class Wide(Model):
    """Like ``Linear``, with four classes and a head of two layers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.body = nn.Linear(D, E, bias=False)
        self.head = nn.Sequential(nn.Linear(E, 5), nn.Tanh(), nn.Linear(5, 4))

    def features(self, x, alignment):
        return self.body(x)


LABELS = np.array([0, 1, 1, 3, 1, 0])  # nobody has class 2
COUNTS = np.array([2, 3, 0, 1])


def logits_of(theta, x=X):
    parts = Wide().parameter_layout.unflatten(theta)
    z = np.tanh(x @ parts["body.weight"].T @ parts["head.0.weight"].T + parts["head.0.bias"])
    return z @ parts["head.2.weight"].T + parts["head.2.bias"]


def train_wide(name, options=None, *, epochs=1, vector_seed=1, server_seed=2):
    """One client of a ``Wide`` model after ``epochs`` steps of all samples: method, layout, its vector before, the server's, after."""
    model, method = Wide(), build_method(name, options)
    start = initial_vector(model.facts, method.slots, model.theta().numpy())
    vector, server = noisy(start, vector_seed), noisy(start, server_seed)
    recipe = Recipe(model, method, SGD(RATE, 0.0), (D,), epochs + method.extra_epochs, len(Y))
    samples = Samples(X, LABELS, Normalisation(np.zeros(D, np.float32), np.ones(D, np.float32)))
    none = np.zeros(0, np.float32)
    job = TrainJob(samples, vector, none, server, none, 0.0, np.random.SeedSequence(0))
    (result,) = LoopEngine(recipe, dtype=torch.float64).train([job])
    found = result.theta, result.loss
    return recipe, vector.astype(np.float64), server.astype(np.float64), *found


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_fedntd_distils_the_classes_that_are_not_true(temperature):
    options = {"beta": 0.8, "temperature": temperature}
    _, theta, server, found, loss = train_wide("fedntd", options)
    others = np.array([[c for c in range(4) if c != y] for y in LABELS])

    def objective(w):
        """As the paper has it: each sample's logits without that of its class."""
        q = softmax(np.take_along_axis(logits_of(server), others, 1) / temperature)
        p = softmax(np.take_along_axis(logits_of(w), others, 1) / temperature)
        divergence = np.mean((q * np.log(q / p)).sum(1))
        return cross_entropy(logits_of(w), LABELS) + 0.8 * temperature**2 * divergence

    assert loss == pytest.approx(objective(theta), rel=1e-9)
    np.testing.assert_allclose(found, theta - RATE * slope(objective, theta), rtol=1e-6, atol=1e-8)


def test_fedntd_keeps_nothing_of_two_classes():
    start = noisy(start_of("fedntd"), 1)
    _, w, _, found = train("fedntd", vector=start, server=noisy(start, 2), epochs=1)
    np.testing.assert_allclose(found, w - RATE * gradient(w), rtol=1e-9)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_fedali_trains_by_the_plain_loss_and_the_balanced_one(share):
    _, theta, _, found, loss = train_wide("fedali", {"balance": share})
    size = Wide().parameter_layout.size

    shares = COUNTS[COUNTS > 0] / COUNTS.sum()
    part = share * (1 + (shares * np.log(shares)).sum() / np.log(4))

    def objective(w):
        with np.errstate(divide="ignore"):
            balanced = cross_entropy(logits_of(w) + np.log(COUNTS), LABELS)
        return (1 - part) * cross_entropy(logits_of(w), LABELS) + part * balanced

    assert loss == pytest.approx(objective(theta[:size]), rel=1e-7)
    moved = theta[:size] - RATE * slope(objective, theta[:size])
    np.testing.assert_allclose(found[:size], moved, atol=1e-8)


@pytest.mark.parametrize("share", [-0.1, 1.1, True, "all"])
def test_fedali_takes_a_share_from_0_to_1(share):
    with pytest.raises(SettingsError, match=r"balance is .*, it has to be a number from 0 to 1"):
        build_method("fedali", {"balance": share})


def test_fedrod_balances_the_shared_model_and_adds_a_personal_layer():
    recipe, theta, _, found, loss = train_wide("fedrod", epochs=2)
    whole = recipe.vectors.whole
    size = Wide().parameter_layout.size
    model, head = theta[:size], theta[slot_slice(whole, "personal_head")]
    last = slice(size - 24, size)  # of head.2: 4 x 5 weights and 4 biases

    def balanced(w):
        """Classes that the client lacks are none (Ren et al. 2020, equation 3)."""
        with np.errstate(divide="ignore"):
            return cross_entropy(logits_of(w) + np.log(COUNTS), LABELS)

    def added(w, h):
        w = w.copy()
        w[last] += h[-24:]
        return w

    def plain(h, w):
        return cross_entropy(logits_of(added(w, h)), LABELS)

    for _ in range(2):
        last_loss = balanced(model) + plain(head, model)
        moved = model - RATE * slope(balanced, model)
        head = head - RATE * slope(lambda h, w=model: plain(h, w), head)
        model = moved
    assert loss == pytest.approx(last_loss, rel=1e-7)
    np.testing.assert_allclose(found[:size], model, atol=1e-8)
    np.testing.assert_allclose(found[slot_slice(whole, "personal_head")], head, atol=1e-8)
    both = found[slot_slice(whole, recipe.method.answer_slot)]
    generic, personal = logits_of(found[:size]), found[slot_slice(whole, "personal_head")]
    hidden = np.tanh(
        X @ both[: E * D].reshape(E, D).T @ both[E * D : E * D + 15].reshape(5, E).T + both[E * D + 15 :][:5]
    )
    of_person = hidden @ personal[-24:-4].reshape(4, 5).T + personal[-4:]
    np.testing.assert_allclose(logits_of(both), generic + of_person, rtol=1e-9)
    np.testing.assert_array_equal(found[slot_slice(whole, "class_counts")], COUNTS)
    assert recipe.method.has_global_model
    assert shared_indices(recipe.method, whole).tolist() == list(range(size))


def test_fedbabu_shares_a_body_and_answers_with_what_it_tunes():
    options = {"fine_tuning": 3}
    start = noisy(start_of("fedbabu"), 3)
    recipe, before, _, found = train("fedbabu", options, vector=start, epochs=2 + 3)
    w = before[:M]
    for _ in range(2):
        w = w - RATE * gradient(w) * ~HEAD
    np.testing.assert_allclose(found[:M], w, rtol=1e-9)
    np.testing.assert_array_equal(found[:M][HEAD], before[:M][HEAD])
    tuned = w
    for _ in range(3):
        tuned = tuned - RATE * gradient(tuned)
    np.testing.assert_allclose(found[M:], tuned, rtol=1e-9)
    assert recipe.method.answer_slot == "personal"
    assert recipe.method.extra_epochs == 3
    assert shared_indices(recipe.method, recipe.vectors.whole).tolist() == list(range(M))


def test_fedavg_tuned_sends_what_it_trained_and_answers_with_what_it_tunes():
    recipe, before, _, found = train("fedavg-tuned", {"fine_tuning": 1}, epochs=2 + 1)
    sent = before[:M]
    for _ in range(2):
        sent = sent - RATE * gradient(sent)
    np.testing.assert_allclose(found[:M], sent, rtol=1e-9)
    np.testing.assert_allclose(found[M:], sent - RATE * gradient(sent), rtol=1e-9)
    assert shared_indices(recipe.method, recipe.vectors.whole).tolist() == list(range(M))


@pytest.mark.parametrize(("tunes", "moves"), [("head", HEAD), ("body", ~HEAD)])
def test_fedbabu_tunes_a_part(tunes, moves):
    _, before, _, found = train("fedbabu", {"fine_tuning": 2, "tunes": tunes}, epochs=3)
    w = before[:M] - RATE * gradient(before[:M]) * ~HEAD
    for _ in range(2):
        w = w - RATE * gradient(w) * moves
    np.testing.assert_allclose(found[M:], w, rtol=1e-9)


def test_fedala_learns_how_much_of_the_servers_head_to_take():
    start = noisy(start_of("fedala"), 4, scale=1.0)
    layout = layout_of(
        build_model("mlp", (D,), C, hidden=(E,)).facts, ()
    )  # another model's: slots follow the model's own
    assert layout.size != M
    recipe, before, _, _ = train("fedala", epochs=1 + 1)
    whole = recipe.vectors.whole
    share, previous = slot_slice(whole, "own_share"), slot_slice(whole, "previous")
    server = noisy(start_of("fedala"), 5, scale=1.0)
    start[:M] = server[:M]
    start[share] = [0.0, 0.2, 1.0, 0.5, 0.97, 0.03]
    _, before, sent, found = train("fedala", {"weight_epochs": 2}, vector=start, server=server, epochs=2 + 2)
    own, theirs, weights = before[previous], sent[:M], 1 - before[share]

    def mixed(weights):
        """Equation 2 of the paper, of the head."""
        merged = theirs.copy()
        merged[HEAD] = own[HEAD] + (theirs[HEAD] - own[HEAD]) * weights
        return merged

    for _ in range(2):  # equation 5
        by_weight = gradient(mixed(weights))[HEAD] * (theirs - own)[HEAD]
        weights = np.clip(weights - 1.0 * by_weight, 0, 1)
    assert (weights == 0).any() or (weights == 1).any()  # the clip is met
    assert not np.allclose(weights, 1 - before[share])
    np.testing.assert_allclose(found[share], 1 - weights, rtol=1e-7, atol=1e-9)
    w = mixed(weights)
    for _ in range(2):
        w = w - RATE * gradient(w)
    np.testing.assert_allclose(found[:M], w, rtol=1e-7)
    np.testing.assert_array_equal(found[previous], found[:M])


def test_fedala_is_fedavg_while_there_is_no_previous_model():
    _, before, _, found = train("fedala", epochs=1 + 2)
    w = before[:M]
    for _ in range(2):
        w = w - RATE * gradient(w)
    np.testing.assert_allclose(found[:M], w, rtol=1e-9)


@pytest.mark.parametrize("name", ["cnn1d", "cnn2d", "hart"])
def test_fedbn_keeps_normalisation_layers_and_nothing_else(name):
    shape = {"cnn1d": (32, 6), "cnn2d": (1, 8, 8), "hart": (32, 6)}[name]
    model, method = build_model(name, shape, 3), build_method("fedbn")
    norms = {
        f"{place}.{parameter}"
        for place, module in model.named_modules()
        if isinstance(module, nn.LayerNorm | nn.GroupNorm)
        for parameter in ("weight", "bias")
    }
    layout = model.parameter_layout
    expected = [i for e in layout.entries if e.name in norms for i in range(e.offset, e.offset + e.size)]
    assert personal_indices(method, layout).tolist() == expected
    assert not method.has_global_model


def test_fedbn_asks_for_norms_that_have_other_names():
    layout = build_model("mlp", (4,), 3, hidden=(5, 6)).parameter_layout
    with pytest.raises(SettingsError, match=r"no parameter matches '\*norm\*'; names are like body.1.weight"):
        personal_indices(build_method("fedbn"), layout)
    named = build_method("fedbn", {"norms": ["body.3.*", "body.6.*"]})
    assert personal_indices(named, layout).size == 2 * (5 + 6)


def test_fedavg_with_more_epochs_says_so():
    more = build_method("fedavg-more")
    assert more.extra_epochs == 10
    assert build_method("fedavg").extra_epochs == 0
    with pytest.raises(SettingsError, match="extra_epochs is -1, it has to be a whole number of at least 0"):
        build_method("fedavg", {"extra_epochs": -1})


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("fedntd", {"temperature": 0}, "temperature is 0, it has to be a number of at least 1e-06"),
        ("fedbabu", {"fine_tuning": 0}, "fine_tuning is 0, it has to be a whole number of at least 1"),
        ("fedbabu", {"tunes": "heads"}, "tunes is 'heads'; did you mean 'head'"),
        ("fedbn", {"norms": "norm"}, "norms is 'norm', it has to be a list"),
        ("fedala", {"weight_epochs": 1.5}, "weight_epochs is 1.5, it has to be a whole number"),
    ],
)
def test_wrong_options_are_one_line(name, options, message):
    with pytest.raises(SettingsError, match=message):
        build_method(name, options)
