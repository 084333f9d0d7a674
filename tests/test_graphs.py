"""Graphs: the hop against the dense matrix, the host, the reader, and learning over a generated graph."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import toys
from torch import Tensor, nn

from netwright.bench.entrant import enter
from netwright.bench.request import ArmSpec
from netwright.core import catalogue
from netwright.core.errors import BadInput, Misfit
from netwright.engine.graph import Graph
from netwright.engine.loop import Setting, predict, train
from netwright.engine.rule import Rule
from netwright.engine.stack import train_stack
from netwright.nets.dense.mlp import Mlp
from netwright.nets.graph.gcn import Gcn
from netwright.rules._toy import Toy
from netwright.rules.graph.forward_gnn import joined
from netwright.tasks.graph._npz import read_graph
from netwright.tensor.streams import generator, initialise

FOLDER = str(Path(__file__).parent / "fixtures")
TASKS = [part for part in catalogue.parts("task") if "graph" in part.build().problem.gives]
RULES = [part for part in catalogue.parts("rule") if "graph" in part.tags.needs]
FILL = {"activation": lambda channels, dim: nn.ReLU()}


def small() -> tuple[Graph, Tensor]:
    """A graph of 6 nodes (one of them alone) in float64, and D^-1/2 (A + I) D^-1/2 written out."""
    edges = torch.tensor([[0, 0, 1, 2], [1, 2, 2, 3]])
    edges = torch.cat([edges, torch.tensor([[3], [5]])], 1)
    x = torch.randn(6, 4, generator=generator(0, "probe"), dtype=torch.float64)
    a = torch.eye(6, dtype=torch.float64)
    a[edges[0], edges[1]] = a[edges[1], edges[0]] = 1
    d = a.sum(1).rsqrt()
    return Graph(x, edges), d[:, None] * a * d


# The graph and its host -----------------------------------------------------------------------------------------------


def test_the_hop_is_the_normalised_adjacency() -> None:
    graph, a = small()
    h = torch.randn(6, 3, generator=generator(1, "probe"), dtype=torch.float64)
    assert torch.allclose(graph.hop(h), a @ h)
    assert graph.degree.tolist() == [3, 3, 4, 3, 1, 2]
    copies = torch.stack([h, -h])
    assert torch.allclose(torch.func.vmap(graph.hop)(copies), a @ copies)


def test_a_graph_is_shared_and_copied_once_a_dtype() -> None:
    graph, _ = small()
    assert copy.deepcopy(graph) is graph and graph.at(torch.device("cpu"), torch.float64) is graph
    other = graph.at(torch.device("cpu"), torch.float32)
    assert other.x.dtype == other.degree.dtype == torch.float32 and graph.at(torch.device("cpu"), torch.float32) is other


def test_class_nodes_are_joined_to_their_nodes_and_normalised_with_them() -> None:
    graph, _ = small()
    link = torch.zeros(6, 2, dtype=torch.float64)
    link[1, 0] = link[4, 0] = link[2, 1] = 1
    a = torch.eye(8, dtype=torch.float64)
    for i, j in [*graph.edges.T.tolist(), (1, 6), (4, 6), (2, 7)]:
        a[i, j] = a[j, i] = 1
    d = a.sum(1).rsqrt()
    h = torch.randn(8, 3, generator=generator(1, "probe"), dtype=torch.float64)
    assert torch.allclose(joined(graph, link)(h), (d[:, None] * a * d) @ h)


def test_the_host_is_two_convolutions_and_a_readout() -> None:
    graph, a = small()
    net: Any = Gcn(graph, 3, (5, 4), FILL)
    initialise(net, 0)
    net.double()
    with torch.no_grad():
        for block in net.blocks:
            block.bias.add_(0.1)
        h = graph.x
        for block in net.blocks:
            h = (a @ (h @ block.linear.weight.T) + block.bias).relu()
        wanted = h @ net.readout.weight.T + net.readout.bias
        ids = torch.tensor([4, 0, 0])
        assert torch.allclose(net(ids), wanted[ids]) and torch.allclose(net.features(ids)[1], h[ids])


def test_the_host_keeps_the_graph_out_of_its_state_and_is_built_on_meta() -> None:
    graph, _ = small()
    with torch.device("meta"):
        net = Gcn(graph, 3, (5, 4), FILL)
    assert all(t.is_meta for t in (*net.parameters(), *net.buffers())) and not graph.x.is_meta
    assert net(torch.tensor([0, 1], device="meta")).shape == (2, 3)
    assert not any("graph" in name for name in net.state_dict())
    net.to_empty(device="cpu")
    initialise(net, 0)
    bound = (6 / (4 + 5)) ** 0.5
    largest = float(net.get_parameter("blocks.0.linear.weight").detach().abs().max())
    assert bound * 0.5 < largest <= bound


def test_gates_double_the_width_and_norms_take_the_bias() -> None:
    class Gate(nn.Module):
        ratio = 0.5

        def forward(self, x: Tensor) -> Tensor:
            a, b = x.chunk(2, -1)
            return a * b.sigmoid()

    graph, _ = small()
    fill = {"mlp": lambda channels, dim: Gate(), "norm": lambda channels, dim: nn.LayerNorm(channels)}
    net: Any = Gcn(Graph(graph.x.float(), graph.edges), 3, (5, 4), fill)
    initialise(net, 0)
    assert net.shapes == ((5,), (4,)) and net.blocks[0].bias is None and net.blocks[0].linear.out_features == 10
    assert net(torch.arange(6)).isfinite().all()


# Reading --------------------------------------------------------------------------------------------------------------


def stored() -> dict[str, Any]:
    with np.load(f"{FOLDER}/cora.npz") as file:
        return {name: file[name] for name in file.files}


def test_dense_features_and_edges_both_ways_are_the_same_graph(tmp_path: Path) -> None:
    graph, y, splits = read_graph("cora.npz", "", 7, FOLDER)
    found = stored()
    rest = {name: value for name, value in found.items() if not name.startswith("x_")}
    loops = np.array([[3], [3]])
    rest["edges"] = np.concatenate([found["edges"][::-1, ::-1], found["edges"], loops], 1)
    np.savez(tmp_path / "cora.npz", x=graph.x.numpy(), **rest)
    other, y2, _ = read_graph("cora.npz", "", 7, str(tmp_path))
    assert torch.equal(graph.x, other.x) and torch.equal(graph.edges, other.edges) and torch.equal(y, y2)
    assert graph.x.sum(1).tolist() == np.diff(found["x_indptr"]).tolist()
    assert [len(splits[name]) for name in ("train", "val", "test")] == [35, 50, 70]
    assert bool((graph.edges[0] < graph.edges[1]).all())


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"edges": None}, "lacks edges; it holds .*To make it: by hand"),
        ({"x_data": None}, "lacks x; it holds"),
        ({"x_indptr": None}, "no CSR matrix"),
        ({"x_indices": np.array([0, 4000])}, "no CSR matrix"),
        ({"edges": np.array([[0, 1], [1, 999]])}, "edges holds 0 to 999; expected 0 to 209"),
        ({"edges": np.zeros((3, 4), int)}, r"edges has shape \(3, 4\); expected \(2, any\)"),
        ({"y": np.full(210, 7)}, "y holds 7 to 7; expected 0 to 6"),
        ({"y": np.zeros(3, int)}, r"y has shape \(3,\); expected \(210\)"),
        ({"val": np.array([-1])}, "val holds -1 to -1"),
        ({"test": np.array([], int)}, r"test has shape \(0,\)"),
        ({"x": np.full((210, 2), np.nan)}, "expected finite features"),
    ],
)
def test_damaged_files_are_named_with_what_is_wrong(tmp_path: Path, wrong: dict[str, Any], words: str) -> None:
    found = {name: value for name, value in (stored() | wrong).items() if value is not None}
    np.savez(tmp_path / "cora.npz", **found)
    with pytest.raises(BadInput, match=words) as error:
        read_graph("cora.npz", "by hand", 7, str(tmp_path))
    assert "cora.npz" in str(error.value)


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04 cut short"])
def test_a_file_that_is_no_npz_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "cora.npz").write_bytes(content)
    with pytest.raises(BadInput, match=r"cora\.npz can't be read as \.npz"):
        read_graph("cora.npz", "", 7, str(tmp_path))


def test_pickled_arrays_are_not_opened(tmp_path: Path) -> None:
    np.savez(tmp_path / "cora.npz", **(stored() | {"y": np.array([{}] * 210, dtype=object)}))
    with pytest.raises(BadInput, match="can't be read as"):
        read_graph("cora.npz", "", 7, str(tmp_path))


# Learning -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", TASKS, ids=lambda part: part.name)
def test_splits_and_hash_of_the_task(part: Any, tmp_path: Path) -> None:
    small, full = (part.build(size=size, data=FOLDER) for size in ("small", "full"))
    for task in (small, full):
        for seed in (0, 1):
            data = task.data(seed)
            parts = torch.cat([data.train, data.val, data.test])
            assert len(parts) == len(parts.unique()) == 35 + 50 + 70
            assert data.y[data.train].bincount().tolist() == [5] * 7
    assert torch.equal(small.data(0).test, small.data(1).test) and not torch.equal(small.data(0).val, small.data(1).val)
    assert not torch.equal(full.data(0).test, full.data(1).test) and not torch.equal(full.data(0).train, full.data(1).train)
    found = stored()
    found["x_indices"] = (found["x_indices"] + 1) % 40
    np.savez(tmp_path / "cora.npz", **found)
    assert part.build(data=str(tmp_path)).data_hash() != small.data_hash(), "the features belong to the data"
    found = stored()
    short = tmp_path / "short"
    short.mkdir()
    np.savez(short / "cora.npz", **(found | {"val": np.arange(180)}))
    with pytest.raises(BadInput, match="too few"):
        part.build(data=str(short)).data(0)


def score(task: Any, rule: str, seed: int, options: dict[str, Any]) -> float:
    """Test score at the published rate after 100 steps."""
    entrant = enter(task, ArmSpec("arm", {"rule": (rule, options)}))
    bound, lr = entrant.build(seed), entrant.rates[2]
    data = task.data(seed)
    train(
        bound,
        data,
        Setting(seed=seed, lr=lr, steps=100, batch=task.batch, evals=(100,), optimizer=toys.ADAPTIVE, schedule=toys.STEADY),
    )
    x, y = data.split("test")
    return float(task.problem.metric(predict(bound, x), y))


@pytest.mark.parametrize("part", RULES, ids=lambda part: part.name)
def test_rules_for_graphs_beat_the_control_and_chance_in_every_setting(part: Any) -> None:
    task = TASKS[0].build(data=FOLDER)
    control = [score(task, task.control, seed, {}) for seed in (0, 1)]
    usual = [score(task, task.slots["rule"], seed, {}) for seed in (0, 1)]
    assert min(usual) > max(control), "what the default learns is above the control"
    for options in part.settings():
        ours = [score(task, part.id, seed, options) for seed in (0, 1)]
        assert min(ours) > (3 / 7 if options else max(control)), f"{options}: {ours}, the control {control}"


@pytest.mark.parametrize("part", RULES, ids=lambda part: part.name)
def test_stacked_trainings_over_a_graph_are_the_loops(part: Any) -> None:
    task = TASKS[0].build(data=FOLDER)

    def rules() -> list[Rule]:
        return [enter(task, ArmSpec("arm", {"rule": (part.id, {})})).build(seed) for seed in (0, 1)]

    data = [task.data(0), task.data(1)]
    settings = [
        Setting(seed=seed, lr=0.01, steps=6, batch=35, evals=(3, 6), optimizer=toys.ADAPTIVE, schedule=toys.STEADY)
        for seed in (0, 1)
    ]
    stacked = train_stack(rules(), data, settings)
    for rule, d, s, out in zip(rules(), data, settings, stacked, strict=True):
        alone = train(rule, d, s)
        for (step, loss, val), (step2, loss2, val2) in zip(alone.curve, out.curve, strict=True):
            assert step == step2 and loss == pytest.approx(loss2, rel=1e-4) and abs(val - val2) <= 0.04


@pytest.mark.parametrize("part", RULES, ids=lambda part: part.name)
def test_rules_for_graphs_refuse_other_nets(part: Any) -> None:
    with pytest.raises(Misfit, match="Mlp"):
        part.build(Mlp(4, 3, (5,), FILL), Toy(nodes=9).problem)


@pytest.mark.parametrize("part", [p for p in catalogue.parts("rule") if "blocks" in p.tags.needs][:3], ids=lambda part: part.name)
@pytest.mark.every_part
def test_rules_of_blocks_refuse_a_graph_saying_what_they_need(part: Any) -> None:
    toy = Toy(nodes=9)
    with pytest.raises(Misfit, match="blocks"):
        part.build(Gcn(toy.graph, 3, (5,), FILL), toy.problem)
