"""Fenchel-Young losses on the simplex and SDM by rows: worked values, gradients, and what the papers prove of them."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from netwright.core.errors import BadInput
from netwright.losses.simplex._by_rows import entmax_loss, sdm, sdm_loss, sparsemax_loss
from netwright.tensor.fused import uncompiled

ALPHAS = (1.05, 1.5, 1.8, 2.0)


def scores(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def labels(*shape: int, classes: int, seed: int = 1) -> Tensor:
    return torch.randint(classes, shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("z", "label", "loss"),
    [((1.0, 0.5, -1.0), 0, 0.0625), ((2.0, 0.0, 0.0), 0, 0.0), ((2.0, 0.0, 0.0), 1, 2.0), ((0.0, 0.0), 0, 0.25)],
)
def test_worked_values_of_the_sparsemax_loss(z: tuple[float, ...], label: int, loss: float) -> None:
    assert sparsemax_loss(torch.tensor([z]), torch.tensor([label])).item() == pytest.approx(loss, abs=1e-7)


def test_two_classes_give_a_huber_loss() -> None:
    t = torch.linspace(-3, 3, 61, dtype=torch.float64)
    loss = sparsemax_loss(torch.stack((t, torch.zeros_like(t)), -1), torch.zeros(61, dtype=torch.int64), reduction="none")
    wanted = torch.where(t >= 1, 0.0, torch.where(t <= -1, -t, (t - 1).square() / 4))
    assert torch.allclose(loss, wanted, atol=1e-12)


def test_the_loss_as_martins_and_astudillo_write_it() -> None:
    z, y = scores(20, 6), torch.softmax(scores(20, 6, seed=2), -1)
    loss = sparsemax_loss(z, y, reduction="none")
    for row, target, got in zip(z, y, loss, strict=True):
        low, high = row.max() - 1, row.max()
        for _ in range(60):
            tau = (low + high) / 2
            low, high = (tau, high) if (row - tau).relu().sum() > 1 else (low, tau)
        inside = row > low
        wanted = -target @ row + (row[inside].square() - low**2).sum() / 2 + target.square().sum() / 2
        assert got.item() == pytest.approx(wanted.item(), abs=1e-10)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_gradients_of_two_orders(alpha: float) -> None:
    z, y = scores(5, 4).requires_grad_(), torch.softmax(scores(5, 4, seed=2), -1)
    for target in (labels(5, classes=4), y):
        loss = partial(entmax_loss, target=target, alpha=alpha, reduction="none")
        assert torch.autograd.gradcheck(loss, (z,))
        assert torch.autograd.gradgradcheck(loss, (z,))


@pytest.mark.parametrize("alpha", ALPHAS)
def test_the_gradient_is_a_probability_vector_minus_the_target(alpha: float) -> None:
    z, k = (2 * scores(30, 7)).requires_grad_(), labels(30, classes=7)
    (gradient,) = torch.autograd.grad(entmax_loss(z, k, alpha=alpha, reduction="sum"), z)
    p = gradient + F.one_hot(k, 7)
    assert torch.allclose(p.sum(-1), torch.ones(30, dtype=torch.float64))
    assert (p >= -1e-15).all() and ((p.abs() < 1e-15).any() or alpha < 1.1)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_it_is_convex_and_zero_exactly_beyond_the_margin(alpha: float) -> None:
    a, b, k = 3 * scores(200, 5), 3 * scores(200, 5, seed=3), labels(200, classes=5)
    loss = partial(entmax_loss, target=k, alpha=alpha, reduction="none")
    assert (loss((a + b) / 2) <= (loss(a) + loss(b)) / 2 + 1e-12).all()
    assert (loss(a) >= -1e-12).all()
    margin = 1 / (alpha - 1)
    at = torch.zeros(5, dtype=torch.float64)
    at[2] = margin
    assert entmax_loss(at, torch.tensor(2), alpha=alpha).item() == pytest.approx(0, abs=1e-12)
    at[2] = 0.9 * margin
    assert entmax_loss(at, torch.tensor(2), alpha=alpha) > 1e-12 or alpha < 1.1


def test_towards_alpha_1_it_is_the_cross_entropy() -> None:
    z, k = scores(30, 7), labels(30, classes=7)
    assert entmax_loss(z, k, alpha=1 + 1e-7).item() == pytest.approx(F.cross_entropy(z, k).item(), rel=1e-5)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_dims_reductions_shifts_and_targets_agree(alpha: float) -> None:
    z, k = scores(3, 6, 4), labels(3, 4, classes=6)
    each = entmax_loss(z, k, alpha=alpha, dim=1, reduction="none")
    assert each.shape == (3, 4)
    rows = entmax_loss(z.movedim(1, -1).reshape(-1, 6), k.flatten(), alpha=alpha, reduction="none")
    assert torch.allclose(each.flatten(), rows)
    assert torch.allclose(entmax_loss(z + 9, k, alpha=alpha, dim=1, reduction="sum"), each.sum())
    hot = F.one_hot(k, 6).movedim(-1, 1).double()
    assert torch.allclose(entmax_loss(z, hot, alpha=alpha, dim=1), each.mean())


@pytest.mark.parametrize("alpha", ALPHAS)
def test_fused_equals_the_plain_loss(alpha: float) -> None:
    z, k = scores(8, 6).requires_grad_(), labels(8, classes=6)
    with uncompiled():
        plain, quick = (entmax_loss(z, k, alpha=alpha, fused=fused) for fused in (False, True))
    assert torch.allclose(plain, quick)
    assert torch.allclose(*(torch.autograd.grad(loss, z)[0] for loss in (plain, quick)), atol=1e-12)


def test_vmap_of_grad_and_of_its_hessian() -> None:
    z, k = scores(6, 5), labels(6, classes=5)
    slopes = torch.func.vmap(torch.func.grad(entmax_loss))(z, k)
    looped = z.clone().requires_grad_()
    assert torch.allclose(slopes, torch.autograd.grad(entmax_loss(looped, k, reduction="sum"), looped)[0])
    curved = torch.func.vmap(torch.func.jacrev(torch.func.grad(sparsemax_loss)))(z, k)
    assert (torch.linalg.eigvalsh(curved) > -1e-12).all()


def test_masked_classes_cost_nothing_unless_they_are_the_target() -> None:
    z = torch.tensor([[1.0, 0.5, -math.inf]], requires_grad=True)
    (gradient,) = torch.autograd.grad(sparsemax_loss(z, torch.tensor([0])), z)
    assert sparsemax_loss(z, torch.tensor([0])).item() == pytest.approx(0.0625) and gradient[0, 2] == 0
    assert sparsemax_loss(z, torch.tensor([2])).item() == math.inf


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keeps_its_dtype(dtype: torch.dtype) -> None:
    z, k = scores(8, 6).to(dtype).requires_grad_(), labels(8, classes=6)
    for loss in (entmax_loss(z, k), sdm_loss(z, k, 3.0, 0.5)):
        assert loss.dtype == dtype and torch.autograd.grad(loss, z)[0].dtype == dtype


def test_sdm_takes_a_q_and_a_d_for_every_row() -> None:
    z, q, d = scores(4, 5), torch.tensor([0.0, 1.0, 7.0, 30.0]), torch.tensor([1.0, 0.5, 0.25, 0.0])
    p = sdm(z, q, d)
    for i in range(4):
        powers = (2 + q[i].double()) ** (d[i].double() * z[i])
        assert torch.allclose(p[i], powers / powers.sum())
    assert torch.allclose(sdm(z.T, q, d, dim=0), p.T)
    assert torch.allclose(sdm(z, math.e - 2, 1.0), torch.softmax(z, -1))


def test_sdm_loss_is_the_negative_logarithm_to_its_own_base() -> None:
    z, k = scores(4, 5).requires_grad_(), labels(4, classes=5)
    q, d = torch.tensor([0.0, 1.0, 7.0, 30.0]).double(), torch.tensor([1.0, 0.5, 0.25, 0.0]).double()
    p = sdm(z, q, d)
    each = sdm_loss(z, k, q, d, reduction="none")
    assert torch.allclose(each, -p.gather(-1, k[:, None])[:, 0].log() / (2 + q).log())
    (gradient,) = torch.autograd.grad(each.sum(), z)
    assert torch.allclose(gradient, d[:, None] * (p - F.one_hot(k, 5)))
    assert torch.allclose(sdm_loss(z, k, math.e - 2, 1.0), F.cross_entropy(z, k))


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda z, k: entmax_loss(z, k, alpha=1.0), "alpha=1.0; allowed: a number above 1"),
        (lambda z, k: entmax_loss(z, k, reduction="avg"), "reduction='avg'; allowed: 'mean', 'sum', 'none'"),
        (lambda z, k: entmax_loss(z, k, dim=2), "dim=2, but z has 2 dimensions"),
        (lambda z, k: entmax_loss(z.long(), k), "z has dtype torch.int64"),
        (lambda z, k: sparsemax_loss(z, k[:3]), r"labels of shape \(3,\); expected \(4,\)"),
        (lambda z, k: sparsemax_loss(z, k.int()), "target has dtype torch.int32"),
        (lambda z, k: sparsemax_loss(z, z[:, :2]), r"probabilities of shape \(4, 2\); expected z's \(4, 5\)"),
        (lambda z, k: sdm_loss(z, z, 1.0, 1.0), "expected labels"),
        (lambda z, k: sdm(z, -1.0, 1.0), "q=-1.0; allowed: a number from 0"),
        (lambda z, k: sdm(z, 1.0, 1.5), "d=1.5; allowed: a number from 0 to 1.0"),
        (lambda z, k: sdm(z, torch.ones(3), 1.0), r"q of shape \(3,\); expected a number or shape \(4,\)"),
    ],
)
def test_refusals_name_what_was_given_and_what_is_allowed(call, named: str) -> None:
    with pytest.raises(BadInput, match=named):
        call(scores(4, 5), labels(4, classes=5))
