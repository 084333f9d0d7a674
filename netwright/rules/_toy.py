"""What references, claims and checks of rules are written for: a small net, a batch, and what a step's gradients are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.core import catalogue
from netwright.engine.blocks import Blocks
from netwright.engine.graph import Graph
from netwright.engine.rule import Rule
from netwright.engine.task import Problem
from netwright.tensor.streams import generator, initialise


@final
@dataclass(frozen=True, eq=False)
class Toy:
    """What references and claims are written for: dense ReLU blocks, a linear readout, cross-entropy, a float64 batch.

    Block k is Sequential(Linear, ReLU) with parameters net.blocks.k.0.weight and .bias; the readout's are net.readout.*
    nodes: above 0, a Gcn instead, over a ring of so many nodes with a chord: block k's parameters are
    net.blocks.k.linear.weight and net.blocks.k.bias, and x are numbers of nodes.
    """

    widths: tuple[int, ...] = (6, 5)
    inputs: int = 7
    classes: int = 3
    rows: int = 8
    seed: int = 0
    nodes: int = 0

    @property
    def graph(self) -> Graph:
        """The ring, its chord from node 0 to its opposite, and its features (nodes, inputs)."""
        ring = torch.arange(self.nodes)
        edges = torch.cat([torch.stack([ring, ring.roll(-1)]), torch.tensor([[0], [self.nodes // 2]])], 1)
        x = torch.randn(self.nodes, self.inputs, generator=generator(self.seed, "probe", "graph"), dtype=torch.float64)
        return Graph(x, edges)

    @property
    def problem(self) -> Problem:
        return Problem(
            objective=F.cross_entropy,
            metric=lambda out, y: float((out.argmax(-1) == y).double().mean()),
            metric_name="accuracy",
            higher_is_better=True,
            worst=0.0,
            delta=0.01,
            input=() if self.nodes else (self.inputs,),
            output=(self.classes,),
            classes=self.classes,
            gives=frozenset({"labels", "graph" if self.nodes else "vector"}),
            encode=lambda y: (y[..., None] == torch.arange(self.classes)).double(),
        )

    def batch(self) -> tuple[Tensor, Tensor]:
        """x (rows, inputs), or different nodes (rows,), and labels y (rows,)."""
        g = generator(self.seed, "probe")
        if self.nodes:
            x = torch.randperm(self.nodes, generator=g)[: self.rows]
        else:
            x = torch.randn(self.rows, self.inputs, generator=g, dtype=torch.float64)
        return x, torch.arange(len(x)) % self.classes

    def bind(self, build: Callable[..., Rule], **options: Any) -> Rule:
        """build(net, problem, **options) with every parameter and buffer drawn by the seed, in float64."""
        sizes, graph = (self.inputs, *self.widths), self.graph if self.nodes else None
        with torch.device("meta"):
            net: Any
            if graph is not None:
                fill = {"activation": lambda channels, dim: nn.ReLU()}
                part: Any = catalogue.get("net/gcn")
                net = part.build(self.problem, self.widths, fill, graph=graph)
            else:
                blocks = [nn.Sequential(nn.Linear(a, b), nn.ReLU()) for a, b in zip(sizes, sizes[1:], strict=False)]
                net = Blocks(blocks, nn.Linear(sizes[-1], self.classes), [(width,) for width in self.widths])
            bound = build(net, self.problem, **options)
        bound.to_empty(device="cpu")
        initialise(bound, self.seed)
        return bound.double()


def gradients(rule: Rule, x: Tensor, y: Tensor, *draws: Tensor) -> dict[str, Tensor]:
    """The rule's update of one step, as gradients by parameter name: all losses summed, then one backward.

    Parameters the losses don't reach have zeros.
    """
    return _by_name(rule, torch.stack(list(rule.losses(x, y, *draws))).sum())


def true_gradients(rule: Rule, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """The gradient of the loss of the rule's own prediction, by parameter name: what backpropagation's update would be."""
    return _by_name(rule, rule.problem.loss(rule(x), y))


def _by_name(rule: Rule, loss: Tensor) -> dict[str, Tensor]:
    named = {name: p for name, p in rule.named_parameters() if p.requires_grad}
    grads = torch.autograd.grad(loss, list(named.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(named, grads, strict=True))


def apart(got: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> float:
    """Largest difference between two updates, over all parameters of `wanted`, relative to its largest value."""
    worst = max(float((got[name] - g).abs().max()) for name, g in wanted.items())
    return worst / max(float(g.abs().max()) for g in wanted.values())


# By hand, for references: `Toy`'s net of dense ReLU blocks and a linear readout ---------------------------------------


def linear_gradients(path: str, delta_BN: Tensor, x_BM: Tensor) -> dict[str, Tensor]:
    """Gradients of weight (N, M) and bias (N,) of the Linear at `path`, for input x and error delta at its output."""
    return {f"{path}.weight": delta_BN.T @ x_BM, f"{path}.bias": delta_BN.sum(0)}


def softmax_error(out_BK: Tensor, y_B: Tensor) -> Tensor:
    """Gradient of the mean cross-entropy at the logits: (softmax(out) - one-hot(y)) / B."""
    error = torch.softmax(out_BK, -1)
    error[torch.arange(len(y_B)), y_B] -= 1
    return error / len(y_B)


def forward_by_hand(net: Any, x: Tensor) -> list[Tensor]:
    """x, what every block puts out, and the logits."""
    acts = [x]
    for block in net.blocks:
        acts.append((acts[-1] @ block[0].weight.T + block[0].bias).clamp(min=0))
    return [*acts, acts[-1] @ net.readout.weight.T + net.readout.bias]


def chain_rule(
    net: Any,
    acts: Sequence[Tensor],
    delta_BK: Tensor,
    *,
    path: str = "net",
    back: Sequence[Tensor] | None = None,
    extra: Mapping[int, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Gradients of the net at `path` for an error at its logits: delta_k = (delta_(k+1) W_(k+1) + extra_k) * 1[h_k > 0]
    and dW_k = delta_k^T h_(k-1).

    acts: what `forward_by_hand` gave. back: what stands for the weights W on the way back, the readout's last. extra: by
    block, counted from 0, the gradient of what else reads its output.
    """
    linears = [block[0] for block in net.blocks] + [net.readout]
    back = back or [linear.weight for linear in linears]
    grads, delta = linear_gradients(f"{path}.readout", delta_BK, acts[-2]), delta_BK
    for k in reversed(range(len(net.blocks))):
        delta = delta @ back[k + 1]
        if extra and k in extra:
            delta = delta + extra[k]
        delta = delta * (acts[k + 1] > 0)
        grads |= linear_gradients(f"{path}.blocks.{k}.0", delta, acts[k])
    return grads
