"""Blocks as chains around the one linear map or convolution that learns."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from netwright.core.errors import Misfit


def chain(block: nn.Module) -> list[nn.Module]:
    """The modules that a block runs one after the other: those of nested Sequentials, and linear, norm, act of an Mlp's."""
    if isinstance(block, nn.Sequential):
        return [module for child in block for module in chain(child)]
    if [name for name, _ in block.named_children()] == ["linear", "norm", "act"]:
        return list(block.children())
    return [block]


def parted(block: nn.Module, who: str) -> tuple[list[nn.Module], Any, list[nn.Module]]:
    """(before, layer, after): a block as a chain around its only linear map or convolution.

    Raises Misfit where the block is no such chain.
    """
    modules = chain(block)
    places = [k for k, module in enumerate(modules) if isinstance(module, (nn.Linear, nn.Conv2d))]
    products = [m for m in block.modules() if isinstance(m, (nn.Linear, nn.modules.conv._ConvNd))]
    if len(places) != 1 or len(products) != 1:
        raise Misfit(
            f"{who} teaches blocks of one linear map or convolution, and this {type(block).__name__} holds {len(products)}"
            " (or runs it out of order); use an Mlp, or Blocks.of a plain nn.Sequential"
        )
    layer = modules[places[0]]
    if isinstance(layer, nn.Conv2d) and (layer.groups != 1 or layer.padding_mode != "zeros" or isinstance(layer.padding, str)):
        raise Misfit(f"{who} teaches convolutions with groups=1 and zero padding given as numbers, not {layer}")
    return modules[: places[0]], layer, modules[places[0] + 1 :]


def through(modules: list[nn.Module], h: Tensor) -> Tensor:
    """h through one module after the other."""
    for module in modules:
        h = module(h)
    return h
