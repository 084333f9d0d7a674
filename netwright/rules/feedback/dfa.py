"""Direct feedback alignment: the output error reaches every block through a fixed random matrix (Nokland, 2016).

    delta_k = (e D_k) * f'(a_k), D_k fixed;    e: the error dL/d(output), or the targets (Frenkel et al., 2021)

Shape suffixes: B batch, K outputs, N features of a block.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from netwright.core.errors import Misfit
from netwright.core.part import Claim, Option, Paper, Protocol
from netwright.engine.blocks import Blocks
from netwright.engine.rule import Rule, trainable
from netwright.engine.task import Problem
from netwright.rules._kind import Tags, rule
from netwright.rules._toy import Toy, forward_by_hand, gradients, linear_gradients, softmax_error, true_gradients


@final
class Feedback(nn.Module):
    """A fixed random map of the output error to a block's shape, drawn once from U(-1, 1) / sqrt(K).

    Where block and output have the same positions (B, L, N) and (B, L, K), every position uses the same matrix;
    otherwise the whole error is sent to the whole block.
    """

    matrix_KN: Tensor

    def __init__(self, shape: tuple[int, ...], output: tuple[int, ...]) -> None:
        super().__init__()
        self.by_position = len(shape) == len(output)
        k, n = (output[-1], shape[-1]) if self.by_position else (math.prod(output), math.prod(shape))
        self.register_buffer("matrix_KN", torch.empty(k, n))

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator) -> None:
        bound = 1 / math.sqrt(len(self.matrix_KN))
        self.matrix_KN.uniform_(-bound, bound, generator=generator)

    def forward(self, error: Tensor, h: Tensor) -> Tensor:
        """The signal for h: what backpropagation would call dL/dh."""
        if self.by_position:
            return error @ self.matrix_KN
        return (error.flatten(1) @ self.matrix_KN).view_as(h)


@final
class Dfa(Rule):
    """dL/dh_k is replaced by e D_k; the readout learns from the loss itself.

    signal: e is "error", dL/d(output), or "target", the one-hot targets over the number of rows, which are known before the
    output is (direct random target projection). Raises Misfit for "target" where the task has no classes.
    """

    def __init__(self, net: Blocks, problem: Problem, signal: str = "error") -> None:
        super().__init__(net, problem)
        if signal == "target" and (problem.classes is None or problem.encode is None):
            raise Misfit("signal='target' projects one-hot targets, and this task has no classes; use signal='error'")
        self.signal = signal
        self.feedback = nn.ModuleList(Feedback(shape, problem.output) for shape in net.shapes)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def losses(self, x: Tensor, y: Tensor, *draws: Tensor) -> Iterator[Tensor]:
        h, hidden = x, []
        for block in self.net.blocks:
            h = block(h.detach())
            hidden.append(h)
        out = self.net.readout(h.detach())
        error = self.error(out.detach(), y)
        for h, feedback in zip(hidden, self.feedback, strict=True):
            yield (h * feedback(error, h)).sum()
        yield self.problem.loss(out, y)

    def error(self, out: Tensor, y: Tensor) -> Tensor:
        """e, in the shape of the output."""
        if self.signal == "target" and self.problem.encode is not None:
            return self.problem.encode(y).to(out.dtype) / out[..., 0].numel()
        # torch.func.grad, not torch.autograd.grad: the latter can't run inside another functional transform.
        return torch.func.grad(lambda o: self.problem.loss(o, y))(out).detach()

    def units(self) -> Sequence[Sequence[nn.Parameter]]:
        return [trainable(block) for block in self.net.blocks] + [trainable(self.net.readout)]


def reference(rule: Any, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """e = (softmax(out) - Y) / B; dW_k = ((s D_k) * 1[h_k > 0])^T h_(k-1), s being e or Y / B; readout: e^T h."""
    *hidden, out = forward_by_hand(rule.net, x)
    e_BK = softmax_error(out, y)
    grads = linear_gradients("net.readout", e_BK, hidden[-1])
    s_BK = e_BK if rule.signal == "error" else torch.eye(e_BK.shape[1], dtype=e_BK.dtype)[y] / len(y)
    for k in range(len(hidden) - 1):
        signal = s_BK @ rule.get_buffer(f"feedback.{k}.matrix_KN")
        grads |= linear_gradients(f"net.blocks.{k}.0", signal * (hidden[k + 1] > 0), hidden[k])
    return grads


def claim_transpose() -> bool:
    """With one hidden layer and D = W_2 the signal is the true gradient."""
    toy = Toy(widths=(6,))
    dfa, (x, y) = toy.bind(Dfa), toy.batch()
    dfa.get_buffer("feedback.0.matrix_KN").copy_(dfa.get_parameter("net.readout.weight").detach())
    got, exact = gradients(dfa, x, y), true_gradients(dfa, x, y)
    return all(torch.allclose(got[name], g, rtol=1e-12, atol=1e-14) for name, g in exact.items())


PART = rule(
    Dfa,
    reference=reference,
    formula=r"\delta_k = (e\,D_k) \odot f'(a_k),\quad e = \partial L / \partial \mathrm{out}",
    paper=Paper(
        title="Direct Feedback Alignment Provides Learning in Deep Neural Networks",
        authors="Arild Nøkland",
        year=2016,
        arxiv="1609.01596",
    ),
    tags=Tags(family="feedback", needs=frozenset({"blocks"}), surrogate=True),
    options=(
        Option("signal", "error", "what is projected: the output's error, or the one-hot targets", allowed=("error", "target")),
    ),
    claims=(
        Claim(
            "transpose",
            "with the forward weights for feedback, one hidden layer learns as under backpropagation",
            check=claim_transpose,
        ),
        Claim(
            "learns",
            "fixed random feedback trains hidden layers",
            where="abstract",
            protocol=Protocol(task="digits", against="rule/frozen-hidden", expect="better"),
        ),
        Claim(
            "backprop",
            "almost as good as backpropagation for fully connected nets",
            where="abstract",
            protocol=Protocol(task="digits", against="rule/backprop", expect="not worse"),
        ),
    ),
    deviations=(
        "feedback reaches a block's output; inside a block of several layers the gradient is exact",
        "the matrices are drawn from U(-1, 1) / sqrt(outputs)",
        "signal='target' is Frenkel, Lefebvre and Bol (2021, arXiv 1909.01311), with the sign of their code, since D is"
        " symmetric; their nets have tanh units and sigmoid outputs",
    ),
)
