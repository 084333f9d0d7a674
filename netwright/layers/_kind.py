"""The kind `layer`: what stands where a linear map, a convolution or a norm stood, and what a user may rely on about it.

Shape classes
    linear       (..., d_in) -> (..., d_out), every row by itself
    sequence     (..., L, d_in) -> (..., L, d_out), the rows of one sequence see each other
    conv         (..., c_in, *space) -> (..., c_out, *space'), sized as nn.ConvNd is
    channelwise  (..., channels, *space) -> the same shape
    norm         (B, channels, ...) -> the same shape, channels at `channel_dim`; the rest are positions
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.core.errors import BadInput
from netwright.core.kind import NET, Kind
from netwright.core.part import Option, with_options
from netwright.tensor.modules import LOW, Sized, SizedPart

#: Raised by hand when numbers of this file move; tests/golden fails when they move and this did not.
KIND_VERSION = 1

#: Shape class -> its sizes, in the order of the constructor; None: has to be given.
SIZES: dict[str, dict[str, Any]] = {
    "linear": {"d_in": None, "d_out": None},
    "sequence": {"d_in": None, "d_out": None},
    "conv": {"c_in": None, "c_out": None, "kernel_size": None, "stride": 1, "padding": 0, "dilation": 1},
    "channelwise": {"channels": None},
    "norm": {"channels": None, "channel_dim": 1},
}
#: Shape class -> the slot of a host that it fills.
SLOTS = {"linear": "layer", "sequence": "", "conv": "conv", "channelwise": "channelwise", "norm": "norm"}
#: Shape class -> the sizes the checks use; and the sizes that are the channels before and after.
TOYS: dict[str, dict[str, Any]] = {
    "linear": {"d_in": 6, "d_out": 4},
    "sequence": {"d_in": 6, "d_out": 4},
    "channelwise": {"channels": 8},
    "conv": {"c_in": 4, "c_out": 6, "kernel_size": 3},
    "norm": {"channels": 8},
}
TAKES = {"conv": "c_in", "channelwise": "channels", "norm": "channels", "linear": "d_in", "sequence": "d_in"}
GIVES = {"conv": "c_out", "channelwise": "channels", "norm": "channels", "linear": "d_out", "sequence": "d_out"}


@final
@dataclass(frozen=True)
class Tags:
    """What a layer declares. Every tag is checked."""

    shape: str = "linear"
    nonlinear: bool = False  # needs no activation after it: an arm that puts it into a host leaves the default one out
    affine: bool = True  # f(x) + f(z) = f(x + z) + f(0); a layer tagged nonlinear isn't, some that want an activation aren't
    readout: bool = True  # fills a host's readout too, where it fills the slot `layer`
    slot: str | None = None  # the slot it fills, where it is not that of its shape class: "head", or "" for none
    stateful: bool = False  # in training it differs: running statistics, codebooks, random draws
    batchwise: bool = False  # in training an output sees the other rows of the batch; in evaluation none does
    causal: bool = False  # of a sequence: an output sees no later row
    delicate: bool = False  # half-precision inputs are computed in float32
    smooth: bool = True  # the gradient is continuous, so that differences of it can be checked
    exact_gradient: bool = True  # the backward is the derivative of the forward
    why_not_stackable: str = ""
    reasons: Mapping[str, str] = field(default_factory=dict)  # why a check can't hold: {check name: reason}

    def __post_init__(self) -> None:
        if self.shape not in SIZES:
            raise BadInput(f"Tags shape={self.shape!r}; allowed: {', '.join(SIZES)}")
        if self.causal and self.shape != "sequence":
            raise BadInput(f"Tags causal=True with shape={self.shape!r}; only a sequence has an order")


class Layer(Sized):
    """Base of every layer but norms. Abstract: a layer implements `compute` and, where it holds tensors, `reset_parameters`."""

    @abstractmethod
    def compute(self, x: Tensor) -> Tensor:
        """The layer for one leading dimension: (B, d_in), (B, L, d_in), (B, c_in, *space) or (B, channels, *space)."""

    def forward(self, x: Tensor) -> Tensor:
        """x: any leading dimensions before those of the shape class, a floating dtype."""
        lead = x.shape[: x.dim() - self.inner(x)]
        work = x if len(lead) == 1 else x.reshape(-1, *x.shape[len(lead) :])
        if self.part.tags.delicate and x.dtype in LOW:
            work = work.float()
        y = self.compute(work)
        return y if len(lead) == 1 else y.reshape(*lead, *y.shape[1:])

    @property
    def dims(self) -> int:
        """Dimensions in space, of conv and channelwise layers."""
        return int(self.options["dims"])

    @property
    def quantities(self) -> dict[str, float]:
        taps = {"taps": math.prod(per_axis(self.sizes["kernel_size"], self.dims))} if "kernel_size" in self.sizes else {}
        return {**super().quantities, **taps}

    def inner(self, x: Tensor) -> int:
        """The number of dimensions of x that are not leading ones; raises BadInput where x doesn't fit."""
        part = self.part
        if not x.is_floating_point():
            raise BadInput(f"{part.id}: input has dtype {x.dtype}; expected a floating dtype")
        space = part.tags.shape in ("conv", "channelwise")
        inner = self.dims + 1 if space else 2 if part.tags.shape == "sequence" else 1
        if x.dim() < inner:
            raise BadInput(f"{part.id}: input has shape {tuple(x.shape)}; expected at least {inner} dimensions")
        dim, name = -inner if space else -1, TAKES[part.tags.shape]
        if x.shape[dim] != self.sizes[name]:
            raise BadInput(
                f"{part.id}: dimension {dim} of the input has size {x.shape[dim]} (shape {tuple(x.shape)});"
                f" expected {name}={self.sizes[name]}"
            )
        return inner


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
@dataclass(frozen=True, kw_only=True)
class LayerPart(SizedPart):
    """A layer, declared by `layer(cls, ...)`. `build(*sizes, **options)` makes the module.

    reference(layer, x) -> y for one leading dimension (of a norm for x (B, channels, P)), in float64: the second writing,
    of loops over rows, outputs and inputs, without the layer's own methods. It reads layer.training where it is stateful.
    toy: sizes and options that the checks build it at, laid over those of the shape class (6 -> 4; 4 -> 6 channels and a
    kernel of 3; 8 channels).
    """

    tags: Tags = field(default_factory=Tags)
    reference: Callable[..., Tensor]
    space: tuple[int, ...] = (6, 5, 4)  # extents in space, or the length of a sequence, that the checks use

    def __post_init__(self) -> None:
        self._derive(toy={**TOYS[self.tags.shape], **self.toy})
        if self.tags.shape in ("conv", "channelwise"):
            self._derive(options=with_options(self.options, Option("dims", 2, "dimensions in space", allowed=(1, 2, 3))))
        super().__post_init__()  # last, as it declares the record that is now complete

    @property
    def kind(self) -> str:
        return "layer"

    @property
    def size_names(self) -> Mapping[str, Any]:
        return SIZES[self.tags.shape]

    def slots(self) -> tuple[str, ...]:
        slot = SLOTS[self.tags.shape] if self.tags.slot is None else self.tags.slot
        return (slot,) if slot else ()

    @property
    def replaces(self) -> tuple[str, ...]:
        return ("activation",) if self.tags.nonlinear else ()

    def fills(self, slot: str) -> tuple[str, ...]:
        return (slot, "readout") if slot == "layer" and self.tags.readout else (slot,)

    def factory(self, options: Mapping[str, Any]) -> Callable[..., nn.Module]:
        """What fills a slot of a host: sizes -> module; of a norm (channels, channel_dim) -> module."""
        return lambda *sizes: self.build(*sizes, **options)

    def rows(self, built: Any, x: Tensor) -> int:
        return len(x) if self.tags.shape == "norm" else math.prod(x.shape[: x.dim() - built.inner(x)])

    def row(self, **options: Any) -> tuple[int, ...]:
        sizes = {**self.size_names, **self.toy, **options}
        width = sizes[TAKES[self.tags.shape]]
        if self.tags.shape == "norm":
            return (self.space[0], width) if sizes["channel_dim"] == -1 else (width, self.space[0])
        if self.tags.shape in ("conv", "channelwise"):
            default = next(option.default for option in self.options if option.name == "dims")
            return (width, *self.space[: sizes.get("dims", default)])
        return (self.space[0], width) if self.tags.shape == "sequence" else (width,)

    def extents(self, built: Any, x: Tensor, y: Tensor) -> dict[str, int]:
        """rows of the call, for what is done once a call; length, of a sequence; places_in and places_out, positions in space.

        Of a norm: positions, how many a row has.
        """
        if self.tags.shape == "norm":
            return {"positions": math.prod(x.shape[1:]) // built.sizes["channels"]}
        rows = {"rows": max(1, self.rows(built, x))}
        if self.tags.shape == "linear":
            return rows
        if self.tags.shape == "sequence":
            return {**rows, "length": x.shape[-2]}
        return {**rows, "places_in": math.prod(x.shape[-built.dims :]), "places_out": math.prod(y.shape[-built.dims :])}


layer = LayerPart


def norm(cls: type[Any], **options: Any) -> LayerPart:
    """Declare a norm as 0.1 did, for one release: `layer` with the shape class `norm`, computed in float32."""
    tags = replace(options.pop("tags", None) or Tags(), shape="norm", delicate=True)
    return layer(cls, tags=tags, **options)


# For the layers themselves --------------------------------------------------------------------------------------------


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b in the weight's dtype, or in that of autocast: x may have been computed more precisely than it came."""
    return F.linear(x.to(weight.dtype), weight, bias)


def uniform_(t: Tensor, bound: float, generator: torch.Generator | None) -> None:
    """Fill t from U(-bound, bound)."""
    with torch.no_grad():
        t.uniform_(-bound, bound, generator=generator)


def per_axis(value: int | Sequence[int], dims: int) -> tuple[int, ...]:
    """A size that stands for all dimensions in space, or one for each, as one for each."""
    return (value,) * dims if isinstance(value, int) else tuple(value)


KIND = Kind("layer", "layers", "what stands where a linear map, a convolution or a norm stood", NET, once=("norm",))
