"""Monotonic network: dense layers with weights of one sign, the last one linear (Runje et al., 2022).

Type 1: the first layer has the signs of the inputs, every further one sign 1. Type 2: every input by itself first goes
through a small layer of its sign, a free one through a plain layer with rho; the layers after it take their outputs with
sign 1, and with sign 0 those of free inputs.

Shape suffixes: B rows, I inputs, U features of an input.
"""

from __future__ import annotations

import math
from typing import Any, final

import torch
from torch import Tensor, nn

from netwright.core import catalogue
from netwright.core.part import Claim, Option, Paper
from netwright.layers._kind import Layer, Tags, layer, uniform_
from netwright.layers.monotonic._signs import (
    BASE,
    KINDS,
    SIGNS,
    USES,
    activated,
    activation,
    common,
    dense,
    is_monotone,
    normal,
    signed,
    signs_of,
)
from netwright.tensor.modules import drawn


@final
class MonotonicNetwork(Layer):
    """`depth` monotonic dense layers of `hidden` outputs, the last one linear with d_out; (..., d_in) -> (..., d_out).

    signs, base: as of layer/monotonic-dense. act: of all layers but the last; with "convex" the net is convex in its inputs
    (with type=2 in the marked ones), with "concave" concave. type=2: a quarter of `hidden` features an input, at least 1.
    Raises BadInput where signs are not 1, -1 or 0, or neither one nor d_in of them.
    """

    weight: nn.Parameter | None  # (I, U), of type 2
    bias: nn.Parameter | None
    sign: Tensor  # (I,), not saved: it follows from the options
    marked: Tensor  # numbers of inputs, not saved
    free: Tensor

    def __init__(
        self,
        d_in: int,
        d_out: int,
        *,
        signs: int | tuple[int, ...] = (1,),
        hidden: int = 32,
        depth: int = 3,
        type: int = 1,
        base: str = "elu",
        act: str = "mixed",
    ) -> None:
        super().__init__()
        self.signs = signs_of(self.part.id, signs, d_in)
        self.common = common(self.signs)
        each = max(1, hidden // 4)
        self.register_parameter("weight", nn.Parameter(torch.empty(d_in, each)) if type == 2 else None)
        self.register_parameter("bias", nn.Parameter(torch.empty(d_in, each)) if type == 2 else None)
        first: tuple[int, ...] = self.signs
        if type == 2:
            kept = sum(s != 0 for s in self.signs)
            self.register_buffer("sign", torch.empty(d_in), persistent=False)
            self.register_buffer("marked", torch.empty(kept, dtype=torch.int64), persistent=False)
            self.register_buffer("free", torch.empty(d_in - kept, dtype=torch.int64), persistent=False)
            self.act, self.rho = activation(act, base), activation("convex", base)
            first = (1,) * (kept * each) + (0,) * ((d_in - kept) * each)
        # Spelt out only where they differ: hundreds of equal signs would stand in every print of the net.
        own = (first[0],) if common(first) is not None else first
        widths = [len(first), *[hidden] * (depth - 1), d_out]
        part: Any = catalogue.get("layer/monotonic-dense")
        self.layers = nn.ModuleList(
            part.build(a, b, signs=own if k == 0 else (1,), base=base, act=act if k < depth - 1 else "linear")
            for k, (a, b) in enumerate(zip(widths[:-1], widths[1:], strict=True))
        )

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Of type 2: weights from Glorot's uniform distribution for one input, no bias."""
        if self.weight is not None and self.bias is not None:
            uniform_(self.weight, math.sqrt(6 / (1 + self.weight.shape[1])), generator)
            self.bias.zero_()
            self.sign.copy_(torch.tensor(self.signs))
            self.marked.copy_(torch.tensor([i for i, s in enumerate(self.signs) if s], dtype=torch.int64))
            self.free.copy_(torch.tensor([i for i, s in enumerate(self.signs) if not s], dtype=torch.int64))

    @property
    def quantities(self) -> dict[str, float]:
        """first: inputs of the first dense layer; each: features of an input, 0 with type 1."""
        each = 0 if self.weight is None else self.weight.shape[1]
        first: Any = self.layers[0]
        return {**super().quantities, "first": first.sizes["d_in"], "each": each}

    def features(self, x_BI: Tensor) -> Tensor:
        """(B, I U), those of marked inputs first: each input through its own small layer. Of type 2."""
        assert self.weight is not None and self.bias is not None
        pre_BIU = torch.addcmul(self.bias, x_BI[..., None], signed(self.weight, self.sign[:, None], self.common))
        if self.common is not None:
            return (self.act if self.common else self.rho)(pre_BIU).flatten(1)
        return torch.cat((self.act(pre_BIU[:, self.marked]).flatten(1), self.rho(pre_BIU[:, self.free]).flatten(1)), 1)

    def compute(self, x_BI: Tensor) -> Tensor:
        h = x_BI if self.weight is None else self.features(x_BI)
        for dense_layer in self.layers:
            h = dense_layer(h)
        return h


def reference(layer: Any, x_BI: Tensor) -> Tensor:
    base, act = layer.options["base"], layer.options["act"]
    signs = layer.options["signs"] if isinstance(layer.options["signs"], tuple) else (layer.options["signs"],)
    signs = signs if len(signs) == x_BI.shape[1] else signs * x_BI.shape[1]
    rows = []
    for x in x_BI.tolist():
        after = list(signs)
        if layer.weight is not None:
            own: dict[bool, list[float]] = {True: [], False: []}
            for value, w, b, s in zip(x, layer.weight.tolist(), layer.bias.tolist(), signs, strict=True):
                pre = [(s * abs(v) if s else v) * value + c for v, c in zip(w, b, strict=True)]
                own[s != 0] += activated(pre, act if s else "convex", base)
            x = own[True] + own[False]
            after = [1] * len(own[True]) + [0] * len(own[False])
        *hidden, last = layer.layers
        for one in hidden:
            x = dense(x, one.weight, one.bias, after, act, base)
            after = [1] * len(x)
        rows.append(dense(x, last.weight, last.bias, after, "linear", base))
    return torch.tensor(rows, dtype=torch.float64).view(len(x_BI), layer.sizes["d_out"])


SOME = (1, -1, 0, 1)


def net(seed: int, **options: Any) -> Any:
    """A small net with biases that reach all parts of the activations."""
    built = drawn(MonotonicNetwork, 4, 2, **{"signs": SOME, "hidden": 16, "seed": seed, **options})
    with torch.no_grad():
        for k, one in enumerate(built.layers):
            one.bias.copy_(normal(len(one.bias), seed=100 * seed + k) - 0.3 * one.weight.abs().sum(1))
    return built


def claim_monotone() -> bool:
    """Nets of both types rise in inputs of sign 1 and fall in those of sign -1, with every base; in a free one they do both."""
    for seed in range(6):
        for kind in (1, 2):
            if not is_monotone(net(seed, type=kind, base=("relu", "elu", "selu")[seed % 3]), SOME, seed):
                return False
    x = normal(300, 4).requires_grad_()
    (slope,) = torch.autograd.grad(net(0)(x).sum(), x)
    return bool((slope[:, 2] > 0).any()) and bool((slope[:, 2] < 0).any())


@torch.no_grad()
def claim_convex() -> bool:
    """f((x + z) / 2) <= (f(x) + f(z)) / 2 for all pairs with the convex activation, turned around with the concave one.

    With all three it fails for some pairs, both ways.
    """
    x, z = 3 * normal(200, 4, seed=1), 3 * normal(200, 4, seed=2)

    def sag(seed: int, act: str) -> Tensor:
        f = net(seed, act=act)
        return (f(x) + f(z)) / 2 - f((x + z) / 2)

    for seed in range(6):
        convex, concave, mixed = (sag(seed, act) for act in ("convex", "concave", "mixed"))
        if float(convex.min()) < -1e-12 or float(concave.max()) > 1e-12:
            return False
        if not float(mixed.min()) < -1e-3 < 1e-3 < float(mixed.max()):
            return False
    return True


@torch.no_grad()
def claim_step() -> bool:
    """With the three activations of ReLU three units hold x clamped to [-1, 1]; convex nets err by 1/2 or more at -1, 1 or 3."""
    three = drawn(MonotonicNetwork, 1, 1, hidden=3, depth=2, base="relu")
    three.layers[0].weight.fill_(1.0)
    three.layers[1].weight.copy_(torch.tensor([[0.0, 0.0, 1.0]]))
    x = torch.linspace(-4, 4, 81, dtype=torch.float64)[:, None]
    exact = torch.allclose(three(x), x.clamp(-1, 1), atol=1e-14)
    at = torch.tensor([[-1.0], [1.0], [3.0]], dtype=torch.float64)
    nets = (drawn(MonotonicNetwork, 1, 1, act="convex", seed=seed) for seed in range(10))
    return exact and all(float((f(at) - at.clamp(-1, 1)).abs().max()) >= 0.5 for f in nets)


PART = layer(
    MonotonicNetwork,
    reference=reference,
    formula=r"W'_L \sigma(\ldots \sigma(W'_1 x + b_1) \ldots) + b_L",
    paper=Paper("monotonic"),
    tags=Tags(slot="head", nonlinear=True),  # a net by itself: of several in a row the outputs spread too far to train
    options=(
        SIGNS,
        Option("hidden", 32, "outputs of every layer but the last", bounds=(0, 10**6)),
        Option("depth", 3, "layers, the last one linear", bounds=(1, 100)),
        Option("type", 1, "2: every input first goes through a small layer of its own", allowed=(1, 2)),
        BASE,
        Option("act", "mixed", "activations of all layers but the last", allowed=KINDS),
    ),
    toy={"hidden": 8},
    settings=(
        {"signs": (1, -1, 0, 1, 0, -1)},
        {"signs": (1, -1, 0, 1, 0, -1), "type": 2},
        {"signs": 0, "type": 2, "depth": 2, "hidden": 16},
        {"signs": -1, "depth": 2, "hidden": 5},
    ),
    parameters="2 * d_in * each + (first + 1) * hidden + (depth - 2) * (hidden + 1) * hidden + (hidden + 1) * d_out",
    products="2 * (first * hidden + (depth - 2) * hidden ** 2 + hidden * d_out)",
    elementwise="d_in * each",
    uses=("layer/monotonic-dense", *USES),
    claims=(
        Claim("monotone", "is monotone in every marked input, whatever the weights", check=claim_monotone),
        Claim("convex", "with one activation it is convex, with three it need not be", check=claim_convex),
        Claim("step", "holds a function that no net with one activation comes near to", check=claim_step),
    ),
    deviations=(
        "convexity is one option for all inputs; the code takes it for each, and makes the common layers convex where one asks",
        "the features of marked inputs stand before those of free ones",
        "no dropout, and no activation after the last layer: a loss brings that",
    ),
)
