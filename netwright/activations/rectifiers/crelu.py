"""CReLU: the positive and the negative part side by side, twice the channels (Shang et al., 2016)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.core.part import Claim, Example, Paper


def crelu(x: Tensor, *, dim: int) -> Tensor:
    return torch.cat((x, -x), dim).relu()


def reference(x: Sequence[float]) -> list[float]:
    return [v if v > 0 else 0.0 for v in x] + [-v if v < 0 else 0.0 for v in x]


def claim_information() -> bool:
    """The input is the first half of the output minus the second: nothing is lost."""
    x = torch.randn(64, 16, generator=torch.Generator().manual_seed(0))
    positive, negative = crelu(x, dim=1).chunk(2, 1)
    return torch.equal(positive - negative, x)


PART = activation(
    crelu,
    cls="CReLU",
    reference=reference,
    formula=r"[\max(0,\,x),\; \max(0,\,-x)]",
    ratio=2.0,
    paper=Paper(
        title="Understanding and Improving Convolutional Neural Networks via Concatenated Rectified Linear Units",
        authors="Wenling Shang, Kihyuk Sohn, Diogo Almeida, Honglak Lee",
        year=2016,
        venue="ICML",
        arxiv="1603.05201",
    ),
    tags=Tags(shape="channels"),
    examples=(Example([1.0, -2.0, 0.0], [1.0, 0.0, 0.0, 0.0, 2.0, 0.0]),),
    claims=(Claim("information", "keeps all information of its input", check=claim_information),),
)
