"""Predictive coding: states settle between what is predicted from below and corrected from above (Whittington, Bogacz, 2017).

Shape suffixes: B batch, K outputs, N and M features of a block and of the one below.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from netwright.core.part import Claim, Option, Paper, Protocol
from netwright.engine.blocks import Blocks
from netwright.engine.rule import Rule, trainable
from netwright.engine.task import Problem
from netwright.rules._kind import Tags, rule
from netwright.rules._toy import Toy, apart, gradients, linear_gradients, softmax_error, true_gradients
from netwright.rules.energy._jacobians import Pull, linearised, row_gradient, widened
from netwright.rules.energy._repeated_passes import require_repeatable, untracked
from netwright.tensor.precision import full_precision


@final
class PredictiveCoding(Rule):
    """F = sum_k |f_k(v_(k-1)) - v_k|^2 / 2 + L(f_out(v_n), y), with v_0 = x and v_k starting at the feed-forward activity.

    A step of inference moves every v_k by eta (e_k - J_(k+1)^T e_(k+1)), with e_k = f_k(v_(k-1)) - v_k and dL/d(output) for
    the output's e; then the weights of layer k learn from |f_k(v_(k-1)) - v_k|^2 / 2.
    variant: "strict" predicts from the states as they move (steps down F); "fixed-prediction" keeps every f_k and J_k, and
    what the weights read, as they were feed-forward; "exact" puts e to what fixed prediction tends to, the gradient dL/dv.
    """

    def __init__(self, net: Blocks, problem: Problem, variant: str = "strict", eta: float = 0.1, steps: int = 20) -> None:
        super().__init__(net, problem)
        require_repeatable(net, "predictive coding")
        self.variant, self.eta, self.steps = variant, eta, steps

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def predict(self, x: Tensor, y: Tensor, states: Sequence[Tensor] = ()) -> tuple[list[Tensor], list[Pull], Tensor]:
        """What each block predicts from the states below it (feed-forward where there are none), what carries an error
        from the layer above down to each of them, and the error at the output."""
        guesses: list[Tensor] = []
        pulls: list[Pull] = []
        for k, block in enumerate(self.net.blocks):
            if k == 0:
                guesses.append(widened(block(x), self.net))
                continue
            guess, pull = linearised(block, states[k - 1] if states else guesses[k - 1])
            guesses.append(guess)
            pulls.append(pull)
        out, pull = linearised(self.net.readout, states[-1] if states else guesses[-1])
        return guesses, [*pulls, pull], row_gradient(lambda o: self.problem.loss(o, y), out)

    def infer(self, x: Tensor, y: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """What every layer reads (x, then a state a block), and the states v."""
        with torch.no_grad(), full_precision(x), untracked(self.net):
            fixed, pulls, error = self.predict(x, y)
            if self.variant == "exact":
                states: list[Tensor] = []
                for guess, pull in zip(reversed(fixed), reversed(pulls), strict=True):
                    error = pull(error)
                    states.insert(0, guess - error)
                return [x, *fixed], states
            guesses, states = fixed, fixed
            for step in range(self.steps):
                if step and self.variant == "strict":
                    guesses, pulls, error = self.predict(x, y, states)
                errors = [guess - v for guess, v in zip(guesses, states, strict=True)]
                pulled = [pull(e) for pull, e in zip(pulls, [*errors[1:], error], strict=True)]
                states = [v + self.eta * (e - p) for v, e, p in zip(states, errors, pulled, strict=True)]
            return [x, *(states if self.variant == "strict" else fixed)], states

    def losses(self, x: Tensor, y: Tensor, *draws: Tensor) -> Iterator[Tensor]:
        read, states = self.infer(x, y)
        for k, block in enumerate(self.net.blocks):
            with full_precision(x):
                energy = (block(read[k]) - states[k]).square().sum() / (2 * len(x))
            yield energy
        yield self.problem.loss(self.net.readout(read[-1]), y)

    def units(self) -> Sequence[Sequence[nn.Parameter]]:
        return [trainable(block) for block in self.net.blocks] + [trainable(self.net.readout)]


def reference(rule: Any, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Inference by the weights of dense ReLU layers; dW_k = (e_k * 1[f_k > 0])^T v_(k-1) / B."""
    linears, readout = [block[0] for block in rule.net.blocks], rule.net.readout
    n, rows = len(linears), len(x)

    def guess(k: int, below: Tensor) -> Tensor:
        return (below @ linears[k].weight.T + linears[k].bias).clamp(min=0)

    def down(k: int, errors: Sequence[Tensor], made: Sequence[Tensor], top: Tensor) -> Tensor:
        """J^T e of the layer above block k."""
        if k == n - 1:
            return rows * softmax_error(top @ readout.weight.T + readout.bias, y) @ readout.weight
        return (errors[k + 1] * (made[k + 1] > 0)) @ linears[k + 1].weight

    first = [guess(0, x)]
    for k in range(1, n):
        first.append(guess(k, first[k - 1]))
    v = list(first)
    errors = [torch.zeros_like(h) for h in first]
    if rule.variant == "exact":
        for k in reversed(range(n)):
            errors[k] = down(k, errors, first, first[-1])
    else:
        strict = rule.variant == "strict"
        for _ in range(rule.steps):
            made = [guess(k, v[k - 1] if k else x) for k in range(n)] if strict else first
            top = v[-1] if strict else first[-1]
            errors = [m - s for m, s in zip(made, v, strict=True)]
            v = [v[k] + rule.eta * (errors[k] - down(k, errors, made, top)) for k in range(n)]
        made = [guess(k, v[k - 1] if k else x) for k in range(n)] if strict else first
        errors = [m - s for m, s in zip(made, v, strict=True)]
    read = [x, *(v if rule.variant == "strict" else first)]
    grads = linear_gradients("net.readout", softmax_error(read[-1] @ readout.weight.T + readout.bias, y), read[-1])
    for k in range(n):
        grads |= linear_gradients(f"net.blocks.{k}.0", errors[k] * (guess(k, read[k]) > 0) / rows, read[k])
    return grads


def _update(variant: str, eta: float, steps: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The update and backpropagation's, on two blocks and a readout: three layers."""
    toy = Toy()
    coding, (x, y) = toy.bind(PredictiveCoding, variant=variant, eta=eta, steps=steps), toy.batch()
    return gradients(coding, x, y), true_gradients(coding, x, y)


def claim_fixed() -> bool:
    """With eta = 1 and as many steps as layers, fixed prediction gives backpropagation's gradient to 1e-12."""
    return apart(*_update("fixed-prediction", 1.0, 3)) < 1e-12


def claim_reach() -> bool:
    """An error comes down one layer a step: with one step fewer than blocks, the first block learns nothing."""
    got, _ = _update("fixed-prediction", 1.0, 1)
    first = all(not bool(got[f"net.blocks.0.0.{name}"].any()) for name in ("weight", "bias"))
    return first and bool(got["net.blocks.1.0.weight"].any())


def claim_tends() -> bool:
    """Fixed prediction tends to the exact errors: at eta = 0.1, 200 steps are within 1e-6, 20 steps are not within 0.01."""
    long, short = apart(*_update("fixed-prediction", 0.1, 200)), apart(*_update("fixed-prediction", 0.1, 20))
    return long < 1e-6 and short > 0.01 and apart(*_update("exact", 0.1, 20)) < 1e-12


def claim_energy() -> bool:
    """Strict inference with a small eta never raises F."""
    toy = Toy()
    energies = []
    for steps in (1, 2, 3, 5, 8):
        coding, (x, y) = toy.bind(PredictiveCoding, eta=0.05, steps=steps), toy.batch()
        energies.append(float(torch.stack(list(coding.losses(x, y))).sum().detach()))
    return all(later <= earlier for earlier, later in zip(energies, energies[1:], strict=False))


PART = rule(
    PredictiveCoding,
    reference=reference,
    formula=r"F = \frac{1}{2}\sum_k \| f_k(v_{k-1}) - v_k \|^2 + L,\quad v \leftarrow v - \eta\,\partial F/\partial v"
    r",\quad \Delta\theta = -\partial F/\partial\theta",
    paper=Paper(
        title="An Approximation of the Error Backpropagation Algorithm in a Predictive Coding Network with Local Hebbian"
        " Synaptic Plasticity",
        authors="James C. R. Whittington, Rafal Bogacz",
        year=2017,
        venue="Neural Computation 29",
    ),
    tags=Tags(
        family="feedback",
        forwards_train="1 + steps",
        surrogate=True,
        at={"variant=fixed-prediction": {"forwards_train": 2.0}, "variant=exact": {"forwards_train": 2.0}},
    ),
    options=(
        Option("variant", "strict", "what inference predicts from", allowed=("strict", "fixed-prediction", "exact")),
        Option("eta", 0.1, "rate of inference", bounds=(0.0, 2.0)),
        Option("steps", 20, "steps of inference", bounds=(0, 10_000)),
    ),
    claims=(
        Claim(
            "fixed",
            "with eta = 1 and as many steps as layers, fixed prediction is backpropagation",
            where="Rosenbaum (2022), On the relationship between predictive coding and backpropagation",
            check=claim_fixed,
        ),
        Claim("reach", "with one step fewer than blocks, the first block's gradient is zero", check=claim_reach),
        Claim("tends", "fixed prediction tends to backpropagation's errors as steps are added", check=claim_tends),
        Claim("energy", "strict inference descends the energy", check=claim_energy),
        Claim(
            "backprop",
            "approximates backpropagation: as accurate on digits",
            protocol=Protocol(task="mnist", against="rule/backprop", expect="not worse"),
        ),
    ),
    deviations=(
        "the loss takes the place of the squared error of the output layer, as in Torch2PC (Rosenbaum, 2022); each example"
        " has an energy of its own, with its own loss, where Torch2PC takes the mean over the batch into the errors",
        "states and errors stay in float32 under mixed precision",
        "weights learn from the errors after the last step of inference, in Torch2PC from those before it: its n steps of"
        " fixed prediction are n - 1 here",
        "a layer is a block of the host; f includes the activation, where Whittington and Bogacz put it on the layer below",
        "running statistics follow the last pass, which reads the states of inference where the variant is strict",
    ),
)
