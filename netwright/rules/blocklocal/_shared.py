"""What block-local rules share: a linear head on what a block puts out."""

from __future__ import annotations

from typing import final

from torch import Tensor, nn

from netwright.kinds.rule import pooled, pooled_width


@final
class Head(nn.Module):
    """A linear map without bias of a block's output: (B, D) -> (B, O), per position (B, L, D) -> (B, L, O),
    and of the mean over H and W where it is (B, C, H, W)."""

    def __init__(self, shape: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self.shape = shape
        self.linear = nn.Linear(pooled_width(shape), outputs, bias=False)

    def forward(self, h: Tensor) -> Tensor:
        return self.linear(pooled(h, self.shape))
