"""The multitasking Hebbian network: an associative memory of diluted patterns, one a class (Agliari et al., 2023).

Shape suffixes: B batch, K patterns (classes), N spins (input features).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from typing import Any, final

import torch
from torch import Tensor, nn

from netwright.core.errors import Misfit
from netwright.core.part import Claim, Option, Paper
from netwright.engine.blocks import Blocks
from netwright.engine.rule import Rule
from netwright.engine.task import Problem
from netwright.rules._kind import Tags, rule
from netwright.rules._toy import Toy, gradients


def overlaps(s_BN: Tensor, xi_KN: Tensor) -> Tensor:
    """Mattis magnetisations m = (1 / N) s . xi, (B, K)."""
    return s_BN @ xi_KN.T / xi_KN.shape[1]


def relaxed(s_BN: Tensor, xi_KN: Tensor) -> Tensor:
    """All spins along their fields h = sum_k xi^k m_k, at zero temperature; where there is none, but for rounding, they stay."""
    h_BN = overlaps(s_BN, xi_KN) @ xi_KN
    return torch.where(h_BN.abs() < 1e-6, s_BN, h_BN.sign())


@final
class MultitaskingHebbian(Rule):
    """J_ij = (1 / N) sum_k xi_i^k xi_j^k, never formed: with the overlaps m, the field of spin i is sum_k xi_i^k m_k.

    An example is diluted: eta = sign(x - mean) where |x - mean| is above `blank` standard deviations of its feature,
    else 0. A pattern is the mean of its class's examples (supervised Hebbian learning). Prediction: the overlaps after
    `steps` parallel updates from eta. In steps, `losses` descends the squared errors whose least are those means.
    The blocks of the net are not used.
    """

    def __init__(self, net: Blocks, problem: Problem, blank: float = 0.5, steps: int = 1) -> None:
        super().__init__(net, problem)
        if problem.classes is None or len(problem.output) != 1:
            raise Misfit(
                f"multitasking-hebbian stores a pattern a class; this task's outputs are {problem.output}; choose another"
            )
        self.blank, self.steps = blank, steps
        net.requires_grad_(False)
        self.memory = Memory(problem.classes, math.prod(problem.input))

    def diluted(self, x: Tensor) -> Tensor:
        """eta, (B, N) of -1, 0 and 1."""
        away_BN = x - self.memory.centre_N
        return torch.where(away_BN.abs() > self.blank * self.memory.spread_N + 1e-6, away_BN.sign(), 0)

    def forward(self, x: Tensor) -> Tensor:
        s_BN = self.diluted(x)
        for _ in range(self.steps):
            s_BN = relaxed(s_BN, self.memory.xi_KN)
        return overlaps(s_BN, self.memory.xi_KN)

    def losses(self, x: Tensor, y: Tensor, *draws: Tensor) -> Iterator[Tensor]:
        xi_KN = self.memory.xi_KN
        own_BK = (y[..., None] == torch.arange(len(xi_KN), device=y.device)).to(x.dtype)
        yield (self.diluted(x) - own_BK @ xi_KN).square().sum(1).mean()

    def units(self) -> Sequence[Sequence[nn.Parameter]]:
        return [[self.memory.xi_KN]]

    @torch.no_grad()
    def fit(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Mean and spread of the features, then the mean of every class's diluted examples; no example, no pattern."""
        memory, pairs = self.memory, list(batches)
        x, y = torch.cat([x for x, _ in pairs]), torch.cat([y for _, y in pairs])
        memory.centre_N.copy_(x.mean(0))
        memory.spread_N.copy_(x.std(0, correction=0))
        own_BK = (y[:, None] == torch.arange(len(memory.xi_KN), device=y.device)).to(x.dtype)
        memory.xi_KN.copy_(own_BK.T @ self.diluted(x) / own_BK.sum(0).clamp(min=1)[:, None])


@final
class Memory(nn.Module):
    """The patterns xi, and the mean and spread of the features that examples are diluted by."""

    centre_N: Tensor
    spread_N: Tensor

    def __init__(self, patterns: int, spins: int) -> None:
        super().__init__()
        self.xi_KN = nn.Parameter(torch.empty(patterns, spins))
        self.register_buffer("centre_N", torch.empty(spins))
        self.register_buffer("spread_N", torch.empty(spins))

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator) -> None:
        self.xi_KN.zero_()
        self.centre_N.zero_()
        self.spread_N.fill_(1.0)


def reference(rule: Any, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """d xi^k = (2 / B) sum over the examples of class k of (xi^k - eta)."""
    memory = rule.memory
    grad = torch.zeros_like(memory.xi_KN)
    for row, label in zip(x, y.tolist(), strict=True):
        for i, value in enumerate((row - memory.centre_N).tolist()):
            eta = 0.0 if abs(value) <= rule.blank * float(memory.spread_N[i]) + 1e-6 else math.copysign(1.0, value)
            grad[label, i] += 2 * (memory.xi_KN[label, i] - eta) / len(x)
    return {"memory.xi_KN": grad}


def patterns(k: int, n: int, dilution: float) -> Tensor:
    """Random patterns (k, n): 0 with probability `dilution`, else 1 or -1 alike."""
    g = torch.Generator().manual_seed(0)
    signs = torch.randint(2, (k, n), generator=g).double() * 2 - 1
    return signs * (torch.rand(k, n, generator=g) >= dilution)


def hierarchical(xi_KN: Tensor) -> Tensor:
    """The state that follows the first pattern, where that is blank the second, and so on (1, N)."""
    s_N = torch.zeros_like(xi_KN[0])
    for xi_N in xi_KN:
        s_N = torch.where(s_N == 0, xi_N, s_N)
    return torch.where(s_N == 0, 1.0, s_N)[None]


def claim_selfconsistent() -> bool:
    """m_k = (1 - d) d^(k-1) solves m = E[xi tanh(beta sum_k xi^k m_k)] at beta = infinity: 0.75, 0.1875, 0.046875 at d = 1/4."""
    d = 0.25
    m = torch.tensor([(1 - d) * d**k for k in range(3)], dtype=torch.float64)
    total = torch.zeros_like(m)
    for values in product((-1.0, 0.0, 1.0), repeat=3):
        xi = torch.tensor(values, dtype=torch.float64)
        total += xi * torch.sign(xi @ m) * math.prod(d if v == 0 else (1 - d) / 2 for v in values)
    return torch.allclose(total, m, rtol=1e-12) and torch.allclose(m, torch.tensor([0.75, 0.1875, 0.046875]).double())


def claim_hierarchical() -> bool:
    """3 patterns, a quarter blank, 4000 spins: that state is a fixed point of the dynamics, and has those overlaps."""
    xi = patterns(3, 4000, 0.25)
    s = hierarchical(xi)
    theory = torch.tensor([[0.75, 0.1875, 0.046875]]).double()
    return torch.equal(relaxed(s, xi), s) and bool(((overlaps(s, xi) - theory).abs() < 0.03).all())


def claim_hopfield() -> bool:
    """Without blanks one pattern alone is retrieved, from a state with a fifth of its spins turned over."""
    xi = patterns(3, 2000, 0.0)
    s = xi[:1].clone()
    s[:, :400] *= -1
    return torch.equal(relaxed(s, xi), xi[:1]) and bool((overlaps(xi[:1], xi)[0, 1:].abs() < 0.1).all())


def claim_energy() -> bool:
    """Spins turned one by one along their fields, self-coupling left out, never raise -(N / 2) sum of m^2."""
    xi = patterns(3, 60, 0.25)
    s = patterns(1, 60, 0.0)
    energies = [-30 * float(overlaps(s, xi).square().sum())]
    for i in list(range(60)) * 2:
        h = (overlaps(s, xi) @ xi)[0, i] - xi[:, i].square().sum() * s[0, i] / 60
        s[0, i] = s[0, i] if h == 0 else h.sign()
        energies.append(-30 * float(overlaps(s, xi).square().sum()))
    return energies[-1] < energies[0] and all(b <= a + 1e-12 for a, b in zip(energies, energies[1:], strict=False))


def claim_minimum() -> bool:
    """What is fitted is where the sum of squared errors has no gradient."""
    toy = Toy(rows=24)
    bound, (x, y) = toy.bind(MultitaskingHebbian), toy.batch()
    bound.fit(zip(x.split(8), y.split(8), strict=True))
    return all(float(g.abs().max()) < 1e-12 for g in gradients(bound, x, y).values())


PART = rule(
    MultitaskingHebbian,
    reference=reference,
    formula=r"\xi^k = \frac{1}{M_k} \sum_{a \in k} \eta^a,\quad h_i = \sum_k \xi_i^k m_k,\quad"
    r" m_k = \frac{1}{N} \sum_i \xi_i^k \sigma_i,\quad \sigma_i \leftarrow \mathrm{sign}(h_i)",
    paper=Paper("multitasking-hebbian"),
    tags=Tags(
        family="local",
        local=True,
        needs=frozenset({"labels", "vector"}),
        closed_form=True,
        forwards_train=0,
        forwards_predict=0,
        above_control=False,
        reasons={
            "above_control": "the theory is of independent patterns; classes of images are correlated, and relaxation draws"
            " every state towards what they share: on digits the overlaps of the examples themselves (steps=0) reach the"
            " control, and every update loses"
        },
    ),
    options=(
        Option("blank", 0.5, "standard deviations from the mean within which a feature is blank", bounds=(0.0, 10.0)),
        Option("steps", 1, "parallel updates of all spins before the overlaps are read", bounds=(-1, 1001)),
    ),
    claims=(
        Claim("self-consistency", "mildly diluted patterns are retrieved in a hierarchy of powers", check=claim_selfconsistent),
        Claim("hierarchical", "one state retrieves several patterns, and stays", where="abstract", check=claim_hierarchical),
        Claim("hopfield", "without dilution it is Hopfield's network, one pattern at a time", check=claim_hopfield),
        Claim("energy", "the dynamics never raise the energy", check=claim_energy),
        Claim("minimum", "a stored pattern has the least squared distance to its examples", check=claim_minimum),
    ),
    deviations=(
        "the paper has no task, no net and no classification: a class as a pattern, an input's deviations from the mean as a"
        " noisy diluted example, and the largest overlap as the answer are ours",
        "patterns are real-valued means of examples without the paper's normalisation by dilution and data quality, which"
        " scales all fields alike",
        "zero temperature and parallel updates; the paper's dynamics are at a temperature, and in its simulations one by one",
        "the net's blocks and readout are not used",
    ),
)
