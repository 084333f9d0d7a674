"""The kind `rule`: a learning rule is a loss with stop-gradients.

A rule yields scalars whose gradient at each parameter is that rule's update. The engines do the rest: the loop engine
steps each unit as its loss comes and frees its gradients; the stack engine takes the sum of all of them at once.
"""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor, nn

from netwright.kinds import Kind
from netwright.part import BadInput, Claim, Identity, Misfit, Option, Paper, Part

if TYPE_CHECKING:
    from netwright.kinds.task import Problem
    from netwright.nets import Blocks

#: Families share one learning-rate range of the task.
FAMILIES = ("backprop", "local", "feedback")


@final
@dataclass(frozen=True)
class Tags:
    """What a rule declares; the contract checks verify each."""

    family: str = "backprop"
    local: bool = False  # no gradient crosses from one unit to another
    needs: frozenset[str] = frozenset()  # of what a task gives: "labels", "vector", "image", "blocks", ...
    stackable: bool = True
    why_not_stackable: str = ""
    closed_form: bool = False  # fit(batches) replaces the steps
    forwards_train: float = 1.0  # rows sent through the blocks in a step, over the rows of the batch
    forwards_predict: float | str = 1.0  # the same for a prediction; "classes" = one pass a class
    above_control: bool = True  # beats frozen hidden layers by two standard deviations on digits
    reasons: dict[str, str] | None = None

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise BadInput(f"Tags family={self.family!r}; allowed: {', '.join(FAMILIES)}")
        if not self.stackable and not self.why_not_stackable:
            raise BadInput("Tags stackable=False needs why_not_stackable=")


@final
@dataclass(frozen=True)
class Phase:
    """A stretch of training: a share of the steps; the rule is told through enter(phase)."""

    name: str
    share: float = 1.0


class Rule(nn.Module):
    """A net and the way it learns. Abstract: a rule implements `forward` and `losses`, and what else it needs.

    net: Blocks (ordered blocks and a readout); problem: Problem (loss, metric, output shape, encode(y)).
    """

    def __init__(self, net: Blocks, problem: Problem) -> None:
        super().__init__()
        self.net = net
        self.problem = problem

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """The prediction for x (B, *input): (B, *output). Changes nothing."""

    def draw(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """All randomness of one step, drawn outside it; passed to losses as *draws."""
        return ()

    @abstractmethod
    def losses(self, x: Tensor, y: Tensor, *draws: Tensor) -> Iterator[Tensor]:
        """One scalar a unit, in the order of units(). Reads nothing that a step changes between two yields."""

    def units(self) -> Sequence[Sequence[nn.Parameter]]:
        """Disjoint groups of parameters, one optimizer each; the last holds what several losses share. Default: one."""
        return [[p for p in self.parameters() if p.requires_grad]]

    def after_step(self) -> None:
        """Projections, running averages, codebooks; once a step, after the last unit. Default: nothing."""

    def phases(self) -> Sequence[Phase]:
        """Stretches of training in order; their shares sum to 1. Default: one."""
        return (Phase("train"),)

    def enter(self, phase: Phase) -> None:
        """Called before the first step of each phase. Default: nothing."""

    def fit(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Closed-form training over one pass of batches, where tags.closed_form."""
        raise Misfit(f"{type(self).__name__} has no closed form: train it with an optimizer on its losses")


@final
@dataclass(frozen=True)
class RulePart(Part):
    """A learning rule. `build(net, problem, **options)` binds it to a net."""

    cls: type[Rule] = Rule

    @property
    def kind(self) -> str:
        return "rule"

    def slots(self) -> tuple[str, ...]:
        return ("rule",)

    def build(self, net: Any = None, problem: Any = None, **options: Any) -> Rule:
        """The rule bound to a net and a problem. Raises Misfit where the rule needs what they don't offer."""
        if net is None or problem is None:
            raise BadInput(f"{self.id}: build(net, problem, ...) needs a net (Blocks) and a Problem")
        missing = sorted(set(self.tags.needs) - set(problem.gives) - ({"blocks"} if hasattr(net, "blocks") else set()))
        if missing:
            raise Misfit(
                f"{self.id} needs {', '.join(missing)}, which this task doesn't offer"
                f" (it offers: {', '.join(sorted(problem.gives)) or 'nothing'}); choose another task or rule"
            )
        return self.cls(net, problem, **self.resolve(options))


def rule(
    cls: type[Rule],
    *,
    paper: Paper,
    name: str = "",
    summary: str = "",
    formula: str = "",
    tags: Tags | None = None,
    options: tuple[Option, ...] = (),
    identities: tuple[Identity, ...] = (),
    claims: tuple[Claim, ...] = (),
    deviations: tuple[str, ...] = (),
    uses: tuple[str, ...] = (),
    retired: str = "",
) -> RulePart:
    """Declare a learning rule. name: by default the class name in kebab case (MonoForward -> mono-forward)."""
    kebab = "".join("-" + c.lower() if c.isupper() else c for c in cls.__name__).lstrip("-")
    source: Callable[..., Any] | Any = inspect.getmodule(cls)
    return RulePart(
        name=name or kebab, paper=paper, summary=summary or (source.__doc__ or "").strip().split("\n")[0],
        formula=formula, tags=tags or Tags(), options=options, identities=identities, claims=claims,
        deviations=deviations, uses=uses, retired=retired, module=cls.__module__, cls=cls,
    )  # fmt: skip


KIND = Kind("rule", "rules", "how a net learns")
