"""Gates that reach beyond [0, 1] on the two halves of a dimension (Huang, 2024)."""

from __future__ import annotations

from torch import Tensor


def halves(x: Tensor, alpha: Tensor, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """The two halves of x along dim, and alpha as it broadcasts against the first of them.

    alpha: without dimensions, or with one entry for each channel of x in its first dimension.
    """
    gate, value = x.chunk(2, dim)
    return gate, value, alpha[: gate.shape[dim]] if alpha.dim() else alpha


def expanded(gate: Tensor, alpha: Tensor) -> Tensor:
    """A gate with values in (0, 1) stretched to (-alpha, 1 + alpha), elementwise."""
    return gate * (1 + 2 * alpha) - alpha
