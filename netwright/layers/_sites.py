"""How a layer gets into a model that exists: its sizes are read off the linear map, convolution or norm that stood there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final

from torch import Tensor, nn

from netwright.layers._kind import GIVES, SIZES, TAKES, Layer, LayerPart, Norm
from netwright.tensor.modules import Sized
from netwright.tensor.sites import Flow, Sites, Target

#: The slots of a net that its parts fill in a model that exists.
SLOTS = ("layer", "head", "conv", "channelwise", "norm")

_NORMS = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)
Read = tuple[dict[str, Any], str]  # sizes and "", or nothing and why they can't be had


@final
@dataclass(frozen=True)
class LayerTarget(Target):
    """A part with its options, as what goes into places."""

    function = False
    part: LayerPart = field(kw_only=True)

    def make(self, arguments: Mapping[str, Any]) -> nn.Module:
        return self.part.build(**arguments)

    def sizes(self, old: nn.Module, channels: int | None) -> Read:
        shape = self.part.tags.shape
        if shape == "norm":
            return _of_norm(old)
        if shape == "channelwise":
            return ({"channels": channels}, "") if channels else ({}, "give example= or channels=")
        if isinstance(old, Layer) and set(old.sizes) == set(SIZES[shape]):
            own = {"dims": old.dims} if shape == "conv" else {}
            return {**old.sizes, **own}, ""
        return _of_conv(old) if shape == "conv" else _of_linear(old)

    def flow(self, sizes: Mapping[str, Any]) -> Flow:
        return _flow(self.part, sizes)

    @property
    def nonlinear(self) -> bool:
        return self.part.tags.nonlinear

    @property
    def ends(self) -> tuple[str, str] | None:
        shape = self.part.tags.shape
        return (TAKES[shape], GIVES[shape]) if shape == "linear" else None


@final
class LayerSites(Sites):
    record = LayerPart
    words = ("layer", "norm")

    def target(self, part: LayerPart, options: Mapping[str, Any]) -> LayerTarget:
        part.resolve({name: value for name, value in options.items() if name not in part.size_names})
        return LayerTarget(part.id, options, part=part)

    def flow(self, module: nn.Module) -> Flow | None:
        return _flow(module.part, module.sizes) if isinstance(module, (Layer, Norm)) else None

    def operations(self, module: nn.Module, x: Tensor) -> float | None:
        if not isinstance(module, Sized):
            return None
        return sum(module.part.cost(module, what, x, x) for what in ("products", "elementwise"))


SITES = LayerSites()


def _flow(part: LayerPart, sizes: Mapping[str, Any]) -> Flow:
    shape = part.tags.shape
    dim = -1 if shape in ("linear", "sequence") else sizes.get("channel_dim", 1)
    return Flow(sizes[TAKES[shape]], sizes[GIVES[shape]], dim, f"{part.cls.__name__}.{GIVES[shape]}")


def _of_linear(old: nn.Module) -> Read:
    if not isinstance(old, nn.Linear):
        return {}, "it takes the place of linear maps"
    return {"d_in": old.in_features, "d_out": old.out_features}, ""


def _of_conv(old: nn.Module) -> Read:
    if not isinstance(old, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        return {}, "it takes the place of convolutions"
    if old.groups != 1:
        return {}, f"groups={old.groups} is not among its sizes"
    if old.padding_mode != "zeros":
        return {}, f"padding_mode={old.padding_mode!r} is not among its sizes"
    padding: Any = old.padding
    if isinstance(padding, str):
        spans = [d * (k - 1) for d, k in zip(old.dilation, old.kernel_size, strict=True)]
        if padding == "same" and any(span % 2 for span in spans):
            return {}, "padding='same' pads one side more than the other there"
        padding = tuple(span // 2 if padding == "same" else 0 for span in spans)
    sizes = {"kernel_size": old.kernel_size, "stride": old.stride, "padding": padding, "dilation": old.dilation}
    plain = {name: value[0] if len(set(value)) == 1 else tuple(value) for name, value in sizes.items()}
    return {"c_in": old.in_channels, "c_out": old.out_channels, **plain, "dims": len(old.kernel_size)}, ""


def _of_norm(old: nn.Module) -> Read:
    if isinstance(old, Norm):
        return dict(old.sizes), ""
    if isinstance(old, _NORMS):
        return {"channels": old.num_features, "channel_dim": 1}, ""
    if isinstance(old, nn.GroupNorm):
        return {"channels": old.num_channels, "channel_dim": 1}, ""
    shape: Any = getattr(old, "normalized_shape", ())
    if isinstance(old, (nn.LayerNorm, nn.RMSNorm)) and len(shape) == 1:
        return {"channels": shape[0], "channel_dim": -1}, ""
    return {}, "it takes the place of norms over one dimension of channels"
