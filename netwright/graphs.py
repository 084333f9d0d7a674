"""Graphs: how they are read, and the host that parts are compared in on them.

An example is a node's number. The net computes the whole graph in every pass and then picks the nodes asked for, so it
is no `Blocks`: a block reads all nodes, and no row of a batch goes through the blocks alone.

Shape suffixes: N nodes, D features, E edges, M messages (an edge both ways, and each node to itself), B numbers of nodes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

from netwright.data import locate, missing
from netwright.nets import Factory, _activation, _bias, _out
from netwright.part import BadInput

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


@final
class Glorot(nn.Linear):
    """A linear map drawn from U(-a, a), a = sqrt(6 / (fan_in + outputs)); its bias, if any, is 0. fan_in: else its inputs."""

    def __init__(self, inputs: int, outputs: int, fan_in: int | None = None, bias: bool = False) -> None:
        self.bound = math.sqrt(6 / ((fan_in or inputs) + outputs))
        super().__init__(inputs, outputs, bias=bias)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        self.weight.uniform_(-self.bound, self.bound, generator=generator)
        if self.bias is not None:
            self.bias.zero_()


@final
class GraphConv(nn.Module):
    """hop(h W^T) + b -> norm -> activation; at twice the width, then a gate, where the slot `mlp` is filled."""

    def __init__(self, d_in: int, width: int, fill: Mapping[str, Factory]) -> None:
        super().__init__()
        wide = 2 * width if "mlp" in fill else width
        self.linear = Glorot(d_in, wide)
        self.norm = fill["norm"](wide, -1)
        self.bias = nn.Parameter(torch.empty(wide)) if _bias(self.norm) else None
        self.act = _activation(fill, wide, -1)
        self.width = _out(self.act, wide)

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


# Reading --------------------------------------------------------------------------------------------------------------

KEYS = ("edges", "y", "train", "val", "test")


def read_graph(file: str, origin: str, classes: int, given: str = "") -> tuple[Graph, Tensor, dict[str, Tensor]]:
    """(graph, labels (N,), the file's own splits) of an .npz file in the data folder. origin: how a user can make it.

    x (N, D), or its CSR pieces x_data, x_indices, x_indptr, x_shape; edges (2, E), in one direction or both; y (N,); and
    the numbers of the nodes of train, val and test. Edges come out sorted and once each, so that one graph has one hash.
    """
    paths = locate((file,), given)
    if paths is None:
        raise missing(file, (file,), f"it is in no folder named to netwright, and has to be made once: {origin}")
    path = paths[0]
    try:
        with np.load(path, allow_pickle=False) as stored:
            found = {name: stored[name] for name in stored.files}
    except Exception as error:  # whatever numpy, zipfile or the system raises
        raise BadInput(f"{path} can't be read as .npz: {type(error).__name__}: {error}") from None
    lacks = [key for key in KEYS if key not in found] + ([] if {"x", "x_data"} & found.keys() else ["x"])
    if lacks:
        raise BadInput(f"{path} lacks {', '.join(lacks)}; it holds {', '.join(sorted(found)) or 'nothing'}. To make it: {origin}")
    x_ND = _dense(found, path)
    n = len(x_ND)
    index = {key: torch.from_numpy(found[key].astype(np.int64)) for key in KEYS}
    _inside(path, "edges", index["edges"], n, (2, None))
    _inside(path, "y", index["y"], classes, (n,))
    for name in KEYS[2:]:
        _inside(path, name, index[name], n, (None,))
    low, high = index["edges"].min(0).values, index["edges"].max(0).values
    edges_2E = torch.unique(torch.stack([low, high])[:, low < high], dim=1)
    return Graph(x_ND, edges_2E), index["y"], {name: index[name] for name in KEYS[2:]}


def _dense(found: Mapping[str, np.ndarray], path: Path) -> Tensor:
    if "x" in found:
        x = found["x"]
    else:
        try:
            x = np.zeros(tuple(found["x_shape"]), np.float32)
            rows = np.repeat(np.arange(len(x)), np.diff(found["x_indptr"]))
            x[rows, found["x_indices"]] = found["x_data"]
        except (KeyError, IndexError, ValueError) as error:
            raise BadInput(f"{path}: x_data, x_indices, x_indptr and x_shape are no CSR matrix: {error}") from None
    if x.ndim != 2 or not len(x) or not np.isfinite(x).all():
        raise BadInput(f"{path}: x has shape {x.shape}; expected finite features (nodes, features)")
    return torch.from_numpy(x.astype(np.float32))


def _inside(path: Path, name: str, values: Tensor, limit: int, shape: tuple[int | None, ...]) -> None:
    fits = values.dim() == len(shape) and all(want in (None, got) for want, got in zip(shape, values.shape, strict=True))
    if not fits or not values.numel():
        wanted = ", ".join("any" if n is None else str(n) for n in shape)
        raise BadInput(f"{path}: {name} has shape {tuple(values.shape)}; expected ({wanted})")
    if int(values.min()) < 0 or int(values.max()) >= limit:
        raise BadInput(f"{path}: {name} holds {int(values.min())} to {int(values.max())}; expected 0 to {limit - 1}")
