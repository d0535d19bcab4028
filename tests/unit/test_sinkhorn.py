"""Transport plans of a step at every temperature that is allowed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedali.alp import align
from fedali.sinkhorn import sinkhorn


def plan_of(similarity, temperature, iterations):
    """Sinkhorn-Knopp in numpy's longest floats, from its definition."""
    kernel = np.exp((similarity - similarity.max(1, keepdims=True)).astype(np.longdouble) / temperature)
    plan = kernel
    for _ in range(iterations):
        plan = plan / plan.sum(1, keepdims=True)
        plan = plan / plan.sum(0, keepdims=True)
    return plan


@pytest.mark.parametrize("temperature", [0.005, 0.01, 0.02, 0.029, 0.03, 0.05])
def test_a_plan_is_right_at_every_temperature(temperature):
    similarity = np.random.default_rng(3).uniform(-1, 1, (20, 11)).astype(np.float32)
    plan = sinkhorn(torch.from_numpy(similarity), temperature=temperature, iterations=3)
    expected = plan_of(similarity, temperature, 3).astype(np.float32)
    np.testing.assert_allclose(plan.numpy(), expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("temperature", [0.005, 0.01, 0.02])
@pytest.mark.parametrize("real", [12, 5, 1, 0])
def test_a_cold_plan_gives_padding_no_mass(temperature, real):
    similarity = torch.from_numpy(np.random.default_rng(4).uniform(-1, 1, (12, 7)).astype(np.float32))
    valid = (torch.arange(12) < real).float()
    plan = sinkhorn(similarity, temperature=temperature, iterations=3, valid=valid)
    assert torch.isfinite(plan).all()
    assert (plan[real:] == 0).all()
    if real > 1:
        alone = sinkhorn(similarity[:real], temperature=temperature, iterations=3)
        np.testing.assert_allclose(plan[:real].numpy(), alone.numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("temperature", [0.005, 0.01, 0.05])
def test_prototypes_stay_finite_where_all_tokens_are_close_together_and_far_from_some(temperature):
    random = torch.Generator().manual_seed(0)
    token = torch.randn(1, 16, generator=random)
    tokens = token + 0.01 * torch.randn(40, 16, generator=random)
    far, near = (sign * token + 1e-3 * torch.randn(8, 16, generator=random) for sign in (-1, 1))
    output, moved = align(tokens, far, near, temperature=temperature, decay=0.9)
    assert torch.isfinite(output).all()
    assert torch.isfinite(moved).all()
    assert (moved != far).any()
