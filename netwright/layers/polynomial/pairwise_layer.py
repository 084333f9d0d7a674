"""Pairwise layer: outputs that are sums over pairs of the few units that win (Keskinen, 2024).

h = relu(x - v) with v the k-th largest of the n units x, so that k - 1 are left (winners take all). Output c is
sum over its pairs (i, j) of w h_i h_j: the n (n - 1) / 2 pairs are dealt out to the outputs at random, a weight each.

Only pairs of winners are touched, (k - 1) (k - 2) / 2 of them, forwards and backwards: a gradient step changes no other
weight, so what other inputs have learnt stays unless they share a pair.

Shape suffixes: B rows, U units, K winners, P pairs of winners, C weights that a pair has.
"""

from __future__ import annotations

import math
from typing import Any, final

import torch
from torch import Tensor, nn

from netwright.core.errors import BadInput
from netwright.core.part import Claim, Option, Paper
from netwright.layers._kind import Layer, Tags, layer, product
from netwright.tensor.modules import LOW, drawn


@final
class PairwiseLayer(Layer):
    """y_c = sum over the pairs of output c of w_ij h_i h_j, h = relu(x - k-th largest of x); (..., d_in) -> (..., d_out).

    hidden: units of a linear map before, or 0 where x itself is the units. active: k over the number of units; k is at
    least 3. copies: outputs that a pair counts for, with a weight for each; with d_out of them every output has all pairs.
    pairs: how many pairs there are, or 0 for all of them.
    Raises BadInput where there are fewer than 3 units, or copies or pairs that there can't be.
    """

    linear: nn.Parameter | None
    place: Tensor  # (U, U), symmetric: where the pair stands in the shuffled order, from 0 on; 0 on the diagonal too

    def __init__(self, d_in: int, d_out: int, *, hidden: int = 0, active: float = 0.15, copies: int = 1, pairs: int = 0) -> None:
        super().__init__()
        name, units = ("hidden", hidden) if hidden else ("d_in", d_in)
        if units < 3:
            raise BadInput(f"{self.part.id}: {name}={units!r}; two of at least 3 units have to win for a pair")
        every = units * (units - 1) // 2
        if copies > d_out:
            raise BadInput(f"{self.part.id}: copies={copies!r}; a pair can count for no more than the {d_out} outputs")
        if pairs > every:
            raise BadInput(f"{self.part.id}: pairs={pairs!r}; {units} units have {every} pairs")
        self.k = max(3, int(units * active))
        self.outputs = d_out
        self.register_parameter("linear", nn.Parameter(torch.empty(hidden, d_in)) if hidden else None)
        self.weight = nn.Parameter(torch.empty(copies, pairs or every))
        self.register_buffer("place", torch.empty(units, units, dtype=torch.int64))

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """w ~ N(0, 0.001^2), the linear map ~ N(0, 2 / d_in), the pairs shuffled."""
        self.weight.normal_(0, 1e-3, generator=generator)
        if self.linear is not None:
            self.linear.normal_(0, math.sqrt(2 / self.linear.shape[1]), generator=generator)
        units, device = len(self.place), self.place.device
        i, j = torch.tril_indices(units, units, -1, device=device)
        self.place.zero_()
        self.place[i, j] = self.place[j, i] = torch.randperm(len(i), generator=generator, device=device)

    @property
    def quantities(self) -> dict[str, float]:
        """units; pairs as they are, not as they were asked for; met: pairs of winners."""
        met = (self.k - 1) * (self.k - 2) // 2
        return {**super().quantities, "units": len(self.place), "pairs": self.weight.shape[1], "winners": self.k - 1, "met": met}

    def winners(self, x_BI: Tensor) -> tuple[Tensor, Tensor]:
        """(h (B, K), which units (B, K)): the units above the k-th largest, and by how much, largest first."""
        x_BU = x_BI if self.linear is None else product(x_BI, self.linear)
        # Thousands of small terms are summed below, which half precision can't.
        most, which = (x_BU.float() if x_BU.dtype in LOW else x_BU).topk(self.k, dim=-1)
        return most[:, :-1] - most[:, -1:], which[:, :-1]

    def compute(self, x_BI: Tensor) -> Tensor:
        h_BK, which_BK = self.winners(x_BI)
        one_P, other_P = torch.tril_indices(self.k - 1, self.k - 1, -1, device=x_BI.device)
        stands_BP = self.place[which_BK[:, one_P], which_BK[:, other_P]]
        value_BP = h_BK[:, one_P] * h_BK[:, other_P]
        copies, kept = self.weight.shape
        which_BP = stands_BP
        if self.options["pairs"]:
            value_BP, which_BP = value_BP * (stands_BP < kept), stands_BP.clamp(max=kept - 1)
        weight_CBP = self.weight[:, which_BP]
        y = h_BK.new_zeros(h_BK.shape[0], self.outputs)
        for copy in range(copies):
            y = y.scatter_add(1, (stands_BP + copy) % self.outputs, value_BP * weight_CBP[copy])
        return y.to(self.weight.dtype)

    @torch.no_grad()
    def forms(self) -> Tensor:
        """U (d_out, n, n) with y_c = h^T U_c h: each weight below the diagonal of the outputs it counts for."""
        copies, kept = self.weight.shape
        units = len(self.place)
        i, j = torch.tril_indices(units, units, -1, device=self.place.device)
        forms = self.weight.new_zeros(self.outputs, units, units)
        held = self.place[i, j] < kept
        i, j = i[held], j[held]
        stands = self.place[i, j]
        for copy in range(copies):
            forms[(stands + copy) % self.outputs, i, j] = self.weight[copy, stands]
        return forms


def reference(layer: Any, x_BI: Tensor) -> Tensor:
    """All pairs, one after the other: pair (i, j) counts for the outputs from its place in the shuffled order on."""
    y = torch.zeros(len(x_BI), layer.sizes["d_out"], dtype=torch.float64)
    weight, place = layer.weight.tolist(), layer.place.tolist()
    for b, row in enumerate(x_BI.tolist()):
        if layer.linear is not None:
            row = [sum(w * v for w, v in zip(column, row, strict=True)) for column in layer.linear.tolist()]
        bar = sorted(row, reverse=True)[max(3, int(len(row) * layer.options["active"])) - 1]
        h = [max(0.0, v - bar) for v in row]
        for i in range(len(h)):
            for j in range(i):
                for copy, weights in enumerate(weight):
                    if place[i][j] < len(weights):
                        y[b, (place[i][j] + copy) % y.shape[1]] += weights[place[i][j]] * h[i] * h[j]
    return y


def rows(n: int, d: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def claim_quadratic() -> bool:
    """It is the quadratic form h^T U_c h in the sparse vector h of winners, whether all pairs are kept or not."""
    x = rows(20, 30)
    options: tuple[dict[str, Any], ...] = ({}, {"copies": 4}, {"pairs": 100}, {"pairs": 100, "copies": 2, "active": 0.5})
    for given in options:
        pairwise = drawn(PairwiseLayer, 30, 4, **given).requires_grad_(False)
        h = torch.zeros_like(x).scatter(1, *reversed(pairwise.winners(x)))
        wanted = torch.einsum("bi,cij,bj->bc", h, pairwise.forms(), h)
        if not torch.allclose(pairwise(x), wanted, rtol=1e-10, atol=1e-14) or int((h > 0).sum(1).max()) != pairwise.k - 1:
            return False
    return True


def claim_touched() -> bool:
    """The gradient of an input reaches the weights of its (k - 1) (k - 2) / 2 pairs of winners and no others."""
    pairwise = drawn(PairwiseLayer, 40, 10, active=0.2)
    pairwise(rows(1, 40)).sum().backward()
    return int(pairwise.weight.grad.count_nonzero()) == 7 * 6 // 2 and pairwise.weight.numel() == 40 * 39 // 2


def claim_apart() -> bool:
    """A step on one input leaves the outputs for another as they are, to the bit, where they share one winner and no pair."""
    pairwise = drawn(PairwiseLayer, 12, 3, active=0.5)
    one, other = torch.zeros(1, 12, dtype=torch.float64), torch.zeros(1, 12, dtype=torch.float64)
    one[0, :5], other[0, 4:9] = torch.arange(1.0, 6.0), torch.arange(1.0, 6.0)
    before, kept = pairwise(one).detach(), pairwise(other).detach()
    pairwise(one).square().sum().backward()
    with torch.no_grad():
        pairwise.weight -= 100 * pairwise.weight.grad
        return torch.equal(pairwise(other), kept) and not torch.equal(pairwise(one), before)


def claim_dealt() -> bool:
    """A pair counts for as many different outputs as there are copies; numbers of pairs differ by no more than the copies."""
    for copies in (1, 3, 7):
        pairwise = drawn(PairwiseLayer, 12, 7, copies=copies)
        used = pairwise.forms() != 0
        of_pair, of_output = used.sum(0)[tuple(torch.tril_indices(12, 12, -1))], used.sum((1, 2))
        if bool((of_pair != copies).any()) or int(of_output.max() - of_output.min()) > copies:
            return False
    return True


PART = layer(
    PairwiseLayer,
    reference=reference,
    formula=r"\sum_{(i,j) \in P_c} w_{ij} h_i h_j, \quad h = \mathrm{relu}(x - x_{(k)})",
    paper=Paper("pairwise-layer"),
    tags=Tags(slot="head", nonlinear=True, smooth=False),
    options=(
        Option("hidden", 0, "units of a linear map before it; 0: the inputs are the units", bounds=(-1, 10**5)),
        Option("active", 0.15, "k over the number of units, k at least 3", bounds=(0.0, 1.0), search=(0.05, 0.4, "log")),
        Option("copies", 1, "outputs that a pair counts for", bounds=(0, 10**5)),
        Option("pairs", 0, "pairs that there are, drawn at random; 0: all", bounds=(-1, 10**9)),
    ),
    toy={"active": 0.7},
    settings=({"hidden": 9}, {"copies": 4}, {"pairs": 9, "copies": 2, "hidden": 7}),
    parameters="hidden * d_in + copies * pairs",
    products="2 * hidden * d_in",
    elementwise="units + winners + met * (3 + 4 * copies)",
    claims=(
        Claim("quadratic", "is a quadratic form in a sparse vector for every output", check=claim_quadratic),
        Claim("touched", "an input touches the weights of its own pairs alone", check=claim_touched),
        Claim("apart", "what it has learnt of one input stays where another shares no pair", check=claim_apart),
        Claim("dealt", "the pairs are dealt out evenly", check=claim_dealt),
    ),
    deviations=(
        "the pairs are those of winners, found by their numbers; the code multiplies out all pairs",
        "all pairs are used; the code drops as many as make the outputs' numbers equal, and where it wants more pairs than"
        " there are it repeats some, drops others and may give one output a pair twice: here copies go to different outputs",
        "the pairs are shuffled by the seed; the code shuffles by the same key in every run",
        "with hidden > 0 nothing stands between the linear map and the winners; the code's nets have GELU there, which a"
        " host's own activation gives with hidden=0",
        "k is at least 3, as fewer leave no pair",
        "the rules of learning with it (Adagrad and streaming importance) belong to optimizers",
    ),
)
