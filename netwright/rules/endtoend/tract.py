"""TrAct: the first layer's weights follow a gradient step on its pre-activations (Petersen, Borgelt and Ermon, 2024).

Shape suffixes: R rows the first layer reads (examples, or all patches of all examples), N inputs, M outputs of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, ClassVar, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.core.errors import Misfit
from netwright.core.part import Claim, Option, Paper, Protocol
from netwright.engine.blocks import Blocks
from netwright.engine.rule import Rule
from netwright.engine.task import Problem
from netwright.rules._kind import Tags, rule
from netwright.rules._toy import Toy, chain_rule, forward_by_hand, gradients, softmax_error, true_gradients
from netwright.tensor.precision import full_precision


def whitened(x_RN: Tensor, lam: float) -> Tensor:
    """X (X^T X / R + lam I_N)^-1, which is (X X^T / R + lam I_R)^-1 X: the smaller of the two systems is solved."""
    rows, inputs = x_RN.shape
    if rows < inputs:
        gram_RR = x_RN @ x_RN.T / rows + lam * torch.eye(rows, dtype=x_RN.dtype, device=x_RN.device)
        return torch.linalg.solve_ex(gram_RR, x_RN).result
    gram_NN = x_RN.T @ x_RN / rows + lam * torch.eye(inputs, dtype=x_RN.dtype, device=x_RN.device)
    return torch.linalg.solve_ex(gram_NN, x_RN.T).result.T


def first_layer(net: nn.Module) -> nn.Module:
    """The first module with parameters, in the order of net.modules(); raises Misfit where TrAct can't train it."""
    first = next((m for m in net.modules() if any(True for _ in m.parameters(recurse=False))), net)
    if isinstance(first, nn.Embedding):
        raise Misfit("tract makes a first layer learn as an embedding does, and this net begins with an embedding; use images")
    if isinstance(first, nn.Linear):
        return first
    plain = isinstance(first, nn.Conv2d) and first.groups == 1 and first.padding_mode == "zeros"
    if not plain or isinstance(first.padding, str):
        raise Misfit(
            "tract trains a first layer that is nn.Linear, or nn.Conv2d with one group and zero padding in numbers; the first"
            f" module with parameters of this net is {first}"
        )
    return first


@final
class Tract(Rule):
    """dW = G^T X (X^T X / R + lam I)^-1 at the first layer z = X W^T + b, with G = dL/dz; all else learns as ever.

    The layer's output gains (X~ - sg(X)) W^T - sg(the same) with X~ = `whitened`(X): it is 0, and autograd's gradient at
    W becomes G^T X~. A step costs one more product of the first layer and the solution of a linear system, of at most
    as many unknowns as the layer has inputs. Raises Misfit where the first layer is neither Linear nor Conv2d.
    """

    any_net: ClassVar[bool] = True

    def __init__(self, net: Blocks, problem: Problem, lam: float = 0.1) -> None:
        super().__init__(net, problem)
        self.lam = lam
        layer = first_layer(net)
        self.first = next(name for name, module in net.named_modules() if module is layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def added(self, layer: Any, args: tuple[Any, ...], out: Tensor) -> Tensor:
        """The output of the first layer, with another gradient at its weight."""
        x, weight = args[0].detach(), layer.weight
        with full_precision(x):
            x = x.to(torch.promote_types(weight.dtype, torch.float32))
            if isinstance(layer, nn.Conv2d):
                x = F.unfold(x, layer.kernel_size, layer.dilation, layer.padding, layer.stride).transpose(1, 2)  # type: ignore[arg-type]
            x_RN = x.flatten(0, -2)
            change = (whitened(x_RN, self.lam) - x_RN).to(weight.dtype) @ weight.flatten(1).T
            change = (change - change.detach()).view(*x.shape[:-1], -1)
        if isinstance(layer, nn.Conv2d):
            change = change.transpose(1, 2).view_as(out)
        return out + change.to(out.dtype)

    def losses(self, x: Tensor, y: Tensor, *draws: Tensor) -> Iterator[Tensor]:
        handle = self.net.get_submodule(self.first).register_forward_hook(self.added)
        try:
            out = self.net(x)
        finally:
            handle.remove()
        yield self.problem.loss(out, y)


def reference(rule: Any, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Backpropagation's update, that of the first weight times the inverse of the mean of x x^T plus lam I."""
    acts = forward_by_hand(rule.net, x)
    grads = chain_rule(rule.net, acts, softmax_error(acts[-1], y))
    second = sum(torch.outer(row, row) for row in x) / len(x)
    inverse = torch.linalg.inv(second + rule.lam * torch.eye(x.shape[1], dtype=x.dtype))
    return grads | {"net.blocks.0.0.weight": grads["net.blocks.0.0.weight"] @ inverse}


def _conv(rows: int, lam: float) -> tuple[Tensor, Tensor, Tensor]:
    """A strided convolution's update under TrAct and under backpropagation (M, N), and the patches it reads (R, N)."""
    draws = torch.Generator().manual_seed(0)
    net: Any = nn.Sequential(nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)).double()
    for p in net.parameters():
        p.data.normal_(0.0, 0.3, generator=draws)
    x, y = torch.randn(rows, 2, 4, 4, generator=draws, dtype=torch.float64), torch.arange(rows) % 3
    tract = Tract(net, Toy().problem, lam=lam)
    update, exact = (g["net.0.weight"].flatten(1) for g in (gradients(tract, x, y), true_gradients(tract, x, y)))
    patches = F.unfold(x, 3, 1, 1, 2).transpose(1, 2).flatten(0, 1)
    return update, exact, patches


def claim_closed_forms() -> bool:
    """With fewer and with more rows than inputs the update is G^T X (X^T X / R + lam I)^-1, and in the form for few rows
    G^T (I - (K / lam) (K / lam + I)^-1) X / lam with K = X X^T / R."""
    for rows in (2, 10):  # 8 and 40 patches of 18 values
        update, exact, x_RN = _conv(rows, 0.1)
        wanted = exact @ torch.linalg.inv(x_RN.T @ x_RN / len(x_RN) + 0.1 * torch.eye(18, dtype=x_RN.dtype))
        k_RR, eye = x_RN @ x_RN.T / len(x_RN), torch.eye(len(x_RN), dtype=x_RN.dtype)
        other = (eye - k_RR / 0.1 @ torch.linalg.inv(k_RR / 0.1 + eye)) @ x_RN / 0.1
        same = torch.allclose(update, wanted, rtol=1e-9, atol=1e-12)
        if not same or not torch.allclose(whitened(x_RN, 0.1), other, rtol=1e-9, atol=1e-12):
            return False
    return True


def claim_backprop() -> bool:
    """lam times the update tends to backpropagation's, and every other parameter's is backpropagation's at any lam."""
    update, exact, _ = _conv(10, 1e6)
    x, y = Toy().batch()
    tract = Toy().bind(Tract)
    got, wanted = gradients(tract, x, y), true_gradients(tract, x, y)
    others = [(got[name], g) for name, g in wanted.items() if name != "net.blocks.0.0.weight"]
    near = (1e6 * update - exact).abs().max() < 1e-5 * exact.abs().max()
    return bool(near) and all(torch.equal(a, b) for a, b in others)


def claim_ridge() -> bool:
    """The step is the least-squares fit, with a penalty, to the change the pre-activations want: a step along R G."""
    x, _ = Toy().batch()
    g_RM = torch.randn(len(x), 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    step_MN = (g_RM.T @ whitened(x, 0.1)).requires_grad_()
    cost = (x @ step_MN.T - len(x) * g_RM).square().sum() / len(x) + 0.1 * step_MN.square().sum()
    (slope,) = torch.autograd.grad(cost, step_MN)
    return bool(slope.abs().max() < 1e-10)


PART = rule(
    Tract,
    reference=reference,
    formula=r"\Delta W = G^\top X\,(X^\top X / b + \lambda I)^{-1},\quad G = \partial L / \partial Z",
    paper=Paper("tract"),
    tags=Tags(family="backprop"),
    options=(Option("lam", 0.1, "lambda: how far the update is from a full inverse", bounds=(0.0, math.inf)),),
    claims=(
        Claim("closed-forms", "the forms for few and for many rows are one update", check=claim_closed_forms),
        Claim("backprop", "lambda times the update tends to the gradient as lambda grows", check=claim_backprop),
        Claim("ridge", "the weights that come closest to a gradient step on the activations", check=claim_ridge),
        Claim(
            "better",
            "better after the same number of steps: training takes 1.25 to 4 times fewer",
            where="abstract",
            protocol=Protocol(task="mnist", against="rule/backprop", expect="better"),
        ),
    ),
    deviations=("optimizer, learning rate and schedule are the task's",),
)
