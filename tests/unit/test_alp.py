"""The ALP layer against vectors recorded from the reference implementation, and its own properties."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedali.alp import ALPLayer, align, assign, match, sinkhorn
from fedali.errors import SettingsError
from tests.conftest import golden

MATCHERS = {"OT": "ot", "cossine": "cosine", "euclidean": "euclidean"}


def _case(path: Path) -> tuple[ALPLayer, dict[str, np.ndarray], dict[str, np.ndarray]]:
    _, shape, matcher, gated, update, influence, decay = path.stem.split("_")
    recorded = dict(np.load(path, allow_pickle=False))
    inputs = dict(np.load(path.parent / f"inputs_{shape}.npz", allow_pickle=False))
    size, dim = inputs["local_init"].shape
    layer = ALPLayer(
        dim,
        size,
        matcher=MATCHERS[matcher],
        gated=gated == "glu",
        update=update,
        duplicates="last",
        influence=float(influence.removeprefix("inf")),
        decay=float(decay.removeprefix("dec")),
    )
    with torch.no_grad():
        layer.local_prototypes.copy_(torch.tensor(inputs["local_init"]))
        layer.global_prototypes.copy_(torch.tensor(inputs["global_init"]))
        if layer.gate is not None:
            layer.gate.weight.copy_(torch.tensor(inputs["glu_kernel"].T))
            layer.gate.bias.copy_(torch.tensor(inputs["glu_bias"]))
    return layer, inputs, recorded


def _same_gradient(ours: torch.Tensor, reference: np.ndarray, name: str) -> None:
    np.testing.assert_allclose(
        ours.numpy(), reference, atol=1e-4 * np.abs(reference).max() + 1e-12, err_msg=name
    )


@pytest.mark.parametrize("path", golden("alp"), ids=lambda p: p.stem)
def test_equals_the_reference(path: Path) -> None:
    layer, inputs, recorded = _case(path)
    size = layer.num_prototypes
    loss_weights = torch.tensor(inputs["loss_w"])
    calls = sorted({key.split("_")[0] for key in recorded if key.startswith("train")})
    assert calls
    for call in [*calls, "eval"]:
        training = call != "eval"
        layer.train(training)
        x = torch.tensor(inputs["x_eval" if call == "eval" else f"x{call[-1]}"], requires_grad=True)
        tokens = x.detach().reshape(-1, layer.dim)
        active = (
            torch.cat([layer.local_prototypes, layer.global_prototypes])
            if training
            else layer.local_prototypes
        )
        matrix = match(tokens, active, layer.matcher)
        if f"{call}_match_matrix" in recorded:
            np.testing.assert_allclose(matrix.numpy(), recorded[f"{call}_match_matrix"], atol=1e-5)
        halves = {"local_": matrix[:, :size], "global_": matrix[:, size:]} if training else {"": matrix}
        for half, columns in halves.items():
            clear = recorded[f"{call}_{half}margin"] > 1e-5
            ours = assign(columns, layer.matcher).numpy()
            np.testing.assert_array_equal(ours[clear], recorded[f"{call}_{half}assign"][clear])
        layer.zero_grad()
        output = layer(x)
        loss = (loss_weights * output**2).sum()
        np.testing.assert_allclose(output.detach().numpy(), recorded[f"{call}_output"], atol=1e-5)
        if training:
            np.testing.assert_allclose(
                layer.local_prototypes.numpy(), recorded[f"{call}_local_after"], atol=1e-5
            )
        loss.backward()
        np.testing.assert_allclose(loss.item(), recorded[f"{call}_loss"], rtol=1e-5)
        if f"{call}_grad_x" not in recorded:  # the large cases keep the first call's gradients only
            continue
        _same_gradient(x.grad, recorded[f"{call}_grad_x"], "grad x")
        if layer.gate is not None:
            _same_gradient(layer.gate.weight.grad.T, recorded[f"{call}_grad_glu_kernel"], "grad kernel")
            _same_gradient(layer.gate.bias.grad, recorded[f"{call}_grad_glu_bias"], "grad bias")


def test_golden_vectors_are_in_the_tree() -> None:
    assert len(golden("alp")) >= 36


@pytest.mark.parametrize("matcher", ["ot", "cosine", "euclidean"])
@pytest.mark.parametrize(("update", "duplicates"), [("bulk", "mean"), ("single", "mean"), ("single", "last")])
@pytest.mark.parametrize("padding", [1, 5])
def test_padding_changes_nothing(matcher: str, update: str, duplicates: str, padding: int) -> None:
    generator = torch.Generator().manual_seed(padding)
    tokens = torch.randn(6, 4, 8, generator=generator, dtype=torch.float64)
    local, global_ = torch.randn(2, 16, 8, generator=generator, dtype=torch.float64)
    options = {"matcher": matcher, "update": update, "duplicates": duplicates, "decay": 0.5}
    expected, expected_local = align(tokens, local, global_, **options)
    padded = torch.cat([tokens, 1e3 * torch.randn(padding, 4, 8, generator=generator, dtype=torch.float64)])
    weights = torch.cat([torch.ones(6), torch.zeros(padding)]).double()
    output, new_local = align(padded, local, global_, weights=weights, **options)
    torch.testing.assert_close(output[:6], expected)
    torch.testing.assert_close(new_local, expected_local)


def test_a_batch_of_padding_alone_moves_nothing() -> None:
    tokens, local, global_ = torch.randn(4, 8), torch.randn(3, 8), torch.randn(3, 8)
    for update in ("bulk", "single"):
        output, new_local = align(tokens, local, global_, update=update, weights=torch.zeros(4))
        assert torch.equal(new_local, local)
        assert torch.isfinite(output).all()


def test_single_mean_averages_the_tokens_of_a_prototype() -> None:
    tokens = torch.tensor([[1.0, 0.1], [1.0, -0.1], [0.0, 1.0]])
    local = torch.tensor([[2.0, 0.0], [0.0, 2.0], [-3.0, -3.0]])
    _, moved = align(tokens, local, local, matcher="cosine", update="single", decay=0.5)
    torch.testing.assert_close(moved, torch.tensor([[1.5, 0.0], [0.0, 1.5], [-3.0, -3.0]]))


def test_topk_from_tokens_takes_more_tokens() -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(4, 8, 6, generator=generator)
    local, global_ = torch.randn(2, 4, 6, generator=generator)
    moved = {k: align(tokens, local, global_, topk_from=k, decay=0.0)[1] for k in ("batch", "tokens")}
    scores = match(tokens.reshape(-1, 6), torch.cat([local, global_]), "ot")[:, :4]
    best, chosen = scores.T.topk(8, dim=1)
    expected = (tokens.reshape(-1, 6)[chosen] * (best / best.sum(1, keepdim=True))[..., None]).sum(1)
    torch.testing.assert_close(moved["tokens"], expected)
    assert not torch.allclose(moved["batch"], moved["tokens"])


def test_cosine_inference_does_not_depend_on_the_batch() -> None:
    torch.manual_seed(0)
    layer = ALPLayer(8, 16, inference_matcher="cosine").eval()
    tokens = torch.randn(32, 8)
    alone = torch.cat([layer(token[None]) for token in tokens])
    torch.testing.assert_close(layer(tokens), alone)


def test_influence_zero_is_l2_normalisation_and_scale_its_length() -> None:
    torch.manual_seed(0)
    tokens = torch.randn(4, 3, 8)
    output, _ = align(tokens, torch.randn(5, 8), torch.randn(5, 8), influence=0.0, scale=10.0)
    torch.testing.assert_close(output, 10 * torch.nn.functional.normalize(tokens, dim=-1))


@pytest.mark.parametrize("padding", [0, 3])
def test_a_token_that_is_alone_is_matched_to_the_nearest_prototype(padding: int) -> None:
    similarity = torch.tensor([[0.1, 0.7, 0.3, 0.2]] * (1 + padding), dtype=torch.float64)
    valid = torch.tensor([1.0] + [0.0] * padding, dtype=torch.float64) if padding else None
    plan = sinkhorn(similarity, temperature=0.05, iterations=3, valid=valid)
    assert plan[0].argmax() == 1
    assert plan[0].max() > 2 * plan[0].sort().values[-2]


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 40), st.integers(1, 20), st.floats(0.03, 1.0), st.integers(0, 10_000))
def test_plan_columns_sum_to_one_and_rows_balance(n: int, p: int, temperature: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    similarity = torch.rand(n, p, generator=generator, dtype=torch.float64) * 2 - 1
    plan = sinkhorn(similarity, temperature=temperature, iterations=3)
    torch.testing.assert_close(plan.sum(0), torch.ones(p, dtype=torch.float64))
    converged = sinkhorn(similarity, temperature=1.0, iterations=300)
    torch.testing.assert_close(converged.sum(1), torch.full((n,), p / n, dtype=torch.float64))


def test_plan_equals_pot() -> None:
    import ot

    generator = torch.Generator().manual_seed(0)
    similarity = torch.rand(12, 7, generator=generator, dtype=torch.float64) * 2 - 1
    ours = sinkhorn(similarity, temperature=0.2, iterations=500) / 7
    theirs = ot.sinkhorn(np.full(12, 1 / 12), np.full(7, 1 / 7), -similarity.numpy(), 0.2, stopThr=1e-14)
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-10)


def test_low_temperature_stays_finite_in_single_precision() -> None:
    torch.manual_seed(0)
    output, moved = align(torch.randn(64, 16), torch.randn(32, 16), torch.randn(32, 16), temperature=0.005)
    assert torch.isfinite(output).all()
    assert torch.isfinite(moved).all()


def test_a_wrong_choice_is_named() -> None:
    with pytest.raises(SettingsError, match="matcher is 'cosin'; did you mean 'cosine'"):
        ALPLayer(8, 4, matcher="cosin")
