"""Boosted nets: groups of hidden units learn one after another, each what the ones before left over (Emami et al., 2019).

Shape suffixes: B batch, T groups, K outputs, H units of the last hidden layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.func import functional_call

from netwright.core import catalogue
from netwright.core.errors import Misfit
from netwright.core.part import Claim, Option, Paper, Protocol
from netwright.engine.blocks import Blocks
from netwright.engine.rule import Phase, Rule
from netwright.engine.task import Problem
from netwright.rules._kind import Tags, rule
from netwright.rules._toy import Toy, linear_gradients

KEPT = 0.9  # of the running sums for the step size, each training step


def dense(net: Blocks, groups: int) -> list[str]:
    """The name of the linear layer in each block; raises Misfit where units can't be told apart."""
    batch_norm: Any = catalogue.get("layer/batch-norm").module_type()
    names = []
    for k, (block, shape) in enumerate(zip(net.blocks, net.shapes, strict=True)):
        held = [(name, m) for name, m in block.named_modules() if any(True for _ in m.parameters(recurse=False))]
        linears = [(name, m) for name, m in held if isinstance(m, nn.Linear)]
        others = [m for _, m in held if not isinstance(m, (nn.Linear, nn.BatchNorm1d, batch_norm))]
        if len(linears) != 1 or others or tuple(shape) != (linears[0][1].out_features,) or shape[0] < groups:
            raise Misfit(
                f"boosted-nn divides the units of each block into {groups} groups; it needs dense blocks of one linear layer,"
                f" at least {groups} units wide, with no norm but batch norm and an activation of single units; block {k} is"
                f" {block}, its output {tuple(shape)}; choose an Mlp, or fewer groups"
            )
        names.append(linears[0][0])
    if not isinstance(net.readout, nn.Linear):
        raise Misfit(f"boosted-nn needs a linear readout, given {net.readout}; choose an Mlp")
    return names


@final
class BoostedNn(Rule):
    """F_t = F_(t-1) + rho_t f_t; group t fits |r - f_t(x)|^2 / 2, r = onehot(y) - softmax(F_(t-1)) or y - F_(t-1), F_0 = 0.

    f_t is the net of group t alone: its units of every block, which read the same group's units in the block below, its
    columns of the readout and a bias of its own. Groups learn in phases of equal length; all others stand still. The step
    rho_t is eta sum(f r) / sum(f^2 p (1 - p)), one Newton step for the log-loss, from running sums over the phase; eta
    for real targets. The sum of all groups is one net, the host's with weights of 0 between groups (`assembled`).
    Raises Misfit for nets that are no Mlp of at least `groups` units a layer.
    """

    rho_T: Tensor
    stage: Tensor
    sums: Tensor

    def __init__(self, net: Blocks, problem: Problem, groups: int = 4, eta: float = 1.0) -> None:
        super().__init__(net, problem)
        self.linears, self.groups, self.eta = dense(net, groups), groups, eta
        self.outputs = problem.output[-1]
        self.bias_TK = nn.Parameter(torch.empty(groups, self.outputs))
        self.register_buffer("rho_T", torch.empty(groups))
        self.register_buffer("stage", torch.empty((), dtype=torch.int64))  # the group that learns, counted from 0
        self.register_buffer("sums", torch.empty(2))  # running sums of f r and of f^2 p (1 - p)
        if isinstance(net.readout.bias, Tensor):
            net.readout.bias.requires_grad_(False)  # bias_TK stands in for it
        self.before: list[Tensor] = []
        self.seen = torch.empty(0)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator) -> None:
        self.bias_TK.zero_()
        self.rho_T.fill_(self.eta)
        self.stage.zero_()
        self.sums.zero_()

    def group_of(self, units: int) -> Tensor:
        """The group of each of so many units, in order and as even as can be."""
        return torch.arange(units, device=self.bias_TK.device) * self.groups // units

    def weights(self) -> list[Tensor]:
        """The weight of every block's linear layer, 0 between units of different groups."""
        found = []
        for k, (block, name) in enumerate(zip(self.net.blocks, self.linears, strict=True)):
            weight: Any = block.get_submodule(name).weight
            mine, below = (self.group_of(n) for n in weight.shape)
            found.append(weight * (mine[:, None] == below) if k else weight)
        return found

    def features(self, x: Tensor) -> list[Tensor]:
        """What each block puts out, no unit reading one of another group."""
        hidden = []
        for block, name, weight in zip(self.net.blocks, self.linears, self.weights(), strict=True):
            x = functional_call(block, {f"{name}.weight".lstrip("."): weight}, (x,))
            hidden.append(x)
        return hidden

    def learners(self, x: Tensor) -> Tensor:
        """f_t(x) of every group, (B, T, K)."""
        h_BH = self.features(x)[-1]
        weight: Any = self.net.readout.weight
        own_TH = self.group_of(weight.shape[1]) == torch.arange(self.groups, device=h_BH.device)[:, None]
        return torch.einsum("bh,th,kh->btk", h_BH, own_TH.to(weight.dtype), weight) + self.bias_TK

    def assembled(self, groups: int | None = None) -> dict[str, Tensor]:
        """The weights of the host that compute F_t of this many groups: by default of all that have learnt or learn."""
        weight: Any = self.net.readout.weight
        found = {
            f"blocks.{k}.{name}.weight".replace("..", "."): w
            for k, (name, w) in enumerate(zip(self.linears, self.weights(), strict=True))
        }
        index_T = torch.arange(self.groups, device=weight.device)
        rho_T = self.rho_T * (index_T <= self.stage if groups is None else index_T < groups)
        found["readout.weight"] = weight * rho_T[self.group_of(weight.shape[1])]
        if isinstance(self.net.readout.bias, Tensor):
            found["readout.bias"] = rho_T @ self.bias_TK
        return found

    def forward(self, x: Tensor) -> Tensor:
        return functional_call(self.net, self.assembled(), (x,))

    def losses(self, x: Tensor, y: Tensor, *draws: Tensor) -> Iterator[Tensor]:
        index_T = torch.arange(self.groups, device=x.device)
        f_BTK = self.learners(x)
        f_BK = (f_BTK * (index_T == self.stage)[:, None]).sum(1)
        past_BK = (f_BTK.detach() * (self.rho_T * (index_T < self.stage))[:, None]).sum(1)
        if self.problem.classes is None:
            residual_BK = y - past_BK
        else:
            p_BK = past_BK.softmax(-1)
            residual_BK = (y[:, None] == torch.arange(self.outputs, device=y.device)).to(p_BK.dtype) - p_BK
            g_BK = f_BK.detach()
            self.seen = torch.stack([(g_BK * residual_BK).sum(), (g_BK.square() * p_BK * (1 - p_BK)).sum()])
        self.before = [p.detach().clone() for p in self.units()[0]]
        yield (residual_BK - f_BK).square().sum(-1).mean() / 2

    @torch.no_grad()
    def after_step(self) -> None:
        """Put every group but the learning one back, and take the step size from the running sums."""
        for p, old in zip(self.units()[0], self.before, strict=True):
            dim = 1 if p is self.net.readout.weight else 0
            mine = self.group_of(p.shape[dim]) == self.stage
            p.copy_(torch.where(mine if dim or p.dim() == 1 else mine[:, None], p, old))
        if self.problem.classes is not None:
            self.sums.copy_(KEPT * self.sums + (1 - KEPT) * self.seen)
            self.rho_T[self.stage] = self.eta * self.sums[0] / self.sums[1].clamp_min(torch.finfo(self.sums.dtype).tiny)

    def phases(self) -> Sequence[Phase]:
        return [Phase(f"group {t + 1}", 1 / self.groups) for t in range(self.groups)]

    def enter(self, phase: Phase) -> None:
        self.stage.fill_(int(phase.name.split()[1]) - 1)
        self.sums.zero_()


def reference(rule: Any, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """The learning group as a small net of its own: delta = (f - r) / B at its output, then the chain rule."""
    stage, onehot = int(rule.stage), torch.eye(rule.outputs, dtype=x.dtype)[y]
    linears = [*[block[0] for block in rule.net.blocks], rule.net.readout]
    past, grads = torch.zeros_like(onehot), {}
    for t in range(stage + 1):
        units: list[list[int]] = [list(range(x.shape[1]))]
        inputs = [x]
        for linear in linears[:-1]:
            n = linear.out_features
            units.append([i for i in range(n) if i * rule.groups // n == t])
            small = linear.weight[units[-1]][:, units[-2]]
            inputs.append((inputs[-1] @ small.T + linear.bias[units[-1]]).clamp(min=0))
        f = inputs[-1] @ linears[-1].weight[:, units[-1]].T + rule.bias_TK[t]
        if t < stage:
            past = past + rule.rho_T[t] * f
    delta = (f - (onehot - torch.softmax(past, 1))) / len(x)
    grads["bias_TK"] = torch.zeros_like(rule.bias_TK)
    grads["bias_TK"][stage] = delta.sum(0)
    grads["net.readout.weight"] = torch.zeros_like(linears[-1].weight)
    grads["net.readout.weight"][:, units[-1]] = delta.T @ inputs[-1]
    delta = delta @ linears[-1].weight[:, units[-1]]
    for k in reversed(range(len(linears) - 1)):
        delta = delta * (inputs[k + 1] > 0)
        for name, g in linear_gradients(f"net.blocks.{k}.0", delta, inputs[k]).items():
            grads[name] = torch.zeros_like(rule.get_parameter(name))
            if g.dim() == 1:
                grads[name][units[k + 1]] = g
            else:
                grads[name][torch.tensor(units[k + 1])[:, None], torch.tensor(units[k])] = g
        delta = delta @ linears[k].weight[units[k + 1]][:, units[k]]
    return grads


def _boosted(stage: int) -> Any:
    """A Toy whose groups before `stage`, counted from 0, have had some steps each."""
    boosted: Any = Toy(widths=(9, 7)).bind(BoostedNn, groups=3)
    adam = torch.optim.Adam(boosted.units()[0], lr=0.01)
    x, y = Toy().batch()
    for phase in boosted.phases()[: stage + 1]:
        boosted.enter(phase)
        for _ in range(5 if int(boosted.stage) < stage else 0):
            adam.zero_grad()
            for loss in boosted.losses(x, y):
                loss.backward()
            adam.step()
            boosted.after_step()
    return boosted


def claim_assembled() -> bool:
    """One net with the assembled weights computes sum_t rho_t f_t, for every number of groups."""
    boosted, (x, _) = _boosted(2), Toy().batch()
    f_BTK = boosted.learners(x)
    staged_BTK = (boosted.rho_T[:, None] * f_BTK).cumsum(1)
    outs = [functional_call(boosted.net, boosted.assembled(t + 1), (x,)) for t in range(3)]
    return all(torch.allclose(out, staged_BTK[:, t], rtol=1e-10) for t, out in enumerate(outs))


def claim_frozen() -> bool:
    """While the second group learns, under Adam with momentum, the other groups keep their outputs to the last bit."""
    x, _ = Toy().batch()
    first, after = _boosted(1), _boosted(2)
    start: Any = Toy(widths=(9, 7)).bind(BoostedNn, groups=3)
    one, two, none = (rule.learners(x) for rule in (first, after, start))
    kept = torch.equal(one[:, 0], two[:, 0]) and torch.equal(none[:, 1:], one[:, 1:]) and torch.equal(none[:, 2], two[:, 2])
    return kept and not torch.equal(one[:, 1], two[:, 1]) and not torch.equal(none[:, 0], one[:, 0])


def claim_switch_off() -> bool:
    """Units of groups trained last can be cut out of the net: what is left computes the earlier stage."""
    boosted, (x, _) = _boosted(2), Toy().batch()
    with torch.no_grad():
        early = functional_call(boosted.net, boosted.assembled(2), (x,))
        h = x
        for block, weight, width in zip(boosted.net.blocks, boosted.weights(), (6, 5), strict=True):
            h = (h @ weight[:width, : h.shape[1]].T + block[0].bias[:width]).clamp(min=0)
        found = boosted.assembled(2)
        cut = h @ found["readout.weight"][:, : h.shape[1]].T + found["readout.bias"]
    return torch.allclose(early, cut, rtol=1e-10)


PART = rule(
    BoostedNn,
    reference=reference,
    formula=r"F_t = F_{t-1} + \rho_t f_t,\quad f_t \approx \mathrm{onehot}(y) - \mathrm{softmax}(F_{t-1})",
    paper=Paper("boosted-nn"),
    uses=("layer/batch-norm",),
    tags=Tags(
        family="backprop",
        stackable=False,
        why_not_stackable="its groups of units learn in phases, one after another",
    ),
    options=(
        Option("groups", 4, "groups of units, trained one after another", bounds=(0, 1e6)),
        Option("eta", 1.0, "shrinkage of every step", bounds=(0.0, 10.0)),
    ),
    claims=(
        Claim("assembled", "the partial models are integrated as a single net", where="abstract", check=claim_assembled),
        Claim("frozen", "each step trains one portion of the units", where="abstract", check=claim_frozen),
        Claim("switch-off", "units trained last can be switched off", where="abstract", check=claim_switch_off),
        Claim(
            "competitive",
            "competitive with nets trained as a whole by Adam",
            where="abstract",
            protocol=Protocol(task="digits", against="rule/backprop", expect="not worse"),
        ),
    ),
    deviations=(
        "the paper's nets have one hidden layer; in a deeper host each group is a narrow net as deep as the host",
        "groups learn by the task's optimizer on batches for equal shares of the steps, not by L-BFGS on half of the data",
        "step sizes come from running sums over the phase, not from one pass over all data",
        "F_0 is 0 also for real targets, whose mean the first group's bias learns",
        "classes are always one output each, also where there are two",
    ),
)
