"""What Hebbian rules share: the one layer of a block that learns, and the soft winner-take-all update."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
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


def rows(layer: Any, x: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(x_RM, u_RN, w_NM): a layer's inputs, sums without bias, and weights, one row an example or a place of a map."""
    if layer.bias is not None:
        u = u - layer.bias.view(-1, *[1] * (u.dim() - 2))
    if isinstance(layer, nn.Conv2d):
        patches = F.unfold(x, layer.kernel_size, layer.dilation, layer.padding, layer.stride)  # type: ignore[arg-type]
        return patches.transpose(1, 2).flatten(0, 1), u.flatten(2).transpose(1, 2).flatten(0, 1), layer.weight.flatten(1)
    return x, u, layer.weight


def soft_winners(u_RN: Tensor, inverse_temperature: float, losers: str) -> Tensor:
    """softmax(t u) a row; losers="anti": all but the row's winner count negative."""
    y_RN = torch.softmax(inverse_temperature * u_RN, -1)
    if losers == "hebbian":
        return y_RN
    wins = torch.arange(u_RN.shape[-1], device=u_RN.device) == u_RN.argmax(-1, keepdim=True)
    return torch.where(wins, y_RN, -y_RN)


def oja(y_RN: Tensor, u_RN: Tensor, x_RM: Tensor, w_NM: Tensor) -> Tensor:
    """sum over rows of y (x - u w), (N, M)."""
    return y_RN.T @ x_RM - (y_RN * u_RN).sum(0)[:, None] * w_NM
