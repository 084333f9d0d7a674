"""AF-KAN: pairs of activations on a shared grid, reduced to one value an input before one matrix (Ta and Tran, 2025)."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.core import catalogue
from netwright.core.errors import BadInput
from netwright.core.part import Claim, Option, Paper, Protocol
from netwright.layers._kind import Layer, Tags, layer, uniform_
from netwright.layers.kan._basis_layer import FUSED
from netwright.tensor.fused import fuse
from netwright.tensor.modules import drawn
from netwright.tensor.precision import autocast_dtype

EPS = 1e-5  # of the layer norm
SPREAD = 1e-8  # added to the spread of a row's features
#: f(A, C) with A = act(x - s_m) and C = act(e_m - x).
FUNCTIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "quad1": lambda a, c: (a * c).square(),
    "quad2": lambda a, c: a * c + a.square() + c.square(),
    "sum": lambda a, c: a + c,
    "prod": lambda a, c: a * c,
    "sum-prod": lambda a, c: a + c + a * c,
    "cubic1": lambda a, c: (a + c) * (a.square() + c.square()),
    "cubic2": lambda a, c: (a * c) ** 3,
}
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "relu": F.relu,
    "gelu": F.gelu,
    "elu": F.elu,
    "selu": F.selu,
    "softplus": F.softplus,
    "leaky-relu": F.leaky_relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
}


def features(x_BI: Tensor, starts_M: Tensor, ends_M: Tensor, *, act: str, function: str, scaled: bool) -> Tensor:
    """F_m(x_i) (B, M, I), where `scaled` brought to [0, 1] within each row."""
    x, f = x_BI[:, None], ACTIVATIONS[act]
    f_BMI = FUNCTIONS[function](f(x - starts_M[:, None]), f(ends_M[:, None] - x))
    if not scaled:
        return f_BMI
    low, high = f_BMI.amin((1, 2), keepdim=True), f_BMI.amax((1, 2), keepdim=True)
    return (f_BMI - low) / (high - low + SPREAD)


def reduced(
    x_BI: Tensor,
    starts_M: Tensor,
    ends_M: Tensor,
    norm_weight_I: Tensor,
    norm_bias_I: Tensor,
    *rest: Tensor,
    act: str,
    function: str,
    scaled: bool,
    reducer: str,
) -> Tensor:
    """What the matrix sees (B, I); rest: what the reducer reads."""
    f_BMI = features(x_BI, starts_M, ends_M, act=act, function=function, scaled=scaled)
    if reducer == "multistep":
        h_BI = (f_BMI * rest[0][:, None]).sum(1)
    elif reducer == "global-attn":
        scores_BI = (f_BMI * rest[0][:, None]).sum(1) / rest[1].clamp(min=1.0)
        h_BI = f_BMI.sum(1) * torch.softmax(scores_BI, 1)
    else:
        taps_M3, bias_M = rest[0], rest[1]
        wide = F.pad(f_BMI, (1, 1))
        before, after = wide[:, :, :-2], wide[:, :, 2:]
        scores_BMI = before * taps_M3[:, :1] + f_BMI * taps_M3[:, 1:2] + after * taps_M3[:, 2:] + bias_M[:, None]
        h_BI = (f_BMI * torch.softmax(scores_BMI / rest[2].clamp(min=1.0), 1)).sum(1)
    centred = h_BI - h_BI.mean(1, keepdim=True)
    return ACTIVATIONS[act](centred * (centred.square().mean(1, keepdim=True) + EPS).rsqrt() * norm_weight_I + norm_bias_I)


@cache
def _fused(label: str) -> Callable[..., Tensor]:
    return fuse(reduced, label)


@final
class AFKAN(Layer):
    """y = W act(LN(h)), h_i = sum_m p_i F_m(x_i), p = softmax over i of (sum_m g_m F_m(x_i) / T); (..., d_in) -> (..., d_out).

    F_m(x) = f(act(x - s_m), act(e_m - x)) for grid + order pairs s, e that all inputs share, as in ReLU-KAN over [0, 1], where
    `scaled` brought to [0, 1] by the least and largest of a row. function: f, one of (A C)^2, A C + A^2 + C^2, A + C, A C,
    A + C + A C, (A + C)(A^2 + C^2) and (A C)^3. reducer: "global-attn" as above; "multistep": h_i = sum_m g_m F_m(x_i);
    "spatial-attn": p_mi a softmax over m of a convolution with kernel 3 along the inputs. T is at least 1. An edge has a
    weight and no function of its own. Raises BadInput for d_in=1, where the layer norm leaves nothing.
    """

    no_decay = frozenset({"norm_weight", "norm_bias", "starts", "ends", "temperature"})
    taps: nn.Parameter | None
    taps_bias: nn.Parameter | None
    gate: nn.Parameter | None
    temperature: nn.Parameter | None

    def __init__(
        self,
        d_in: int,
        d_out: int,
        *,
        grid: int = 5,
        order: int = 3,
        act: str = "silu",
        function: str = "quad1",
        reducer: str = "global-attn",
        scaled: bool = True,
        fused: bool = False,
    ) -> None:
        super().__init__()
        if d_in == 1:
            raise BadInput(f"layer/af-kan: d_in={d_in}; a layer norm of one value is 0: give at least two inputs")
        bases, spatial = grid + order, reducer == "spatial-attn"
        self.grid, self.order = grid, order
        self.weight = nn.Parameter(torch.empty(d_out, d_in))
        self.starts, self.ends = (nn.Parameter(torch.empty(bases)) for _ in range(2))
        self.norm_weight, self.norm_bias = (nn.Parameter(torch.empty(d_in)) for _ in range(2))
        self.register_parameter("gate", None if spatial else nn.Parameter(torch.empty(bases)))
        self.register_parameter("taps", nn.Parameter(torch.empty(bases, 3)) if spatial else None)
        self.register_parameter("taps_bias", nn.Parameter(torch.empty(bases)) if spatial else None)
        self.register_parameter("temperature", None if reducer == "multistep" else nn.Parameter(torch.empty(())))

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """W ~ U(-1, 1) / sqrt(d_in); the reducer's weights as torch draws them; T = sqrt(d_in); s_m = m / grid from -order on."""
        bases, d_in = len(self.starts), self.weight.shape[1]
        for t, fan_in in ((self.weight, d_in), (self.gate, bases), (self.taps, 3), (self.taps_bias, 3)):
            if t is not None:
                uniform_(t, 1 / math.sqrt(fan_in), generator)
        starts = torch.arange(-self.order, self.grid, dtype=torch.float64, device=self.weight.device) / self.grid
        self.starts.copy_(starts)
        self.ends.copy_(starts + (self.order + 1) / self.grid)
        self.norm_weight.fill_(1.0)
        self.norm_bias.zero_()
        if self.temperature is not None:
            self.temperature.fill_(math.sqrt(d_in))

    @property
    def quantities(self) -> dict[str, float]:
        kind = self.options["reducer"]
        own = {"attends": kind != "multistep", "spatial": kind == "spatial-attn", "gated": kind != "spatial-attn"}
        return {**super().quantities, **{name: int(value) for name, value in own.items()}}

    def compute(self, x_BI: Tensor) -> Tensor:
        constants = {name: self.options[name] for name in ("act", "function", "scaled", "reducer")}
        rest = [t for t in (self.gate, self.taps, self.taps_bias, self.temperature) if t is not None]
        run = _fused(self.part.id) if self.options["fused"] else reduced
        h_BI = run(x_BI, self.starts, self.ends, self.norm_weight, self.norm_bias, *rest, **constants)
        return F.linear(h_BI.to(autocast_dtype(x_BI) or self.weight.dtype), self.weight)


def reference(layer: Any, x_BI: Tensor) -> Tensor:
    """One number after another, in the code's order: features, their range, the reducer, the layer norm, the matrix."""
    o, starts, ends = layer.options, layer.starts.tolist(), layer.ends.tolist()
    act: Callable[[float], float] = {
        "silu": lambda v: v / (1 + math.exp(-v)),
        "relu": lambda v: max(v, 0.0),
        "sigmoid": lambda v: 1 / (1 + math.exp(-v)),
        "gelu": lambda v: v * (1 + math.erf(v / math.sqrt(2))) / 2,
        "elu": lambda v: v if v > 0 else math.expm1(v),
        "selu": lambda v: 1.0507009873554805 * (v if v > 0 else 1.6732632423543772 * math.expm1(v)),
        "tanh": math.tanh,
        "softplus": lambda v: math.log1p(math.exp(v)),
        "leaky-relu": lambda v: v if v > 0 else 0.01 * v,
    }[o["act"]]
    pair: Callable[[float, float], float] = {
        "quad1": lambda a, c: a**2 * c**2,
        "quad2": lambda a, c: a * c + a**2 + c**2,
        "sum": lambda a, c: a + c,
        "prod": lambda a, c: a * c,
        "sum-prod": lambda a, c: (1 + a) * (1 + c) - 1,
        "cubic2": lambda a, c: a**3 * c**3,
        "cubic1": lambda a, c: a**3 + a * c**2 + a**2 * c + c**3,
    }[o["function"]]

    def softmax(scores: list[float]) -> list[float]:
        powers = [math.exp(v) for v in scores]
        return [p / sum(powers) for p in powers]

    rows = []
    for row in x_BI.tolist():
        f = [[pair(act(v - s), act(e - v)) for s, e in zip(starts, ends, strict=True)] for v in row]
        if o["scaled"]:
            low, high = min(map(min, f)), max(map(max, f))
            f = [[(v - low) / (high - low + 1e-8) for v in own] for own in f]
        if o["reducer"] == "spatial-attn":
            h, t = [], max(1.0, float(layer.temperature))
            for i, own in enumerate(f):
                near = [f[j] if 0 <= j < len(f) else [0.0] * len(own) for j in (i - 1, i, i + 1)]
                scores = [
                    float(layer.taps_bias[m]) + sum(float(layer.taps[m, k]) * near[k][m] for k in range(3))
                    for m in range(len(own))
                ]
                h.append(sum(p * v for p, v in zip(softmax([v / t for v in scores]), own, strict=True)))
        else:
            h = [sum(float(g) * v for g, v in zip(layer.gate, own, strict=True)) for own in f]
            if o["reducer"] == "global-attn":
                shares = softmax([v / max(1.0, float(layer.temperature)) for v in h])
                h = [p * sum(own) for p, own in zip(shares, f, strict=True)]
        mean = sum(h) / len(h)
        root = math.sqrt(sum((v - mean) ** 2 for v in h) / len(h) + 1e-5)
        w, b = layer.norm_weight.tolist(), layer.norm_bias.tolist()
        z = [act((v - mean) / root * w[i] + b[i]) for i, v in enumerate(h)]
        rows.append([sum(float(weight) * v for weight, v in zip(out, z, strict=True)) for out in layer.weight])
    return torch.tensor(rows, dtype=torch.float64)


def claim_relu_kan() -> bool:
    """With ReLU and (A C)^2, not scaled, the features are ReLU-KAN's bases over their height."""
    x = torch.linspace(-1, 2, 61, dtype=torch.float64)[:, None].expand(-1, 2)
    relu_kan: Any = catalogue.get("layer/relu-kan")
    other = drawn(relu_kan.cls, 2, 1)
    ours = drawn(AFKAN, 2, 1)
    f = features(x, ours.starts, ours.ends, act="relu", function="quad1", scaled=False)
    return bool(torch.allclose(f * (4 / 0.8**2) ** 2, other.features(x), atol=1e-12))


def claim_fewer() -> bool:
    """A layer has six to ten times fewer parameters than a KAN with splines on an equal grid."""
    kan: Any = catalogue.get("layer/kan")
    with torch.device("meta"):
        theirs, ours = (sum(p.numel() for p in cls(784, 64).parameters()) for cls in (kan.cls, AFKAN))
    return 6 < theirs / ours < 10


PART = layer(
    AFKAN,
    name="af-kan",
    reference=reference,
    formula=r"W\, \mathrm{act}(\mathrm{LN}(h)), \quad h_i = p_i \sum_m F_m(x_i), \quad"
    r" p = \mathrm{softmax}_i\left(\sum_m g_m F_m(x_i) / T\right)",
    paper=Paper("af-kan"),
    tags=Tags(nonlinear=True, delicate=True, smooth=False),
    options=(
        Option("grid", 5, "steps of the grid", bounds=(0, 1000)),
        Option("order", 3, "steps that a pair reaches beyond one", bounds=(-1, 1000)),
        Option("act", "silu", "activation of both of a pair, and before the matrix", allowed=tuple(ACTIVATIONS)),
        Option("function", "quad1", "what is made of a pair", allowed=tuple(FUNCTIONS)),
        Option("reducer", "global-attn", "bases to one value", allowed=("global-attn", "multistep", "spatial-attn")),
        Option("scaled", True, "features of a row are brought to [0, 1]", allowed=(False, True)),
        FUSED[0],
    ),
    settings=({"grid": 3, "order": 2, "act": "relu", "reducer": "spatial-attn"},),
    parameters="d_in * (d_out + 2) + (grid + order) * (2 + gated + 4 * spatial) + attends",
    products="2 * d_in * d_out",
    elementwise="d_in * ((grid + order) * (7 + 4 * scaled + 2 * gated + 9 * spatial) + 8)",
    claims=(
        Claim("relu-kan", "expands ReLU-KAN, whose bases it has with ReLU", where="abstract", check=claim_relu_kan),
        Claim("fewer", "six to ten times fewer parameters than a KAN", where="abstract", check=claim_fewer),
        Claim(
            "mnist",
            "better than an MLP with as many parameters",
            where="abstract",
            protocol=Protocol(task="mnist", against="activation/relu", expect="better", seeds=6, trials=4),
        ),
    ),
    deviations=(
        "features are scaled within each row; the code's least and largest are those of the whole batch, so that an output"
        " depends on the other rows. The code divides by the features' norm first, which then cancels",
        "1e-8 is added to the range of the features",
        "the parameters of one reducer: the code makes those of all in every layer, and a bias of the matrix that it doesn't use",
        "no bias in the scores or the step, which a softmax over inputs and a layer norm cancel",
        "the code's three other reducers, of self-attention, are left out: it calls them slow, and one names attributes that"
        " don't exist",
    ),
    uses=("layer/kan", "layer/relu-kan"),
)
