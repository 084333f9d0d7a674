"""SoftHebb: hidden layers learn by a soft winner-take-all Hebbian rule, without labels or error signals (Journe et al., 2023).

Shape suffixes: R rows (examples, or places of maps), M inputs of a layer, N its units.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.core.part import Claim, Option, Paper, Protocol
from netwright.engine.blocks import Blocks
from netwright.engine.rule import Rule, trainable
from netwright.engine.task import Problem
from netwright.rules._kind import Tags, rule
from netwright.rules._toy import Toy, gradients, linear_gradients, softmax_error
from netwright.rules.hebbian._one_layer import parted, through


def rows(layer: Any, x: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(x_RM, u_RN, w_NM): a layer's inputs, sums without bias, and weights, one row an example or a place of a map."""
    if layer.bias is not None:
        u = u - layer.bias.view(-1, *[1] * (u.dim() - 2))
    if isinstance(layer, nn.Conv2d):
        patches = F.unfold(x, layer.kernel_size, layer.dilation, layer.padding, layer.stride)  # type: ignore[arg-type]
        return patches.transpose(1, 2).flatten(0, 1), u.flatten(2).transpose(1, 2).flatten(0, 1), layer.weight.flatten(1)
    return x, u, layer.weight


def soft_winners(u_RN: Tensor, inverse_temperature: float, losers: str) -> Tensor:
    """softmax(t u) a row; losers="anti": all but the row's winner count negative."""
    y_RN = torch.softmax(inverse_temperature * u_RN, -1)
    if losers == "hebbian":
        return y_RN
    wins = torch.arange(u_RN.shape[-1], device=u_RN.device) == u_RN.argmax(-1, keepdim=True)
    return torch.where(wins, y_RN, -y_RN)


def oja(y_RN: Tensor, u_RN: Tensor, x_RM: Tensor, w_NM: Tensor) -> Tensor:
    """sum over rows of y (x - u w), (N, M)."""
    return y_RN.T @ x_RM - (y_RN * u_RN).sum(0)[:, None] * w_NM


@final
class SoftHebbian(Rule):
    """y = softmax(t u), dW = sum over rows of y (x - u w), divided by its largest entry; u = x W^T without the bias.

    The readout learns from the loss of the task, on features without gradient. Of a block only the weight of its one
    linear map or convolution learns; biases and affine norms stay as drawn.
    losers: "hebbian" (every unit learns by its y) or "anti" (by -y, save the row's winner).
    length: "kept" (a unit's weights are put back to length 1 after every step) or "learnt" (a factor | |w| - 1 |^0.5 on
    its update lets them come to rest there, as published; for plain gradient descent).
    """

    def __init__(
        self, net: Blocks, problem: Problem, inverse_temperature: float = 12.0, losers: str = "hebbian", length: str = "kept"
    ) -> None:
        super().__init__(net, problem)
        self.inverse_temperature, self.losers, self.length = inverse_temperature, losers, length
        net.blocks.requires_grad_(False)
        for block in net.blocks:
            parted(block, "soft-hebbian")[1].weight.requires_grad_(True)

    def plasticity(self, layer: Any, x: Tensor, u: Tensor) -> Tensor:
        """The change of a layer's weight, (N, M), for its input x and its output u."""
        x_RM, u_RN, w_NM = rows(layer, x, u)
        dw_NM = oja(soft_winners(u_RN, self.inverse_temperature, self.losers), u_RN, x_RM, w_NM)
        dw_NM = dw_NM / (dw_NM.abs().amax() + 1e-30)
        return dw_NM if self.length == "kept" else dw_NM * ((w_NM.norm(dim=1, keepdim=True) - 1).abs() + 1e-10).sqrt()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def losses(self, x: Tensor, y: Tensor, *draws: Tensor) -> Iterator[Tensor]:
        h = x
        for block in self.net.blocks:
            before, layer, after = parted(block, "soft-hebbian")
            h = through(before, h.detach())
            u = layer(h)
            change = self.plasticity(layer, h, u).detach()
            h = through(after, u)
            yield -(change * layer.weight.flatten(1)).sum()
        yield self.problem.loss(self.net.readout(h.detach()), y)

    @torch.no_grad()
    def after_step(self) -> None:
        if self.length == "kept":
            for block in self.net.blocks:
                weight = parted(block, "soft-hebbian")[1].weight
                weight.div_(weight.flatten(1).norm(dim=1).view(-1, *[1] * (weight.dim() - 1)))

    def units(self) -> Sequence[Sequence[nn.Parameter]]:
        return [trainable(block) for block in self.net.blocks] + [trainable(self.net.readout)]


def reference(rule: Any, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Unit by unit and example by example: dw_k = sum_b s y_k (x - u_k w_k), s = 1 for the winner."""
    grads: dict[str, Tensor] = {}
    for k, block in enumerate(rule.net.blocks):
        w, b = block[0].weight, block[0].bias
        change = torch.zeros_like(w)
        for row in x:
            u = w @ row
            y_N = torch.exp(rule.inverse_temperature * (u - u.max()))
            y_N = y_N / y_N.sum()
            for i in range(len(w)):
                sign = 1 if rule.losers == "hebbian" or int(u.argmax()) == i else -1
                change[i] += sign * y_N[i] * (row - u[i] * w[i])
        rate = (
            torch.ones(len(w))
            if rule.length == "kept"
            else torch.stack([(unit.square().sum().sqrt() - 1).abs() + 1e-10 for unit in w]) ** 0.5
        )
        grads[f"net.blocks.{k}.0.weight"] = -rate[:, None] * change / change.abs().max()
        x = (x @ w.T + b).clamp(min=0)
    readout = rule.net.readout
    return grads | linear_gradients("net.readout", softmax_error(x @ readout.weight.T + readout.bias, y), x)


def claim_unlabelled() -> bool:
    """Other labels leave the update of hidden layers as it is, to the bit."""
    toy = Toy()
    soft, (x, y) = toy.bind(SoftHebbian), toy.batch()
    before, after = gradients(soft, x, y), gradients(soft, x, (y + 1) % 3)
    return all(torch.equal(after[name], g) == name.startswith("net.blocks") for name, g in before.items())


def claim_unit_norm() -> bool:
    """For one example <dw, w> = y u (1 - |w|^2): under a positive product of y and u the norm goes to 1 and stays."""
    g = torch.Generator().manual_seed(0)
    x, w = torch.randn(1, 7, generator=g).double(), torch.randn(5, 7, generator=g).double()
    u = x @ w.T
    y = soft_winners(u, 1.0, "anti")
    along = (oja(y, u, x, w) * w).sum(1)
    return torch.allclose(along, (y * u)[0] * (1 - w.square().sum(1)), rtol=1e-12)


def claim_hard() -> bool:
    """At a large inverse temperature the winner takes all: its weight moves by x - u w, no other moves."""
    g = torch.Generator().manual_seed(0)
    u = torch.randn(20, 6, generator=g).double()
    hard = (u == u.amax(1, keepdim=True)).double()
    return all(torch.allclose(soft_winners(u, 1e6, losers), hard) for losers in ("anti", "hebbian"))


def claim_convolution() -> bool:
    """A convolution learns as a linear layer does on its patches."""
    g = torch.Generator().manual_seed(0)
    conv, x = nn.Conv2d(2, 4, 3, stride=2, padding=1).double(), torch.randn(3, 2, 6, 6, generator=g).double()
    with torch.no_grad():
        for p in conv.parameters():
            p.normal_(generator=g)
        x_RM, u_RN, w_NM = rows(conv, x, conv(x))
        linear = x_RM @ w_NM.T
    first = torch.nn.functional.pad(x, (1, 1, 1, 1))[0, :, :3, :3].flatten()
    return torch.allclose(u_RN, linear) and torch.equal(x_RM[0], first)


PART = rule(
    SoftHebbian,
    name="soft-hebbian",
    reference=reference,
    formula=r"\Delta w_i \propto \sum y_i\,(x - u_i w_i),\quad y = \mathrm{softmax}(t\,u),\quad u = W x",
    paper=Paper(
        title="Hebbian Deep Learning Without Feedback",
        authors="Adrien Journé, Hector Garcia Rodriguez, Qinghai Guo, Timoleon Moraitis",
        year=2023,
        arxiv="2209.11883",
        code="NeuromorphicComputing/SoftHebb",
    ),
    tags=Tags(family="local", local=True, needs=frozenset({"blocks"}), surrogate=True),
    options=(
        Option("inverse_temperature", 12.0, "t of the softmax over a layer's units", bounds=(0.0, 1e6)),
        Option("losers", "hebbian", "units other than the winner learn with sign +1, or -1", allowed=("hebbian", "anti")),
        Option(
            "length", "kept", "weights are put back to unit length, or slowed near it as published", allowed=("kept", "learnt")
        ),
    ),
    claims=(
        Claim("unlabelled", "hidden layers learn without targets or error signals", where="abstract", check=claim_unlabelled),
        Claim("unit-norm", "weights converge to unit length", check=claim_unit_norm),
        Claim("hard", "with a large inverse temperature it is hard winner-take-all", check=claim_hard),
        Claim("convolution", "a convolution learns as a linear layer does on its patches", check=claim_convolution),
        Claim(
            "learns",
            "the features serve a linear classifier better than random ones",
            protocol=Protocol(task="digits", against="rule/frozen-hidden", expect="better"),
        ),
    ),
    deviations=(
        "the updates go through the task's optimizer: Adam undoes the division by the largest entry and the published factor"
        " that brings a unit to rest at length 1, so that lengths would drift; by default they are set to 1 after each step"
        " instead, and the factor is left out (length='learnt' has it)",
        "layers start at the host's initialisation, with lengths below 1, and not at about 25: there losers='anti' with"
        " length='learnt' drives units away from length 1, and on digits ends below frozen hidden layers",
        "the defaults inverse_temperature=12, losers='hebbian' are the released preset of a fully connected net; the released"
        " convolutional nets have losers='anti' and 1 to 0.25",
        "random weights of unit length already serve the readout better than the host's own: not all of the distance to"
        " frozen hidden layers is learnt",
        "all layers and the readout learn together; the paper trains the readout afterwards",
        "activation, norm and pooling are the host's; the paper's are batch norm, powers of a rectified difference from the"
        " mean, and pooling",
        "the host's biases, which the paper's layers don't have, stay as drawn and take no part in the competition",
        "blocks of several layers, such as the residual host's, are refused",
    ),
)
