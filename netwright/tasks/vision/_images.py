"""What the image tasks share: normalised pools, splits that leave the official test set alone, augmentation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from netwright.engine.task import Data
from netwright.tasks._read import images
from netwright.tensor.streams import permutation

Pool = tuple[Tensor, Tensor, int]


def normalised(name: str, hub: str, size: int, mean: Sequence[float], std: Sequence[float], given: str) -> Pool:
    """x (N, C, size, size) float32 as (pixel / 255 - mean) / std, y (N,), and how many of them are training images."""
    bytes_NCHW, y, train = images(name, hub, channels=len(mean), size=size, classes=10, given=given)
    x_NCHW = bytes_NCHW.to(torch.float32, memory_format=torch.contiguous_format)
    scale = torch.tensor(std).view(-1, 1, 1)
    return x_NCHW.div_(255 * scale).sub_(torch.tensor(mean).view(-1, 1, 1) / scale), y, train


def official(pool: Pool, seed: int, shape: tuple[int, ...], val: int, train: int | None = None) -> Data:
    """One in `val` training images validates, the rest (or the first `train` of the rest) train; drawn by the seed.

    The test set is the official one.
    """
    x, y, n = pool
    order = permutation(n, seed, "split")
    held = n // val
    return Data(
        x.view(-1, *shape),
        y,
        order[held : None if train is None else held + train],
        order[:held],
        torch.arange(n, len(x)),
    )


def flat(shape: tuple[int, int, int]) -> tuple[int, ...]:
    """The shape of the image as one vector."""
    return (math.prod(shape),)


def crop_and_flip(x_BCHW: Tensor, generator: torch.Generator, padding: int = 4) -> Tensor:
    """Each image, cut from itself with a border of zeros (the mean colour), and mirrored half the time.

    padding: width of the border in pixels. The generator draws on its own device, so that a GPU sees the same crops.
    """
    b, c, h, w = x_BCHW.shape
    top, left = torch.randint(2 * padding + 1, (2, b, 1), generator=generator).to(x_BCHW.device)
    mirrored = (torch.rand(b, 1, generator=generator) < 0.5).to(x_BCHW.device)
    rows_BH = top + torch.arange(h, device=x_BCHW.device)
    columns = torch.arange(w, device=x_BCHW.device)
    columns_BW = left + torch.where(mirrored, columns.flip(0), columns)
    padded = F.pad(x_BCHW, (padding,) * 4)
    image_B = torch.arange(b, device=x_BCHW.device)[:, None, None, None]
    channel_C = torch.arange(c, device=x_BCHW.device)[None, :, None, None]
    return padded[image_B, channel_C, rows_BH[:, None, :, None], columns_BW[:, None, None, :]]
