"""LLS: every block learns to be in step with the periodic basis vector of the class (Apolinario, Roy and Roy, 2024).

Shape suffixes: B batch, C classes, D values of a block's output; n counts these values from 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.core.errors import Misfit
from netwright.core.part import Claim, Option, Paper, Protocol
from netwright.engine.blocks import Blocks
from netwright.engine.rule import Rule, trainable
from netwright.engine.task import Problem
from netwright.rules._kind import Tags, rule
from netwright.rules._toy import Toy, gradients, linear_gradients, softmax_error
from netwright.rules.blocklocal._heads import Flat, map_readout

LOWEST, HIGHEST = 50.0, 512.0  # frequencies of the first and the last class, in radians a value
VALUES, SIDE = 512, 4  # maps are averaged to at most 4 x 4 cells and 512 values


@final
class InStep(nn.Module):
    """u = h / |h|, scores_c = u . P_c with P_c(n) = sin(f_c n), f_c spaced evenly from 50 to 512; "square": its sign.

    variant "m": scores * m with a trained m_C; "mxm": scores M with a trained M_CC.
    """

    basis_CD: Tensor

    def __init__(self, shape: tuple[int, ...], classes: int, variant: str, basis: str, by_position: bool = False) -> None:
        super().__init__()
        self.flat, self.basis = Flat(shape, VALUES, SIDE, by_position), basis
        self.register_buffer("basis_CD", torch.empty(classes, self.flat.width))
        size = {"lls": None, "m": (classes,), "mxm": (classes, classes)}[variant]
        self.modulation = nn.Parameter(torch.empty(size)) if size else None

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator) -> None:
        classes, width = self.basis_CD.shape
        f_C = torch.linspace(LOWEST, HIGHEST, classes, dtype=torch.float64)
        wave_CD = torch.sin(f_C[:, None] * torch.arange(width, dtype=torch.float64))
        self.basis_CD.copy_(wave_CD.sign() if self.basis == "square" else wave_CD)
        if self.modulation is not None:
            self.modulation.normal_(0.0, 0.01, generator=generator)

    def forward(self, h: Tensor) -> Tensor:
        scores = F.normalize(self.flat(h), dim=-1) @ self.basis_CD.T
        if self.modulation is None:
            return scores
        return scores * self.modulation if self.modulation.dim() == 1 else scores @ self.modulation


@final
class Lls(Rule):
    """L_k = CE(scores of block k, y), and the next block reads h_k detached; the readout learns CE on the last one.

    variant: "lls" (the basis alone), "m" (a trained factor a class), "mxm" (a trained C x C matrix), a block each. Where the
    last block puts out maps, the readout is a linear map of the cells that its loss reads.
    Raises Misfit where the problem has no classes.
    """

    def __init__(self, net: Blocks, problem: Problem, variant: str = "lls", basis: str = "sin") -> None:
        super().__init__(net, problem)
        if problem.classes is None:
            raise Misfit("lls has a basis vector a class, and this problem has no classes; choose a task with labels")
        positions = len(problem.output) > 1
        self.heads = nn.ModuleList(InStep(shape, problem.classes, variant, basis, positions) for shape in net.shapes)
        self.of_maps = map_readout(net, problem.classes, VALUES, SIDE)

    @property
    def readout(self) -> nn.Module:
        return self.net.readout if self.of_maps is None else self.of_maps

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(self.net.features(x)[-1])

    def losses(self, x: Tensor, y: Tensor, *draws: Tensor) -> Iterator[Tensor]:
        h = x
        for block, scores in zip(self.net.blocks, self.heads, strict=True):
            h = block(h.detach())
            yield self.problem.loss(scores(h), y)
        yield self.problem.loss(self.readout(h.detach()), y)

    def units(self) -> Sequence[Sequence[nn.Parameter]]:
        hidden = [trainable(block, head) for block, head in zip(self.net.blocks, self.heads, strict=True)]
        return [*hidden, trainable(self.readout)]


def reference(rule: Any, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """g = e P with e = (softmax(scores) - Y) / B; dh = (g - u (u . g)) / |h|; M stands between e and P where there is one."""
    grads: dict[str, Tensor] = {}
    classes = rule.problem.classes
    for k, block in enumerate(rule.net.blocks):
        h = (x @ block[0].weight.T + block[0].bias).clamp(min=0)
        waves = [
            [math.sin((LOWEST + c * (HIGHEST - LOWEST) / (classes - 1)) * n) for n in range(h.shape[1])] for c in range(classes)
        ]
        p_CD = torch.tensor(waves).to(x.dtype)  # the rule keeps the basis in single precision
        if rule.heads[k].basis == "square":
            p_CD = p_CD.sign()
        length_B1 = h.norm(dim=1, keepdim=True)
        u_BD = h / length_B1
        scores = u_BD @ p_CD.T
        m = rule.heads[k].modulation
        if m is not None:
            m_CC = torch.diag(m) if m.dim() == 1 else m
            e_BC = softmax_error(scores @ m_CC, y)
            dm_CC = scores.T @ e_BC
            grads[f"heads.{k}.modulation"] = dm_CC.diagonal() if m.dim() == 1 else dm_CC
            e_BC = e_BC @ m_CC.T
        else:
            e_BC = softmax_error(scores, y)
        g_BD = e_BC @ p_CD
        dh = (g_BD - u_BD * (u_BD * g_BD).sum(1, keepdim=True)) / length_B1
        grads |= linear_gradients(f"net.blocks.{k}.0", dh * (h > 0), x)
        x = h
    readout = rule.net.readout
    return grads | linear_gradients("net.readout", softmax_error(x @ readout.weight.T + readout.bias, y), x)


def filled(features: int, classes: int, basis: str) -> Tensor:
    """The basis of a dense block."""
    head = InStep((features,), classes, "lls", basis)
    head.reset_parameters(torch.Generator())
    return head.basis_CD.double()


def claim_basis() -> bool:
    """Ten sinusoids of 512 values have the length of a sinusoid, sqrt(D / 2), and are orthogonal to 1 %."""
    p_CD = filled(512, 10, "sin")
    lengths = p_CD.norm(dim=1)
    cosines = (p_CD @ p_CD.T / torch.outer(lengths, lengths) - torch.eye(10)).abs()
    return bool(cosines.max() < 0.01 and (lengths / 16 - 1).abs().max() < 0.003)


def claim_identity() -> bool:
    """With m = 1 and with M = I the blocks learn as under LLS."""
    toy = Toy()
    x, y = toy.batch()
    plain = gradients(toy.bind(Lls), x, y)
    for variant, value in (("m", torch.ones(toy.classes)), ("mxm", torch.eye(toy.classes))):
        other = toy.bind(Lls, variant=variant)
        with torch.no_grad():
            for k in range(len(toy.widths)):
                other.get_parameter(f"heads.{k}.modulation").copy_(value)
        got = gradients(other, x, y)
        if not all(torch.allclose(got[name], g, rtol=1e-12, atol=1e-15) for name, g in plain.items()):
            return False
    return True


def claim_length() -> bool:
    """A block's output three times as long has the same scores: only its direction is trained."""
    head, h = InStep((6,), 3, "lls", "sin"), torch.arange(1.0, 7.0)[None]
    head.reset_parameters(torch.Generator())
    return torch.allclose(head(3 * h), head(h), rtol=1e-6)


PART = rule(
    Lls,
    reference=reference,
    formula=r"L_k = \mathrm{CE}\left(\frac{h_k}{\|h_k\|} P^\top,\ y\right),\quad P_{cn} = \sin(f_c\, n)",
    paper=Paper("lls"),
    tags=Tags(family="local", local=True),
    options=(
        Option("variant", "lls", "nothing, a factor a class or a matrix to train a block", allowed=("lls", "m", "mxm")),
        Option("basis", "sin", "sinusoids, or square waves of their sign", allowed=("sin", "square")),
    ),
    claims=(
        Claim("basis", "the periodic basis vectors of the classes are close to orthogonal", check=claim_basis),
        Claim("identity", "LLS-M with ones and LLS-MxM with the identity are LLS", check=claim_identity),
        Claim("length", "the length of a block's activity has no influence on its loss", check=claim_length),
        Claim(
            "backprop",
            "achieves accuracy comparable to backpropagation",
            where="abstract",
            protocol=Protocol(task="digits", against="rule/backprop", expect="not worse"),
        ),
    ),
    deviations=(
        "the prediction of maps reads the last block's, flattened as for its loss; the paper's nets end in dense layers",
        "the blocks are the host's own; the paper's are a linear map, batch normalisation and leaky ReLU each",
        "maps are averaged to 4 x 4 cells, or fewer where these hold more than 512 values",
        "where outputs have positions, each position's vector is compared with the basis",
        "the basis is computed in double precision and kept in single",
        "no reduced set of basis vectors for many classes; the temperature is 1, without label smoothing",
    ),
)
