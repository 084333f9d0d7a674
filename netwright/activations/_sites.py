"""How an activation gets into a model that exists: in the place of another one, of a gate, or of a call in a forward.

A gated unit is g(a) * b for two branches a and b. Where a model writes the product itself (Llama's MLP, timm's GluMlp),
the place of its activation takes g; where it has one module for both (nn.GLU), that place takes a whole gated part.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor, nn

from netwright.activations._kind import KIND, ActivationPart
from netwright.core import catalogue
from netwright.core.errors import Misfit
from netwright.tensor.sites import Sites, Target

#: The slots of a net that its parts fill in a model that exists.
SLOTS = ("activation",)


@final
@dataclass(frozen=True)
class ActivationTarget(Target):
    """A part with its options, as what goes into places."""

    part: ActivationPart = field(kw_only=True)

    def make(self, arguments: Mapping[str, Any]) -> nn.Module:
        return self.part.build(**arguments)

    @property
    def shared(self) -> bool:
        return self.part.shared

    def misfit(self, path: str, old: nn.Module, gate: str) -> str:
        """Why a gated part, or one that isn't, can't take this place; "" where it can."""
        gated = self.part.tags.shape == "gated"
        if gated and not whole(old):
            use = _instead(self.part)
            if gate:
                return f"{path} already {gate}, which {self.label} would do once more; {use}"
            return f"{self.label} is gated: it fills the slot mlp (two branches in, one out), not the activation at {path}; {use}"
        if whole(old) and not gated:
            return f"{path} is {type(old).__name__}, which halves its channels; only gated activations fit, not {self.label}"
        return ""

    def note(self, old: nn.Module) -> str:
        """Said where the new module's gate is the other half of the channels; the values it gets are the old gate's."""
        if self.part.tags.shape != "gated":
            return ""
        before = 1 if isinstance(old, nn.GLU) else _gate(_part(old))[0]
        after = _gate(self.part)[0]
        halves = ("first", "second")
        if before is None or after is None or before == after:
            return ""
        return f"its gate is the {halves[after]} half of the channels; the old one's was the {halves[before]}"

    @property
    def unlike(self) -> str:
        shape = self.part.tags.shape
        if shape == "elementwise":
            return ""
        return f"{self.label} is {shape}; only elementwise activations can start as the old one"

    def starts(self) -> list[nn.Module]:
        """The module as it starts, and as every choice of how to start it."""
        part, options = self.part, self.options
        given = {name: value for name, value in options.items() if name not in ("channels", "channel_dim", "fused", "per")}
        single = {"per": "tensor"} if part.learn else {}
        choices: list[dict[str, Any]] = [{}]
        for option in part.options:
            only_starts = option.name not in part.fn_options and option.name not in (*options, "per", "learnable")
            choices += [{option.name: value} for value in (option.allowed or ()) if only_starts and value != option.default]
        return [part.build(**(given | single | choice)).double().eval() for choice in choices]

    def bounds(self) -> dict[str, tuple[float, float]]:
        return {item.name: item.bounds for item in self.part.learn if item.bounds is not None}


@final
class ActivationSites(Sites):
    record = ActivationPart
    words = ("activation",)

    def target(self, part: ActivationPart, options: Mapping[str, Any]) -> ActivationTarget:
        if part.ratio != 1 and part.tags.shape != "gated":
            raise Misfit(f"{part.id} gives {part.ratio:g} times the channels it takes; the layer after it would not fit")
        fixed = ("channels", "channel_dim", "fused")
        resolved = part.resolve({name: value for name, value in options.items() if name not in fixed})
        per_channel = resolved.get("per") == "channel" or any(item.per == "channel" for item in part.state)
        takes = {"channels", "channel_dim"} if per_channel or part.tags.shape != "elementwise" else set()
        needs = takes if per_channel or part.tags.shape == "channels" else takes & {"channel_dim"}
        if part.tags.shape == "stateful" and not per_channel:  # no statistic lies along any dimension
            needs = set()
        return ActivationTarget(part.id, options, frozenset(takes), frozenset(needs - set(options)), part=part)

    def functions(self, part: ActivationPart) -> tuple[str, ...]:
        return (part.cls, part.name)

    def activates(self, module: nn.Module) -> bool:
        ours = type(module).__module__.startswith(f"netwright.{KIND.folder}")  # a class written by hand
        return ours or getattr(_part(module), "kind", "") == KIND.name

    def mixes(self, module: nn.Module) -> bool:
        part = _part(module)
        return isinstance(part, ActivationPart) and part.tags.shape != "elementwise"


SITES = ActivationSites()


def whole(module: nn.Module) -> bool:
    """A module that takes both branches in one tensor and gives their gated product: half the channels."""
    part = _part(module)
    return isinstance(module, nn.GLU) or (isinstance(part, ActivationPart) and part.tags.shape == "gated")


def _part(module: nn.Module) -> Any:
    return getattr(type(module), "part", None)


def _gate(part: ActivationPart) -> tuple[int | None, Tensor | None]:
    """Which half is the gate (None: neither half, or both, are linear) and its values on a grid (None: neither)."""
    grid = torch.linspace(-5, 5, 101, dtype=torch.float64)
    module: Any = part.build(channel_dim=-1).double().eval()

    def f(a: Tensor, b: Tensor) -> Tensor:
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
    known = [p for p in catalogue.parts(KIND.name) if isinstance(p, ActivationPart)]
    named = Counter(name for p in known for name in (p.alias_of, *p.equals_at_init, *(i.other for i in p.identities)))

    def unusual(p: ActivationPart) -> tuple[bool, bool, bool, int, str]:  # the plain one that others refer to comes first
        return bool(p.alias_of), bool(p.learn), not p.tags.exact_gradient, -named[p.id], p.name

    for other in sorted((p for p in known if p.tags.shape == "elementwise"), key=unusual):
        with torch.no_grad():
            if torch.allclose(other.build().double().eval()(grid), values, atol=1e-6):
                return f"for its gate alone give to={other.name!r}"
    return "for its gate alone give an elementwise activation"
