"""Delays learnt by gradients: every synapse is a weight and a delay, in training a Gaussian over time (Hammouamri et al., 2023).

A learnable delay is the position of one element in a dilated convolution with learnable spacings (DCLS) over time. A
spiking neuron, or any other activation, follows it; batch norm between them is the net's.

Shape suffixes: B rows, L time, I inputs, O outputs, N = max_delay + 1 taps, tap n being the delay n.
"""

from __future__ import annotations

import math
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.core.errors import BadInput
from netwright.core.part import Claim, Option, Paper
from netwright.layers._kind import Layer, Tags, layer, uniform_
from netwright.tensor.modules import drawn


@final
class DelayedSynapses(Layer):
    """y_o(t) = sum_i w_oi sum_n k_oi(n) x_i(t - n) + b_o, what is before the sequence being 0; (..., L, d_in) -> (..., L, d_out).

    k_oi: in training exp(-((n - d_oi) / sigma)^2 / 2) for version "gauss", the triangle relu(1 + sigma - |n - d_oi|) for
    "max", over its own sum + 1e-7; in evaluation 1 at the nearest whole delay and 0 elsewhere. max_delay: the largest delay
    in steps. Delays count as within 0 to max_delay: `clamp_parameters` brings them there, and those outside get the gradient
    of the end they are beyond. sigma: at the start, in steps; `anneal` changes it.
    """

    sigma: Tensor
    bias: nn.Parameter | None
    no_decay = frozenset({"delay"})

    def __init__(
        self, d_in: int, d_out: int, *, max_delay: int = 24, sigma: float = 12.0, version: str = "gauss", bias: bool = False
    ) -> None:
        super().__init__()
        self.max_delay, self.at_start, self.version = max_delay, sigma, version
        self.weight = nn.Parameter(torch.empty(d_out, d_in))
        self.delay = nn.Parameter(torch.empty(d_out, d_in))
        self.register_parameter("bias", nn.Parameter(torch.empty(d_out)) if bias else None)
        self.register_buffer("sigma", torch.empty(()))

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """w ~ U(-1, 1) sqrt(6 / d_in), d ~ U(0, max_delay), b = 0."""
        uniform_(self.weight, math.sqrt(6 / self.weight.shape[1]), generator)
        self.delay.uniform_(0, self.max_delay, generator=generator)
        if self.bias is not None:
            self.bias.zero_()
        self.sigma.fill_(self.at_start)

    @torch.no_grad()
    def anneal(self, sigma: float) -> None:
        """Set sigma: exponentially from half of max_delay to 0.5 over the first quarter of training, in the paper."""
        if isinstance(sigma, bool) or not isinstance(sigma, (int, float)) or not 0 < sigma < math.inf:
            raise BadInput(f"{self.part.id}: sigma={sigma!r}; allowed: a number above 0")
        self.sigma.fill_(sigma)

    @torch.no_grad()
    def clamp_parameters(self) -> None:
        """Bring every delay into 0 to max_delay: after a step of the optimizer, as the code does."""
        self.delay.clamp_(0, self.max_delay)

    def delays(self) -> Tensor:
        """The delays in use (O, I): in evaluation whole."""
        inside = self.delay.clamp(0, self.max_delay)
        return self.delay + (inside - self.delay).detach() if self.training else inside.detach().round()

    def kernel(self) -> Tensor:
        """w_oi k_oi(n): (O, I, N). In float32 at least, as whole steps of a long delay are none in half precision."""
        wide = torch.float64 if self.weight.dtype == torch.float64 else torch.float32
        steps_N = torch.arange(self.max_delay + 1, dtype=wide, device=self.weight.device)
        delay_OI1 = self.delays().to(wide)[..., None]
        if self.training:
            sigma = self.sigma.to(wide)
            if self.version == "gauss":
                k_OIN = torch.exp(-0.5 * ((steps_N - delay_OI1) / sigma).square())
            else:
                k_OIN = torch.relu(1 + sigma - (steps_N - delay_OI1).abs())
            k_OIN = k_OIN / (k_OIN.sum(-1, keepdim=True) + 1e-7)
        else:
            k_OIN = (steps_N == delay_OI1).to(wide)
        return (self.weight.to(wide)[..., None] * k_OIN).to(self.weight.dtype)

    def compute(self, x_BLI: Tensor) -> Tensor:
        past_BIT = F.pad(x_BLI.transpose(1, 2), (self.max_delay, 0))
        return F.conv1d(past_BIT, self.kernel().flip(2), self.bias).transpose(1, 2)

    def by_events(self, x_BLI: Tensor) -> Tensor:
        """What evaluation gives, by moving every input by its delay: L d_in d_out products instead of N times as many.

        Memory grows with B L d_in d_out; for hardware that routes events, and as a check of the convolution.
        """
        time_L1 = torch.arange(x_BLI.shape[1], device=x_BLI.device)[:, None]
        y = []
        for weight_I, delay_I in zip(self.weight, self.delay.detach().clamp(0, self.max_delay).round().long(), strict=True):
            at_LI = time_L1 - delay_I
            moved_BLI = x_BLI.gather(1, at_LI.clamp(min=0).expand_as(x_BLI)) * (at_LI >= 0)
            y.append(moved_BLI @ weight_I)
        return torch.stack(y, -1) if self.bias is None else torch.stack(y, -1) + self.bias


def reference(layer: Any, x_BLI: Tensor) -> Tensor:
    """Synapse by synapse, step by step, from the kernel's definition."""
    rows, length, d_in = x_BLI.shape
    last, sigma, d_out = layer.options["max_delay"], float(layer.sigma), layer.sizes["d_out"]
    x, y = x_BLI.tolist(), torch.zeros(rows, length, d_out, dtype=torch.float64)
    for o in range(d_out):
        for i in range(d_in):
            d = min(max(float(layer.delay[o, i]), 0.0), float(last))
            if not layer.training:
                k = [float(n == round(d)) for n in range(last + 1)]
            elif layer.options["version"] == "gauss":
                k = [math.exp(-0.5 * ((n - d) / sigma) ** 2) for n in range(last + 1)]
            else:
                k = [max(0.0, 1 + sigma - abs(n - d)) for n in range(last + 1)]
            total = sum(k) + 1e-7 if layer.training else 1.0
            for b in range(rows):
                for t in range(length):
                    seen = sum(k[n] * x[b][t - n][i] for n in range(min(last, t) + 1))
                    y[b, t, o] += float(layer.weight[o, i]) * seen / total
    return y if layer.bias is None else y + layer.bias


def _setting(**options: Any) -> tuple[Any, Tensor]:
    g = torch.Generator().manual_seed(0)
    return drawn(DelayedSynapses, 3, 2, **options), torch.randn(2, 40, 3, generator=g, dtype=torch.float64)


@torch.no_grad()
def claim_shift() -> bool:
    """As sigma falls, a synapse with a whole delay becomes an exact shift, and training becomes evaluation."""
    ours, x = _setting()
    ours.delay.round_()
    ours.anneal(0.05)
    moved = F.pad(x[:, :, 1], (int(ours.delay[0, 1]), 0))[:, :40]
    ours.weight.zero_()
    ours.weight[0, 1] = 1.0
    sharp = ours.train()(x)
    return bool(torch.allclose(sharp[..., 0], moved, atol=1e-6)) and bool(torch.allclose(ours.eval()(x), sharp, atol=1e-6))


@torch.no_grad()
def claim_sum() -> bool:
    """In training and evaluation a kernel sums to its weight."""
    for version in ("gauss", "max"):
        ours, _ = _setting(version=version)
        for sigma in (12.0, 0.5):
            ours.anneal(sigma)
            if any(not torch.allclose(m.kernel().sum(2), ours.weight, rtol=1e-6) for m in (ours.train(), ours.eval())):
                return False
    return True


@torch.no_grad()
def claim_causal() -> bool:
    """An impulse is answered from its own step to max_delay later, and nowhere else."""
    ours, _ = _setting(max_delay=6)
    x = torch.zeros(1, 30, 3, dtype=torch.float64)
    x[0, 10] = 1.0
    answered = ours.train()(x)[0].abs().amax(1) > 0
    return answered.nonzero().flatten().tolist() == list(range(10, 17))


@torch.no_grad()
def claim_events() -> bool:
    """Moving every input by its delay gives what the convolution gives in evaluation."""
    ours, x = _setting(bias=True)
    return bool(torch.allclose(ours.by_events(x), ours.eval()(x), atol=1e-12))


def claim_gradient() -> bool:
    """Within the range the gradient by delays is that of the output and isn't 0; beyond it, it leads back."""
    for version in ("gauss", "max"):
        ours, x = _setting(version=version)
        ours.anneal(2.0)
        ours.train()

        def output(delay: Tensor, ours: Any = ours, x: Tensor = x) -> Tensor:
            return torch.func.functional_call(ours, {"delay": delay}, (x,))

        inside = (0.1 + 0.8 * ours.delay.detach()).requires_grad_()
        torch.autograd.gradcheck(output, (inside,), fast_mode=True)
        outside = torch.full_like(inside, -1.0, requires_grad=True)
        if any(not torch.autograd.grad(output(d).square().sum(), d)[0].all() for d in (inside, outside)):
            return False
    return True


def claim_learns() -> bool:
    """Gradient descent with a falling sigma finds a delay of 17 from one of 3, which no weight can make up for."""
    ours, g = drawn(DelayedSynapses, 1, 1), torch.Generator().manual_seed(0)
    x = torch.randn(4, 60, 1, generator=g, dtype=torch.float64)
    target = F.pad(x, (0, 0, 17, 0))[:, :60]
    with torch.no_grad():
        ours.weight.fill_(0.5)
        ours.delay.fill_(3.0)
    optimizer = torch.optim.Adam([{"params": [ours.weight], "lr": 0.05}, {"params": [ours.delay], "lr": 1.0}])
    for step in range(60):
        ours.anneal(12 * (0.5 / 12) ** min(1.0, step / 40))
        optimizer.zero_grad()
        (ours.train()(x) - target).square().sum().backward()
        optimizer.step()
        ours.clamp_parameters()
    return int(ours.eval().delays()) == 17


PART = layer(
    DelayedSynapses,
    name="dcls-delays",
    reference=reference,
    formula=r"y_o(t) = \sum_{i,n} w_{oi} \frac{e^{-((n - d_{oi}) / \sigma)^2 / 2}}{c_{oi}}\, x_i(t - n)",
    paper=Paper("dcls-delays"),
    tags=Tags(shape="sequence", slot="", causal=True, stateful=True, exact_gradient=False),
    toy={"max_delay": 3, "sigma": 1.0},
    options=(
        Option("max_delay", 24, "the largest delay, in steps", bounds=(0, 10**6)),
        Option("sigma", 12.0, "deviation of the kernels at the start, in steps; see anneal", bounds=(0.0, math.inf)),
        Option("version", "gauss", "shape of the kernels in training", allowed=("gauss", "max")),
        Option("bias", False, "a bias an output", allowed=(True, False)),
    ),
    settings=({"max_delay": 9},),
    parameters="2 * d_in * d_out + bias * d_out",
    products="2 * d_in * d_out * (max_delay + 1) * length",
    elementwise="d_in * d_out * (max_delay + 4) / rows",
    claims=(
        Claim("shift", "for small sigma it shifts its inputs, exactly", check=claim_shift),
        Claim("sum", "a kernel sums to its weight", check=claim_sum),
        Claim("causal", "is causal", check=claim_causal),
        Claim("events", "a convolution and a routing of events", check=claim_events),
        Claim("gradient", "delays get a gradient", check=claim_gradient),
        Claim("learns", "delays are found by gradient descent", check=claim_learns),
    ),
    deviations=(
        "the sequence is padded on its left alone; the code pads the right too, which lengthens its output by half of the delays",
        "positions are held as delays: max_delay minus the code's place in the kernel",
        "sigma is the paper's; the library that the code uses adds 0.27 to the one that is set",
        "in evaluation a kernel is its weight; in the code it is that over 1 + 1e-7",
        "delays learn at the rate of the weights; the code gives them 100 times that, and no weight decay",
        "delays beyond the range are clamped in the forward too, with the gradient of its end, for nets trained without"
        " clamp_parameters after every step",
    ),
)
