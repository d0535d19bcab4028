"""Tasks: losses against torch, scores against scikit-learn, options, and what is refused."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from sklearn import metrics as sk

from fedali.errors import DataError, SettingsError
from fedali.methods import build_method
from fedali.models.base import Output
from fedali.step.forward import _mixed
from fedali.targets import Targets, fit_numbers, predicted, scores, shares
from fedali.task import Batch
from fedali.tasks import CLASSIFICATION, build_task

B, T = 9, 4


def drawn(kind, *, padding=0):
    """Outputs [B, T] and a batch of a kind, the last samples of weight 0."""
    random = torch.Generator().manual_seed(3)
    logits = 2 * torch.randn(B, T, generator=random, dtype=torch.float64)
    y = {
        "classes": torch.randint(T, (B,), generator=random),
        "labels": torch.randint(2, (B, T), generator=random).double(),
        "numbers": torch.randn(B, T, generator=random, dtype=torch.float64),
    }[kind]
    weights = torch.ones(B, dtype=torch.float64)
    weights[B - padding :] = 0
    return Output(logits, logits), Batch(torch.zeros(B, 1), y, weights)


CLASS_WEIGHTS = [0.5, 2.0, 1.0, 3.0]
LOSSES = {
    "smoothed": (
        ("classification", {"label_smoothing": 0.2}),
        lambda x, y: F.cross_entropy(x, y, label_smoothing=0.2),
    ),
    "weighted": (
        ("classification", {"class_weights": CLASS_WEIGHTS}),
        lambda x, y: F.cross_entropy(x, y, torch.tensor(CLASS_WEIGHTS).double()),
    ),
    "both": (
        ("classification", {"class_weights": CLASS_WEIGHTS, "label_smoothing": 0.1}),
        lambda x, y: F.cross_entropy(x, y, torch.tensor(CLASS_WEIGHTS).double(), label_smoothing=0.1),
    ),
    "labels": (("multi-label", {}), F.binary_cross_entropy_with_logits),
    "weighted labels": (
        ("multi-label", {"positive_weights": CLASS_WEIGHTS}),
        lambda x, y: F.binary_cross_entropy_with_logits(
            x, y, pos_weight=torch.tensor(CLASS_WEIGHTS).double()
        ),
    ),
    "squared": (("regression", {}), F.mse_loss),
    "huber": (
        ("regression", {"error": "huber", "delta": 0.7}),
        lambda x, y: F.huber_loss(x, y, delta=0.7),
    ),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_and_gradients_are_those_of_torch(name):
    (task, options), expected = LOSSES[name]
    made = build_task(task, options)
    output, batch = drawn(made.kind, padding=2)
    logits = output.logits.clone().requires_grad_()
    loss = made.loss(Output(logits, logits), batch)
    other = output.logits.clone().requires_grad_()
    right = expected(other[:-2], batch.y[:-2])
    torch.testing.assert_close(loss, right)
    torch.testing.assert_close(torch.autograd.grad(loss, logits)[0], torch.autograd.grad(right, other)[0])
    nothing = batch._replace(weights=torch.zeros_like(batch.weights))
    assert made.loss(output, nothing).item() == 0


def test_options_left_alone_change_no_bit_of_classification():
    output, batch = drawn("classes", padding=3)
    losses = F.cross_entropy(output.logits, batch.y, reduction="none")
    assert torch.equal(CLASSIFICATION.loss(output, batch), (losses * batch.weights).sum() / 6)


def test_scores_of_numbers_are_those_of_scikit_learn():
    random = np.random.default_rng(1)
    measured = random.normal(50, [3, 400], (30, 2)).astype(np.float32)
    said = measured + random.normal(0, [1, 90], (30, 2))
    targets = fit_numbers(("weight", "height"), measured[:20], ("kg", "mm"))
    found = scores("own", targets.normalised(measured), targets.normalised(said), targets)
    for place, name in enumerate(targets.names):
        pair = measured[:, place], said[:, place]
        assert found[f"own_mae_{name}"] == pytest.approx(sk.mean_absolute_error(*pair), rel=1e-4)
        assert found[f"own_rmse_{name}"] == pytest.approx(sk.root_mean_squared_error(*pair), rel=1e-4)
        assert found[f"own_r2_{name}"] == pytest.approx(sk.r2_score(*pair), rel=1e-4)
    assert found["own_r2"] == pytest.approx(sk.r2_score(measured, said), rel=1e-4)
    apart = (said - measured) / measured[:20].std(0)
    assert found["own"] == pytest.approx(np.sqrt((apart**2).mean()), rel=1e-4)
    np.testing.assert_allclose(targets.in_units(targets.normalised(said)), said, rtol=1e-4)
    assert all(np.isnan(value) for value in scores("x", measured[:0], said[:0], targets).values())


def test_scores_of_labels_are_those_of_scikit_learn():
    random = np.random.default_rng(2)
    y, said = (random.integers(2, size=(40, 3)) for _ in range(2))
    y[:, 2] = said[:, 2] = 0  # a label that nobody has
    found = scores("own", y.astype(np.float32), said.astype(bool), Targets(("a", "b", "c"), "labels"))
    assert found["own"] == pytest.approx(sk.f1_score(y, said, average="micro"))
    assert found["own_f1"] == pytest.approx(sk.f1_score(y[:, :2], said[:, :2], average="macro"))
    assert found["own_exact"] == pytest.approx(sk.accuracy_score(y, said))
    assert found["own_labels"] == pytest.approx(1 - sk.hamming_loss(y, said))


@pytest.mark.parametrize("kind", ["classes", "labels", "numbers"])
def test_a_gate_in_a_graph_mixes_what_a_simulation_mixes(kind):
    mine, theirs = drawn(kind)[0].logits, drawn(kind)[0].logits.flip(0)
    share = torch.linspace(0, 1, B, dtype=torch.float64)[:, None]
    both = _mixed(kind, share, mine, theirs).numpy()
    part = share.numpy()
    expected = part * shares(kind, mine.numpy()) + (1 - part) * shares(kind, theirs.numpy())
    np.testing.assert_allclose(shares(kind, both), expected, atol=1e-12)
    assert predicted(kind, both).shape == ((B,) if kind == "classes" else (B, T))


def test_balanced_weights_are_scikit_learns():
    from sklearn.utils.class_weight import compute_class_weight

    y = np.repeat([0, 1, 2], [5, 20, 75])
    targets = Targets(("a", "b", "c"), counts=np.bincount(y), samples=len(y))
    found = build_task("classification", {"class_weights": "balanced"}).fitted(targets)
    np.testing.assert_allclose(
        found.class_weights, compute_class_weight("balanced", classes=np.arange(3), y=y), rtol=1e-5
    )
    by_name = build_task("classification", {"class_weights": {"b": 4}}).fitted(targets)
    assert by_name.class_weights == (1.0, 4.0, 1.0)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("regresion", {}, "did you mean 'regression'"),
        ("regression", {"eror": "huber"}, "has no option 'eror'; did you mean 'error'"),
        ("regression", {"error": "hubber"}, "error is 'hubber'; did you mean 'huber'"),
        ("regression", {"delta": 0}, "delta is 0"),
        ("classification", {"label_smoothing": 1}, "label_smoothing is 1"),
        ("classification", {"class_weights": [1, -2]}, "class_weights has -2"),
        ("multi-label", {"positive_weights": "even"}, "positive_weights is 'even'"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_line(name, options, words):
    with pytest.raises(SettingsError, match=words) as error:
        build_task(name, options)
    assert "\n" not in str(error.value)


def test_options_that_do_not_fit_the_data_are_refused():
    targets = Targets(("a", "b"))
    for name, options, words in (
        ("classification", {"class_weights": [1, 2, 3]}, "3 numbers for 2 classes"),
        ("classification", {"class_weights": {"c": 1}}, "class_weights has 'c'"),
        ("classification", {"class_weights": "balanced"}, "give a number for each class"),
        ("regression", {"units": ["kg"]}, "1 words for 2 targets"),
    ):
        with pytest.raises(SettingsError, match=words):
            build_task(name, options).fitted(targets)
    with pytest.raises(DataError, match="'a' is 3 in all training samples"):
        fit_numbers(("a",), np.full((4, 1), 3.0))


def test_methods_that_go_by_classes_refuse_a_task_without():
    regression = build_task("regression")
    for name in ("fedproto", "fedpac-align", "fedrod", "fedntd", "fedavg+neighbours"):
        with pytest.raises(SettingsError, match="goes by classes, and task 'regression' has none"):
            build_method(name).for_task(regression)
        assert build_method(name).for_task(CLASSIFICATION) == build_method(name)
    assert build_method("fedali").for_task(regression).slots == ()
    assert build_method("fedali").for_task(CLASSIFICATION) == build_method("fedali")
