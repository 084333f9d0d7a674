"""Gradient noise: normal noise of falling variance is added to every gradient (Neelakantan et al., 2015)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from netwright.core.part import Claim, Option, Paper, Protocol
from netwright.engine.blocks import Blocks
from netwright.engine.rule import Rule
from netwright.engine.task import Problem
from netwright.rules._kind import Tags, rule
from netwright.rules._toy import Toy, chain_rule, forward_by_hand, gradients, softmax_error, true_gradients


@final
class GradientNoise(Rule):
    """g_t + N(0, sigma_t^2) with sigma_t^2 = eta / (1 + t)^gamma; t counts the steps done before this one.

    The paper chooses eta among 0.01, 0.3 and 1 and keeps gamma = 0.55. The noise z enters as sigma_t z (p - sg(p)), which
    is 0 and whose gradient at p is sigma_t z, so that the loss's value is the task's.
    """

    any_net: ClassVar[bool] = True
    step: Tensor

    def __init__(self, net: Blocks, problem: Problem, eta: float = 0.01, gamma: float = 0.55) -> None:
        super().__init__(net, problem)
        self.eta, self.gamma = eta, gamma
        self.register_buffer("step", torch.empty((), dtype=torch.int64))
        self.noisy = [name for name, p in self.named_parameters() if p.requires_grad]

    def reset_parameters(self, generator: torch.Generator) -> None:
        self.step.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def draw(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """z ~ N(0, 1) in the shape of each parameter."""
        named = dict(self.named_parameters())
        like = [named[name] for name in self.noisy]
        noise = [torch.randn(p.shape, generator=generator, device=generator.device, dtype=torch.float32) for p in like]
        return tuple(z.to(p) for z, p in zip(noise, like, strict=True))

    def losses(self, x: Tensor, y: Tensor, *draws: Tensor) -> Iterator[Tensor]:
        named = dict(self.named_parameters())
        loss = self.problem.loss(self.net(x), y)
        for name, z in zip(self.noisy, draws, strict=True):
            sigma = (self.eta / (1 + self.step.to(z.dtype)) ** self.gamma).sqrt()
            loss = loss + (sigma * z * (named[name] - named[name].detach())).sum()
        yield loss

    def after_step(self) -> None:
        self.step.add_(1)


def reference(rule: Any, x: Tensor, y: Tensor, *noise: Tensor) -> dict[str, Tensor]:
    """Backpropagation's update plus noise scaled by the square root of eta / (1 + t)^gamma."""
    deviation = (rule.eta / (1 + int(rule.step)) ** rule.gamma) ** 0.5
    acts = forward_by_hand(rule.net, x)
    grads = chain_rule(rule.net, acts, softmax_error(acts[-1], y))
    names = [name for name, _ in rule.named_parameters()]
    return {name: grads[name] + deviation * z for name, z in zip(names, noise, strict=True)}


def _noise(steps: int, eta: float = 0.01) -> tuple[Tensor, bool]:
    """The noise in the gradients of a wide Toy after this many steps, and whether the loss's value is the task's."""
    toy = Toy(widths=(100, 60))
    noisy: Any = toy.bind(GradientNoise, eta=eta)
    x, y = toy.batch()
    noisy.step.fill_(steps)
    draws = noisy.draw(x, y, torch.Generator().manual_seed(1))
    (loss,) = noisy.losses(x, y, *draws)
    got, wanted = gradients(noisy, x, y, *draws), true_gradients(noisy, x, y)
    noise = torch.cat([(got[name] - g).flatten() for name, g in wanted.items()])
    return noise, torch.equal(loss, noisy.problem.loss(noisy(x), y))


def claim_variance() -> bool:
    """Over 7 000 gradients: mean 0, and variance eta in the first step and eta / 1000^0.55 in the thousandth."""
    for steps, wanted in ((0, 0.01), (999, 0.01 / 1000**0.55)):
        noise, _ = _noise(steps)
        if abs(noise.var().item() / wanted - 1) > 0.04 or abs(noise.mean().item()) > 0.02 * wanted**0.5:
            return False
    return True


def claim_backprop() -> bool:
    """With eta = 0 the update is backpropagation's; with any eta the loss's value is the task's."""
    return not bool(_noise(0, eta=0.0)[0].any()) and _noise(0, eta=1.0)[1]


def claim_zero_weights() -> bool:
    """From all weights 0, two steps leave hidden layers without a gradient; with noise they have one."""
    x, y = Toy().batch()
    moving = []
    for eta in (0.0, 0.01):
        noisy, draws = Toy().bind(GradientNoise, eta=eta), torch.Generator().manual_seed(0)
        for p in noisy.parameters():
            torch.nn.init.zeros_(p)
        for _ in range(2):
            grads = gradients(noisy, x, y, *noisy.draw(x, y, draws))
            for name, p in noisy.named_parameters():
                p.data.sub_(grads[name])
            noisy.after_step()
        moving.append(any(bool(g.any()) for name, g in true_gradients(noisy, x, y).items() if name.startswith("net.blocks.")))
    return moving == [False, True]


PART = rule(
    GradientNoise,
    reference=reference,
    formula=r"g_t + \mathcal{N}(0, \sigma_t^2),\quad \sigma_t^2 = \frac{\eta}{(1 + t)^{\gamma}}",
    paper=Paper("gradient-noise"),
    tags=Tags(family="backprop"),
    options=(
        Option("eta", 0.01, "variance of the noise in the first step", bounds=(-1e-9, 100.0)),
        Option("gamma", 0.55, "how fast the variance falls", bounds=(-1e-9, 10.0)),
    ),
    claims=(
        Claim("variance", "the noise has mean 0 and a variance that falls with the steps", check=claim_variance),
        Claim("backprop", "without noise it is gradient descent", check=claim_backprop),
        Claim(
            "zero-weights",
            "hidden layers leave a start where gradient descent stays: all weights 0",
            check=claim_zero_weights,
        ),
        Claim(
            "better",
            "improves learning (judged on two hidden layers; the paper's nets are deeper)",
            where="abstract",
            protocol=Protocol(task="mnist", against="rule/backprop", expect="better"),
        ),
    ),
    deviations=("the noise comes before gradient clipping, which a task may ask for; the paper adds it after",),
)
