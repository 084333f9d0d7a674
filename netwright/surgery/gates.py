"""Gates: places whose output multiplies another branch, and what of a gated activation can go there.

A gated unit is g(a) * b for two branches a and b. Where a model writes the product itself (Llama's MLP, timm's GluMlp),
the place of its activation takes g; where it has one module for both (nn.GLU), that place takes a whole gated part.
"""

from __future__ import annotations

import operator
from collections import Counter
from typing import Any

import torch
from torch import fx, nn

from netwright.activations._kind import ActivationPart
from netwright.core import catalogue
from netwright.surgery.functional import OwnTracer
from netwright.surgery.sites import Place
from netwright.surgery.target import Target
from netwright.surgery.untouched import untouched

_PRODUCTS = (operator.mul, operator.imul, torch.mul, torch.multiply)


def product(place: Place) -> str:
    """Where the place's output multiplies another branch, in words; "" where it doesn't, or its holder can't be traced."""
    for holder, name in place.slots:
        if type(holder).forward is nn.Module.forward or isinstance(holder, nn.Sequential):
            continue
        with untouched(holder):
            try:
                graph = OwnTracer().trace(holder)
            except Exception:  # a forward that depends on values fails in its own way
                continue
        for node in graph.nodes:
            if node.op == "call_module" and node.target == name and (other := _other_factor(node, holder)) is not None:
                what = f"{other.target}'s output" if other.op == "call_module" else "another branch"
                return f"multiplies {what} in {type(holder).__name__}"
    return ""


def _other_factor(node: fx.Node, holder: nn.Module) -> fx.Node | None:
    """What the output of node is multiplied with, save its own input (that is x * sigmoid(x), no gate)."""
    for user in node.users:
        if user.op == "call_module" and isinstance(holder.get_submodule(str(user.target)), (nn.Dropout, nn.Identity)):
            if (found := _other_factor(user, holder)) is not None:
                return found
        if user.target in _PRODUCTS or (user.op == "call_method" and user.target in ("mul", "mul_", "multiply")):
            for factor in user.args[:2]:
                if isinstance(factor, fx.Node) and factor is not node and factor not in node.args and factor.op != "get_attr":
                    return factor
    return None


def whole(module: nn.Module) -> bool:
    """A module that takes both branches in one tensor and gives their gated product: half the channels."""
    part = getattr(type(module), "part", None)
    return isinstance(module, nn.GLU) or (isinstance(part, ActivationPart) and part.tags.shape == "gated")


def misfit(place: Place, target: Target, gates: str) -> str:
    """Why a gated part, or one that isn't, can't take this place; "" where it can."""
    path = place.paths[0]
    if target.gated and target.part is not None and not whole(place.old):
        use = _instead(target.part)
        if gates:
            return f"{path} already {gates}, which {target.label} would do once more; {use}"
        return f"{target.label} is gated: it fills the slot mlp (two branches in, one out), not the activation at {path}; {use}"
    if whole(place.old) and target.part is not None and not target.gated:
        return f"{path} is {type(place.old).__name__}, which halves its channels; only gated activations fit, not {target.label}"
    return ""


def order_note(old: nn.Module, part: ActivationPart) -> str:
    """Said where the new module's gate is the other half of the channels; the values it gets are the old gate's."""
    replaced: Any = type(old)
    before = 1 if isinstance(old, nn.GLU) else _gate(replaced.part)[0]
    after = _gate(part)[0]
    halves = ("first", "second")
    if None in (before, after) or before == after:
        return ""
    return f"its gate is the {halves[after or 0]} half of the channels; the old one's was the {halves[before or 0]}"


def _gate(part: ActivationPart) -> tuple[int | None, torch.Tensor | None]:
    """Which half is the gate (None: neither half, or both, are linear) and its values on a grid (None: neither)."""
    grid = torch.linspace(-5, 5, 101, dtype=torch.float64)
    module: Any = part.build(channel_dim=-1).double().eval()

    def f(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return module(torch.stack((a, b), -1))[..., 0]

    one, two = torch.cos(3 * grid), torch.sin(2 * grid)  # of either sign: ReLU is no linear map
    first = torch.allclose(f(grid, one + two), f(grid, one) + f(grid, two))  # linear in the second half
    second = torch.allclose(f(one + two, grid), f(one, grid) + f(two, grid))
    ones = torch.ones_like(grid)
    if second and not first:
        return 1, f(ones, grid)
    return (0 if first and not second else None), f(grid, ones) if first else None


def _instead(part: ActivationPart) -> str:
    """The elementwise activation that is the gate of a gated one, as advice."""
    try:
        _, values = _gate(part)
    except Exception:  # a part with shapes of its own
        return "give an elementwise activation"
    if values is None:
        return "it is no product of one activated branch and another"
    grid = torch.linspace(-5, 5, 101, dtype=torch.float64)
    if torch.allclose(values, grid):
        return "for its gate alone, which is linear, give to=nn.Identity"
    known = [p for p in catalogue.parts("activation") if isinstance(p, ActivationPart)]
    named = Counter(name for p in known for name in (p.alias_of, *p.equals_at_init, *(i.other for i in p.identities)))

    def unusual(p: ActivationPart) -> tuple[bool, bool, bool, int, str]:  # the plain one that others refer to comes first
        return bool(p.alias_of), bool(p.learn), not p.tags.exact_gradient, -named[p.id], p.name

    for other in sorted((p for p in known if p.tags.shape == "elementwise"), key=unusual):
        with torch.no_grad():
            if torch.allclose(other.build().double().eval()(grid), values, atol=1e-6):
                return f"for its gate alone give to={other.name!r}"
    return "for its gate alone give an elementwise activation"
