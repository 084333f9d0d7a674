"""Forward-Forward: every block learns to be active on right labels and quiet on wrong ones (Hinton, 2022).

Shape suffixes: B batch, D features, C H W planes, height and width of an image, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.core.part import Claim, Option, Paper, Protocol
from netwright.engine.blocks import Blocks
from netwright.engine.rule import trainable
from netwright.engine.task import Problem
from netwright.rules._kind import Tags, rule
from netwright.rules._toy import Toy, gradients, linear_gradients, softmax_error
from netwright.rules.forwardforward._overlaid import Overlaid, excess, labelled, row_by_row, unit_rms

BLURS = 6  # of a hybrid's mask
MOMENTUM = 0.9  # of a unit's mean activity


@final
class ForwardForward(Overlaid):
    """L_k = softplus(theta - g_k(positive)) + softplus(g_k(negative) - theta), g_k = sum or mean of h_k^2.

    goodness: "sum" (theta = threshold * number of units) or "mean" (theta = threshold): the two match at any width.
    predict: "goodness" tries every label and adds the goodness of all blocks but the first, in K passes; "all" counts the
    first, too; "classifier" reads a softmax layer on the normalised activities of those blocks under a neutral label, in one.
    negatives: "label" overlays right and wrong labels; "hybrid" overlays none: positives are the examples themselves,
    negatives mix two of them, m * x + (1 - m) * x', and the classifier predicts, whatever `predict` says.
    peer: weight of mean_j (mean_i mu_i - mu_j)^2, with mu the running mean activity of each unit on positives.
    """

    def __init__(
        self,
        net: Blocks,
        problem: Problem,
        goodness: str = "sum",
        threshold: float = 1.0,
        predict: str = "goodness",
        negatives: str = "label",
        peer: float = 0.0,
    ) -> None:
        self.hybrid = negatives == "hybrid"
        super().__init__(net, problem, first=0 if predict == "all" else 1, overlays=not self.hybrid)
        self.goodness, self.threshold, self.peer = goodness, threshold, peer
        self.predict = "classifier" if self.hybrid else predict
        if self.predict == "classifier":
            self.classifier = Classifier(sum(shape[0] for shape in net.shapes[self.first :]), self.classes)
        self.peers = nn.ModuleList(Peers(shape) for shape in net.shapes if peer)

    def score(self, k: int, h: Tensor) -> Tensor:
        return excess(h, self.threshold, mean=self.goodness == "mean")

    def features(self, x: Tensor) -> list[Tensor]:
        """What each block puts out, under a neutral label where labels are overlaid."""
        return self.activities(x if self.hybrid else self.neutral(x))

    def classify(self, hidden: Sequence[Tensor]) -> Tensor:
        return self.classifier(torch.cat([unit_rms(h.detach()) for h in hidden[self.first :]], 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.features(x)) if self.predict == "classifier" else super().forward(x)

    def draw(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """A wrong label an example, all equally likely; or another example and a mask (B, D)."""
        if not self.hybrid:
            return super().draw(x, y, generator)
        shift_B = torch.randint(1, max(len(x), 2), (len(x),), generator=generator, device=generator.device)
        partner_B = (torch.arange(len(x), device=shift_B.device) + shift_B) % len(x)
        return partner_B.to(x.device), masks(len(x), x[0].numel(), generator).view_as(x).to(x.device)

    def losses(self, x: Tensor, y: Tensor, *draws: Tensor) -> Iterator[Tensor]:
        if self.hybrid:
            partner_B, mask_BD = draws
            rows = [x, torch.where(mask_BD, x, x[partner_B])]
        else:
            rows = self.pairs(x, y, *draws) + ([self.neutral(x)] if self.predict == "classifier" else [])
        n, h, read = len(x), torch.cat(rows), []
        for k in range(len(self.net.blocks)):
            h = self.run(k, h)
            positive, negative = self.score(k, h[:n]), self.score(k, h[n : 2 * n])
            if self.predict == "classifier":  # a slice would keep all of h alive, and memory would grow with depth
                read.append((h[:n] if self.hybrid else h[2 * n :]).detach())
            loss = F.softplus(-positive).mean() + F.softplus(negative).mean()
            yield loss + self.peer * self.peers[k](h[:n]) if self.peer else loss
        if self.predict == "classifier":
            yield self.problem.loss(self.classify(read), y)

    def after_step(self) -> None:
        for peers in self.peers:
            peers.keep()  # type: ignore[operator]

    def units(self) -> Sequence[Sequence[nn.Parameter]]:
        return [*super().units(), *([trainable(self.classifier)] if self.predict == "classifier" else [])]


@final
class Classifier(nn.Module):
    """A softmax layer without bias that starts at zero."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, features))

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator) -> None:
        self.weight.zero_()

    def forward(self, h_BD: Tensor) -> Tensor:
        return F.linear(h_BD, self.weight)


@final
class Peers(nn.Module):
    """The running mean activity of a block's units, and how far apart the units are."""

    mean_D: Tensor
    seen_D: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("mean_D", torch.empty(shape))
        self.register_buffer("seen_D", torch.empty(shape))  # of this step's positives; after_step adds it to the mean

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator) -> None:
        self.mean_D.fill_(0.5)
        self.seen_D.fill_(0.5)

    def mixed(self, seen_D: Tensor) -> Tensor:
        return MOMENTUM * self.mean_D + (1 - MOMENTUM) * seen_D

    def forward(self, h_BD: Tensor) -> Tensor:
        """The spread of the running means, which the gradient reaches by way of this batch's."""
        seen_D = h_BD.mean(0)
        self.seen_D.copy_(seen_D.detach())
        mu_D = self.mixed(seen_D)
        return (mu_D.mean() - mu_D).square().mean()

    def keep(self) -> None:
        self.mean_D.copy_(self.mixed(self.seen_D))


def picture(d: int) -> tuple[int, int, int]:
    """(C, H, W) of a vector of d features: a square image, else three square planes, else one row."""
    for c in (1, 3):
        side = math.isqrt(d // c)
        if c * side * side == d:
            return c, side, side
    return 1, 1, d


def masks(rows: int, d: int, generator: torch.Generator) -> Tensor:
    """Random bit images, blurred by [1/4, 1/2, 1/4] both ways again and again, above 0.5: (rows, d), the same in each plane."""
    c, height, width = picture(d)
    bits = torch.randint(2, (rows, 1, height, width), generator=generator, device=generator.device).float()
    line = torch.tensor([0.25, 0.5, 0.25], device=bits.device)
    for _ in range(BLURS):
        bits = F.conv2d(F.pad(bits, (1, 1, 1, 1), mode="replicate"), torch.outer(line, line)[None, None])
    return (bits > 0.5).expand(-1, c, -1, -1).flatten(1)


def reference(rule: Any, x: Tensor, y: Tensor, *draws: Tensor) -> dict[str, Tensor]:
    """da_k = 2 h (p - 1) on positives, 2 h p on negatives; p = sigmoid(g - theta), g the sum or the mean of h^2.

    Peers add 2 (mu_j - mean(mu)) / D * 0.1 to the gradient at the mean activity of unit j.
    """
    eye, b = torch.eye(rule.classes, dtype=x.dtype), len(x)
    if rule.hybrid:
        partner, mask = draws
        rows = [x, torch.stack([torch.where(mask[i], x[i], x[int(j)]) for i, j in enumerate(partner)]), x]
    else:
        rows = [labelled(x, eye[y]), labelled(x, eye[draws[0]]), labelled(x, torch.ones_like(eye)[y] / len(eye))]
    sides = [row_by_row(row) for row in rows]
    grads: dict[str, Tensor] = {}
    read = []
    for k, block in enumerate(rule.net.blocks):
        outputs = [(side @ block[0].weight.T + block[0].bias).clamp(min=0) for side in sides]
        for side, h, shift in zip(sides, outputs, (-1.0, 0.0), strict=False):
            n = 1 if rule.goodness == "sum" else h.shape[1]
            theta = rule.threshold * (h.shape[1] if rule.goodness == "sum" else 1)
            p_B1 = torch.sigmoid((h * h).sum(1, keepdim=True) / n - theta)
            delta = 2 * h / n * (p_B1 + shift) / b
            if rule.peer and shift:
                mu = 0.9 * rule.get_buffer(f"peers.{k}.mean_D") + 0.1 * h.sum(0) / b
                delta = delta + rule.peer * 2 * (mu - mu.mean()) / len(mu) * 0.1 / b * (h > 0)
            for name, g in linear_gradients(f"net.blocks.{k}.0", delta, side).items():
                grads[name] = grads.get(name, 0) + g
        sides = [row_by_row(h) for h in outputs]
        read.append(sides[2])
    if rule.predict == "classifier":
        features = torch.cat(read[1:], 1)
        grads["classifier.weight"] = softmax_error(features @ rule.classifier.weight.T, y).T @ features
    return grads


def claim_length() -> bool:
    """Scaling the first block's output threefold leaves the second block's activity as it was."""
    toy = Toy()
    rule: Any = toy.bind(ForwardForward)
    x, _ = toy.batch()
    before = rule.activities(x)
    with torch.no_grad():
        for p in rule.net.blocks[0].parameters():
            p.mul_(3.0)
    after = rule.activities(x)
    return torch.allclose(after[1], before[1], rtol=1e-6) and torch.allclose(after[0], 3 * before[0])


def claim_direction() -> bool:
    """After a step of size e on one positive, h becomes h (1 + 2 e (1 - p) (|x|^2 + 1)), the 1 being the bias's."""
    toy, e = Toy(rows=1), 0.1
    rule: Any = toy.bind(ForwardForward)
    x = unit_rms(toy.batch()[0])
    linear = rule.net.blocks[0][0]
    h = rule.run(0, x)
    over = rule.score(0, h)
    gradient = torch.autograd.grad(F.softplus(-over).mean(), (linear.weight, linear.bias))
    with torch.no_grad():
        for p, g in zip((linear.weight, linear.bias), gradient, strict=True):
            p.sub_(e * g)
    longer = 1 + 2 * e * torch.sigmoid(-over) * (unit_rms(x).square().sum() + 1)
    return torch.allclose(rule.run(0, x), longer * h, rtol=1e-10, atol=0)


def claim_hybrid() -> bool:
    """Masks are about half ones; a pixel agrees with its neighbour in seven cases of eight, where random bits do in four."""
    mask = masks(16, 784, torch.Generator().manual_seed(0)).view(16, 28, 28)
    alike = (mask[:, 1:] == mask[:, :-1]).double().mean()
    return bool(alike > 0.85) and bool((mask.double().mean() - 0.5).abs() < 0.1)


def claim_peer() -> bool:
    """A step at weight w adds w times the gradient of the spread; the running mean then moves a tenth of the way."""
    toy = Toy()
    x, y = toy.batch()
    plain, peer = toy.bind(ForwardForward), toy.bind(ForwardForward, peer=0.5)
    draws = peer.draw(x, y, torch.Generator().manual_seed(0))
    added = gradients(peer, x, y, *draws)["net.blocks.0.0.bias"] - gradients(plain, x, y, *draws)["net.blocks.0.0.bias"]
    h: Any = peer.run(0, peer.pairs(x, y, *draws)[0]).detach()  # type: ignore[operator]
    mu = 0.45 + 0.1 * h.mean(0)
    wanted = 0.5 * 2 / len(mu) * (mu - mu.mean()) * 0.1 * (h > 0).double().mean(0)
    peer.after_step()
    return torch.allclose(added, wanted, atol=1e-12) and torch.allclose(peer.get_buffer("peers.0.mean_D"), mu)


PART = rule(
    ForwardForward,
    reference=reference,
    formula=r"L_k = \log(1 + e^{\theta - g_k^{+}}) + \log(1 + e^{g_k^{-} - \theta}),\quad g_k = \sum_j h_{kj}^2",
    paper=Paper(
        title="The Forward-Forward Algorithm: Some Preliminary Investigations",
        authors="Geoffrey Hinton",
        year=2022,
        arxiv="2212.13345",
    ),
    tags=Tags(
        family="local",
        local=True,
        needs=frozenset({"blocks", "labels", "vector"}),
        forwards_train=2.0,
        forwards_predict="classes",
        at={
            "predict=classifier": {"forwards_train": 3.0, "forwards_predict": 1.0},
            "negatives=hybrid": {"forwards_train": 2.0, "forwards_predict": 1.0},
        },
    ),
    options=(
        Option("goodness", "sum", "sum or mean of squared activities", allowed=("sum", "mean")),
        Option("threshold", 1.0, "threshold of goodness, a unit", bounds=(0.0, 100.0)),
        Option(
            "predict",
            "goodness",
            "try every label, on all blocks but the first or on all; or classify once",
            allowed=("goodness", "all", "classifier"),
        ),
        Option("negatives", "label", "wrong labels, or mixtures of two examples", allowed=("label", "hybrid")),
        Option("peer", 0.0, "weight of peer normalisation, e.g. 0.03", bounds=(-1e-9, 100.0)),
    ),
    claims=(
        Claim(
            "length",
            "normalisation removes a layer's goodness, so that the next one can't read it off the length",
            where="section 2.1",
            check=claim_length,
        ),
        Claim("direction", "a step on one positive makes the activity longer and leaves its direction", check=claim_direction),
        Claim("hybrid", "the masks of hybrid images have large regions of ones and zeros", check=claim_hybrid),
        Claim("peer", "peer normalisation pulls the mean activity of each unit towards the mean of all", check=claim_peer),
        Claim(
            "backprop",
            "does not generalise quite as well as backpropagation",
            where="section 1",
            protocol=Protocol(task="digits", against="rule/backprop", expect="not better"),
        ),
    ),
    deviations=(
        "the label is as high as the largest magnitude in the example, not 1, so that it fits inputs on any scale",
        "positives and negatives of a batch go through as one batch, and all layers learn in every step",
        "the threshold is given a unit, so that it follows the width",
        "the classifier learns beside the blocks, not after them",
        "masks are blurred six times, edges repeated, and a vector that is no square image, nor three, counts as one row",
        "peer normalisation is off by default and takes the form it has in the repository loeweX/Forward-Forward",
    ),
)
