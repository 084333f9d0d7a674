"""Gates: places whose output multiplies another branch, g(a) * b for two branches a and b (Llama's MLP, timm's GluMlp)."""

from __future__ import annotations

import operator

import torch
from torch import fx, nn

from netwright.surgery.functional import OwnTracer
from netwright.surgery.sites import Place
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
