"""Cora: 2 708 papers of seven fields, joined where one cites the other; the field of most papers is to be predicted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from netwright.core.errors import require
from netwright.core.part import Option, Paper
from netwright.engine.graph import Graph
from netwright.engine.task import Data, Problem, Task, accuracy, eval_grid, one_hot
from netwright.tasks._kind import host_net, task_part
from netwright.tasks._read import kept
from netwright.tasks.graph._npz import read_graph
from netwright.tensor.streams import permutation

CLASSES = 7
#: size -> (widths, steps)
SIZES = {"small": ((64, 64), 200), "full": ((128, 128), 400)}
ORIGIN = (
    "with torch_geometric, d = Planetoid('.', 'Cora')[0]; numpy.savez_compressed('cora.npz', x=d.x, edges=d.edge_index, y=d.y,"
    " **{k: d[f'{k}_mask'].nonzero()[:, 0] for k in ('train', 'val', 'test')})"
)


@kept
def pool(given: str) -> tuple[Graph, Tensor, Tensor, dict[str, Tensor]]:
    """(graph, numbers of the nodes (N,), labels (N,), the official splits); a paper's words are a row of length 1."""
    graph, y, splits = read_graph("cora.npz", ORIGIN, CLASSES, given)
    length = graph.x.norm(dim=1, keepdim=True)
    graph = Graph(graph.x / torch.where(length > 0, length, 1.0), graph.edges)
    return graph, torch.arange(len(y), device=y.device), y, splits


def read(seed: int, size: str, given: str) -> Data:
    """small: the official training (20 a class) and test nodes; the seed draws as many of the others as officially
    validate. full: the seed draws all three, as many as officially.
    """
    graph, ids, y, official = pool(given)
    train, n_val, n_test = official["train"], len(official["val"]), len(official["test"])
    order = permutation(len(y), seed, "split")
    taken = torch.zeros(len(y), dtype=torch.bool, device=y.device)
    test = official["test"]
    if size == "full":
        each = len(train) // CLASSES
        train = torch.cat([order[y[order] == k][:each] for k in range(CLASSES)])
        taken[train] = True
        test = order[~taken[order]][:n_test]
    taken[torch.cat([train, test])] = True
    val = order[~taken[order]][:n_val]
    require(len(val) == n_val, f"{len(y)} nodes are too few for {len(train)} + {n_val} + {n_test}")
    return Data(ids, y, train, val, test, also=(graph.x, graph.edges))


def gcn(problem: Problem, given: str, fill: Mapping[str, Any], widths: Sequence[int]) -> nn.Module:
    """The host: numbers of nodes (B,) in, scores (B, 7) out. Its graph is that of the data."""
    return host_net("net/gcn", problem, fill, widths, graph=pool(given)[0])


def cora(size: str, data: str) -> Task:
    """The task at one size. An example is the number of a node; a step takes all training nodes at once."""
    widths, steps = SIZES[size]
    problem = Problem(
        "cross-entropy",
        accuracy,
        "accuracy",
        higher_is_better=True,
        worst=0.0,
        delta=0.01,
        input=(),
        output=(CLASSES,),
        classes=CLASSES,
        gives=frozenset({"labels", "graph"}),
        encode=partial(one_hot, classes=CLASSES),
    )
    return Task(
        id="task/cora",
        name="cora",
        version=PART.version,
        size=size,
        summary=PART.summary,
        host="net/gcn",
        problem=problem,
        data=partial(read, size=size, given=data),
        net=partial(gcn, problem, data),
        widths=widths,
        steps=steps,
        batch=140,
        evals=eval_grid(steps),
        lr=(1e-3, 1e-1, 1e-2),
        weight_decay=5e-4,
        slots={
            "activation": "activation/relu",
            "rule": "rule/backprop",
            "norm": "",
            "optimizer": "optimizer/adam",
            "schedule": "optimizer/constant",
        },
        control="rule/frozen-hidden",
    )


PART = task_part(
    cora,
    paper=Paper(
        title="Revisiting Semi-Supervised Learning with Graph Embeddings",
        authors="Yang, Z., Cohen, W. W. and Salakhutdinov, R.",
        year=2016,
        arxiv="1603.08861",
        code="kimiyoung/planetoid",
    ),
    options=(Option("data", "", "the folder that holds cora.npz; else NETWRIGHT_DATA"),),
    uses=("net/gcn",),
    versions={"1": {"small": "0f022503d65d13ef", "full": "0f022503d65d13ef"}},
    deviations=(
        "small draws the nodes that validate by the seed; those that train and test are the official ones",
        "the host is the GCN of Kipf and Welling (2017) with a linear readout after its two convolutions, without dropout",
    ),
)
