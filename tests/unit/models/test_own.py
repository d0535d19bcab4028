"""Networks of one's own: what is found of them, what is done to them, and what is refused with which line."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from fedali import adapt, build_model
from fedali.capture.captures import capture_predict
from fedali.capture.decompositions_onnx import ONNX
from fedali.errors import SettingsError
from fedali.methods import build_method
from fedali.models import ALPSettings
from fedali.models.own.recurrent import Unrolled
from fedali.optimizers.rules import SGD
from fedali.step import Batch, Hyper, Shared, State, make_step
from tests.networks import SMALL

ALP = ALPSettings(num_prototypes=(4,))


class Odd(nn.Module):
    """Does one thing that a network had better not do."""

    def __init__(self, what: str = "") -> None:
        super().__init__()
        self.a, self.fc, self.what = nn.Linear(6, 8), nn.Linear(8, 3), what
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        if self.what == "input":
            x.mul_(2)
        x = self.a(x)
        if self.what == "buffer":
            self.seen += 1
        if self.what == "random":
            x = F.dropout(x, 0.5, training=True)
        if self.what == "mixed":
            x = x - x.mean(0)
        if self.what == "branch" and x.abs().sum() > 0:
            x = x * 2
        if self.what == "shape":
            x = x + 0 * x[x > 0].sum()
        y = self.fc(x)
        if self.what == "twice":
            y = y + self.fc(x)
        return {"tuple": (y, x), "softmax": y.softmax(-1)}.get(self.what, y)


REFUSED = {
    "input": "Odd writes into its input in place",
    "buffer": "Odd changes its buffer 'seen'",
    "random": "Odd draws random numbers",
    "mixed": "what Odd says of a sample depends on the others of its batch",
    "tuple": "Odd gives a tuple, and has to give logits",
    "softmax": "Odd does more behind its head 'fc'",
    "twice": "head 'fc' of Odd is called 2 times",
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_stands_in_the_way_is_one_line(what):
    with pytest.raises(SettingsError, match=REFUSED[what]) as caught:
        adapt(Odd(what)).build((6,), 3)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("what", "operation"), [("branch", "_local_scalar_dense"), ("shape", "nonzero")])
def test_what_depends_on_values_runs_in_the_loop_alone(what, operation):
    model = adapt(Odd(what)).build((6,), 3)
    assert operation in str(model.report)
    assert model(torch.randn(2, 6)).logits.shape == (2, 3)
    with pytest.raises(SettingsError, match="use engine 'loop'"):
        capture_predict(model, matcher=None, input_shape=(6,), batch=2)


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.more, self.fc = nn.Parameter(torch.zeros(1, 4)), nn.Linear(8, 3)

    def forward(self, x):
        return self.fc(torch.cat([x, self.more.expand(len(x), -1)], 1))


def test_a_batch_counted_by_len_is_refused_where_it_has_to_be_open():
    model = adapt(Counting()).build((4,), 3)
    given = {"matcher": None, "input_shape": (4,), "table": ONNX}
    assert capture_predict(model, batch=2, **given).outputs == ("logits",)
    with pytest.raises(SettingsError, match=r"write x\.shape\[0\] where it has len\(x\)"):
        capture_predict(model, batch=None, **given)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"head": "fcc"}, "no module 'fcc' to be its head; did you mean 'fc'"),
        ({"embedding": "b"}, "no module 'b' to give its embedding"),
        ({"alp_at": "fc"}, "alp_at 'fc' is the head"),
        ({"alp_at": "b"}, "no such module is called"),
        ({"trainable": "b.*"}, "trainable 'b\\.\\*' matches no parameter"),
    ],
)
def test_a_name_that_is_not_there(settings, says):
    with pytest.raises(SettingsError, match=says):
        adapt(Odd(), **settings).build((6,), 3)


def test_samples_that_do_not_fit_are_refused_with_the_module():
    with pytest.raises(SettingsError, match=r"Odd fails on samples of shape \(7,\) in a: mat1 and mat2"):
        adapt(Odd()).build((7,), 3)


@pytest.mark.parametrize("name", SMALL)
def test_logits_are_the_networks_own(name):
    make, shape = SMALL[name]
    torch.manual_seed(1)
    net = make()
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):  # as if it had been trained
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    before, x = copy.deepcopy(net.state_dict()), torch.randn(3, *shape)
    classes = [m for m in net.modules() if isinstance(m, nn.Linear)][-1].out_features
    model = adapt(net).build(shape, classes)
    with torch.no_grad():
        torch.testing.assert_close(model(x).logits, net.eval()(x), atol=1e-5, rtol=1e-5)
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_are_torchs(kind):
    torch.manual_seed(0)
    layer, x = kind(3, 4, 2, bidirectional=True), torch.randn(5, 2, 3)
    ours, (expected, last) = Unrolled(layer), layer(x)
    found, state = ours(x)
    torch.testing.assert_close((found, state), (expected, last))
    start = tuple(torch.ones_like(s) for s in last) if kind is nn.LSTM else torch.ones_like(last)
    torch.testing.assert_close(ours(x, start), layer(x, start))


def test_a_step_is_that_of_plain_torch():
    make, shape = SMALL["mobilenetv2"]
    torch.manual_seed(0)
    net, x, y = make(), torch.randn(4, *shape), torch.tensor([0, 1, 2, 1])
    model = adapt(net, batchnorm="frozen").build(shape, 1000)
    theta = model.theta()
    step = make_step(model, build_method("fedavg"), SGD(0.1, 0.0), eager=True)
    state = State(theta, *SGD(0.1, 0.0).initial(theta), torch.empty(0))
    numbers = Hyper(*map(torch.tensor, (0.1, 1.0, 0.0, 0.0)))
    new, _ = step(state, Batch(x, y, torch.ones(4)), Shared(theta, torch.empty(0)), numbers)
    net.eval()
    F.cross_entropy(net(x), y).backward()
    expected = torch.cat([(p - 0.1 * p.grad).reshape(-1) for p in net.parameters()])
    torch.testing.assert_close(new.theta, expected.detach(), atol=1e-6, rtol=1e-5)


def test_batch_normalisation_is_by_groups_where_it_was_not_trained():
    make, shape = SMALL["resnet18"]
    model = adapt(make()).build(shape, 5)
    kinds = {type(module) for module in model.modules()}
    assert nn.GroupNorm in kinds
    assert not any(issubclass(kind, nn.modules.batchnorm._BatchNorm) for kind in kinds)
    assert "by groups" in str(model.report)


def test_alp_layers_sit_where_they_are_asked_for():
    make, shape = SMALL["vit"]
    model = adapt(make(), alp_at=["norm", "blocks.0"]).build(shape, 5, ALP)
    assert [path for path, _ in model.places] == ["blocks.0", "norm"]  # in the order of the forward pass
    assert "behind blocks.0: 5 tokens of 16" in str(model.report)
    make, shape = SMALL["resnet18"]
    model = adapt(make(), alp_at="layers.0").build(shape, 5, ALP)
    assert model.prototype_layout.unflatten(np.zeros(16))["alp.0"].shape == (4, 4)  # channels, not columns
    x = torch.randn(2, *shape)
    other = copy.deepcopy(model)
    with torch.no_grad():
        model.alp_layers[0].global_prototypes.zero_()
        model.alp_layers[0].gate.bias.fill_(3)
        assert not torch.equal(model(x).logits, other(x).logits)  # a copy has layers of its own


@pytest.mark.parametrize(
    ("trainable", "names"),
    [
        ("fc.*", ["head.weight", "head.bias"]),
        ("head", ["head.weight", "head.bias"]),
        ("biases", ["body.a.bias", "head.bias"]),
        (["a.*", "!*.bias"], ["body.a.weight"]),
    ],
)
def test_what_does_not_train_is_a_constant(trainable, names):
    model = adapt(Odd(), trainable=trainable).build((6,), 3)
    assert list(model.parameter_layout.names) == names
    assert model.has_constants
    x = torch.randn(2, 6)
    assert torch.equal(model(x).logits, adapt(Odd()).build((6,), 3)(x).logits) is False
    found = capture_predict(model, matcher=None, input_shape=(6,), batch=2)(
        model.theta(), torch.empty(0), x, torch.tensor(0.0)
    )
    torch.testing.assert_close(found[0], model(x).logits)


def test_norms_and_the_registrys_models_have_words_too():
    make, shape = SMALL["resnet18"]
    names = adapt(make(), trainable="norms and head").build(shape, 5).parameter_layout.names
    assert {name.split(".")[-2] for name in names} == {"bn1", "bn2", "1", "head"}  # 1: of a downsample
    model = build_model("mlp", (4,), 3, adapt={"trainable": ["head"]})
    assert model.parameter_layout.names == ("head.weight", "head.bias")
    with pytest.raises(SettingsError, match="takes trainable alone"):
        build_model("mlp", (4,), 3, adapt={"head": "head"})


def test_adapters_train_beside_layers_that_stay():
    make, shape = SMALL["vit"]
    torch.manual_seed(0)
    net, x, y = make(), torch.randn(4, *shape), torch.tensor([0, 1, 2, 1])
    given = adapt(
        net, adapters={"rank": 2, "at": ["*.qkv", "blocks.1.mlp.?"], "alpha": 4}, trainable="adapters"
    )
    model = given.build(shape, 1000)
    places = ["blocks.0.attn.qkv", "blocks.1.attn.qkv", "blocks.1.mlp.0", "blocks.1.mlp.3"]
    assert model.parameter_layout.names == tuple(f"body.{p}.lora_{ab}" for p in places for ab in "ab")
    torch.testing.assert_close(model(x).logits, net.eval()(x))  # nothing is added at first
    theta, optimizer = model.theta(), SGD(0.1, 0.0)
    step = make_step(model, build_method("fedavg"), optimizer, eager=True)
    numbers = Hyper(*map(torch.tensor, (0.1, 1.0, 0.0, 0.0)))
    state, none = State(theta, *optimizer.initial(theta), torch.empty(0)), torch.empty(0)
    new, _ = step(state, Batch(x, y, torch.ones(4)), Shared(theta, none), numbers)
    weight = net.blocks[1].mlp[3].weight
    F.cross_entropy(net(x), y).backward()  # of W + 2 B A where B is 0: by B it is 2 dW A^T
    parts = model.parameter_layout.unflatten(theta), model.parameter_layout.unflatten(new.theta)
    a, moved = parts[0]["body.blocks.1.mlp.3.lora_a"], parts[1]["body.blocks.1.mlp.3.lora_b"]
    torch.testing.assert_close(moved, -0.1 * 2 * weight.grad @ a.T, atol=1e-7, rtol=1e-4)
    names = adapt(net, adapters={"at": "*.qkv"}).build(shape, 1000).parameter_layout.names
    assert {name.rpartition(".")[2] for name in names} == {
        "lora_a",
        "lora_b",
        "weight",
        "bias",
    }  # and the head's
    for wrong, says in (
        ({"at": "*.qvk"}, "matches no linear layer"),
        ({"rank": 2}, "has to name linear layers"),
        ({"at": "*", "rank": 0}, "a whole number from 1"),
        ({"at": "*", "rnak": 2}, "no setting 'rnak'; did you mean 'rank'"),
    ):
        with pytest.raises(SettingsError, match=says):
            adapt(net, adapters=wrong).build(shape, 1000)


NAMED = """
from torch import nn
from fedali import adapt
class Net(nn.Sequential):
    def __init__(self, input_shape, width=4):
        super().__init__(nn.Flatten(), nn.Linear(input_shape[0], width), nn.ReLU(), nn.Linear(width, 9))
def make(width):
    return Net((4,), width)
def wrong(): return 3
made = adapt(make(5), trainable="head")
"""


def test_models_by_name(tmp_path, monkeypatch):
    (tmp_path / "my_nets_of_a_test.py").write_text(NAMED)
    monkeypatch.chdir(tmp_path)
    name = "my_nets_of_a_test"
    one, other = (build_model(f"{name}:Net", (4,), 3, seed=seed, width=6) for seed in (1, 2))
    assert one.head.out_features == 3
    assert one.facts.embedding == 6
    assert torch.equal(one.theta(), build_model(f"{name}:Net", (4,), 3, seed=1, width=6).theta())
    assert not torch.equal(one.theta(), other.theta())
    assert (
        build_model(f"{name}:make", (4,), 3, width=5, adapt={"trainable": "head"}).parameter_layout.size == 18
    )
    assert build_model(f"{name}:made", (4,), 3).parameter_layout.size == 18
    for thing, options, says in (
        ("Net", {"widht": 3}, "no option 'widht'; did you mean 'width'"),
        ("make", {}, "cannot be made: TypeError: make\\(\\) missing"),
        ("wrong", {}, "gives a int, and has to give a torch.nn.Module"),
        ("nothing", {}, "has no 'nothing'"),
        ("made", {"adapt": {"head": "3"}}, "is adapted already"),
        ("Net", {"adapt": {"haed": "3"}}, "model.adapt has no setting 'haed'; did you mean 'head'"),
    ):
        with pytest.raises(SettingsError, match=says):
            build_model(f"{name}:{thing}", (4,), 3, **options)
    with pytest.raises(SettingsError, match="its code is not run here"):
        build_model(f"{name}:Net", (4,), 3, doors=False)
