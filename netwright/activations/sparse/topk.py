"""Top-k thresholding: the k largest entries of a rectified row, the others 0 (Li et al., 2022)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.activations.sparse._winners import largest, winners
from netwright.core.part import Claim, Example, Option, Paper, Protocol


def topk_relu(x: Tensor, *, dim: int, k: float) -> Tensor:
    h = x.relu()
    return torch.where(largest(h, k, dim)[0], h, 0.0)


def reference(x: Sequence[float], k: float) -> list[float]:
    order = sorted(range(len(x)), key=lambda i: (-max(x[i], 0.0), i))
    kept = set(order[: winners(k, len(x))])
    return [max(v, 0.0) if i in kept else 0.0 for i, v in enumerate(x)]


def claim_sparse() -> bool:
    """At most k entries of a row are nonzero, and they are its largest."""
    x = torch.randn(64, 96, generator=torch.Generator().manual_seed(0))
    y = topk_relu(x, dim=1, k=8.0)
    return bool(((y != 0).sum(1) == 8).all()) and torch.equal(y.sort(1).values[:, -8:], x.sort(1).values[:, -8:])


def claim_dense() -> bool:
    """With k = the width it is ReLU."""
    x = torch.randn(64, 96, generator=torch.Generator().manual_seed(1))
    return torch.equal(topk_relu(x, dim=1, k=96.0), x.relu())


def claim_noise() -> bool:
    """Adding noise to an entry that lost, too little to make it win, changes nothing."""
    x = torch.linspace(-1.0, 1.0, 96).repeat(32, 1)
    noise = 0.1 * torch.rand(32, 96, generator=torch.Generator().manual_seed(2))
    noise[:, -16:] = 0.0
    return torch.equal(topk_relu(x + noise, dim=1, k=8.0), topk_relu(x, dim=1, k=8.0))


PART = activation(
    topk_relu,
    cls="TopKReLU",
    reference=reference,
    formula=r"\max(0,\,x_i)\,[\,x_i \text{ among the } k \text{ largest}\,]",
    paper=Paper("lazy-neuron-topk"),
    options=(Option("k", 0.0625, "a share of the row below 1, or a whole number of entries", bounds=(0.0, 1e9)),),
    tags=Tags(shape="rowwise"),
    examples=(
        Example([3.0, -1.0, 2.0, 1.0], [3.0, 0.0, 2.0, 0.0], options={"k": 2}),
        Example([-3.0, -1.0, 2.0, -1.0], [0.0, 0.0, 2.0, 0.0], options={"k": 3}),
    ),
    flops=8.0,
    claims=(
        Claim("sparse", "keeps at most k entries of a row", check=claim_sparse),
        Claim("dense", "is ReLU where k is the width", check=claim_dense),
        Claim("noise", "is blind to small noise on what it drops", check=claim_noise),
        Claim(
            "language",
            "at most ReLU's loss on language modelling",
            protocol=Protocol("task/shakespeare", "activation/relu", "not worse"),
        ),
    ),
    deviations=(
        "k may be a share of the row; its default of 1/16, about the nonzeros the paper finds in ViT-B/16, is chosen here",
        "of equal entries the first win",
    ),
)
