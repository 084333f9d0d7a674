"""Parameter-free layers: a pooling where a convolution stood, so that space is mixed without a weight (Han et al., 2022)."""

from __future__ import annotations

import math
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.core.errors import BadInput
from netwright.core.part import Claim, Option, Paper, Protocol
from netwright.layers._kind import Layer, Tags, layer, per_axis
from netwright.layers.convolution._windows import by_windows
from netwright.tensor.modules import drawn

CONVS: dict[int, type[nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


@final
class PoolConv(Layer):
    """y_c = max, or mean, of x_c under the kernel, each channel by itself; (..., c_in, *space) -> (..., c_out, *space').

    What the padding adds counts neither in the maximum nor in the mean. pointwise="differ": where c_in and c_out differ,
    a 1 x 1 convolution follows, so that the layer fits wherever a convolution did; "always": one follows everywhere;
    "never": none does. With c_in = c_out and no such convolution the layer holds no parameters.
    Raises BadInput where c_in and c_out differ under "never", where the padding reaches beyond half the kernel, and for
    the mean with a dilation.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        *,
        pool: str = "max",
        pointwise: str = "differ",
        dims: int = 2,
    ) -> None:
        super().__init__()
        if pointwise not in ("differ", "always", "never"):
            raise BadInput(f"{self.part.id}: pointwise={pointwise!r}; allowed: 'differ', 'always', 'never'")
        if pointwise == "never" and c_in != c_out:
            raise BadInput(f"{self.part.id}: pointwise='never' with c_in={c_in} and c_out={c_out}; take 'differ', or one width")
        kernel, pad, spread = (per_axis(size, dims) for size in (kernel_size, padding, dilation))
        if any(2 * p > d * (k - 1) + 1 for k, p, d in zip(kernel, pad, spread, strict=True)):
            raise BadInput(
                f"{self.part.id}: padding={padding!r} with kernel_size={kernel_size!r}; allowed: up to half the kernel"
            )
        if pool == "avg" and max(spread) > 1:
            raise BadInput(f"{self.part.id}: dilation={dilation!r} with pool='avg'; allowed: 1, or pool='max'")
        self.pool = pool
        self.geometry = {"kernel_size": kernel_size, "stride": stride, "padding": padding}
        self.dilation = dilation
        mixes = pointwise == "always" or c_in != c_out
        make: Any = CONVS[dims]
        self.mix: nn.Module = make(c_in, c_out, 1) if mixes else nn.Identity()

    @property
    def quantities(self) -> dict[str, float]:
        """mixes: whether a 1 x 1 convolution follows."""
        return {**super().quantities, "mixes": int(not isinstance(self.mix, nn.Identity))}

    def compute(self, x: Tensor) -> Tensor:
        if self.pool == "max":
            pooled = getattr(F, f"max_pool{self.dims}d")(x, **self.geometry, dilation=self.dilation)
        else:
            pooled = getattr(F, f"avg_pool{self.dims}d")(x, **self.geometry, count_include_pad=False)
        return self.mix(pooled)


def reference(layer: Any, x_BCS: Tensor) -> Tensor:
    """At every place and channel the largest value, or the mean, of what is there; then a sum over channels."""

    def at(under: list[list[float | None]]) -> list[float]:
        there = [[v for v in taps if v is not None] for taps in under]
        pooled = [max(taps) if layer.pool == "max" else math.fsum(taps) / len(taps) for taps in there]
        if isinstance(layer.mix, nn.Identity):
            return pooled
        rows = zip(layer.mix.weight.flatten(1).tolist(), layer.mix.bias.tolist(), strict=True)
        return [sum(w * v for w, v in zip(row, pooled, strict=True)) + bias for row, bias in rows]

    return by_windows(x_BCS, layer.sizes, at)


def _image(seed: int = 0) -> Tensor:
    return torch.randn(2, 3, 9, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def claim_shift() -> bool:
    """A shifted image gives the shifted output, for the maximum and the mean."""
    x = _image()
    layers = [drawn(PoolConv, 3, 3, 3, pool=pool) for pool in ("max", "avg")]
    return all(torch.equal(one(x[..., 2:, 1:]), one(x)[..., 2:, 1:]) for one in layers)


def claim_lipschitz() -> bool:
    """No output moves further than the input that moved most; where all of it moves alike, every output moves as far."""
    x, step = _image(), 0.3 * _image(1)
    for pool in ("max", "avg"):
        one = drawn(PoolConv, 3, 3, 3, pool=pool, padding=1)
        if float((one(x + step) - one(x)).abs().max()) > float(step.abs().max()):
            return False
    raised = drawn(PoolConv, 3, 3, 3)(x + 0.5) - drawn(PoolConv, 3, 3, 3)(x)
    return bool(torch.allclose(raised, torch.full_like(raised, 0.5)))


def claim_parameters() -> bool:
    """In a bottleneck of width w the pooling saves the 9 w^2 weights of a convolution and the 2 w of its batch norm."""
    with torch.device("meta"):
        for w in (4, 64):
            removed = nn.Sequential(nn.Conv2d(w, w, 3, padding=1, bias=False), nn.BatchNorm2d(w))
            kept = [p for pointwise in ("differ", "never") for p in PoolConv(w, w, 3, 1, 1, pointwise=pointwise).parameters()]
            if sum(p.numel() for p in removed.parameters()) != 9 * w * w + 2 * w or kept:
                return False
    return True


def claim_commutes() -> bool:
    """The maximum commutes with every increasing function, so that a ReLU before it is a ReLU after it."""
    x, one = _image(), drawn(PoolConv, 3, 3, 3)
    return torch.equal(one(torch.relu(x)), torch.relu(one(x))) and torch.equal(one(2 * x + 1), 2 * one(x) + 1)


PART = layer(
    PoolConv,
    name="parameter-free",
    reference=reference,
    formula=r"y_{c,p} = \max_{q \in p + K} x_{c,q}",
    paper=Paper("parameter-free-layers"),
    tags=Tags(
        shape="conv",
        affine=False,
        smooth=False,
    ),
    options=(
        Option("pool", "max", "what is kept of the values under the kernel", allowed=("max", "avg")),
        Option("pointwise", "differ", "a 1 x 1 convolution after it: differ (where c_in isn't c_out), always, never"),
    ),
    settings=({"c_out": 4, "pointwise": "always", "padding": 1}, {"pool": "avg", "padding": 1, "stride": 2}),
    parameters="mixes * (c_in + 1) * c_out",
    products="2 * mixes * c_in * c_out * places_out",
    elementwise="c_in * places_in",
    claims=(
        Claim("shift", "shifts of the image are shifts of the output", check=claim_shift),
        Claim("lipschitz", "changes no value by more than the input changes", check=claim_lipschitz),
        Claim("parameters", "a bottleneck of width w loses 9 w^2 + 2 w parameters", check=claim_parameters),
        Claim("commutes", "the maximum commutes with increasing functions", check=claim_commutes),
        Claim(
            "accuracy",
            "with every convolution replaced, at the same width, accuracy is lost (ResNet-50: 74.3 for 76.2)",
            where="README of the code, table of models",
            protocol=Protocol(
                task="digits",
                against="activation/relu",
                expect="worse",
                seeds=6,
                trials=4,
                match="none",
                options={"host": "convnet"},
            ),
        ),
    ),
    deviations=(
        "the paper pools between two 1 x 1 convolutions that keep it within one width; a host has none around it, so that one"
        " follows where the width changes",
        "padding doesn't count in the mean, as it doesn't in the maximum; torch's nn.AvgPool2d counts it as zeros",
        "the paper's pooling in place of self-attention is left out",
    ),
)
