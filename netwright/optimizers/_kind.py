"""The kind `optimizer`: pure steps on one tensor, and schedules as pure functions of the step.

def step(g, state, p, t, *, lr, weight_decay, **options) -> p, state    # the subject; t counts from 1
def start(p) -> state                                                   # name -> tensor; scalars have no axes
def read(p, state, **options) -> p                                      # where to evaluate and what to save; default: p
def factor(step, steps, **options) -> float                             # a schedule's subject: on the rate, step from 0

What one tensor is, `Tags.scope` says: for "value" any, as each value stands for itself; for "tensor" a matrix comes as
(matrices, out, rest) by its role, whose first axis counts matrices that know nothing of each other, and all else flat;
for "net" all that is optimised together comes as one flat tensor. A step may change nothing in place and branch on no
value (torch.where instead), so that torch.vmap takes it. From it come the optimizer for torch and the
state that is saved (netwright.tensor.stepping), and the form that updates a stack of copies at once (netwright.tensor.copies).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from netwright.core.errors import BadInput
from netwright.core.kind import OPTIMIZER, SCHEDULE, TRAIN, Kind
from netwright.core.part import Option, Part
from netwright.tensor.copies import over_copies
from netwright.tensor.modules import Role
from netwright.tensor.stepping import SCOPES, State, check_rate, over, own_options

#: Raised by hand when numbers of this file move; tests/golden fails when they move and this did not.
KIND_VERSION = 1

Array = np.ndarray[Any, np.dtype[np.float64]]
DECAYS = ("coupled", "decoupled", "none")


@final
@dataclass(frozen=True)
class Twin:
    """An optimizer of torch that takes the same steps: it is used instead, with its own kernels.

    keywords(options) -> what its constructor takes. fused: it has a fused kernel, on CPU and CUDA.
    """

    cls: type[torch.optim.Optimizer]
    keywords: Callable[[Mapping[str, Any]], dict[str, Any]] = dict
    fused: bool = False


@final
@dataclass(frozen=True)
class Tags:
    """What an optimizer declares; the contract checks verify each.

    rates: factors on the lowest, highest and published rate of a task, which are Adam's. published: the rate it is given
    alone. free: it finds its own rate; then lr is a factor on that, and 1. decay: how it takes weight decay: "coupled",
    added to the gradient, or "decoupled": with a gradient of 0 a value shrinks by lr times the decay ("none": refused).
    matrices: it takes matrices alone, and leaves everything else to the part its option `rest` names. scaling: what its
    first step does where the loss is c times as large: "same", "linear", or "" for neither.
    """

    scope: str = "value"
    rates: tuple[float, float, float] = (1.0, 1.0, 1.0)
    published: float = 1e-3
    free: bool = False
    decay: str = "coupled"
    matrices: bool = False
    scaling: str = ""
    reasons: Mapping[str, str] = field(default_factory=dict)  # check -> why it is not the usual

    def __post_init__(self) -> None:
        for what, value, known in (("scope", self.scope, SCOPES), ("decay", self.decay, DECAYS)):
            if value not in known:
                raise BadInput(f"Tags {what}={value!r}; allowed: {', '.join(known)}")
        if self.scaling not in ("", "same", "linear"):
            raise BadInput(f"Tags scaling={self.scaling!r}; allowed: 'same', 'linear', ''")
        if self.free and (self.rates, self.published) != ((1.0, 1.0, 1.0), 1.0):
            raise BadInput("Tags free=True: it finds its own rate, so rates= has no say and published= is 1")
        if not (len(self.rates) == 3 and all(factor > 0 for factor in self.rates)):
            raise BadInput(f"Tags rates={self.rates}; expected three factors above 0, on the lowest, highest and published rate")


@final
@dataclass(frozen=True, kw_only=True)
class OptimizerPart(Part):
    """An optimizer, declared by `optimizer(step, start=..., ...)`. `build(parameters, lr=...)` is one for torch.

    reference(p, gradient, steps, *, lr, weight_decay, **options) yields p after each step, and where `read` is given the
    pair (p, where it is read): the second writing, of float64 arrays and scalars, by the paper's own words. p is an array
    of the shape the scope gives (a matrix of (out, rest)), gradient a function of p.
    """

    start: Callable[[Tensor], State]
    reference: Callable[..., Iterator[Any]]
    read: Callable[..., Tensor] | None = None
    twin: Twin | None = None
    tags: Tags = Tags()
    settings: tuple[Mapping[str, Any], ...] = ()  # options to check besides the defaults, where some need others to matter

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tags.matrices != ("rest" in {option.name for option in self.options}):
            raise BadInput(f"{self.id}: Tags(matrices=True) and an option `rest` go together")

    @property
    def kind(self) -> str:
        return "optimizer"

    def slots(self) -> tuple[str, ...]:
        return (OPTIMIZER,)

    @property
    def why_not_stackable(self) -> str:
        if self.tags.scope != "net":
            return ""
        return f'{self.id} sums over all tensors of a net (scope "net"), and a stack holds those of many'

    def accept(self, lr: float, weight_decay: float) -> None:
        """Raises BadInput for a rate or a decay that it doesn't take."""
        check_rate(self, lr, weight_decay)

    @property
    def steps(self) -> Callable[..., tuple[Tensor, State]]:
        """The pure step on one tensor."""
        return self.subject

    def own(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """What of its resolved options the step itself takes."""
        return own_options(self, options)

    def build(
        self, parameters: Any = None, lr: float | None = None, weight_decay: float = 0.0, **options: Any
    ) -> torch.optim.Optimizer:
        """An optimizer for torch. parameters: a model, netwright.parameter_groups(model), or what torch's own take.

        lr: by default the published one. weight_decay: of groups that name none. Raises BadInput, UnknownName.
        """
        return over(self, parameters, lr, weight_decay, self.resolve(options))

    def over_copies(
        self,
        params: Mapping[str, Tensor],
        decays: Mapping[str, float],
        rates: Sequence[float],
        roles: Mapping[str, Role],
        **options: Any,
    ) -> Any:
        """The form that updates a stack of copies at once: see netwright.tensor.copies."""
        return over_copies(self, params, decays, rates, roles, self.resolve(options))


@final
@dataclass(frozen=True, kw_only=True)
class SchedulePart(Part):
    """A schedule, declared by `schedule(factor, ...)`. `build(steps)` is the function of the step alone.

    reference(step, steps, **options) -> the factor, by the paper's own words. values: (step, steps) -> the factor at the
    defaults, known on paper. joints: shares of the steps at which one phase meets the next, where it is continuous.
    """

    reference: Callable[..., float]
    values: Mapping[tuple[int, int], float] = field(default_factory=dict)
    joints: Callable[..., tuple[float, ...]] = lambda **options: ()  # noqa: E731
    tags: None = None

    @property
    def kind(self) -> str:
        return "optimizer"

    def slots(self) -> tuple[str, ...]:
        return (SCHEDULE,)

    def build(self, steps: int | None = None, **options: Any) -> Callable[[int], float]:
        """The factor as a function of the step, as torch.optim.lr_scheduler.LambdaLR takes it. Raises BadInput past its end."""
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            raise BadInput(f"{self.id}: steps={steps!r}; expected how many steps it runs over: make({self.name!r}, steps=1000)")
        return partial(self.at, steps=steps, **self.resolve(options))

    def at(self, step: int, *, steps: int, **options: Any) -> float:
        """The factor at a step from 0 to steps. Raises BadInput outside, and where it isn't finite or negative."""
        if not 0 <= step <= steps:
            raise BadInput(f"{self.id} runs over {steps} steps and was asked for step {step}; build it with steps={step} or more")
        factor = float(self.subject(step, steps, **options))
        if not 0 <= factor < math.inf:
            raise BadInput(f"{self.id}: the factor at step {step} of {steps} is {factor}")
        return factor


def rest_options(rest: str, rate: float) -> tuple[Option, Option]:
    """The options of a part that takes matrices alone."""
    return (
        Option("rest", rest, "the optimizer of whatever is no matrix, as text", names="optimizer"),
        Option("rest_rate", rate, "its rate over that of matrices", bounds=(0.0, math.inf)),
    )


def toy(shape: Sequence[int], seed: int = 0) -> tuple[Array, Callable[[Any], Any]]:
    """A dense, ill-conditioned quadratic with a bend: (where to start, its gradient as a function of an array or tensor).

    The Hessian has condition 100 and no axis of its own along a coordinate.
    """
    draw = np.random.default_rng(seed)
    n = math.prod(shape)
    basis, _ = np.linalg.qr(draw.standard_normal((n, n)))
    hessian = (basis * np.geomspace(0.05, 5.0, n)) @ basis.T
    least, start = draw.standard_normal(n), draw.standard_normal(n)

    def gradient(p: Any) -> Any:
        if isinstance(p, Tensor):
            off = p.reshape(-1) - torch.as_tensor(least, dtype=p.dtype)
            return (torch.as_tensor(hessian, dtype=p.dtype) @ off + 0.1 * off**3).reshape(p.shape)
        off = p.reshape(-1) - least
        return (hessian @ off + 0.1 * off**3).reshape(p.shape)

    return start.reshape(tuple(shape)), gradient


optimizer = OptimizerPart
schedule = SchedulePart

KIND = Kind(
    "optimizer", "optimizers", "the step from a gradient to a value, and its rate over time", TRAIN, slots=(OPTIMIZER, SCHEDULE)
)
