"""A graph convolutional net: linear maps, each followed by an average over neighbours (Kipf and Welling, 2017).

An example is a node's number. The net computes the whole graph in every pass and then picks the nodes asked for, so it
is no `Blocks`: a block reads all nodes, and no row of a batch goes through the blocks alone.

Shape suffixes: N nodes, D features, B numbers of nodes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from netwright.core.errors import BadInput
from netwright.core.part import Option, Paper
from netwright.engine.blocks import Factory
from netwright.engine.graph import Graph, Hop
from netwright.engine.task import Problem
from netwright.nets._kind import Case, Tags, activation_of, channels_after, needs_bias, net, norm_of
from netwright.nets._toy import by_hand, problem, rows
from netwright.tensor.modules import Glorot


@final
class GraphConv(nn.Module):
    """hop(h W^T) + b -> norm -> activation; at twice the width, then a gate, where the slot `mlp` is filled."""

    def __init__(self, d_in: int, width: int, fill: Mapping[str, Factory]) -> None:
        super().__init__()
        wide = 2 * width if "mlp" in fill else width
        self.linear = Glorot(d_in, wide)
        self.norm = norm_of(fill, wide, -1)
        self.bias = nn.Parameter(torch.empty(wide)) if needs_bias(self.norm) else None
        self.act = activation_of(fill, wide, -1)
        self.width = channels_after(self.act, wide)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator) -> None:
        if self.bias is not None:
            self.bias.zero_()

    def out(self, hopped_ND: Tensor) -> Tensor:
        """What follows the hop."""
        return self.act(self.norm(hopped_ND if self.bias is None else hopped_ND + self.bias))

    def forward(self, h_ND: Tensor, hop: Hop) -> Tensor:
        return self.out(hop(self.linear(h_ND)))


class Gcn(nn.Module):
    """Graph convolutions (Kipf and Welling, 2017), one a width, and a linear readout: numbers of nodes (B,) -> (B, d_out).

    shapes: the shape of one node after each block.
    """

    def __init__(self, graph: Graph, d_out: int, widths: Sequence[int], fill: Mapping[str, Factory]) -> None:
        super().__init__()
        self.graph = graph
        blocks, d_in = [], graph.x.shape[1]
        for width in widths:
            blocks.append(GraphConv(d_in, width, fill))
            d_in = blocks[-1].width
        self.blocks = nn.ModuleList(blocks)
        self.readout = Glorot(d_in, d_out, bias=True)
        self.shapes = tuple((block.width,) for block in blocks)

    def placed(self) -> Graph:
        """The graph where the weights are, in their dtype."""
        weight: Tensor = self.blocks[0].linear.weight  # type: ignore[union-attr,assignment]
        return self.graph.at(weight.device, weight.dtype)

    def features(self, ids_B: Tensor) -> list[Tensor]:
        """The output of every block for these nodes, in order."""
        graph = self.placed()
        h_ND, out = graph.x, []
        for block in self.blocks:
            h_ND = block(h_ND, graph.hop)
            out.append(h_ND[ids_B])
        return out

    def forward(self, ids_B: Tensor) -> Tensor:
        return self.readout(self.features(ids_B)[-1])


def gcn(problem: Problem, widths: Sequence[int], fill: Mapping[str, Factory], graph: Graph | None) -> Gcn:
    if not isinstance(graph, Graph):
        raise BadInput(f"net/gcn: graph={graph!r}; expected the netwright.engine.graph.Graph whose nodes are the examples")
    return Gcn(graph, problem.output[-1], widths, fill)


def reference(net: Any, x: Tensor) -> Tensor:
    """A node at a time, its neighbours read off the edges: row i of D^-1/2 (A + I) D^-1/2 h, D the degrees of A + I."""
    h = net.graph.x.tolist()
    beside = {node: [node] for node in range(len(h))}
    for one, other in zip(*net.graph.edges.tolist(), strict=True):
        beside[one].append(other)
        beside[other].append(one)
    for block in net.blocks:
        mapped, h = [by_hand(block.linear, row) for row in h], []
        bias = [0.0] * len(mapped[0]) if block.bias is None else block.bias.tolist()
        for near in beside.values():
            hopped = [
                sum(mapped[other][unit] / math.sqrt(len(near) * len(beside[other])) for other in near) + bias[unit]
                for unit in range(len(bias))
            ]
            h.append(by_hand(block.act, by_hand(block.norm, hopped)))
    return torch.tensor([by_hand(net.readout, h[node]) for node in x.tolist()], dtype=torch.float64)


def cases() -> tuple[Case, ...]:
    """A ring with a chord, and a star beside a node that has no neighbour."""
    ring = torch.tensor([[0, 1, 2, 3, 4, 0], [1, 2, 3, 4, 0, 2]])
    star = torch.tensor([[0, 0, 0], [1, 2, 3]])
    return (
        Case(problem("graph", (), (3,)), (6, 4), torch.tensor([4, 0, 2, 2]), {"graph": Graph(rows(5, 3), ring)}),
        Case(problem("graph", (), (2,)), (5,), torch.tensor([0, 4, 1]), {"graph": Graph(rows(5, 4, seed=1), star)}),
    )


PART = net(
    gcn,
    reference=reference,
    cases=cases,
    paper=Paper(
        title="Semi-Supervised Classification with Graph Convolutional Networks",
        authors="Thomas N. Kipf, Max Welling",
        year=2017,
        arxiv="1609.02907",
        code="tkipf/gcn",
    ),
    takes=frozenset({"graph"}),
    places=("activation", "mlp", "norm"),
    tags=Tags(ordered=False),
    options=(Option("graph", None, "the graph whose nodes are the examples"),),
    deviations=("a linear readout after the convolutions, a bias only where there is no norm, no dropout",),
)
