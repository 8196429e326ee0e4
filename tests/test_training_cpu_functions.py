"""PyTorch's functions on CPU, faster, with the values and gradients of PyTorch's own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pyterrier_lir.training.cpu_functions import FasterOnCPU, attention, dropout

SDPA = nn.functional.scaled_dot_product_attention


def gradients(function: Callable[..., Tensor], *given: Tensor | None) -> list[Tensor]:
    """The value and the gradient of each tensor."""
    leaves = [None if one is None else one.detach().clone().requires_grad_(one.is_floating_point()) for one in given]
    value = function(*leaves)
    torch.manual_seed(5)
    value.backward(torch.randn(value.shape, dtype=value.dtype))
    return [value.detach(), *[one.grad for one in leaves if one is not None and one.grad is not None]]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(5, 24), (3, 7, 24), (1, 1, 24)])
def test_linear_layers_have_pytorchs_values_and_gradients(shape: tuple[int, ...], bias: bool) -> None:
    states, weight, own = torch.randn(shape), torch.randn(40, 24), torch.randn(40) if bias else None
    expected = gradients(nn.functional.linear, states, weight, own)
    with FasterOnCPU():
        found = gradients(nn.functional.linear, states, weight, own)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_frozen_weights_have_no_gradients_and_pass_them_on() -> None:
    layer = nn.Linear(8, 8).requires_grad_(False)
    states = torch.randn(4, 8, requires_grad=True)
    with FasterOnCPU():
        layer(states).sum().backward()
    assert layer.weight.grad is None
    torch.testing.assert_close(states.grad, layer.weight.sum(0).expand(4, 8))


@pytest.mark.parametrize("case", ["plain", "causal", "bool", "added", "grouped"])
def test_attention_without_dropout_has_pytorchs_values_and_gradients(case: str) -> None:
    torch.manual_seed(3)
    heads = 2 if case == "grouped" else 4
    query, key, value = torch.randn(2, 4, 6, 8), torch.randn(2, heads, 6, 8), torch.randn(2, heads, 6, 8)
    seen = torch.rand(2, 1, 6, 6) > 0.4
    seen[..., 0] = True
    settings = {
        "plain": {}, "causal": {"is_causal": True}, "bool": {"attn_mask": seen}, "grouped": {"enable_gqa": True},
        "added": {"attn_mask": torch.randn(2, 1, 6, 6), "scale": 0.3},
    }[case]  # fmt: skip
    expected = gradients(lambda *own: SDPA(*own, **settings), query, key, value)
    found = gradients(lambda *own: attention(*own, **settings), query, key, value)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_dropout_drops_that_share_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    dropped = dropout(torch.ones(1_000_001, requires_grad=True), 0.1)
    assert float((dropped == 0).float().mean()) == pytest.approx(0.1, abs=0.002)
    assert float(dropped.detach().mean()) == pytest.approx(1, abs=0.002)
    neighbours = (dropped[:-1] == 0) & (dropped[1:] == 0)
    assert float(neighbours.float().mean()) == pytest.approx(0.01, abs=0.001)  # independent of each other
    assert torch.equal(dropout(torch.ones(3), 0.0), torch.ones(3))
    assert torch.equal(dropout(torch.ones(3), 1.0), torch.zeros(3))


def test_dropout_is_repeated_by_the_seed_and_has_the_gradient_of_what_it_kept() -> None:
    values = torch.rand(7, 5, requires_grad=True)
    found = []
    for _ in range(2):
        torch.manual_seed(1)
        found.append(dropout(values, 0.5))
    assert torch.equal(*found)
    found[0].sum().backward()
    torch.testing.assert_close(values.grad, (found[1] != 0) * 2.0)


def test_layers_of_a_model_that_does_not_train_are_not_changed() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5)).eval()
    states = torch.randn(4, 8)
    with FasterOnCPU():
        found = model(states)
        weights = SDPA(states[None], states[None], states[None])
    torch.testing.assert_close(found, model(states))
    assert torch.equal(weights, SDPA(states[None], states[None], states[None]))
