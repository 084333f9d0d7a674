"""The empirical tangent kernel: how far a step on one example moves the output for another (Jacot et al., 2018).

Shape suffixes: N examples, O outputs, P parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from netwright.core.part import Claim, Option, Paper
from netwright.engine.view import View
from netwright.measures._kind import Tags, measure
from netwright.tensor.tap import evaluating


def empirical_ntk(net: nn.Module, view: View, output: int) -> Mapping[str, Any]:
    """kernel (N, N): K_ij = sum over all parameters of d f(x_i) d f(x_j), f the output of this number, in evaluation.

    trace: the mean of its diagonal; rank: how many equal eigenvalues would have the same spread, (sum)^2 / sum of squares.
    """
    learnt = [p for p in net.parameters() if p.requires_grad]
    kernel = torch.zeros(len(view.x), len(view.x), dtype=view.x.dtype, device=view.x.device)
    with evaluating(net), torch.enable_grad():
        rows = [torch.autograd.grad(net(x[None]).flatten()[output], learnt) for x in view.x]
    for gradients in zip(*rows, strict=True):
        jacobian_NP = torch.stack([g.flatten() for g in gradients])
        kernel += jacobian_NP @ jacobian_NP.T
    trace = float(kernel.diagonal().sum())
    return {"kernel": kernel, "trace": trace / len(kernel), "rank": trace**2 / float(kernel.square().sum())}


def reference(net: nn.Module, view: View, output: int) -> Mapping[str, Any]:
    """By central differences of every single parameter, and by the eigenvalues."""
    was, step = net.training, 1e-5
    net.eval()
    columns = []
    with torch.no_grad():
        for p in net.parameters():
            flat = p.view(-1)
            for k in range(flat.numel()):
                value = float(flat[k])
                ends = []
                for moved in (value + step, value - step):
                    flat[k] = moved
                    ends.append(net(view.x).reshape(len(view.x), -1)[:, output].clone())
                flat[k] = value
                columns.append((ends[0] - ends[1]) / (2 * step))
    net.train(was)
    jacobian_NP = torch.stack(columns, 1)
    values = torch.linalg.eigvalsh(jacobian_NP @ jacobian_NP.T)
    rank = float(values.sum() ** 2 / (values**2).sum())
    return {"kernel": jacobian_NP @ jacobian_NP.T, "trace": float(values.mean()), "rank": rank}


def cases() -> tuple[tuple[nn.Module, View, Mapping[str, Any]], ...]:
    """A linear map, whose kernel is x x' + 1; and a product of two weights, known at their values."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(5, 3, generator=g, dtype=torch.float64)
    linear = nn.Linear(3, 2, dtype=torch.float64)
    first, second = (nn.Linear(1, 1, bias=False, dtype=torch.float64) for _ in range(2))
    deep = nn.Sequential(first, second)
    with torch.no_grad():
        for module, value in ((linear, 0.25), (first, 3.0), (second, -2.0)):
            module.weight.fill_(value)
        linear.bias.zero_()
    z = torch.tensor([[1.0], [-2.0]], dtype=torch.float64)
    return (
        (linear, View(x), {"kernel": x @ x.T + 1}),
        (deep, View(z), {"kernel": (3.0**2 + 2.0**2) * z @ z.T, "trace": 13.0 * 2.5, "rank": 1.0}),
    )


def claim_positive() -> bool:
    """No eigenvalue is negative."""
    net, view, _ = cases()[0]
    return bool(torch.linalg.eigvalsh(empirical_ntk(net, view, 0)["kernel"]).min() >= -1e-12)


PART = measure(
    empirical_ntk,
    reference=reference,
    cases=cases,
    formula=r"K(x, x') = \sum_p \partial_p f(x)\, \partial_p f(x')",
    paper=Paper("ntk"),
    tags=Tags(reads=frozenset({"gradients"})),
    options=(Option("output", 0, "the number of the output"),),
    claims=(Claim("positive", "is positive semi-definite", where="section 4", check=claim_positive),),
)
