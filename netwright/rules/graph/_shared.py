"""What rules for graphs share: rows of unit length, one-hot labels of the known nodes, and class nodes joined to a graph.

Shape suffixes: N nodes, C classes, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor

from netwright.engine.graph import Graph, Hop


def unit(h_ND: Tensor) -> Tensor:
    """Every row divided by its length."""
    return h_ND / (h_ND.norm(dim=1, keepdim=True) + 1e-8)


def one_hot(label_N: Tensor, classes: int, like: Tensor) -> Tensor:
    """(N, C) in the dtype of `like`; a row of zeros where the label is -1."""
    return (label_N[:, None] == torch.arange(classes, device=label_N.device)).to(like.dtype)


def joined(graph: Graph, link_NC: Tensor) -> Hop:
    """The hop of the graph with a node more for each class, row N + c, joined to the nodes v with link_NC[v, c] = 1."""
    n = len(link_NC)
    scale_M1 = torch.cat([graph.degree + link_NC.sum(1), 1 + link_NC.sum(0)]).rsqrt()[:, None]

    def hop(h_MD: Tensor) -> Tensor:
        h_MD = scale_M1 * h_MD
        nodes, virtual = h_MD[:n], h_MD[n:]
        return scale_M1 * torch.cat([graph.neighbours(nodes) + link_NC @ virtual, link_NC.T @ nodes + virtual])

    return hop
