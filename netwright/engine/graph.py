"""A graph and its features, which nets share.

Shape suffixes: N nodes, D features, E edges, M messages (an edge both ways, and each node to itself).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor

Hop = Callable[[Tensor], Tensor]


@final
class Graph:
    """An undirected graph and its features, which never change: nets share it, and it is no part of their state.

    x_ND: a row of features a node; edges_2E: numbers of joined nodes, every edge once, none from a node to itself.
    """

    def __init__(self, x_ND: Tensor, edges_2E: Tensor) -> None:
        self.x, self.edges = x_ND, edges_2E
        loops_2N = torch.arange(len(x_ND), device=edges_2E.device).expand(2, -1)
        both_2M = torch.cat([edges_2E, edges_2E.flip(0), loops_2N], 1)
        self.source, self.target = both_2M[:, both_2M[1].argsort(stable=True)]
        self.degree = self.neighbours(torch.ones_like(x_ND[:, :1]))[:, 0]
        self._elsewhere: dict[tuple[torch.device, torch.dtype], Graph] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Graph:
        return self

    def at(self, device: torch.device, dtype: torch.dtype) -> Graph:
        """This graph on a device, its features in a dtype; copied there once."""
        if (device, dtype) == (self.x.device, self.x.dtype):
            return self
        if (device, dtype) not in self._elsewhere:
            self._elsewhere[device, dtype] = Graph(self.x.to(device, dtype), self.edges.to(device))
        return self._elsewhere[device, dtype]

    def neighbours(self, h_ND: Tensor) -> Tensor:
        """(A + I) h: the sum over a node and its neighbours. Fit for vmap."""
        return torch.zeros_like(h_ND).index_add(0, self.target, h_ND.index_select(0, self.source))

    def hop(self, h_ND: Tensor) -> Tensor:
        """D^-1/2 (A + I) D^-1/2 h, D the degrees of A + I."""
        scale_N1 = self.degree.rsqrt()[:, None]
        return scale_N1 * self.neighbours(scale_N1 * h_ND)


def on_graph(net: object) -> bool:
    """Whether a net computes a whole graph and then picks the nodes it is asked for."""
    return isinstance(getattr(net, "graph", None), Graph)
