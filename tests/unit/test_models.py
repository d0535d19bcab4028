from __future__ import annotations

import concurrent.futures
import contextlib

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from fedali.alp import Alignment
from fedali.errors import SettingsError
from fedali.models import MODELS, ALPSettings, build_model
from fedali.models.hart import LightConvolution
from fedali.models.pooling import eager, halve, halve_images

SHAPES = {"mlp": (5, 7), "cnn1d": (128, 6), "cnn2d": (1, 28, 28), "hart": (128, 6)}
PAPER = ALPSettings(num_prototypes=(2048, 1024, 512, 256, 128, 64))


@pytest.mark.parametrize(
    ("name", "shape", "alp", "parameters", "prototypes"),
    [
        ("hart", (128, 6), None, 1_445_918, 0),  # the published size
        ("hart", (128, 6), PAPER, 1_445_918 + 6 * (192 * 384 + 384), 192 * 4032),
        ("cnn1d", (128, 6), None, 82_598, 0),
        ("cnn1d", (128, 6), ALPSettings(), 82_598 + 128 * 256 + 256, 64 * 128),
        ("cnn2d", (1, 28, 28), None, 454_854, 0),
        ("mlp", (64,), ALPSettings(num_prototypes=(16,), gated=False), 17_350, 16 * 64),
    ],
)
def test_parameter_counts(name, shape, alp, parameters, prototypes):
    model = build_model(name, shape, 6, alp=alp)
    assert model.parameter_layout.size == parameters == sum(p.numel() for p in model.parameters())
    assert model.prototype_layout.size == prototypes


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("alp", [None, ALPSettings(num_prototypes=(8,))])
def test_a_sample_does_not_see_the_others(name, alp):
    model = build_model(name, SHAPES[name], 4, alp=alp).double()
    layers = model.alp_layers
    x = torch.randn(5, *SHAPES[name], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    local = [layer.local_prototypes.double() for layer in layers]

    def logits(part):
        alignment = Alignment(local, local, training=False, matcher="cosine")
        with torch.no_grad():
            return model(part, alignment).logits

    torch.testing.assert_close(
        logits(x), torch.cat([logits(sample[None]) for sample in x]), atol=1e-9, rtol=1e-9
    )


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_gets_a_gradient_and_the_head_is_named(name):
    model = build_model(name, SHAPES[name], 4, alp=ALPSettings(num_prototypes=(8,)))
    output = model(torch.randn(6, *SHAPES[name]))
    (output.logits**2).sum().backward()
    still = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not [n for n in still if "query_key_value.bias" not in n]
    assert model.parameter_layout.select(["head.*"]).size > 0
    assert not list(model.buffers(recurse=True)) or all("prototypes" in n for n, _ in model.named_buffers())


def test_same_seed_same_weights_and_global_randomness_is_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, same, other = (build_model("cnn1d", (64, 3), 4, seed=s, alp=ALPSettings()) for s in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(one.theta(), same.theta())
    assert torch.equal(one.alp_layers[0].global_prototypes, same.alp_layers[0].global_prototypes)
    assert not torch.equal(one.theta(), other.theta())


@pytest.mark.parametrize("kernel", [1, 3, 4, 7, 15, 31])
def test_light_convolution_is_a_depthwise_convolution_with_softmax_taps(kernel):
    layer = LightConvolution(12, 4, kernel)
    x = torch.randn(3, 8, 12)
    weight = torch.softmax(layer.taps, -1).repeat_interleave(3, 0)[:, None]
    left = (kernel - 1) // 2
    padded = F.pad(x.transpose(1, 2), (left, kernel - 1 - left))
    torch.testing.assert_close(layer(x), F.conv1d(padded, weight, groups=12).transpose(1, 2))


@pytest.mark.parametrize("length", [1, 2, 7, 16])
def test_halve_is_max_pooling(length):
    x = torch.randn(2, 3, length)
    expected = F.max_pool1d(x, 2) if length > 1 else x
    torch.testing.assert_close(halve(x), expected)


@pytest.mark.parametrize("shape", [(2, 3, 1, 1), (2, 3, 2, 7), (1, 2, 9, 8), (2, 1, 8, 1)])
def test_halving_images_is_max_pooling_with_the_derivative_of_a_maximum(shape):
    x = torch.randint(0, 3, shape).to(torch.float64)  # many neighbours are equal
    found = []
    for quick in (False, True):
        leaf = x.clone().requires_grad_()
        with eager() if quick else contextlib.nullcontext():
            halved = halve_images(leaf)
        (gradient,) = torch.autograd.grad(halved, leaf, torch.arange(halved.numel()).view_as(halved) + 1.0)
        found.append((halved.detach(), gradient))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)
    height, width = (min(2, length) for length in shape[2:])
    torch.testing.assert_close(found[0][0], F.max_pool2d(x, (height, width)))


def test_eager_is_said_for_one_thread_and_one_block():
    x = torch.randn(1, 1, 4, 4, requires_grad=True)
    with eager(), eager():
        quick = type(halve_images(x).grad_fn).__name__
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            elsewhere = pool.submit(lambda: type(halve_images(x).grad_fn).__name__).result()
    assert quick == "_HalveBackward"
    assert elsewhere == type(halve_images(x).grad_fn).__name__ != quick


@pytest.mark.parametrize(
    ("name", "shape", "options", "message"),
    [
        ("cnn", (128, 6), {}, "unknown model 'cnn'; did you mean"),
        ("cnn1d", (128, 6), {"kernal": 3}, "no option 'kernal'; did you mean 'kernel'"),
        ("cnn1d", (1, 8, 8), {}, r"takes samples of shape \(samples, channels\), the data has \(1, 8, 8\)"),
        ("hart", (100, 6), {}, "multiple of 16"),
        ("hart", (128, 3), {}, "use cnn1d"),
        ("hart", (128, 6), {"alp": ALPSettings(num_prototypes=(4, 4))}, "give 1 or 6"),
    ],
)
def test_bad_models_are_refused_in_one_line(name, shape, options, message):
    with pytest.raises(SettingsError, match=message):
        build_model(name, shape, 6, **options)
