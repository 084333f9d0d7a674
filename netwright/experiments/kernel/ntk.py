"""The tangent kernel of a wide net approaches its limit as one over the root of the width, and stays there in training.

Jacot, Gabriel and Hongler (2018). Shape suffixes: N examples, D inputs, W width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from netwright.core import catalogue
from netwright.core.part import Option, Paper
from netwright.engine.view import View
from netwright.experiments._kind import Control, Figure, Predicate, experiment
from netwright.tensor.streams import generator

INPUTS, EXAMPLES = 10, 12


class Wide(nn.Module):
    """sqrt(2) relu layers of one width, h = W a / sqrt(fan in), every weight from N(0, 1), no biases; one output.

    scaling: of the output, over sqrt(width) ("ntk") or over the width ("mean-field", in which features move).
    """

    def __init__(self, width: int, depth: int, scaling: str, draw: torch.Generator) -> None:
        super().__init__()
        sizes = (INPUTS, *(width,) * depth, 1)
        shapes = zip(sizes[1:], sizes, strict=False)
        self.weights = nn.ParameterList(torch.randn(shape, generator=draw, dtype=torch.float64) for shape in shapes)
        self.last = math.sqrt(width) if scaling == "ntk" else float(width)

    def forward(self, x_ND: Tensor) -> Tensor:
        h = x_ND
        for weight in self.weights[:-1]:
            h = (h @ weight.T / math.sqrt(weight.shape[1])).relu() * math.sqrt(2)
        return h @ self.weights[-1].T / self.last


def limit(x_ND: Tensor, depth: int) -> Tensor:
    """The kernel of infinite width (N, N): K_1 = S_1 = x x' / D, K_(l+1) = K_l E[s'(u) s'(v)] + S_(l+1).

    S_(l+1) = E[s(u) s(v)] for (u, v) from N(0, S_l) and s = sqrt(2) relu, in closed form by the angle (Cho and Saul, 2009).
    """
    covariance = x_ND @ x_ND.T / x_ND.shape[1]
    kernel = covariance.clone()
    for _ in range(depth):
        length = covariance.diagonal().sqrt()
        cosine = (covariance / torch.outer(length, length)).clamp(-1, 1)
        angle = cosine.acos()
        slope = (math.pi - angle) / math.pi
        covariance = torch.outer(length, length) * (angle.sin() + (math.pi - angle) * cosine) / math.pi
        kernel = kernel * slope + covariance
    return kernel


def cell(seed: int, *, width: int, depth: int, steps: int, scaling: str) -> Mapping[str, Any]:
    """Relative error of the kernel before training, and its drift over gradient descent at half the largest stable rate."""
    draw = generator(seed, "experiment", "ntk")
    x_ND = torch.randn(EXAMPLES, INPUTS, generator=draw, dtype=torch.float64)
    y_N = torch.randn(EXAMPLES, generator=draw, dtype=torch.float64)
    net = Wide(width, depth, scaling, draw)
    measure: Any = catalogue.get("measure/empirical-ntk")
    kernel_of = measure.build()
    view = View(x_ND)
    before, wanted = kernel_of(net, view)["kernel"], limit(x_ND, depth)
    rate = 1 / float(torch.linalg.eigvalsh(before)[-1])
    for _ in range(steps):
        loss = (net(x_ND)[:, 0] - y_N).square().sum() / 2
        gradients = torch.autograd.grad(loss, list(net.parameters()))
        with torch.no_grad():
            for p, g in zip(net.parameters(), gradients, strict=True):
                p.sub_(rate * g)
    after = kernel_of(net, view)["kernel"]
    return {"error": float((before - wanted).norm() / wanted.norm()), "drift": float((after - before).norm() / before.norm())}


PART = experiment(
    cell,
    name="ntk",
    paper=Paper("ntk"),
    formula=r"\|K_n - K_\infty\| \propto n^{-1/2}",
    uses=("measure/empirical-ntk",),
    grid={"width": (64, 256, 1024)},
    gives=("error", "drift"),
    options=(
        Option("depth", 2, "hidden layers", bounds=(0, 9)),
        Option("steps", 100, "of gradient descent", bounds=(0, 10**6)),
        Option("scaling", "ntk", "of the output", allowed=("ntk", "mean-field")),
    ),
    sizes={
        "tiny": {"width": (32, 128), "steps": 20, "seeds": 4},
        "small": {"seeds": 16},
        "full": {"width": (64, 256, 1024, 4096), "seeds": 16},
    },
    predicates=(
        Predicate(
            "rate",
            "the error of the kernel falls as one over the root of the width",
            lambda table: table.slope("width", "error"),
            inside=(-0.70, -0.40),
            reads=("width", "error"),
            where="Theorem 1",
        ),
        Predicate(
            "lazy",
            "training moves the kernel of a wider net less: sixteen times the width, at most half the drift",
            lambda table: table.slope("width", "drift"),
            inside=(-math.inf, -0.25),
            reads=("width", "drift"),
            where="Theorem 2",
        ),
    ),
    controls=(
        Control(
            "the output over the width: features move, and no kernel is a limit", {"scaling": "mean-field"}, ("rate", "lazy")
        ),
    ),
    figure=Figure("width", "error", "log-log", label="relative error of the kernel"),
)
