"""The kind `norm`: what brings a signal back to a scale, and what a user may rely on about it.

Input (B, channels, ...) with the channels at `channel_dim`; the dimensions beside those of rows and channels are positions.
Output: the same shape.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, final

from torch import Tensor, nn

from netwright.expressions import names_in
from netwright.kinds import Kind
from netwright.part import BadInput, Claim, Identity, Option, Paper
from netwright.sized import LOW, Change, Sized, SizedPart, bind, drawn, kebab, summary_of

__all__ = ["LOW", "Change", "Norm", "NormPart", "Tags", "drawn", "norm"]


@final
@dataclass(frozen=True)
class Tags:
    """What a norm declares. Every tag is checked."""

    nonlinear: bool = False  # takes the activation's place too: an arm that puts it into a host leaves the default one out
    stateful: bool = False  # in training it differs: running statistics, schedules
    batchwise: bool = False  # in training an output sees the other rows of the batch; in evaluation none does
    delicate: bool = True  # half-precision inputs are computed in float32
    smooth: bool = True
    exact_gradient: bool = True
    why_not_stackable: str = ""
    reasons: Mapping[str, str] = field(default_factory=dict)  # why a check can't hold: {check name: reason}


class Norm(Sized):
    """Base of every norm. Abstract: a norm implements `compute` and `reset_parameters`."""

    @abstractmethod
    def compute(self, x: Tensor, dim: int) -> Tensor:
        """The norm of x (B, ...) with its channels at dimension dim >= 1, in x's dtype."""

    def forward(self, x: Tensor) -> Tensor:
        part, dim, channels = self.part, self.sizes["channel_dim"], self.sizes["channels"]
        if not x.is_floating_point():
            raise BadInput(f"{part.id}: input has dtype {x.dtype}; expected a floating dtype")
        if not -x.dim() < dim < x.dim() or dim == 0:
            raise BadInput(f"{part.id}: channel_dim={dim}, but the input has shape {tuple(x.shape)}, rows first")
        if x.shape[dim] != channels:
            raise BadInput(
                f"{part.id}: dimension {dim} of the input has size {x.shape[dim]} (shape {tuple(x.shape)});"
                f" expected channels={channels}"
            )
        work = x.float() if part.tags.delicate and x.dtype in LOW else x
        return self.compute(work, dim % x.dim()).to(x.dtype)

    @staticmethod
    def along(values_C: Tensor, x: Tensor, dim: int) -> Tensor:
        """One value a channel as it broadcasts against x, in x's dtype."""
        return values_C.reshape(values_C.shape + (1,) * (x.dim() - 1 - dim)).to(x.dtype)

    @staticmethod
    def positions(x: Tensor, dim: int) -> tuple[int, ...]:
        """The dimensions that are neither rows nor channels."""
        return tuple(d for d in range(1, x.dim()) if d != dim)


@final
@dataclass(frozen=True)
class NormPart(SizedPart):
    """A norm. `build(channels, channel_dim=1, **options)` makes the module.

    reference(norm, x) -> y for x (B, channels, P) in float64: the second writing, of loops, without the norm's own methods.
    It reads norm.training where the norm is stateful.
    """

    reference: Callable[..., Tensor] | None = None

    @property
    def kind(self) -> str:
        return "norm"

    @property
    def size_names(self) -> Mapping[str, Any]:
        return {"channels": None, "channel_dim": 1}

    def slots(self) -> tuple[str, ...]:
        return ("norm",)

    def factory(self, options: Mapping[str, Any]) -> Callable[..., nn.Module]:
        """What fills a slot of a host: (channels, channel_dim) -> module."""
        return lambda *sizes: self.build(*sizes, **options)

    def rows(self, built: Any, x: Tensor) -> int:
        return len(x)

    def row(self, **options: Any) -> tuple[int, ...]:
        sizes = {**self.size_names, **self.toy, **options}
        return (6, sizes["channels"]) if sizes["channel_dim"] == -1 else (sizes["channels"], 6)

    def extents(self, built: Any, x: Tensor, y: Tensor) -> dict[str, int]:
        """positions: how many a row has."""
        return {"positions": math.prod(x.shape[1:]) // built.sizes["channels"]}


def norm(
    cls: type[Any],
    *,
    paper: Paper,
    reference: Callable[..., Tensor],
    name: str = "",
    summary: str = "",
    formula: str = "",
    tags: Tags | None = None,
    options: tuple[Option, ...] = (),
    toy: Mapping[str, Any] | None = None,
    settings: tuple[Mapping[str, Any], ...] = (),
    changes: tuple[Change, ...] = (),
    parameters: float | str = 0,
    elementwise: float | str = 0,
    identities: tuple[Identity, ...] = (),
    claims: tuple[Claim, ...] = (),
    deviations: tuple[str, ...] = (),
    uses: tuple[str, ...] = (),
    alias_of: str = "",
    retired: str = "",
) -> NormPart:
    """Declare a norm; the part becomes the attribute `part` of the class.

    name: by default the class name in kebab case. toy: sizes and options that the checks build it at, 8 channels by default.
    elementwise: operations a row, of the norm's quantities and `positions`.
    """
    for cost in (parameters, elementwise):
        names_in(cost)  # raises where it isn't an expression
    part = NormPart(
        name=name or kebab(cls.__name__), paper=paper, summary=summary or summary_of(cls), formula=formula, tags=tags or Tags(),
        options=options, identities=identities, claims=claims, deviations=deviations, uses=uses, alias_of=alias_of,
        retired=retired, module=cls.__module__, cls=cls, reference=reference, toy={"channels": 8, **(toy or {})},
        settings=settings, changes=changes, parameters=parameters, elementwise=elementwise,
    )  # fmt: skip
    bind(part)
    return part


KIND = Kind("norm", "norms", "what brings a signal back to a scale")
