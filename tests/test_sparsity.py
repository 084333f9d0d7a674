"""Sparsity of activations: exact zeros, CETT and PPL-p %."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from netwright.core.errors import BadInput
from netwright.waiting.sparsity import cett, magnitudes, nonzero_share, ppl_sparsity, switched_off, threshold_for_cett

PATHS = ("first.2", "second.2")


class Toy(nn.Module):
    """Two residual MLP blocks and a readout; the up projections are biased downwards, as trained ReLU nets are."""

    def __init__(self, activation: type[nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(8, 32), activation(), nn.Linear(32, 8))
        self.second = nn.Sequential(nn.Linear(8, 32), activation(), nn.Linear(32, 8), nn.Dropout(0.5))
        self.readout = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.first(x)
        return self.readout(x + self.second(x))


def toy(activation: type[nn.Module] = nn.ReLU) -> tuple[Toy, list[tuple[Tensor, Tensor]]]:
    torch.manual_seed(0)
    model = Toy(activation)
    batches = []
    for _ in range(3):
        x = torch.randn(4, 6, 8)
        batches.append((x, model.eval()(x).argmax(-1)))
    return model.train(), batches


def brute(a: Tensor, w: Tensor, threshold: float) -> float:
    """CETT token by token and neuron by neuron."""
    total = 0.0
    for token in a.tolist():
        lost, whole = [0.0] * w.shape[0], [0.0] * w.shape[0]
        for i, value in enumerate(token):
            column = w[:, i].tolist()
            off = abs(value) * math.sqrt(sum(c * c for c in column)) <= threshold
            for j, c in enumerate(column):
                whole[j] += value * c
                lost[j] += value * c if off else 0.0
        total += math.sqrt(sum(v * v for v in lost)) / math.sqrt(sum(v * v for v in whole))
    return total / len(a)


def test_nonzero_share() -> None:
    assert nonzero_share(torch.tensor([[0.0, 1.0], [-2.0, 0.0]])) == 0.5
    with pytest.raises(BadInput, match="no entries"):
        nonzero_share(torch.empty(0, 3))


def test_cett_is_its_definition() -> None:
    g = torch.Generator().manual_seed(0)
    a, w = torch.randn(7, 12, generator=g).relu(), torch.randn(5, 12, generator=g)
    for threshold in (0.0, 0.3, 1.0, 4.0):
        assert cett(a, w, threshold) == pytest.approx(brute(a, w, threshold), rel=1e-5)
    assert cett(a, w, 0.0) == 0.0
    assert cett(a, w, float(magnitudes(a, w).max())) == pytest.approx(1.0)
    assert cett(torch.zeros(2, 12), w, 1.0) == 0.0


def test_the_threshold_is_the_largest_that_costs_no_more() -> None:
    g = torch.Generator().manual_seed(1)
    a, w = torch.randn(50, 40, generator=g), torch.randn(9, 40, generator=g)
    before = 0.0
    for target in (0.0, 0.05, 0.2, 0.5):
        threshold = threshold_for_cett(a, w, target)
        step = float(magnitudes(a, w).max()) / 60_000
        assert cett(a, w, threshold) <= target < cett(a, w, threshold + 2 * step) + 0.01
        assert threshold >= before
        before = threshold


def test_ppl_sparsity_grows_with_p_and_holds_its_bound() -> None:
    model, batches = toy(nn.SiLU)
    found = [ppl_sparsity(model, batches, PATHS, p) for p in (0.0, 0.01, 0.05, 0.3)]
    for p, result in zip((0.0, 0.01, 0.05, 0.3), found, strict=True):
        assert result.perplexity <= (1 + p) * result.dense
        assert result.dense == found[0].dense
    assert [r.cett for r in found] == sorted(r.cett for r in found)
    assert [r.share for r in found] == sorted(r.share for r in found)
    assert 0 <= found[0].share < found[-1].share < 1


def test_of_a_relu_net_threshold_0_counts_the_exact_zeros() -> None:
    model, batches = toy()
    neurons: list[Tensor] = []
    for path in PATHS:
        model.get_submodule(path).register_forward_pre_hook(lambda _, given: neurons.append(given[0]))
    with torch.no_grad(), switched_off(model.eval(), dict.fromkeys(PATHS, 0.0)) as count:
        for x, _ in batches:
            model(x)
    zeros = 1 - nonzero_share(torch.cat([a.flatten() for a in neurons]))
    assert 0.2 < zeros < 0.8
    assert count.share == pytest.approx(zeros, abs=1e-9)
    assert ppl_sparsity(model, batches, PATHS, 0.01).share >= zeros


def test_the_model_is_left_as_it_was() -> None:
    model, batches = toy()
    model.second.eval()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    modes, state = [m.training for m in model.modules()], torch.get_rng_state()
    ppl_sparsity(model, batches, PATHS)
    assert modes == [m.training for m in model.modules()]
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert torch.equal(state, torch.get_rng_state())
    assert all(parameter.grad is None for parameter in model.parameters())
    with pytest.raises(RuntimeError), switched_off(model, {PATHS[0]: 1.0}):
        model(torch.zeros(2, 3))
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_misuse_is_named() -> None:
    model, batches = toy()
    with pytest.raises(BadInput, match=r"'third'.*first\.0"):
        ppl_sparsity(model, batches, ["third"])
    with pytest.raises(BadInput, match="Sequential"):
        ppl_sparsity(model, batches, ["first"])
    with pytest.raises(BadInput, match="p=-1"):
        ppl_sparsity(model, batches, PATHS, -1)
    with pytest.raises(BadInput, match="no batch"):
        ppl_sparsity(model, [], PATHS)
    with pytest.raises(BadInput, match="target"):
        threshold_for_cett(torch.ones(2, 3), torch.ones(4, 3), -0.1)
    with pytest.raises(BadInput, match=r"\(2, 3\)"):
        cett(torch.ones(2, 3), torch.ones(4, 5), 0.1)
