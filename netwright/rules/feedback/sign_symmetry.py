"""Sign symmetry: the error travels back through the signs of the weights, with other magnitudes (Liao et al., 2016).

delta_k = (delta_(k+1) B_(k+1)) * f'(a_k),    dW_k = delta_k^T h_(k-1)
uSF: B = s sign(W)        frSF: B = M * sign(W), M fixed        brSF: B = M * sign(W), M redrawn for every batch
"""

from __future__ import annotations

import math
from typing import Any, final

import torch
from torch import Tensor, nn

from netwright.core.part import Claim, Option, Paper, Protocol
from netwright.engine.task import Problem
from netwright.rules._kind import Tags, rule
from netwright.rules._toy import Toy, chain_rule, forward_by_hand, softmax_error
from netwright.rules.feedback._aligned_rule import AlignedRule, equals_backprop


@final
class SignSymmetry(AlignedRule):
    """variant: "uniform" (uSF), "fixed" (frSF) or "redrawn" (brSF). The signs are those of the present weights."""

    def __init__(self, net: nn.Module, problem: Problem, variant: str = "uniform", scale: float = 1.0) -> None:
        super().__init__(net, problem, variant, scale)
        self.variant = variant

    def draw(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Of "redrawn": M of every layer over its largest value, U(0, 1), in the shape of its weight."""
        if self.variant != "redrawn":
            return ()
        weights = [layer.weight for layer in self.layers()]
        return tuple(torch.rand(w.shape, generator=generator).to(w.device, w.dtype) for w in weights)


def reference(rule: Any, x: Tensor, y: Tensor, *draws: Tensor) -> dict[str, Tensor]:
    """The chain rule by hand with M sign(W) for W; M is 1 / sqrt(3 inputs) everywhere, or up to 1 / sqrt(inputs)."""
    linears = [block[0] for block in rule.net.blocks] + [rule.net.readout]
    carried = []
    for k, linear in enumerate(linears):
        if rule.variant == "fixed":
            m = rule.get_buffer(f"feedback.{k}.matrix")
        else:
            m = torch.tensor(1 / math.sqrt((3 if rule.variant == "uniform" else 1) * linear.in_features)).double()  # by float32
        carried.append(m * (draws[k] if draws else 1) * ((linear.weight > 0).double() - (linear.weight < 0).double()))
    acts = forward_by_hand(rule.net, x)
    return chain_rule(rule.net, acts, softmax_error(acts[-1], y), back=carried)


def claim_equal_magnitudes() -> bool:
    """Where every |W| is s, uSF is backpropagation."""
    toy = Toy()
    usf: Any = toy.bind(SignSymmetry)
    x, y = toy.batch()
    for layer, b in zip(usf.layers(), usf.carried(), strict=True):
        layer.weight.data.copy_(b)
    return equals_backprop(usf, x, y)


def claim_signs() -> bool:
    """In each variant every entry of B has the sign of its weight."""
    same = []
    for variant in ("uniform", "fixed", "redrawn"):
        toy = Toy()
        ss: Any = toy.bind(SignSymmetry, variant=variant)
        carried = ss.carried(*ss.draw(*toy.batch(), torch.Generator().manual_seed(0)))
        same += [torch.equal(b.sign(), layer.weight.sign()) for layer, b in zip(ss.layers(), carried, strict=True)]
    return all(same)


PART = rule(
    SignSymmetry,
    reference=reference,
    formula=r"\delta_k = \left(\delta_{k+1} \left(M_{k+1} \odot \mathrm{sign}(W_{k+1})\right)\right) \odot f'(a_k)",
    paper=Paper(
        title="How Important Is Weight Symmetry in Backpropagation?",
        authors="Qianli Liao, Joel Z. Leibo, Tomaso Poggio",
        year=2016,
        arxiv="1510.05067",
    ),
    tags=Tags(family="feedback"),
    options=(
        Option(
            "variant",
            "uniform",
            "magnitudes of B: all alike (uSF), fixed and random (frSF), redrawn every batch (brSF)",
            allowed=("uniform", "fixed", "redrawn"),
        ),
        Option("scale", 1.0, "factor on B, whose root mean square is that of the layer's first weights", bounds=(0.0, 100.0)),
    ),
    claims=(
        Claim("equal-magnitudes", "where all weights are as large as B's, uSF is backpropagation", check=claim_equal_magnitudes),
        Claim("signs", "feedback and forward weights share their signs", check=claim_signs),
        Claim(
            "backprop",
            "the magnitudes of feedback weights do not matter to performance",
            where="abstract",
            protocol=Protocol(task="digits", against="rule/backprop", expect="not worse"),
        ),
        Claim(
            "signs-matter",
            "the more concordant the signs, the better",
            where="abstract",
            protocol=Protocol(task="digits", against="rule/feedback-alignment", expect="better"),
        ),
    ),
    deviations=(
        "s is the standard deviation of torch's initial weights of the layer, and M is uniform on [0, 1] / sqrt(inputs);"
        " Xiao et al. (2018) scale by their own initialisation likewise",
        "no Batch Manhattan update: the optimizer is the task's, and normalisation is the host's",
        "the readout sends back through B, too; Xiao et al. leave the last layer's as it is",
        "normalisations, pooling, residual sums and attention keep exact gradients",
    ),
)
