"""Signs of inputs, weights of those signs, and the activations of one base.

The activations are parts of the catalogue and are reached there; so are their second writings, by the references.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from netwright.core import catalogue
from netwright.core.errors import BadInput
from netwright.core.part import Option

#: Parts that the activations are made of.
USES = ("activation/monotonic", "activation/monotonic-concave", "activation/relu", "activation/elu", "activation/selu")
SIGNS = Option("signs", (1,), "1 rising, -1 falling, 0 free: of all inputs, or a tuple with one for each")
BASE = Option("base", "elu", "the convex activation that all are made of", allowed=("relu", "elu", "selu"))
#: With "mixed" a layer is convex in some outputs, concave in some and saturated in some; with the next two it is one of these.
KINDS = ("mixed", "convex", "concave")


def signs_of(part: str, signs: Any, d_in: int) -> tuple[int, ...]:
    """One sign an input; raises BadInput where they are not 1, -1 or 0, or neither one nor d_in of them."""
    given = tuple(signs) if isinstance(signs, Sequence) and not isinstance(signs, str) else (signs,)
    whole = all(isinstance(s, int) and not isinstance(s, bool) and s in (-1, 0, 1) for s in given)
    if not whole or len(given) not in (1, d_in):
        raise BadInput(f"{part}: signs={signs!r}; allowed: 1, -1 or 0, or a tuple of {d_in} of them, one for each input")
    return given if len(given) == d_in else given * d_in


def signed(weight: Tensor, signs: Tensor, one: int | None) -> Tensor:
    """|W| where an input's sign is 1, -|W| where it is -1, W where it is 0; one: the sign that all have, where there is one."""
    if one is not None:
        return weight if one == 0 else weight.abs() if one > 0 else -weight.abs()
    return torch.where(signs == 0, weight, signs * weight.abs())


def common(signs: Sequence[int]) -> int | None:
    """The sign that all have, or None."""
    return signs[0] if len(set(signs)) == 1 else None


def activation(kind: str, base: str) -> nn.Module:
    """The activations over the last dimension: all three, the convex or the concave one, or none ("linear")."""
    if kind == "mixed":
        return catalogue.get("activation/monotonic").build(base=base, channel_dim=-1)
    if kind == "concave":
        return catalogue.get("activation/monotonic-concave").build(base=base)
    return catalogue.get(f"activation/{base}").build() if kind == "convex" else nn.Identity()


# References -----------------------------------------------------------------------------------------------------------


def activated(values: list[float], kind: str, base: str) -> list[float]:
    """The second writing of the activations, from the catalogue."""
    mixed: Any = catalogue.get("activation/monotonic")
    concave: Any = catalogue.get("activation/monotonic-concave")
    if kind == "mixed":
        return mixed.reference(values, base=base)
    if kind == "concave":
        return [concave.reference(v, base=base) for v in values]
    return [-concave.reference(-v, base=base) for v in values] if kind == "convex" else values


def dense(x: list[float], weight: Tensor, bias: Tensor, signs: Sequence[int], kind: str, base: str) -> list[float]:
    """One row through one layer: weights turned to the sign of their input, then the activations."""
    totals = []
    for row, shift in zip(weight.tolist(), bias.tolist(), strict=True):
        turned = [w if s == 0 else s * abs(w) for w, s in zip(row, signs, strict=True)]
        totals.append(shift + sum(w * v for w, v in zip(turned, x, strict=True)))
    return activated(totals, kind, base)


# For claims -----------------------------------------------------------------------------------------------------------


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def is_monotone(layer: Any, signs: Sequence[int], seed: int) -> bool:
    """Gradients of all outputs have the signs of their inputs, exactly; moving the marked inputs moves no output back."""
    x = normal(30, len(signs), seed=seed).mul_(3).requires_grad_()
    direction = torch.tensor(signs, dtype=torch.float64)
    y = layer(x)
    one = torch.eye(y.shape[1], dtype=y.dtype)[:, None].expand(-1, len(y), -1)
    (slopes,) = torch.autograd.grad(y, x, one, is_grads_batched=True, retain_graph=True)
    if bool((slopes * direction < 0).any()):
        return False
    with torch.no_grad():
        further = layer(x + direction * normal(30, len(signs), seed=seed + 1).abs())
        return bool((further - y >= -1e-12 * y.abs().clamp(min=1)).all())
