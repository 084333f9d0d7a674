"""ForwardGNN: every graph convolution learns to place nodes beside the node of their class (Park et al., 2024).

Shape suffixes: N nodes, C classes, M = N + C rows of the graph with class nodes, B nodes of a batch, D features.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.core.errors import Misfit
from netwright.core.part import Claim, Option, Paper, Protocol
from netwright.engine.graph import Graph, Hop, on_graph
from netwright.engine.rule import Rule, trainable
from netwright.engine.task import Problem
from netwright.rules._kind import Tags, rule
from netwright.rules._toy import Toy, gradients, softmax_error
from netwright.tensor.modules import Glorot


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


@final
class ForwardGnn(Rule):
    """Block l reads its predecessor's output at unit length and without gradient: h_l = f_l(sg(h_(l-1)) / |h_(l-1)|).

    variant: "sf" (single-forward) joins every class to its known nodes by a node of its own, whose features are random:
    L_l = loss(h_l[v] . h_l[class nodes], y_v). "top2loss" is "sf" on the mean of h_l and all later outputs, those at unit
    length and without gradient. "la" (label appending) and "vn" (virtual nodes) are Forward-Forward with goodness
    g_l = |h_l[v]|^2: L_l = softplus(theta - g_l) + mean over wrong classes of softplus(g_l - theta), where the class is
    appended to the features of v ("la"), or is the class node that v is joined to in block l ("vn").

    Known are the labels of all nodes met in training. Predictions of "sf" and "top2loss" are log(mean_l softmax_l); those
    of "la" and "vn" try every class on all nodes not known, and add the mean square of h_l[v] - theta over the blocks.
    The host's readout has no part in it. Raises Misfit for any net but a Gcn, and for "top2loss" where widths differ.
    """

    any_net: ClassVar[bool] = True

    def __init__(self, net: Any, problem: Problem, variant: str = "sf", theta: float = 2.0) -> None:
        super().__init__(net, problem)
        if not on_graph(net) or problem.classes is None:
            raise Misfit(f"rule/forward-gnn trains a Gcn (net/gcn) over a graph of labels, not {type(net).__name__}")
        if variant == "top2loss" and len(set(net.shapes)) > 1:
            raise Misfit(f"variant='top2loss' averages the blocks' outputs, whose shapes are {net.shapes}; make them equal")
        self.classes, self.variant, self.theta = problem.classes, variant, theta
        net.readout.requires_grad_(False)
        n, d = net.graph.x.shape
        self.register_buffer("known", torch.empty(n, dtype=torch.int64))
        self.known: Tensor
        if variant == "la":
            first: Any = net.blocks[0]
            self.label = Glorot(self.classes, first.linear.out_features, fan_in=d + self.classes)
        else:
            self.register_buffer("virtual", torch.empty(self.classes, d))
            self.virtual: Tensor

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator) -> None:
        self.known.fill_(-1)
        if self.variant != "la":
            self.virtual.normal_(generator=generator)

    def layer(self, k: int, h: Sequence[Tensor], hops: Sequence[Hop], labels: Sequence[Tensor] = ()) -> list[Tensor]:
        """Block k in one pass a hop. h: pieces of the input of all passes together, or of one input for all.

        labels (N, C): appended to the input, one a pass.
        """
        block: Any = self.net.blocks[k]
        pieces = [(block.linear(part), part.norm(dim=1, keepdim=True)) for part in map(Tensor.detach, h)]
        z, length = (torch.cat(each) for each in zip(*pieces, strict=True))  # f(h / |h|) = f(h) / |h|: there is no bias
        if labels:  # z is common to all passes
            more = [(self.label(row), row.square().sum(1, keepdim=True)) for row in labels]
            rows = [(z + own) / ((length.square() + extra).sqrt() + 1e-8) for own, extra in more]
        else:
            rows = list((z / (length + 1e-8)).split(len(self.known) + (0 if self.variant == "la" else self.classes)))
        rows = rows if len(rows) == len(hops) else rows * len(hops)
        return list(block.out(torch.cat([hop(row) for hop, row in zip(hops, rows, strict=True)])).chunk(len(hops)))

    def layers(self, settings: Sequence[Tensor], apart: bool = True) -> Iterator[list[Tensor]]:
        """The blocks' outputs, one a pass; settings: the labels (N,) of each pass, -1 where there is none.

        apart: each pass goes through all blocks; otherwise every block reads what the first pass put out before.
        """
        net: Any = self.net
        graph, labels = net.placed(), []
        hot = [one_hot(label, self.classes, graph.x) for label in settings]
        if self.variant == "la":
            h, hops = [graph.x], [graph.hop] * len(hot)
            labels = [each + (1 - each.sum(1, keepdim=True)) / self.classes for each in hot]  # 1 / C where there is none
        else:
            h, hops = [graph.x, self.virtual], [joined(graph, each) for each in hot]
        for k in range(len(self.net.blocks)):
            out = self.layer(k, h, hops, labels if k == 0 else ())
            yield out
            h = out if apart else out[:1]

    def scores(self, h_MD: Tensor, ids_B: Tensor) -> Tensor:
        """(B, C): products of the nodes with the class nodes."""
        return h_MD[ids_B] @ h_MD[-self.classes :].T

    def above(self, outs: Sequence[Tensor], k: int) -> Tensor:
        """What block k is judged by: its output, or its mean with all later ones."""
        later = [unit(h).detach() for h in outs[k + 1 :]] if self.variant == "top2loss" else []
        return torch.stack([outs[k], *later]).mean(0)

    def forward(self, x: Tensor) -> Tensor:
        if self.variant in ("sf", "top2loss"):
            outs = [out for (out,) in self.layers([self.known])]
            logs = [self.scores(self.above(outs, k), x).log_softmax(-1) for k in range(len(outs))]
            return torch.stack(logs).logsumexp(0) - math.log(len(outs))
        tries = [torch.where(self.known < 0, c, self.known) for c in range(self.classes)]
        passes = [[h[x].square().mean(1) - self.theta for h in out] for out in self.layers(tries)]
        return torch.stack([torch.stack(goodness, -1) for goodness in passes]).sum(0)

    def features(self, x: Tensor) -> list[Tensor]:
        """What each block puts out with the known labels in place."""
        return [out[0][x] for out in self.layers([self.known])]

    def draw(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """For "la" and "vn": every wrong class of every node, in random order, (B, C - 1)."""
        if self.variant in ("sf", "top2loss"):
            return ()
        order = torch.rand(len(y), self.classes - 1, generator=generator, device=generator.device).argsort(1)
        return ((y[:, None] + 1 + order.to(y.device)) % self.classes,)

    def losses(self, x: Tensor, y: Tensor, *draws: Tensor) -> Iterator[Tensor]:
        known = self.known
        if self.training:  # labels are remembered as running statistics are: in the pass that meets them
            known = known.scatter(0, x, y)
            self.known.copy_(known)
        if self.variant == "sf":
            for (h,) in self.layers([known]):
                yield self.problem.loss(self.scores(h, x), y)
        elif self.variant == "top2loss":
            outs = [out for (out,) in self.layers([known])]
            for k in range(len(outs)):
                yield self.problem.loss(self.scores(self.above(outs, k), x), y)
        else:
            wrong = [known.scatter(0, x, label) for label in draws[0].unbind(1)]
            for right, *false in self.layers([known, *wrong], apart=self.variant == "la"):
                quiet = [F.softplus(h[x].square().sum(1) - self.theta).mean() for h in false]
                yield F.softplus(self.theta - right[x].square().sum(1)).mean() + torch.stack(quiet).mean()

    def units(self) -> Sequence[Sequence[nn.Parameter]]:
        first, *rest = self.net.blocks
        appended = [self.label] if self.variant == "la" else []
        return [trainable(first, *appended), *map(trainable, rest)]


def reference(rule: Any, x: Tensor, y: Tensor, *draws: Tensor) -> dict[str, Tensor]:
    """With the whole A_hat at hand: da = dh * 1[h > 0], dW = (A_hat^T da)^T z, db = sum of da, summed over the passes."""
    (n, d), c, b = rule.net.graph.x.shape, rule.classes, len(x)
    plain = torch.eye(n + c, dtype=torch.float64)
    for i, j in rule.net.graph.edges.T.tolist():
        plain[i, j] = plain[j, i] = 1

    def hat(labels: Tensor) -> Tensor:
        a = plain.clone()
        for v, label in zip(x.tolist(), labels.tolist(), strict=True):
            a[v, n + label] = a[n + label, v] = 1
        return a / a.sum(1).outer(a.sum(1)).sqrt()

    def normal(h: Tensor) -> Tensor:
        return torch.stack([row / (row.norm() + 1e-8) for row in h])

    ff, top = rule.variant in ("la", "vn"), rule.variant == "top2loss"
    labels = [y, *(draws[0].T if ff else ())]
    if rule.variant == "la":
        inputs, hats = [], [(plain / plain.sum(1).outer(plain.sum(1)).sqrt())[:n, :n]] * len(labels)
        for label in labels:
            appended = torch.full((n, c), 1 / c, dtype=torch.float64)
            appended[x] = torch.eye(c, dtype=torch.float64)[label]
            inputs.append(normal(torch.cat([rule.net.graph.x, appended], 1)))
    else:
        hats = [hat(label) for label in labels]
        inputs = [normal(torch.cat([rule.net.graph.x, rule.virtual]))] * len(labels)
    steps = []
    for k, block in enumerate(rule.net.blocks):
        weight = (
            torch.cat([block.linear.weight, rule.label.weight], 1)
            if ff and k == 0 and rule.variant == "la"
            else block.linear.weight
        )
        outs = [(a @ z @ weight.T + block.bias).clamp(min=0) for a, z in zip(hats, inputs, strict=True)]
        steps.append((inputs, outs))
        inputs = [normal(h) for h in outs] if rule.variant == "la" else [normal(outs[0])] * len(outs)
    grads: dict[str, Tensor] = {}
    for k, (inputs, outs) in enumerate(steps):
        dw: Any = 0
        db: Any = 0
        for p, (a, z, h) in enumerate(zip(hats, inputs, outs, strict=True)):
            dh = torch.zeros_like(h)
            if ff:
                push = torch.sigmoid((h[x] ** 2).sum(1, keepdim=True) - rule.theta) - float(p == 0)
                dh[x] = 2 * h[x] * push / b / (1 if p == 0 else c - 1)
            else:
                parts = 1 + (len(steps) - 1 - k if top else 0)
                seen = (h + sum(normal(steps[m][1][0]) for m in range(k + 1, k + parts))) / parts
                error = softmax_error(seen[x] @ seen[n:].T, y) / parts
                dh[x] = error @ seen[n:]
                dh[n:] = error.T @ seen[x]
            da = dh * (h > 0)
            dw, db = dw + (a.T @ da).T @ z, db + da.sum(0)
        grads |= {f"net.blocks.{k}.linear.weight": dw, f"net.blocks.{k}.bias": db}
    if rule.variant == "la":
        both = grads["net.blocks.0.linear.weight"]
        grads |= {"net.blocks.0.linear.weight": both[:, :d], "label.weight": both[:, d:]}
    return grads


def claim_leak() -> bool:
    """After a step the rule knows the batch's labels and no others; losses of held-out nodes, looked at, tell it nothing."""
    toy = Toy(nodes=12, rows=5)
    bound: Any = toy.bind(ForwardGnn)
    x, y = toy.batch()
    list(bound.losses(x, y))
    everywhere = torch.arange(toy.nodes)
    before = bound.eval()(everywhere)
    list(bound.losses(everywhere, everywhere % toy.classes))
    met = (bound.known >= 0).nonzero()[:, 0]
    return torch.equal(met, x.sort().values) and torch.equal(bound.known[x], y) and torch.equal(bound(everywhere), before)


def claim_classes() -> bool:
    """Other names of the classes, class nodes with them: scores and updates are those of the first names, in that order."""
    toy, turn = Toy(nodes=9), torch.tensor([2, 0, 1])
    x, y = toy.batch()
    one: Any = toy.bind(ForwardGnn)
    other: Any = toy.bind(ForwardGnn)
    with torch.no_grad():
        other.virtual[turn] = one.virtual.clone()
    first, second = gradients(one, x, y), gradients(other, x, turn[y])
    same = all(torch.allclose(first[name], second[name], rtol=0, atol=1e-12) for name in first)
    return same and torch.allclose(other(x)[:, turn], one(x), rtol=0, atol=1e-12)


def claim_one_block() -> bool:
    """Nothing lies above a single block: "top2loss" is "sf"."""
    toy = Toy(nodes=9, widths=(6,))
    x, y = toy.batch()
    one, other = (gradients(toy.bind(ForwardGnn, variant=variant), x, y) for variant in ("sf", "top2loss"))
    return all(torch.equal(one[name], other[name]) for name in one)


PART = rule(
    ForwardGnn,
    reference=reference,
    toy=Toy(nodes=9, widths=(6, 6)),
    formula=r"L_l = \mathrm{CE}\left(h_l[v] \cdot h_l[\mathrm{class\ nodes}],\ y_v\right),"
    r"\quad h_l = f_l(\mathrm{sg}(h_{l-1}) / \|h_{l-1}\|)",
    paper=Paper("forward-gnn"),
    tags=Tags(
        family="local",
        local=True,
        needs=frozenset({"graph", "labels"}),
        forwards_train="1 + classes / nodes",
        forwards_predict="1 + classes / nodes",
        at={
            "variant=top2loss": {"local": False},  # a block's update depends on what the blocks above put out
            "variant=la": {
                "forwards_train": "(1 + (depth - 1) * classes) / depth",
                "forwards_predict": "(1 + (depth - 1) * classes) / depth",
            },
            "variant=vn": {"forwards_predict": "(1 + (depth - 1) * classes) / depth * (1 + classes / nodes)"},
        },
    ),
    options=(
        Option("variant", "sf", "single-forward, or Forward-Forward of two kinds", allowed=("sf", "top2loss", "la", "vn")),
        Option("theta", 2.0, "threshold of goodness of la and vn", bounds=(0.0, 100.0)),
    ),
    claims=(
        Claim("leak", "uses the labels of training nodes only", check=claim_leak),
        Claim("classes", "renaming the classes renames the predictions", check=claim_classes),
        Claim("one-block", "with one block, top2loss is single-forward", check=claim_one_block),
        Claim(
            "backprop",
            "single-forward classifies nodes no worse than backpropagation",
            protocol=Protocol(task="cora", against="rule/backprop", expect="not worse"),
        ),
    ),
    deviations=(
        "all blocks learn in every step; the paper trains each to the end before the next",
        "la and vn draw the order of the wrong classes anew in every step, not once",
        "la and vn predict by trying a class on all nodes without a known label at once, not on the evaluated nodes alone,"
        " so that a prediction doesn't depend on which nodes are asked for; validation labels are never used",
        "top2loss takes the outputs above from the same step, not from the one before, and clips no gradient",
        "top2input, whose blocks also read the output of the block above, needs blocks of another width and is left out",
    ),
)
