"""Cascaded Forward: random blocks that never learn, a linear predictor on each, and their votes (Zhao et al., 2023).

Shape suffixes: B batch, N all examples, D features of a block, K classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from netwright.core.errors import Misfit
from netwright.core.part import Claim, Option, Paper, Protocol
from netwright.engine.blocks import Blocks, keeps_statistics
from netwright.engine.rule import Rule
from netwright.engine.task import Problem
from netwright.rules._kind import Tags, rule
from netwright.rules._toy import Toy, softmax_error
from netwright.rules.blocklocal._heads import Flat, Zeroed
from netwright.tensor.tap import evaluating

FEATURES = 1024  # maps are averaged to at most this many: solving for W takes the cube of them


def sparsemax(z_BK: Tensor) -> Tensor:
    """The nearest point of the simplex: p = max(0, z - tau), with tau such that sum p = 1."""
    down = z_BK.sort(-1, descending=True).values
    excess = down.cumsum(-1) - 1  # of the k largest; tau is the greatest excess / k, that of the support
    tau_B1 = (excess / torch.arange(1, z_BK.shape[-1] + 1, device=z_BK.device)).amax(-1, keepdim=True)
    return (z_BK - tau_B1).relu()


@final
class Cafo(Rule):
    """Predictor k reads F_k, the flattened output of block k: scores F_k W_k. Prediction: sum_k softmax(F_k W_k).

    head: "mse" (W_k = (F_k^T F_k)^-1 F_k^T Y, accumulated over the batches), "ce" (cross-entropy, in steps) or "sparsemax"
    (its loss, in steps; sparsemax takes softmax's place in the prediction). In steps "mse" descends |F_k W_k - Y|^2.
    Raises Misfit where outputs are not one label an example.
    """

    def __init__(self, net: Blocks, problem: Problem, head: str = "mse") -> None:
        super().__init__(net, problem)
        if problem.classes is None or len(problem.output) != 1:
            raise Misfit(f"cafo predicts one label an example, and this task's outputs are {problem.output}; choose another")
        self.classes, self.head = problem.classes, head
        net.requires_grad_(False)  # the blocks stay as drawn, and the predictors take the readout's place
        flats = [Flat(shape, FEATURES) for shape in net.shapes]
        self.flats = nn.ModuleList(flats)
        self.predictors = nn.ModuleList(Zeroed(flat.width, problem.classes, bias=False) for flat in flats)

    def flattened(self, x: Tensor) -> list[Tensor]:
        """F_1 .. F_n."""
        return [flat(h) for flat, h in zip(self.flats, self.net.features(x), strict=True)]

    def forward(self, x: Tensor) -> Tensor:
        scores = [predictor(f) for predictor, f in zip(self.predictors, self.flattened(x), strict=True)]
        return torch.stack([sparsemax(z) if self.head == "sparsemax" else z.softmax(-1) for z in scores]).sum(0)

    def one_hot(self, y_B: Tensor) -> Tensor:
        return y_B[:, None] == torch.arange(self.classes, device=y_B.device)

    def loss(self, z_BK: Tensor, y_B: Tensor) -> Tensor:
        """The head's loss; that of sparsemax is (p - y) z + (1 - |p|^2) / 2, with gradient p - y."""
        if self.head == "ce":
            return self.problem.loss(z_BK, y_B)
        y_BK = self.one_hot(y_B).to(z_BK.dtype)
        if self.head == "mse":
            return (z_BK - y_BK).square().sum(1).mean()
        p_BK = sparsemax(z_BK).detach()
        return ((p_BK - y_BK) * z_BK + (1 / self.classes - p_BK.square()) / 2).sum(1).mean()

    def losses(self, x: Tensor, y: Tensor, *draws: Tensor) -> Iterator[Tensor]:
        for predictor, f in zip(self.predictors, self.flattened(x), strict=True):
            yield self.loss(predictor(f), y)

    def units(self) -> Sequence[Sequence[nn.Parameter]]:
        return [list(predictor.parameters()) for predictor in self.predictors]

    @torch.no_grad()
    def fit(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """The least squares of every predictor. Where blocks hold running statistics, a first pass settles these."""
        if self.head != "mse":
            return super().fit(batches)
        sums: list[tuple[Tensor, Tensor]] = []
        with evaluating(self):
            if any(map(keeps_statistics, self.net.blocks.modules())):
                batches = list(batches)
                self.train()
                for x, _ in batches:
                    self.net.features(x)
                self.eval()  # the features that predictions read
            for x, y in batches:
                y_BK = self.one_hot(y).double()
                new = [(f.T @ f, f.T @ y_BK) for f in map(Tensor.double, self.flattened(x))]
                sums = [(a + c, b + d) for (a, b), (c, d) in zip(sums, new, strict=True)] if sums else new
        for predictor, (a_DD, b_DK) in zip(self.predictors, sums, strict=True):
            predictor.get_parameter("weight").copy_((torch.linalg.pinv(a_DD, hermitian=True) @ b_DK).T)


def reference(rule: Any, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """dW = F^T e, with e = softmax - Y, sparsemax - Y (by bisection of its threshold) or 2 (F W - Y), over B."""
    grads: dict[str, Tensor] = {}
    y_BK = torch.eye(rule.classes, dtype=x.dtype)[y]
    for k, block in enumerate(rule.net.blocks):
        x = (x @ block[0].weight.T + block[0].bias).clamp(min=0)
        z_BK = x @ rule.predictors[k].weight.T
        if rule.head == "ce":
            e_BK = softmax_error(z_BK, y)
        elif rule.head == "mse":
            e_BK = 2 * (z_BK - y_BK) / len(y)
        else:
            low, high = z_BK.max(1, keepdim=True).values - 1, z_BK.max(1, keepdim=True).values
            for _ in range(60):
                mid = (low + high) / 2
                over = (z_BK - mid).clamp(min=0).sum(1, keepdim=True) > 1
                low, high = torch.where(over, mid, low), torch.where(over, high, mid)
            e_BK = ((z_BK - low).clamp(min=0) - y_BK) / len(y)
        grads[f"predictors.{k}.weight"] = e_BK.T @ x
    return grads


def fitted(rows: int) -> tuple[Any, Tensor, Tensor]:
    """A rule solved over batches of so many rows, with its data."""
    toy = Toy(rows=24)
    bound, (x, y) = toy.bind(Cafo), toy.batch()
    bound.fit(zip(x.split(rows), y.split(rows), strict=True))
    return bound, x, y


def claim_normal() -> bool:
    """F^T (F W - Y) = 0 for every predictor."""
    bound, x, y = fitted(8)
    y_NK = bound.one_hot(y).double()
    left = [f.T @ (f @ p.weight.detach().T - y_NK) for f, p in zip(bound.flattened(x), bound.predictors, strict=True)]
    return all(float(t.abs().max()) < 1e-9 for t in left)


def claim_streaming() -> bool:
    """Batches of 5 give the predictors that all examples at once give."""
    small, full = fitted(5)[0], fitted(24)[0]
    return all(torch.allclose(p, q, rtol=1e-8, atol=1e-10) for p, q in zip(small.parameters(), full.parameters(), strict=True))


def claim_blocks() -> bool:
    """Fitting leaves the blocks as they were drawn."""
    drawn = Toy(rows=24).bind(Cafo).net.state_dict()
    return all(torch.equal(t, drawn[name]) for name, t in fitted(8)[0].net.state_dict().items())


def claim_sparsemax() -> bool:
    """The loss is at least 0, and exactly 0 where the label's score leads all others by 1."""
    bound: Any = Toy().bind(Cafo, head="sparsemax")
    y = torch.tensor([0, 0, 0])
    z = torch.tensor([[2.0, 1.0, -1.0], [0.5, 0.2, 0.0], [0.0, 0.0, 3.0]], dtype=torch.float64)
    each = [float(bound.loss(z[i : i + 1], y[i : i + 1])) for i in range(3)]
    return abs(each[0]) < 1e-12 and abs(each[1] - 0.13) < 1e-12 and abs(each[2] - 3.0) < 1e-12


PART = rule(
    Cafo,
    reference=reference,
    formula=r"W_k = (F_k^\top F_k)^{-1} F_k^\top Y,\quad \hat y = \arg\max \sum_k \mathrm{softmax}(F_k W_k)",
    paper=Paper(
        title="The Cascaded Forward Algorithm for Neural Network Training",
        authors="Gongpei Zhao, Tao Wang, Yidong Li, Yi Jin, Congyan Lang, Haibin Ling",
        year=2023,
        arxiv="2303.09728",
        code="Graph-ZKY/CaFo",
    ),
    tags=Tags(
        family="local",
        local=True,
        needs=frozenset({"labels"}),
        closed_form=True,
        at={"head=ce": {"closed_form": False}, "head=sparsemax": {"closed_form": False}},
    ),
    options=(Option("head", "mse", "least squares in closed form, or a loss in steps", allowed=("mse", "ce", "sparsemax")),),
    claims=(
        Claim("normal", "the predictors solve the normal equations", check=claim_normal),
        Claim("streaming", "accumulated over batches, the solution is that of all examples at once", check=claim_streaming),
        Claim("blocks", "the blocks stay as they were drawn", check=claim_blocks),
        Claim("sparsemax", "the sparsemax loss is 0 from a lead of 1 on", check=claim_sparsemax),
        Claim(
            "forward-forward",
            "a significant improvement in accuracy over the baseline, Forward-Forward",
            where="abstract",
            protocol=Protocol(task="digits", against="rule/forward-forward", expect="better"),
        ),
    ),
    deviations=(
        "the blocks are the host's own; the paper's are convolution, ReLU, max pooling and batch normalisation each",
        "maps are averaged to at most 1024 features a block before they are flattened",
        "the normal equations are solved by the pseudo-inverse in double precision, singular or not",
        "the predictors of ce and sparsemax start at zero, not at one: all classes score alike either way",
        "all predictors learn in every step, in batches, under the task's optimizer; no regularisation",
        "running statistics of normalisations follow the data before anything is fitted, and predictions read them",
    ),
)
