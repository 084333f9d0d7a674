"""Smooth functions of the survey: gates raised to a power, algebraic gates, functions with a learnt shape."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.core.part import Identity, Learn, Option, Paper

INF = math.inf
SURVEY = Paper("four-hundred-activations")
LEAST = 2.0**-20  # of the logarithm's argument; exact in every dtype it is computed in


def soft_exponential(x: Tensor, a: Tensor) -> Tensor:
    # Each branch gets an argument that overflows neither there nor, multiplied by 0, in the gradient of the others.
    divisor = torch.where(a == 0, 1.0, a)
    rising = torch.expm1(torch.where(a > 0, a * x, 0.0)) / divisor + a
    bending = -torch.log1p(torch.where(a < 0, -a * (x + a), 0.0).clamp(min=LEAST - 1)) / divisor
    straight = x + a * (1 + x.clamp(-1e4, 1e4).square() / 2)  # to first order in a, so that a can leave 0
    return torch.where(a > 0, rising, torch.where(a < 0, bending, straight))


def soft_exponential_reference(x: float, a: float) -> float:
    if a < 0:
        return -math.log(max(LEAST, 1 - a * (x + a))) / a
    if a > 0:
        return math.expm1(a * x) / a + a if a * x < 709 else INF
    return x


FAR = 1e18  # its square fits float32


def algebraic(x: Tensor) -> Tensor:
    """x / sqrt(1 + x^2), which is 1 or -1 at the infinities."""
    near = x.clamp(-FAR, FAR)
    return near * torch.rsqrt(1 + near.square())


def bent_identity(x: Tensor) -> Tensor:
    # (sqrt(x^2 + 1) - 1) / 2 = x t / 2 with t = x / (1 + sqrt(x^2 + 1)): no cancellation near 0 or at -inf.
    near = x.clamp(-FAR, FAR)
    t = near / (1 + torch.sqrt(1 + near.square()))
    return x * (1 + t / 2)


def bent_identity_reference(x: float) -> float:
    if abs(x) > 1e8:
        return x * (1.5 if x > 0 else 0.5)
    return x * x / (2 * (math.sqrt(x * x + 1) + 1)) + x


def aria2(x: Tensor, *, alpha: float, beta: float) -> Tensor:
    gate = torch.exp(alpha * F.logsigmoid((beta * x).clamp(-1e4, 1e4)))
    return torch.where(gate > 0, x * gate, 0.0)  # not -inf * 0


def aria2_of_log(x: Tensor, *, alpha: float, beta: float) -> Tensor:
    gate = torch.exp(-alpha * torch.log(1 + torch.exp((-beta * x).clamp(max=80.0))))
    return torch.where(gate > 0, x * gate, 0.0)


def aria2_reference(x: float, alpha: float, beta: float) -> float:
    if x < 0:  # (1 + e^-u)^-a = e^(a u) (1 + e^u)^-a
        return x * math.exp(alpha * beta * x) * (1 + math.exp(beta * x)) ** -alpha if x > -1e4 else 0.0
    return x * (1 + math.exp(-beta * x)) ** -alpha


def swim(x: Tensor, *, k: float) -> Tensor:
    return x / 2 * (1 + k * algebraic(x))


def swim_reference(x: float, k: float) -> float:
    return x / 2 * (1 + k * math.sin(math.atan(x)))


def pstanh(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    gate = torch.sigmoid(2 * b * x)  # (1 + tanh(b x)) / 2, without its cancellation
    return torch.where(gate > 0, 2 * a * x * gate, 0.0)


def pstanh_reference(x: float, a: float, b: float) -> float:
    u = b * x
    if u < 0:
        e = math.exp(2 * u)
        return 2 * a * x * e / (1 + e) if e else 0.0
    return a * x * (1 + math.tanh(u))


def uaf(x: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor, e: Tensor) -> Tensor:
    bend = c * x.clamp(-1e15, 1e15).square()
    p, q = a * (x + b) + bend, d * (x - b)
    gap = (a - d) * x + (a + d) * b + bend  # p - q
    # softplus(p) - softplus(q) cancels where p and q are close or both large.
    near = torch.log1p(torch.sigmoid(q) * torch.expm1(gap.clamp(-1.0, 1.0)))
    straight = torch.where((p > 0) & (q > 0), gap, torch.relu(p) - torch.relu(q))
    far = straight + torch.log1p(torch.exp(-p.abs())) - torch.log1p(torch.exp(-q.abs()))
    return torch.where(gap.abs() < 1, near, far) + e


def softplus_reference(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def uaf_reference(x: float, a: float, b: float, c: float, d: float, e: float) -> float:
    if math.isinf(x):
        return x + e if x > 0 else e
    return softplus_reference(a * (x + b) + c * x * x) - softplus_reference(d * (x - b)) + e


def logsigmoid(x: Tensor) -> Tensor:
    return F.logsigmoid(x)


def logsigmoid_of_log(x: Tensor) -> Tensor:
    return x.clamp(max=0.0) - torch.log(1 + torch.exp(-x.abs()))


PARTS = (
    activation(
        soft_exponential, cls="SoftExponential",
        summary="Soft exponential: from a logarithm over a line to an exponential, learnt",
        formula=r"-\ln(1 - a (x + a)) / a \;(a < 0),\quad x \;(a = 0),\quad (e^{a x} - 1) / a + a \;(a > 0)",
        reference=soft_exponential_reference,
        paper=Paper(title="A continuum among logarithmic, linear, and exponential functions, and its potential to improve "
                          "generalization in neural networks", authors="Luke B. Godfrey, Michael S. Gashler", year=2015,
                    arxiv="1602.01321"),
        learn=(Learn("a", 0.0),), limits=(-INF, INF), flops=12.0, values={-2.0: -2.0, 3.0: 3.0},
        tags=Tags(smooth=True, monotone=True, odd=True, delicate=True),
        deviations=("the logarithm's argument is kept at least 2^-20; the paper's function ends where it reaches 0",
                    "starts at a = 0, the identity"),
    ),
    activation(
        bent_identity, cls="BentIdentity",
        summary="Bent identity: a line whose slope turns from 1/2 to 3/2",
        formula=r"(\sqrt{x^2 + 1} - 1) / 2 + x", reference=bent_identity_reference, paper=SURVEY, limits=(-INF, INF),
        flops=7.0, tags=Tags(smooth=True, monotone=True, delicate=True), values={-1.0: -0.792893, 0.0: 0.0, 1.0: 1.207107},
    ),
    activation(
        aria2, cls="ARiA2", compiled=aria2_of_log, summary="ARiA-2: x gated by a power of a sigmoid (Richards' curve)",
        formula=r"x\,(1 + e^{-\beta x})^{-\alpha}", reference=aria2_reference,
        paper=Paper(title="ARiA: Utilizing Richard's Curve for Controlling the Non-monotonicity of the Activation Function in "
                          "Deep Neural Nets", authors="Narendra Patwardhan, Madhura Ingalhalikar, Rahee Walambe", year=2018,
                    arxiv="1805.08878"),
        options=(Option("alpha", 1.5, "power of the gate", bounds=(0.0, INF)),
                 Option("beta", 2.0, "steepness of the gate", bounds=(0.0, INF))),
        limits=(0.0, INF), flops=7.0, tags=Tags(smooth=True, delicate=True, always=("smooth",)),
        identities=(Identity("activation/silu", options={"alpha": 1.0, "beta": 1.0}),
                    Identity("activation/swish", options={"alpha": 1.0, "beta": 2.0}, other_options={"beta": 2.0})),
    ),
    activation(
        swim, cls="Swim", summary="Swim: x gated by an algebraic step instead of Swish's sigmoid",
        formula=r"\frac{x}{2} (1 + k x / \sqrt{1 + x^2})", reference=swim_reference,
        paper=Paper(title="Swim: A General-Purpose, High-Performing, and Efficient Activation Function for Locomotion Control "
                          "Tasks", authors="Maryam Abdool, Tony Dear", year=2023, arxiv="2303.02640"),
        options=(Option("k", 0.5, "how far the gate opens"),), limits=(-INF, INF), flops=7.0,
        tags=Tags(smooth=True, monotone=True, delicate=True, always=("smooth",)),
        values={0.0: 0.0, 1.0: 0.676777, -1.0: -0.323223},
    ),
    activation(
        pstanh, cls="PSTanh", summary="PSTanh: x gated by a hyperbolic tangent of learnt height and steepness",
        formula=r"a x\,(1 + \tanh(b x))", reference=pstanh_reference, paper=SURVEY,
        learn=(Learn("a", 0.5), Learn("b", 1.0)), limits=(0.0, INF), flops=7.0, tags=Tags(smooth=True, delicate=True),
        identities=(Identity("activation/silu", options={"a": 0.5, "b": 0.5}, note="b = 1/2"),
                    Identity("activation/swish", options={"a": 0.5, "b": 1.0}, other_options={"beta": 2.0})),
        deviations=("the survey names no starting values; here a = 1/2 and b = 1",),
    ),
    activation(
        uaf, cls="UAF", summary="UAF, universal activation function: a difference of two softplus functions, learnt",
        formula=r"\ln(1 + e^{a (x + b) + c x^2}) - \ln(1 + e^{d (x - b)}) + e", reference=uaf_reference,
        paper=Paper(title="Universal Activation Function For Machine Learning", year=2020, arxiv="2011.03842",
                    authors="Brosnan Yuen, Minh Tu Hoang, Xiaodai Dong, Tao Lu",
                    code="SensorOrgNet/Universal_Activation_Function"),
        learn=(Learn("a", 10.0), Learn("b", 0.0), Learn("c", 0.0), Learn("d", 9.0), Learn("e", 0.0)),
        limits=(0.0, INF), flops=24.0, tags=Tags(smooth=True, delicate=True), values={0.0: 0.0, 3.0: 3.0},
        deviations=("starts at (10, 0, 0, 9, 0); the official code adds about 1e-6 or 1e-7 to the zeros",
                    "c x^2 is kept at its value at |x| = 1e15 beyond that"),
    ),
    activation(
        logsigmoid, cls="LogSigmoid", compiled=logsigmoid_of_log, summary="Log-sigmoid: the logarithm of the logistic sigmoid",
        formula=r"\ln \sigma(x)", reference=lambda x: -softplus_reference(-x), paper=SURVEY, limits=(-INF, 0.0), flops=5.0,
        tags=Tags(smooth=True, monotone=True), values={0.0: -0.693147, 1.0: -0.313262, -2.0: -2.126928},
        identities=(Identity("activation/softplus", scale_x=-1.0, scale_y=-1.0),),
    ),
)  # fmt: skip
