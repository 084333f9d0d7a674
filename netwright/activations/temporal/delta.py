"""Delta activation: what changes from one time step to the next, in whole quantisation steps (Yousefzadeh and Sifalakis, 2021).

y_t = Q(x_t) - Q(x_{t-1}) along dim, with x_{-1} = 0 and Q rounding to a multiple of `step`. Linear maps of y, summed over
time, are linear maps of Q(x): a sum that only has to be brought up to date where y isn't 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.core.part import Claim, Example, Option, Paper


def delta_activation(x: Tensor, *, dim: int, step: float) -> Tensor:
    """y_t = Q(x_t) - Q(x_{t-1}), with the gradient of x_t - x_{t-1} (straight through Q)."""
    change = difference(x, dim)
    return difference((x / step).round() * step, dim).detach() + (change - change.detach())


def difference(x: Tensor, dim: int) -> Tensor:
    return torch.diff(x, dim=dim, prepend=torch.zeros_like(x.narrow(dim, 0, 1)))


def reference(x: Sequence[float], step: float) -> list[float]:
    level, y = 0, []
    for value in x:
        reached = round(value / step)  # to even, as in the official code
        y.append((reached - level) * step)
        level = reached
    return y


def walk(seed: int) -> Tensor:
    return torch.randn(16, 200, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def claim_sum() -> bool:
    """Summed over time the output is the quantised input, however long the sequence."""
    x = walk(0)
    y = delta_activation(x, dim=1, step=0.125)
    return torch.equal(y.cumsum(1), (x / 0.125).round() * 0.125)


def claim_still() -> bool:
    """A constant sequence is silent after its first step; so is one that moves less than the step it stands in."""
    x = torch.full((4, 50), 0.7) + 0.02 * torch.rand(4, 50, generator=torch.Generator().manual_seed(1))
    return bool((delta_activation(x, dim=1, step=0.125)[:, 1:] == 0).all())


def claim_linear() -> bool:
    """A linear map of the output, summed over time, is that map of the quantised input."""
    x, w = walk(2)[:, None, :], torch.randn(5, 1, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    summed = (w @ delta_activation(x, dim=-1, step=0.125)).cumsum(-1)
    return torch.allclose(summed, w @ ((x / 0.125).round() * 0.125), atol=1e-12)


def claim_backward() -> bool:
    """The gradient is that of the plain difference x_t - x_{t-1}."""
    x = walk(4).requires_grad_()
    weight = walk(5)
    (got,) = torch.autograd.grad((delta_activation(x, dim=1, step=0.1) * weight).sum(), x)
    (wanted,) = torch.autograd.grad((difference(x, 1) * weight).sum(), x)
    return torch.equal(got, wanted)


PART = activation(
    delta_activation,
    cls="DeltaActivation",
    reference=reference,
    formula=r"Q(x_t) - Q(x_{t-1}), \quad Q(x) = q\,\mathrm{round}(x / q)",
    paper=Paper("delta-activation"),
    options=(Option("step", 0.125, "the quantisation step q", bounds=(0.0, 1e6), search=(0.01, 1.0, "log")),),
    tags=Tags(shape="rowwise", exact_gradient=False, delicate=True),
    examples=(
        Example([0.26, 0.26, 0.31, 0.0], [0.25, 0.0, 0.0, -0.25]),
        Example([1.0, 2.6, 2.4], [1.0, 2.0, -1.0], options={"step": 1.0}),
    ),
    flops=4.0,
    claims=(
        Claim("sum", "sums up to the quantised input", check=claim_sum),
        Claim("still", "is 0 where the input stays within its quantisation step", check=claim_still),
        Claim("linear", "lets linear layers work on changes alone", check=claim_linear),
        Claim("backward", "passes the gradient straight through the rounding", check=claim_backward),
    ),
    deviations=(
        "dim is the time axis: channel_dim=1 for input of shape (batch, time, features)",
        "the step is fixed; the official code learns it, one a layer, channel or neuron, from 0.1 on",
        "the penalty on the sum of |y| that training adds belongs to the loss and is not included",
    ),
)
