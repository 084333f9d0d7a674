"""Guidance: hidden layers are also trained to be like those of a frozen guide (Subramaniam et al., 2024).

Shape suffixes: B batch, D all values of a layer for one example.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self, final

import torch
from torch import Tensor

from netwright.core.errors import Misfit
from netwright.core.part import Claim, Option, Paper
from netwright.engine.blocks import Blocks
from netwright.engine.rule import Rule
from netwright.engine.task import Problem
from netwright.rules._kind import Tags, rule
from netwright.rules._toy import Toy, chain_rule, forward_by_hand, gradients, softmax_error, true_gradients
from netwright.tensor.precision import full_precision


def copied(net: Blocks) -> Blocks:
    """A copy with modules and parameters of its own."""
    from copy import deepcopy

    return deepcopy(net)


def gram(h: Tensor) -> Tensor:
    """K / |K| (B, B), K = X X^T of all values of an example, centred over the batch; 0 where all examples are alike."""
    with full_precision(h):
        x_BD = h.flatten(1).to(torch.promote_types(h.dtype, torch.float32))
        x_BD = x_BD - x_BD.mean(0)
        k_BB = x_BD @ x_BD.T
        return k_BB / k_BB.norm().clamp_min(torch.finfo(k_BB.dtype).tiny)


def cka(h: Tensor, guide: Tensor) -> Tensor:
    """Linear centred kernel alignment <K, L> / (|K| |L|) of two layers on one batch: from 0 to 1."""
    return (gram(h) * gram(guide)).sum()


@final
class Guidance(Rule):
    """L = loss(output, y) + alpha sum_i (1 - CKA(h_m(i), g_i)), g_i the i-th block of a guide that never learns.

    The guide is a copy of the host with other initial values, until `guide_with` brings another one. With T blocks in the
    host and G in the guide, counted from 0, m(i) = round(i (T - 1) / (G - 1)).
    """

    def __init__(self, net: Blocks, problem: Problem, alpha: float = 1.0) -> None:
        super().__init__(net, problem)
        self.alpha = alpha
        self.given = False
        self.guide = copied(net).requires_grad_(False)

    def guide_with(self, guide: Blocks) -> Self:
        """Take this guide, as it is and in evaluation mode: any net that reads the same input, trained or not.

        Call it after initialising and before training. A model becomes Blocks by Blocks.of(model, example, ...).
        Raises Misfit for anything else.
        """
        if not isinstance(guide, Blocks):
            raise Misfit(f"a guide has ordered blocks, given {type(guide).__name__}; use Blocks.of(model, example, blocks=[...])")
        self.guide, self.given = guide.requires_grad_(False), True
        return self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.given:
            self.guide.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def pairs(self) -> list[tuple[int, int]]:
        """(block of the host, block of the guide), counted from 0."""
        hosts, guides = len(self.net.blocks), len(self.guide.blocks)
        step = (hosts - 1) / (guides - 1) if guides > 1 else 1.0
        return [(min(round(i * step), hosts - 1), i) for i in range(guides)]

    def losses(self, x: Tensor, y: Tensor, *draws: Tensor) -> Iterator[Tensor]:
        hidden, guides = self.net.features(x), self.guide.features(x)
        apart = torch.stack([1 - cka(hidden[m], guides[i].detach()) for m, i in self.pairs()]).sum()
        loss = self.problem.loss(self.net.readout(hidden[-1]), y)
        yield loss + self.alpha * apart.to(loss.dtype)


def reference(rule: Any, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """With C = CKA, dC/dK = L / (|K| |L|) - C K / |K|^2 and dC/dX = 2 dC/dK X, X centred: each block gets -alpha dC/dX."""
    extra: dict[int, Tensor] = {}
    acts = forward_by_hand(rule.net, x)
    layers = zip(acts[1:-1], forward_by_hand(rule.guide, x)[1:-1], strict=True)
    for k, pair in enumerate(layers):
        h_BD, guide_BD = (h - torch.ones(len(h), len(h), dtype=h.dtype) @ h / len(h) for h in pair)
        k_BB, l_BB = h_BD @ h_BD.T, guide_BD @ guide_BD.T
        size_k, size_l = (k_BB**2).sum() ** 0.5, (l_BB**2).sum() ** 0.5
        c = (k_BB * l_BB).sum() / (size_k * size_l)
        extra[k] = -rule.alpha * 2 * (l_BB / (size_k * size_l) - c * k_BB / size_k**2) @ h_BD
    return chain_rule(rule.net, acts, softmax_error(acts[-1], y), extra=extra)


def claim_backprop() -> bool:
    """With alpha = 0 the update is backpropagation's; the guide has no update at all."""
    toy = Toy()
    guided, (x, y) = toy.bind(Guidance, alpha=0.0), toy.batch()
    got, exact = gradients(guided, x, y), true_gradients(guided, x, y)
    alone = all(name.startswith("net.") for name in got)
    return alone and all(torch.allclose(got[name], g, rtol=1e-12, atol=1e-15) for name, g in exact.items())


def claim_alignment() -> bool:
    """CKA lies in [0, 1], is 1 for a rotated, scaled and shifted copy, and blind to the order of its two sides."""
    draws = torch.Generator().manual_seed(0)
    a, b, turn = (torch.randn(*s, generator=draws, dtype=torch.float64) for s in ((9, 6), (9, 4), (6, 6)))
    turned = 3 * a @ torch.linalg.qr(turn).Q + 2
    one = torch.ones((), dtype=torch.float64)
    return torch.allclose(cka(a, turned), one) and torch.equal(cka(a, b), cka(b, a)) and 0 <= float(cka(a, b)) <= 1


def claim_own_guide() -> bool:
    """A guide brought along stays as it is while the host learns, and one equal to the host adds nothing to the loss."""
    toy = Toy()
    guided: Any = toy.bind(Guidance)
    x, y = toy.batch()
    guide = copied(guided.net)
    guided.guide_with(guide)
    sgd = torch.optim.SGD([p for p in guided.parameters() if p.requires_grad], lr=0.5)
    before = [p.clone() for p in guide.parameters()]
    (first,) = guided.losses(x, y)
    plain = guided.problem.loss(guided.net(x), y)
    first.backward()
    sgd.step()
    kept = all(torch.equal(p, q) for p, q in zip(guide.parameters(), before, strict=True))
    moved = not torch.equal(before[-1], list(guided.net.parameters())[-1])
    return kept and moved and torch.allclose(first, plain)


PART = rule(
    Guidance,
    reference=reference,
    formula=r"L + \alpha \sum_i \left(1 - \mathrm{CKA}(h_{m(i)}, g_i)\right)",
    paper=Paper("guidance"),
    tags=Tags(family="backprop", forwards_train=2.0),
    options=(Option("alpha", 1.0, "weight of the guide", bounds=(-1e-9, 1e3)),),
    claims=(
        Claim("backprop", "without the guide's loss it is backpropagation; the guide is frozen", check=claim_backprop),
        Claim("alignment", "CKA compares layers up to rotation, scale and shift", check=claim_alignment),
        Claim("own-guide", "any frozen net can be the guide; equal layers cost nothing", check=claim_own_guide),
    ),
    deviations=(
        "by default the guide is an untrained copy of the host; the paper's guides are other architectures, trained or not,"
        " and its results rest on that (guide_with takes one)",
        "layers are the outputs of blocks; the released code compares those of single layers",
        "an untrained copy normalises by the statistics of the batch; the released code's guides are in evaluation mode",
        "the guide stays to the end of training and sees the same examples; no early stop, no noise inputs",
    ),
)
