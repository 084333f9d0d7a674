"""Terms: what a loss is made of, a value and a weight for every example; a batch's loss is the weighted mean of each, added up.

Weights depend on targets alone, so that the totals of a whole step are known before its first piece is computed: divided by
them, the losses of any pieces of a batch add up to the batch's. Shape suffixes: B batch, L positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Term(NamedTuple):
    """values and weights, both (B,). An example of weight 0 counts for nothing, whatever its value."""

    values: Tensor
    weights: Tensor


Terms = tuple[Term, ...]


def reduced(terms: Terms, of: Sequence[Tensor | float] | None = None) -> Tensor:
    """The sum over terms of sum(values weights) / sum(weights), a scalar; where nothing counts, 0 with a gradient of 0.

    of: the sums of weights to divide by instead, one a term: those of the whole step that this batch is a piece of.
    """
    out = terms[0].values.new_zeros(())
    for i, (values, weights) in enumerate(terms):
        total = weights.sum() if of is None else torch.as_tensor(of[i], dtype=values.dtype, device=values.device)
        summed = torch.where(weights > 0, values * weights, 0).sum()
        out = out + torch.where(total > 0, summed / torch.where(total > 0, total, 1), 0 * summed)
    return out


def by_example(each: Tensor, counts: Tensor) -> Term:
    """The term of values each (B, *L), one a position: an example's is the mean over what counts, its weight how many do."""
    each, many = torch.where(counts, each, 0), counts.to(each.dtype)
    if each.dim() == 1:
        return Term(each, many)
    number = many.flatten(1).sum(1)
    return Term(each.flatten(1).sum(1) / number.clamp_min(1), number)
