"""SKA, structured knowledge accumulation: layers lower an entropy of their own, forward only and without labels (Mahi, 2025).

Shape suffixes: B batch, M inputs of a layer, N its units.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.func import functional_call

from netwright.core.errors import Misfit
from netwright.core.part import Claim, Option, Paper
from netwright.engine.blocks import Blocks
from netwright.engine.rule import Rule, trainable
from netwright.engine.task import Problem
from netwright.rules._kind import Tags, rule
from netwright.rules._toy import Toy, gradients, linear_gradients, softmax_error
from netwright.rules.hebbian._one_layer import parted, through

Layers = list[tuple[list[nn.Module], Any]]


def entropy(z: Tensor, d: Tensor, d_before: Tensor) -> Tensor:
    """H = -(1 / ln 2) sum of z (D - D_before): knowledge times the shift of the decisions since the step before."""
    return -(z * (d - d_before)).sum() / math.log(2)


def entropy_slope(z: Tensor, d: Tensor, d_before: Tensor) -> Tensor:
    """dH/dz = -(1 / ln 2) (z D (1 - D) + D - D_before), for D = sigmoid(z) and D_before held."""
    return -(z * d * (1 - d) + d - d_before) / math.log(2)


@final
class Ska(Rule):
    """z = W D_below + b, D = sigmoid(z); K steps on a batch, each of them W -= eta G^T D_below / B, G = dH/dz.

    The gradient is the sum of the K steps' own, taken along weights that move at the rate eta within the step: plain
    gradient descent at that rate leaves the weights where the K steps do. In the first of them nothing has shifted yet.
    The readout learns from the loss of the task, on D without gradient. The host's activation is not used: D is what
    layers hand on, as published. steps: K; rate: eta.
    Raises Misfit where a block is anything but one linear map and an activation.
    """

    def __init__(self, net: Blocks, problem: Problem, steps: int = 5, rate: float = 0.01) -> None:
        super().__init__(net, problem)
        self.steps, self.rate = steps, rate
        for layer, shape in zip((layer for _, layer in self.layers()), net.shapes, strict=True):
            if not isinstance(layer, nn.Linear) or layer.bias is None or shape != (layer.out_features,):
                raise Misfit("ska has layers sigmoid(W x + b) of vectors; use an Mlp without norm and gate")

    def layers(self) -> Layers:
        """What comes before a block's linear map, and the map."""
        found = []
        for block in self.net.blocks:
            before, layer, after = parted(block, "ska")
            if any(True for module in after for _ in module.parameters()):
                raise Misfit("ska has nothing that learns between z and its sigmoid; use an Mlp without norm")
            found.append((before, layer))
        return found

    def features(self, x: Tensor) -> list[Tensor]:
        found = []
        for before, layer in self.layers():
            x = torch.sigmoid(layer(through(before, x)))
            found.append(x)
        return found

    def forward(self, x: Tensor) -> Tensor:
        return self.net.readout(self.features(x)[-1])

    @torch.no_grad()
    def run(self, x: Tensor) -> tuple[list[Tensor], list[tuple[Tensor, Tensor]], list[Tensor]]:
        """(D of the first step, sums of all steps' gradients of weight and bias, every step's entropies (layers,))."""
        layers = self.layers()
        moved = [(layer.weight.detach(), layer.bias.detach()) for _, layer in layers]
        sums = [(torch.zeros_like(w), torch.zeros_like(b)) for w, b in moved]
        first: list[Tensor] = []
        last: list[Tensor] = []
        entropies = []
        for _ in range(self.steps):
            h_BM, decisions, falls = x, [], []
            for k, (before, layer) in enumerate(layers):
                below = through(before, h_BM)  # this step's decisions make z; the step before's take part in the update
                z_BN = functional_call(layer, {"weight": moved[k][0], "bias": moved[k][1]}, (below,))
                h_BM = torch.sigmoid(z_BN)
                decisions.append(h_BM)
                earlier = last[k] if last else h_BM
                g_BN = entropy_slope(z_BN, h_BM, earlier)
                below_BM = through(before, x) if k == 0 else (last or decisions)[k - 1]
                falls.append((g_BN.T @ below_BM / len(x), g_BN.mean(0), entropy(z_BN, h_BM, earlier)))
            moved = [(w - self.rate * dw, b - self.rate * db) for (w, b), (dw, db, _) in zip(moved, falls, strict=True)]
            sums = [(w + dw, b + db) for (w, b), (dw, db, _) in zip(sums, falls, strict=True)]
            entropies.append(torch.stack([h for *_, h in falls]))
            first, last = first or decisions, decisions
        return first, sums, entropies

    def losses(self, x: Tensor, y: Tensor, *draws: Tensor) -> Iterator[Tensor]:
        first, sums, _ = self.run(x)
        for (_, layer), (dw, db) in zip(self.layers(), sums, strict=True):
            yield (dw * layer.weight).sum() + (db * layer.bias).sum()
        yield self.problem.loss(self.net.readout(first[-1]), y)

    def units(self) -> Sequence[Sequence[nn.Parameter]]:
        return [trainable(block) for block in self.net.blocks] + [trainable(self.net.readout)]


def reference(rule: Any, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """The K steps as they are published, on copies of the weights; what they moved, over -eta, is the gradient."""
    start = [(block[0].weight, block[0].bias) for block in rule.net.blocks]
    weights, biases = [w.clone() for w, _ in start], [b.clone() for _, b in start]
    before: list[Tensor] = []
    top = x
    for step in range(rule.steps):
        d, z, now = x, [], []
        for w, b in zip(weights, biases, strict=True):
            z.append(d @ w.T + b)
            d = 1 / (1 + torch.exp(-z[-1]))
            now.append(d)
        before = now if step == 0 else before
        top = now[-1] if step == 0 else top
        for k in range(len(weights)):
            g = -(z[k] * now[k] * (1 - now[k]) + now[k] - before[k]) / math.log(2)
            weights[k] -= rule.rate * g.T @ (x if k == 0 else before[k - 1]) / len(x)
            biases[k] -= rule.rate * g.sum(0) / len(x)
        before = now
    readout, grads = rule.net.readout, {}
    for k, (w, b) in enumerate(start):
        grads[f"net.blocks.{k}.0.weight"] = (w - weights[k]) / rule.rate
        grads[f"net.blocks.{k}.0.bias"] = (b - biases[k]) / rule.rate
    return grads | linear_gradients("net.readout", softmax_error(top @ readout.weight.T + readout.bias, y), top)


def claim_slope() -> bool:
    """G is the derivative of the entropy by z, the earlier decisions held."""
    g = torch.Generator().manual_seed(0)
    z, z_before = torch.randn(2, 8, 5, generator=g).double()
    exact = torch.func.grad(lambda at: entropy(at, torch.sigmoid(at), torch.sigmoid(z_before)))(z)
    return torch.allclose(entropy_slope(z, torch.sigmoid(z), torch.sigmoid(z_before)), exact, rtol=1e-12)


def claim_sign() -> bool:
    """Where the decisions shift the way knowledge points, the entropy is not above zero, whatever it was before."""
    g = torch.Generator().manual_seed(0)
    z = torch.randn(50, 8, generator=g).double()
    d, shift = torch.sigmoid(z), torch.rand(50, 8, generator=g).double() * z.sign()
    return all(float(entropy(a, b, b - c)) <= 0 for a, b, c in zip(z, d, shift, strict=True))


def claim_falls() -> bool:
    """On one batch kept for thirty steps the entropy of every layer is zero at first and below zero ever after."""
    toy = Toy()
    ska: Any = toy.bind(Ska, steps=30)
    entropies = torch.stack(ska.run(toy.batch()[0])[2])
    return not bool(entropies[0].any()) and bool((entropies[1:] < 0).all())


def claim_unlabelled() -> bool:
    """Other labels and another order of the examples leave the update of hidden layers as it is."""
    toy = Toy()
    ska, (x, y) = toy.bind(Ska), toy.batch()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    before, after = gradients(ska, x, y), gradients(ska, x[order], (y + 1) % 3)
    return all(torch.allclose(after[name], g, rtol=1e-10) for name, g in before.items() if name.startswith("net.blocks"))


PART = rule(
    Ska,
    reference=reference,
    formula=r"\Delta W \propto \frac{1}{\ln 2}\left(z \odot D \odot (1 - D) + D - D_{\mathrm{before}}\right)^\top"
    r" D_{\mathrm{below}},\quad D = \sigma(z),\quad H = -\frac{1}{\ln 2} \sum z \odot (D - D_{\mathrm{before}})",
    paper=Paper("ska"),
    tags=Tags(
        family="local",
        local=True,
        needs=frozenset({"blocks"}),
        surrogate=True,
        forwards_train="steps",
        above_control=False,
        reasons={
            "flat_memory": "every one of its inner steps runs through all layers, and their decisions are kept for the next",
            "above_control": "each unit drives its own sum further out, whatever the example, so that sigmoids saturate: on"
            " digits the last hidden layer soon puts out nearly the same for all images (spread 1e-4), and the readout is at"
            " chance, under Adam and under plain gradient descent alike",
        },
    ),
    options=(
        Option("steps", 5, "K, forward steps on one batch", bounds=(0, 51)),
        Option("rate", 0.01, "the rate at which weights move within the K steps", bounds=(0.0, 1.0)),
    ),
    claims=(
        Claim("slope", "the gradient is the entropy's derivative by the knowledge", check=claim_slope),
        Claim("sign", "entropy falls where decisions follow knowledge", check=claim_sign),
        Claim("falls", "layer-wise entropy falls over forward steps", where="title", check=claim_falls),
        Claim("unlabelled", "no labels take part, nor the order of examples", check=claim_unlabelled),
    ),
    deviations=(
        "the paper takes K=50 steps on one batch of 1000 images and ends there; here every batch gets K steps of its own, from"
        " decisions that start anew with it, since shifts between different examples mean nothing",
        "the sum of the K updates goes through the task's optimizer; only plain gradient descent at the inner rate makes it the"
        " published run",
        "the paper's last layer, ten sigmoids that learn by the same rule and predict nothing, is the host's readout here and"
        " learns from the labels",
        "weights start at the host's initialisation, not at 0.01 times normal numbers without bias",
    ),
)
