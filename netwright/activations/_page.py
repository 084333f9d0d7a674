"""What is told of an activation: its curve, what it costs, what it works with; and for the gallery its profile.

The profile is computed from the part itself, at its default setting: what it learns, what it makes of N(0, 1) input, lines
to draw.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from statistics import NormalDist
from typing import Any

import torch
from torch import Tensor, nn

from netwright.activations._kind import ActivationPart, Tags
from netwright.core.kind import Facts, Line, Moments, Profile

REACH = 5.0  # curves run over [-REACH, REACH]
#: Entries of the row in which one is swept, for parts that act along a row.
ROW = 16
#: The sample for parts that aren't elementwise: rows of entries.
ROWS, ENTRIES = 2048, 64
#: What an activation may be used with -> the check that decides it.
SUPPORT = {
    "autocast": "autocast",
    "torch.compile, full graph": "compiled",
    "fused=True": "fused",
    "torch.export": "exports",
    "ONNX": "onnx",
    "vmap": "vmap",
    "meta device": "meta",
    "double backward": "double_backward",
    "float16": "numbers",
    "bfloat16": "numbers",
}


def facts(part: ActivationPart, options: Mapping[str, Any]) -> Facts:
    return Facts(
        costs=(("elementwise operations an output value", f"about {part.flops:g}"),),
        use=use(part),
        curve=curve(part, options) if part.tags.shape == "elementwise" else (),
        signature=signature(part),
        support=SUPPORT,
        refused={name: f"it has no kernel for {name}" for name in part.tags.no_dtypes},
    )


def use(part: ActivationPart) -> str:
    """How it is made, and put into a model that exists; a gate takes two inputs, so that a host has to have a place for it."""
    if "activation" in part.slots():
        return f'netwright.make("{part.name}")\nnetwright.swap(model, nn.ReLU, "{part.name}")'
    return f"netwright compare default {part.name} --task TASK"


def signature(part: ActivationPart) -> str:
    options = "".join(f", {o.name}: Any = ..." for o in part.options)
    return "channels: int | None = ..., channel_dim: int = ..., fused: bool = ..." + (f", *{options}" if options else "")


def curve(part: ActivationPart, options: Mapping[str, Any], points: int = 201) -> tuple[tuple[float, float, float], ...]:
    """(x, f(x), f'(x)) of an elementwise activation at its initial setting on [-5, 5]."""
    module = part.build(channels=1, **{k: v for k, v in options.items() if k not in ("channels", "fused")})
    x = torch.linspace(-REACH, REACH, points, dtype=torch.float64, requires_grad=True)
    y = module.double()(x[:, None])[:, 0]
    (slope,) = torch.autograd.grad(y.sum(), x)
    return tuple(zip(x.tolist(), y.tolist(), slope.tolist(), strict=True))


# The profile ----------------------------------------------------------------------------------------------------------


def profile(part: ActivationPart) -> Profile:
    """How it behaves as a function; where its own code raises, what it raised."""
    tags = part.tags
    optional = (f.name for f in dataclasses.fields(Tags) if f.default is False)
    traits = [name.replace("_", " ") for name in optional if getattr(tags, name)]
    traits += [] if tags.exact_gradient else ["gradient of its own"]
    known = tags.shape == "elementwise"  # smooth and monotone are checked of these only
    declared = Profile(
        tags.shape, part.flops, tuple(traits), tags.smooth if known else None, tags.monotone if known else None, tags.kinks
    )
    try:
        lines, caption = lines_of(part)
        return dataclasses.replace(declared, learns=learns(part), moments=moments(part), lines=lines, caption=caption)
    except Exception as error:  # a part's own code: whatever it raises mustn't take the page down
        return dataclasses.replace(declared, trouble=f"{type(error).__name__}: {error}")


def _build(part: ActivationPart, channels: int) -> nn.Module:
    return part.build(channels=channels, channel_dim=-1).double().eval()


def learns(part: ActivationPart) -> tuple[str, ...]:
    """Each learnable parameter with its initial value: "beta = 1", "a = 0.02, 0.5, ... (6 numbers), one a channel"."""
    built = _build(part, 2)
    declared = {item.name: item for item in part.learn}
    said = []
    for name, p in built.named_parameters():
        values = p.detach().reshape(p.shape[0], -1)[:, 0].tolist() if p.dim() else [p.item()]
        item = declared.get(name)
        vector = item is None or isinstance(getattr(built, "_inits", {}).get(name), tuple)
        shown = [f"{v:.3g}" for v in (values if vector else values[:1])]
        text = ", ".join(shown[:3]) + (f", ... ({len(shown)} numbers)" if len(shown) > 3 else "")
        channel = item is not None and getattr(built, "per", None) == "channel"
        said.append(f"{name} = {text}{', one a channel' if channel else ''}")
    return tuple(said)


def moments(part: ActivationPart) -> Moments:
    """Mean, variance, second moment and mean square slope of a part for N(0, 1) input, at its default setting.

    Elementwise: by the trapezoid rule on [-12, 12] in steps of 1/2000, on either side of each kink. Others: over ROWS
    seeded rows of ENTRIES entries. Stateful parts are taken in evaluation mode.
    """
    if part.tags.shape == "elementwise":
        x = _grid(part, 12.0, 48_001).requires_grad_()
        y = _build(part, 1)(x[:, None])[:, 0]
        (slope,) = torch.autograd.grad(y.sum(), x)
        weight = torch.exp(-x.detach().square() / 2) / math.sqrt(2 * math.pi)

        def expected(v: Tensor) -> float:
            return float(torch.trapezoid(v.detach() * weight, x.detach()))

        mean = expected(y)
        return Moments(mean, expected((y - mean).square()), expected(y.square()), expected(slope.square()))
    g = torch.Generator().manual_seed(0)
    x = torch.randn(ROWS, ENTRIES, generator=g, dtype=torch.float64).requires_grad_()
    y = _build(part, ENTRIES)(x)
    (back,) = torch.autograd.grad(y, x, torch.randn(y.shape, generator=g, dtype=torch.float64))
    y = y.detach()
    values = float(y.mean()), float(y.var()), float(y.square().mean()), float(back.square().mean())
    return Moments(*values, sample=(ROWS, ENTRIES))


# The lines of its picture ---------------------------------------------------------------------------------------------


def _grid(part: ActivationPart, reach: float = REACH, count: int = 401) -> Tensor:
    """Points of [-reach, reach] and both sides of every kink, so that a derivative jumps instead of leaning."""
    kinks = torch.tensor(part.tags.kinks, dtype=torch.float64)
    kinks = kinks[kinks.abs() < reach]
    even = torch.linspace(-reach, reach, count, dtype=torch.float64)
    return torch.cat((even[~torch.isin(even, kinks)], kinks - 1e-9, kinks + 1e-9)).sort().values


def lines_of(part: ActivationPart) -> tuple[tuple[Line, ...], str]:
    """The lines of a part's picture, and what they are where that isn't f and its derivative."""
    x, shape = _grid(part), part.tags.shape
    if shape == "gated":
        built = _build(part, 2)
        one = torch.ones_like(x)
        first, second = built(torch.stack((x, one), -1)), built(torch.stack((one, x), -1))
        caption = "the first half swept with the second at 1 (solid), the second with the first at 1 (dotted)"
        return (_line("f", x, first[:, 0]), _line("g", x, second[:, 0])), caption
    if shape == "elementwise":
        y, slope = _swept(_build(part, 1), x, 1)
        return (_line("d", x, slope), _line("f", x, y[:, 0])), ""
    if shape == "channels":
        width = next((n for n in (1, 2, 3, 4) if float(n * part.ratio).is_integer() and n * part.ratio >= 1), 4)
        y, _ = _swept(_build(part, width), x, width)
        caption = f"{_channels(y.shape[-1], 'output')} of {_channels(width, 'input')}"
        caption += f"; the first swept, {_fixed(width)}" if width > 1 else ""
        return tuple(_line(look, x, y[:, i]) for i, look in enumerate("fgh"[: y.shape[-1]])), caption
    y, slope = _swept(_build(part, ROW), x, ROW)
    caption = f"the first output as the first of {ROW} entries is swept, {_fixed(ROW)}"
    caption += "; in evaluation mode" if shape == "stateful" else ""
    return (_line("d", x, slope), _line("f", x, y[:, 0])), caption


def _line(look: str, x: Tensor, y: Tensor) -> Line:
    return Line(look, tuple(x.tolist()), tuple(y.tolist()))


def _channels(count: int, which: str) -> str:
    return f"{count} {which} channel" + ("" if count == 1 else "s")


def _others(width: int) -> list[float]:
    """What the entries beside the swept one hold: the quantiles of N(0, 1), the middle ones first."""
    return sorted((NormalDist().inv_cdf(i / width) for i in range(1, width)), key=lambda v: (abs(v), v))


def _fixed(width: int) -> str:
    return f"the other {width - 1} at the quantiles of N(0, 1)" if width > 2 else "the other at 0"


def _swept(built: nn.Module, x: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Outputs, and the first one's derivative, as the first entry of a row runs through x and the others stay."""
    x = x.clone().requires_grad_()
    others = torch.tensor(_others(width), dtype=x.dtype).expand(len(x), width - 1)
    y = built(torch.cat((x[:, None], others), -1))
    (slope,) = torch.autograd.grad(y[:, 0].sum(), x)
    return y.detach(), slope
