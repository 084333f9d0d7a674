"""Sizes of the layers and norms that a part takes the place of, read off the old modules."""

from __future__ import annotations

from typing import Any

from torch import nn

from netwright.layers._kind import SIZES, Layer, Norm
from netwright.surgery.matching import activation_after
from netwright.surgery.sites import Place, Width
from netwright.tensor.modules import SizedPart

_NORMS = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)


def size(part: SizedPart, place: Place) -> str:
    """Note at a place what a part's module for it is made of. Returns why the part can't go there, or ''."""
    place.arguments, why = sizes_of(part, place)
    if why:
        return why
    known = next(place.arguments[name] for name in ("d_out", "c_out", "channels") if name in place.arguments)
    place.width = Width((known,), -1 if "d_out" in place.arguments else place.arguments.get("channel_dim", 1), "its own sizes")
    after = activation_after(place) if getattr(part.tags, "nonlinear", False) else ""
    if after:
        place.notes.append(f"{after}, which follows, stays: this layer needs none (nn.Identity in its place leaves it out)")
    return ""


def sizes_of(part: SizedPart, place: Place) -> tuple[dict[str, Any], str]:
    """(sizes and options of the part's module for this place, ""), or ({}, why it can't go there)."""
    old, shape = place.old, part.tags.shape
    if shape == "norm":
        return _of_norm(part, old, place)
    if shape == "channelwise":
        channels = place.width.channels
        return ({"channels": channels}, "") if channels else ({}, _cannot(part, place, "give example= or channels="))
    if isinstance(old, Layer) and set(old.sizes) == set(SIZES[shape]):
        own = {"dims": old.dims} if shape == "conv" else {}
        return {**old.sizes, **own}, ""
    if shape in ("linear", "sequence"):
        if not isinstance(old, nn.Linear):
            return {}, _cannot(part, place, "it takes the place of linear maps")
        return {"d_in": old.in_features, "d_out": old.out_features}, ""
    return _of_conv(part, old, place)


def _of_conv(part: SizedPart, old: nn.Module, place: Place) -> tuple[dict[str, Any], str]:
    if not isinstance(old, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        return {}, _cannot(part, place, "it takes the place of convolutions")
    if old.groups != 1:
        return {}, _cannot(part, place, f"groups={old.groups} is not among its sizes")
    if old.padding_mode != "zeros":
        return {}, _cannot(part, place, f"padding_mode={old.padding_mode!r} is not among its sizes")
    padding: Any = old.padding
    if isinstance(padding, str):
        spans = [d * (k - 1) for d, k in zip(old.dilation, old.kernel_size, strict=True)]
        if padding == "same" and any(span % 2 for span in spans):
            return {}, _cannot(part, place, "padding='same' pads one side more than the other there")
        padding = tuple(span // 2 if padding == "same" else 0 for span in spans)
    sizes = {"kernel_size": old.kernel_size, "stride": old.stride, "padding": padding, "dilation": old.dilation}
    plain = {name: value[0] if len(set(value)) == 1 else tuple(value) for name, value in sizes.items()}
    return {"c_in": old.in_channels, "c_out": old.out_channels, **plain, "dims": len(old.kernel_size)}, ""


def _of_norm(part: SizedPart, old: nn.Module, place: Place) -> tuple[dict[str, Any], str]:
    if isinstance(old, Norm):
        return dict(old.sizes), ""
    if isinstance(old, _NORMS):
        return {"channels": old.num_features, "channel_dim": 1}, ""
    if isinstance(old, nn.GroupNorm):
        return {"channels": old.num_channels, "channel_dim": 1}, ""
    shape: Any = getattr(old, "normalized_shape", ())
    if isinstance(old, (nn.LayerNorm, nn.RMSNorm)) and len(shape) == 1:
        return {"channels": shape[0], "channel_dim": -1}, ""
    return {}, _cannot(part, place, "it takes the place of norms over one dimension of channels")


def _cannot(part: SizedPart, place: Place, why: str) -> str:
    return f"{part.id} can't go to {place.paths[0]}, which is {type(place.old).__name__}: {why}"
