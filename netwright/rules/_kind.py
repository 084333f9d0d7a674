"""The kind `rule`: a learning rule is a loss with stop-gradients.

A rule yields scalars whose gradient at each parameter is that rule's update. The engines do the rest: the loop engine
steps each unit as its loss comes and frees its gradients; the stack engine takes the sum of all of them at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, final

from torch import Tensor

from netwright.core.errors import BadInput, Misfit
from netwright.core.expressions import names_in
from netwright.core.kind import RULE, TRAIN, Kind
from netwright.core.part import Part
from netwright.engine.rule import Rule, require_blocks
from netwright.rules._toy import Toy

#: Raised by hand when numbers of this file move; tests/golden fails when they move and this did not.
KIND_VERSION = 1

FAMILIES = ("backprop", "local", "feedback")


@final
@dataclass(frozen=True)
class Tags:
    """What a rule declares; the contract checks verify each."""

    family: str = "backprop"  # arms of one family share a range of rates, and its widening
    rates: tuple[float, float, float] = (1.0, 1.0, 1.0)  # factors on the task's lowest, highest and published rate
    local: bool = False  # no gradient crosses from one unit to another
    needs: frozenset[str] = frozenset()  # of what a task gives: "labels", "vector", "image", ...; "blocks" is added by the class
    stackable: bool = True
    why_not_stackable: str = ""
    closed_form: bool = False  # fit(batches) replaces the steps
    # Rows sent through the blocks in a step and in a prediction, over the rows of the batch: a number, or an expression
    # of the rule's options, "classes", "depth" (the number of blocks) and "nodes" (of a graph), e.g. "1 + 2 * steps".
    forwards_train: float | str = 1.0
    forwards_predict: float | str = 1.0
    surrogate: bool = False  # the values of the losses mean nothing, only their gradients do; the problem's loss falls
    above_control: bool = True  # beats frozen hidden layers by two standard deviations on digits
    reasons: Mapping[str, str] = field(default_factory=dict)  # tag or check -> why it is not the usual
    at: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # "option=value" -> the tags that differ there

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise BadInput(f"Tags family={self.family!r}; allowed: {', '.join(FAMILIES)}")
        if not (len(self.rates) == 3 and all(factor > 0 for factor in self.rates)):
            raise BadInput(f"Tags rates={self.rates}; expected three factors above 0, on the lowest, highest and published rate")
        if not self.stackable and not self.why_not_stackable:
            raise BadInput("Tags stackable=False needs why_not_stackable=")
        if not self.above_control and not self.reasons.get("above_control"):
            raise BadInput("Tags above_control=False needs its reason: reasons={'above_control': ...}")
        for cost in (self.forwards_train, self.forwards_predict):
            try:
                names_in(cost)
            except BadInput as error:
                raise BadInput(f"forwards: {error}; names: 'classes', 'depth', 'nodes' and options") from None


@final
@dataclass(frozen=True, kw_only=True)
class RulePart(Part):
    """A learning rule, declared by `rule(cls, ...)`. `build(net, problem, **options)` binds it to a net.

    reference(rule, x, y, *draws) -> gradients by parameter name: the second writing of one step's update, without
    autograd and without the rule's own methods, for the net of `toy`. The check compares it with what the losses give,
    in float64. toy: None is Toy(); a rule that fits no net of vectors names another, e.g. Toy(nodes=9).
    """

    tags: Tags = field(default_factory=Tags)
    reference: Callable[..., dict[str, Tensor]] | None = None
    toy: Toy | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.cls.any_net:
            self._derive(tags=replace(self.tags, needs=self.tags.needs | {"blocks"}))
        known = {"classes", "depth", "nodes", *(option.name for option in self.options)}
        for cost in (self.tags.forwards_train, self.tags.forwards_predict):
            if unknown := sorted(names_in(cost) - known):
                raise BadInput(f"{self.id}: forwards {cost!r} names {unknown[0]!r}; allowed: {', '.join(sorted(known))}")

    @property
    def cls(self) -> type[Rule]:
        """The class that is declared."""
        return self.subject

    @property
    def kind(self) -> str:
        return "rule"

    def slots(self) -> tuple[str, ...]:
        return ("rule",)

    @property
    def needs(self) -> frozenset[str]:
        return self.tags.needs - {"blocks"}

    def build(self, net: Any = None, problem: Any = None, **options: Any) -> Rule:
        """The rule bound to a net and a problem. Raises Misfit where the rule needs what they don't offer."""
        if net is None or problem is None:
            raise BadInput(f"{self.id}: build(net, problem, ...) needs a net (Blocks) and a Problem")
        resolved = self.resolve(options)
        needs = set(self.tags_at(**resolved).needs)
        if "blocks" in needs:
            require_blocks(net, self.id)
        if missing := sorted(needs - {"blocks"} - set(problem.gives)):
            raise Misfit(
                f"{self.id} needs {', '.join(missing)}, which this task doesn't offer"
                f" (it offers: {', '.join(sorted(problem.gives)) or 'nothing'}); choose another task or rule"
            )
        return self.cls(net, problem, **resolved)

    def tags_at(self, **options: Any) -> Tags:
        """The tags at these options: the default setting's, overlaid with what `tags.at` says differs there."""
        changes: dict[str, Any] = {}
        for name, value in self.resolve(options).items():
            changes |= self.tags.at.get(f"{name}={value}", {})
        return replace(self.tags, **changes)

    def settings(self) -> list[dict[str, Any]]:
        """The default setting and every other allowed value of every option, one at a time: what the checks run."""
        return [{}] + [{o.name: value} for o in self.options for value in o.allowed or () if value != o.default]


rule = RulePart

KIND = Kind("rule", "rules", "how a net learns", TRAIN, slots=(RULE,))
