"""The kind `net`: an architecture with places that parts fill. Nets are the hosts that parts are compared in, and are
themselves compared on tasks that open the slot of the net.

A net is a function of a problem, its widths and what fills its places:

    def mlp(problem, widths, fill, **options) -> nn.Module      # on the current default device

Most are Blocks (ordered blocks and a readout, netwright.engine.blocks), which local rules need. Places are factories:
activation, norm, mlp `(channels, channel_dim) -> module`; layer, readout, head `(d_in, d_out)`; conv `(c_in, c_out,
kernel_size, stride, padding)`; channelwise `(channels)`. A module's `ratio` says how it changes the number of channels.
Where nothing fills `activation`, another place brings the nonlinearity. Nets have no bias before a norm and no dropout.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

from torch import Tensor, nn

from netwright.core import catalogue
from netwright.core.errors import BadInput
from netwright.core.kind import HOST, NET, Kind
from netwright.core.part import Part
from netwright.engine.blocks import Factory
from netwright.engine.task import Problem

#: Raised by hand when numbers of this file move; tests/golden fails when they move and this did not.
KIND_VERSION = 1

TAKES = ("vector", "image", "tokens", "graph")
#: Place -> how what fills it is called.
CALLS = {
    "activation": "(channels, channel_dim)",
    "mlp": "(channels, channel_dim), a gate at twice the width in the activation's place",
    "norm": "(channels, channel_dim)",
    "layer": "(d_in, d_out)",
    "readout": "(d_in, d_out)",
    "head": "(d_in, d_out)",
    "conv": "(c_in, c_out, kernel_size, stride, padding)",
    "channelwise": "(channels)",
}


@final
@dataclass(frozen=True)
class Tags:
    """What a net declares. Every tag is checked."""

    causal: bool = False  # of tokens: no output sees a later one
    ordered: bool = True  # it is Blocks
    channels_last: bool = False  # of images: it runs faster on a CPU with the channels innermost in memory
    reasons: Mapping[str, str] = field(default_factory=dict)  # why a check can't hold: {check name: reason}


@final
@dataclass(frozen=True, eq=False)
class Case:
    """A net as the checks build it: a problem, widths, options, and a batch x that it takes."""

    problem: Problem
    widths: tuple[int, ...]
    x: Tensor
    options: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"x {tuple(self.x.shape)}, output {self.problem.output}, widths {self.widths}"


@final
@dataclass(frozen=True, kw_only=True)
class NetPart(Part):
    """An architecture, declared by `net(make, ...)`. `build(problem, widths, fill, **options)`: on the current default device.

    takes: what its examples are, one of TAKES. places: the slots that parts can fill in it; nothing else lists them.
    reference(net, x) -> its output in float64, in evaluation: the second writing, of loops over rows and units, from the
    weights by name, for what netwright.nets._toy fills the places with.
    cases() -> the small nets that checks build, of at least two problems that cover `takes`, each x of at least three rows.
    """

    tags: Tags = field(default_factory=Tags)
    takes: frozenset[str]
    places: tuple[str, ...]
    reference: Callable[[Any, Tensor], Tensor]
    cases: Callable[[], tuple[Case, ...]]

    def __post_init__(self) -> None:
        super().__post_init__()
        if wrong := sorted(self.takes - set(TAKES)):
            raise BadInput(f"{self.id}: takes={wrong}; allowed: {', '.join(TAKES)}")
        if wrong := sorted(set(self.places) - set(CALLS)):
            raise BadInput(f"{self.id}: places={wrong}; allowed: {', '.join(CALLS)}")

    @property
    def kind(self) -> str:
        return "net"

    @property
    def make(self) -> Callable[..., nn.Module]:
        """The function that is declared: (problem, widths, fill, **options) -> module."""
        return self.subject

    def slots(self) -> tuple[str, ...]:
        return (HOST,)  # of tasks that open it; others name their host, and no arm changes it

    def missing(self, gives: frozenset[str]) -> tuple[str, ...]:
        return () if self.takes & gives else (" or ".join(sorted(self.takes)),)

    def build(
        self, problem: Any = None, widths: Sequence[int] = (), fill: Mapping[str, Factory] | None = None, **options: Any
    ) -> nn.Module:
        """The net for a problem. fill: place -> factory. Raises BadInput where the problem or a width is missing."""
        if problem is None:
            raise BadInput(f"{self.id}: no problem given; expected a netwright.engine.task.Problem, as of a task")
        if not widths:
            raise BadInput(f"{self.id}: no widths given; expected at least one, as in widths=(64, 64)")
        return self.make(problem, tuple(widths), {} if fill is None else fill, **self.resolve(options))


net = NetPart


def norm_named(name: str) -> Factory:
    """What fills the place of a norm, by the name it had in 0.1: "none", "layer", "batch", "group", "rms"; for one release."""
    if name == "none":
        return lambda channels, dim: nn.Identity()
    part: Any = catalogue.get(f"layer/{name}-norm")
    return part.factory({})


# For the nets themselves ----------------------------------------------------------------------------------------------


def channels_after(activation: nn.Module, channels: int) -> int:
    """Channels after the activation; raises where they don't come out whole."""
    out = channels * getattr(activation, "ratio", 1.0)
    if out != int(out) or out < 1:
        raise BadInput(f"{activation} makes {out} of {channels} channels; choose a width it divides")
    return int(out)


def needs_bias(norm: nn.Module) -> bool:
    """Whether what stands before this norm has a bias: only where there is no norm."""
    return isinstance(norm, nn.Identity)


def activation_of(fill: Mapping[str, Factory], channels: int, channel_dim: int) -> nn.Module:
    """What fills the place of the activation; the identity where another place brings the nonlinearity."""
    make = fill.get("mlp") or fill.get("activation")
    return make(channels, channel_dim) if make else nn.Identity()


def norm_of(fill: Mapping[str, Factory], channels: int, channel_dim: int) -> nn.Module:
    """What fills the place of the norm, else the identity."""
    return fill["norm"](channels, channel_dim) if "norm" in fill else nn.Identity()


def linear_of(fill: Mapping[str, Factory], places: Sequence[str], d_in: int, d_out: int, bias: bool = True) -> nn.Module:
    """What fills the first of the places that is filled, else a linear map."""
    make = next((fill[place] for place in places if place in fill), None)
    return make(d_in, d_out) if make else nn.Linear(d_in, d_out, bias=bias)


def conv_of(fill: Mapping[str, Factory], c_in: int, c_out: int, stride: int, bias: bool) -> nn.Module:
    """A 3 x 3 convolution, or what fills its place."""
    return fill["conv"](c_in, c_out, 3, stride, 1) if "conv" in fill else nn.Conv2d(c_in, c_out, 3, stride, 1, bias=bias)


KIND = Kind("net", "nets", "an architecture with places that parts fill", NET)
