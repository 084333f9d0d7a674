"""The kind `rule`: a learning rule is a loss with stop-gradients.

A rule yields scalars whose gradient at each parameter is that rule's update. The engines do the rest: the loop engine
steps each unit as its loss comes and frees its gradients; the stack engine takes the sum of all of them at once.
"""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.aligned import Aligned, FeedbackWeights, align, aligned_layers
from netwright.expressions import equivalents, names_in
from netwright.graphs import Gcn, Glorot, Graph, Hop
from netwright.kinds import Kind
from netwright.kinds.task import Problem
from netwright.nets import Blocks, norm_named, pooled, pooled_width, split
from netwright.part import BadInput, Claim, Identity, Misfit, Option, Paper, Part
from netwright.precision import full_precision
from netwright.streams import generator, initialise

__all__ = [
    "FAMILIES", "Aligned", "Blocks", "FeedbackWeights", "Gcn", "Glorot", "Graph", "Hop", "Misfit", "Phase", "Problem",
    "Rule", "RulePart", "Tags", "Toy", "align", "aligned_layers", "equivalents", "full_precision", "gradients",
    "linear_gradients", "pooled", "pooled_width", "require_blocks", "rule", "softmax_error", "split", "trainable",
]  # fmt: skip

#: Families share one learning-rate range of the task.
FAMILIES = ("backprop", "local", "feedback")


@final
@dataclass(frozen=True)
class Tags:
    """What a rule declares; the contract checks verify each."""

    family: str = "backprop"
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
@dataclass(frozen=True)
class Phase:
    """A stretch of training: a share of the steps; the rule is told through enter(phase)."""

    name: str
    share: float = 1.0


def require_blocks(net: object, who: str) -> None:
    """Raises Misfit, saying how to declare them, where a net has no ordered blocks."""
    if isinstance(getattr(net, "graph", None), Graph):
        raise Misfit(
            f"{who} needs a net of ordered blocks that take a batch, and a {type(net).__name__}'s blocks take the whole graph; choose a"
            " rule that trains any net, or one made for graphs"
        )
    if not isinstance(net, Blocks):
        raise Misfit(
            f"{who} needs a net of ordered blocks (netwright.nets.Blocks), given {type(net).__name__}; an nn.Sequential"
            " becomes one by Blocks.of(net, example), any other model by Blocks.of(model, example, blocks=['stem', 'layer1',"
            " ...], readout='head'), which names its modules in the order they run"
        )


class _Ready(type):
    """Makes a rule built on real tensors ready for use: modules of its own hold empty tensors until they are drawn."""

    def __call__(cls, *given: Any, **options: Any) -> Any:
        rule = super().__call__(*given, **options)
        if not any(t.is_meta for t in (*rule.parameters(), *rule.buffers())):
            rule.redraw(0)
        return rule


class Rule(nn.Module, metaclass=_Ready):
    """A net and the way it learns. Abstract: a rule implements `forward` and `losses`, and what else it needs.

    net: Blocks (ordered blocks and a readout); problem: Problem (loss, metric, output shape, encode(y)).
    any_net: the rule takes any module for a net; where it doesn't, a net that isn't Blocks raises Misfit.
    """

    any_net: ClassVar[bool] = False

    def __init__(self, net: Blocks, problem: Problem) -> None:
        super().__init__()
        if not self.any_net:
            require_blocks(net, type(self).__name__)
        self.net = net
        self.problem = problem

    @final
    def redraw(self, seed: int) -> None:
        """Draw what the rule adds to the net (heads, feedback) by this seed; the net stays as it is. Building draws by 0."""
        initialise(self, seed, skip="net")

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """The prediction for x (B, *input): (B, *output). Changes nothing."""

    def draw(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """All randomness of one step, drawn outside it; passed to losses as *draws."""
        return ()

    @abstractmethod
    def losses(self, x: Tensor, y: Tensor, *draws: Tensor) -> Iterator[Tensor]:
        """One scalar a unit, in the order of units(). Reads nothing that a step changes between two yields."""

    def features(self, x: Tensor) -> list[Tensor]:
        """What each block puts out when predicting, in order: what probes of single layers read. Changes nothing."""
        return self.net.features(x)

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
    """A learning rule. `build(net, problem, **options)` binds it to a net.

    reference(rule, x, y, *draws) -> gradients by parameter name: the second writing of one step's update, without
    autograd and without the rule's own methods, for the net of `toy`. The check compares it with what the losses give,
    in float64. toy: None is Toy(); a rule that fits no net of vectors names another, e.g. Toy(nodes=9).
    """

    cls: type[Any] = Rule
    reference: Callable[..., dict[str, Tensor]] | None = None
    toy: Toy | None = None

    @property
    def kind(self) -> str:
        return "rule"

    def slots(self) -> tuple[str, ...]:
        return ("rule",)

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
        tags: Tags = self.tags
        changes: dict[str, Any] = {}
        for name, value in self.resolve(options).items():
            changes |= tags.at.get(f"{name}={value}", {})
        return replace(tags, **changes)

    def settings(self) -> list[dict[str, Any]]:
        """The default setting and every other allowed value of every option, one at a time: what the checks run."""
        return [{}] + [{o.name: value} for o in self.options for value in o.allowed or () if value != o.default]


def rule(
    cls: type[Rule],
    *,
    paper: Paper,
    reference: Callable[..., dict[str, Tensor]] | None = None,
    toy: Toy | None = None,
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
    tags = tags or Tags()
    if not cls.any_net:
        tags = replace(tags, needs=tags.needs | {"blocks"})
    known = {"classes", "depth", "nodes", *(option.name for option in options)}
    for cost in (tags.forwards_train, tags.forwards_predict):
        if unknown := sorted(names_in(cost) - known):
            raise BadInput(f"{cls.__name__}: forwards {cost!r} names {unknown[0]!r}; allowed: {', '.join(sorted(known))}")
    kebab = "".join("-" + c.lower() if c.isupper() else c for c in cls.__name__).lstrip("-")
    source: Callable[..., Any] | Any = inspect.getmodule(cls)
    return RulePart(
        name=name or kebab, paper=paper, summary=summary or (source.__doc__ or "").strip().split("\n")[0],
        formula=formula, tags=tags, options=options, identities=identities, claims=claims,
        deviations=deviations, uses=uses, retired=retired, module=cls.__module__, cls=cls,
        reference=reference, toy=toy,
    )  # fmt: skip


# For references, claims and checks ------------------------------------------------------------------------------------


def trainable(*modules: nn.Module) -> list[nn.Parameter]:
    """The parameters of these modules that learn, in order, each once."""
    return list(dict.fromkeys(p for module in modules for p in module.parameters() if p.requires_grad))


@final
@dataclass(frozen=True, eq=False)
class Toy:
    """What references and claims are written for: dense ReLU blocks, a linear readout, cross-entropy, a float64 batch.

    Block k is Sequential(Linear, ReLU) with parameters net.blocks.k.0.weight and .bias; the readout's are net.readout.*
    nodes: above 0, a Gcn instead, over a ring of so many nodes with a chord: block k's parameters are
    net.blocks.k.linear.weight and net.blocks.k.bias, and x are numbers of nodes.
    """

    widths: tuple[int, ...] = (6, 5)
    inputs: int = 7
    classes: int = 3
    rows: int = 8
    seed: int = 0
    nodes: int = 0

    @property
    def graph(self) -> Graph:
        """The ring, its chord from node 0 to its opposite, and its features (nodes, inputs)."""
        ring = torch.arange(self.nodes)
        edges = torch.cat([torch.stack([ring, ring.roll(-1)]), torch.tensor([[0], [self.nodes // 2]])], 1)
        x = torch.randn(self.nodes, self.inputs, generator=generator(self.seed, "probe", "graph"), dtype=torch.float64)
        return Graph(x, edges)

    @property
    def problem(self) -> Problem:
        return Problem(
            loss=F.cross_entropy, metric=lambda out, y: float((out.argmax(-1) == y).double().mean()),
            metric_name="accuracy", higher_is_better=True, worst=0.0, delta=0.01,
            input=() if self.nodes else (self.inputs,), output=(self.classes,), classes=self.classes,
            gives=frozenset({"labels", "graph" if self.nodes else "vector"}),
            encode=lambda y: (y[..., None] == torch.arange(self.classes)).double(),
        )  # fmt: skip

    def batch(self) -> tuple[Tensor, Tensor]:
        """x (rows, inputs), or different nodes (rows,), and labels y (rows,)."""
        g = generator(self.seed, "probe")
        if self.nodes:
            x = torch.randperm(self.nodes, generator=g)[: self.rows]
        else:
            x = torch.randn(self.rows, self.inputs, generator=g, dtype=torch.float64)
        return x, torch.arange(len(x)) % self.classes

    def bind(self, build: Callable[..., Rule], **options: Any) -> Rule:
        """build(net, problem, **options) with every parameter and buffer drawn by the seed, in float64."""
        sizes, graph = (self.inputs, *self.widths), self.graph if self.nodes else None
        with torch.device("meta"):
            net: Any
            if graph is not None:
                fill = {"activation": lambda channels, dim: nn.ReLU(), "norm": norm_named("none")}
                net = Gcn(graph, self.classes, self.widths, fill)
            else:
                blocks = [nn.Sequential(nn.Linear(a, b), nn.ReLU()) for a, b in zip(sizes, sizes[1:], strict=False)]
                net = Blocks(blocks, nn.Linear(sizes[-1], self.classes), [(width,) for width in self.widths])
            bound = build(net, self.problem, **options)
        bound.to_empty(device="cpu")
        initialise(bound, self.seed)
        return bound.double()


def gradients(rule: Rule, x: Tensor, y: Tensor, *draws: Tensor) -> dict[str, Tensor]:
    """The rule's update of one step, as gradients by parameter name: all losses summed, then one backward.

    Parameters the losses don't reach have zeros.
    """
    named = {name: p for name, p in rule.named_parameters() if p.requires_grad}
    total = torch.stack(list(rule.losses(x, y, *draws))).sum()
    grads = torch.autograd.grad(total, list(named.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(named, grads, strict=True))


def linear_gradients(path: str, delta_BN: Tensor, x_BM: Tensor) -> dict[str, Tensor]:
    """Gradients of weight (N, M) and bias (N,) of the Linear at `path`, for input x and error delta at its output."""
    return {f"{path}.weight": delta_BN.T @ x_BM, f"{path}.bias": delta_BN.sum(0)}


def softmax_error(out_BK: Tensor, y_B: Tensor) -> Tensor:
    """Gradient of the mean cross-entropy at the logits: (softmax(out) - one-hot(y)) / B."""
    error = torch.softmax(out_BK, -1)
    error[torch.arange(len(y_B)), y_B] -= 1
    return error / len(y_B)


KIND = Kind("rule", "rules", "how a net learns")
