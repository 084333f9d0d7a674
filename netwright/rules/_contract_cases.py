"""What the checks of rules run on: small hosts in float64, and a rule at each of its settings on those it fits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, final

import torch
from torch import Tensor, nn

from netwright.core import catalogue
from netwright.core.contract import Skip, expect
from netwright.core.errors import Misfit
from netwright.engine.rule import Rule
from netwright.engine.task import Problem, accuracy, mse, nats, one_hot, same
from netwright.rules._kind import RulePart, Tags
from netwright.rules._toy import Toy
from netwright.tensor.streams import generator, initialise

BATCH = 6


@final
@dataclass(frozen=True, eq=False)
class Host:
    """A small net to bind rules to, its problem, and a batch of `BATCH` rows drawn by a seed."""

    name: str
    net: Callable[[], nn.Module]
    problem: Problem
    batch: Callable[[torch.Generator], tuple[Tensor, Tensor]]


#: Losses of the two sorts of problem.
CLASSES, TARGETS = "cross-entropy", "mse"


def _problem(loss: str, shape: tuple[int, ...], output: tuple[int, ...], classes: int | None, gives: str) -> Problem:
    metric = {CLASSES: accuracy if len(output) == 1 else nats}.get(loss, mse)
    return Problem(
        loss,
        metric,
        metric.__name__,
        higher_is_better=metric is accuracy,
        worst=0.0,
        delta=0.01,
        input=shape,
        output=output,
        classes=classes,
        gives=frozenset(gives.split()),
        encode=(lambda y: one_hot(y, classes)) if classes else same,
    )


@cache
def hosts() -> tuple[Host, ...]:
    """The hosts of every check: classes and real targets of vectors, images under batch normalisation, tokens, nodes."""

    def fill(norm: str) -> dict[str, Any]:
        part: Any = catalogue.get(norm) if norm else None
        return {"activation": lambda channels, dim: nn.GELU()} | ({"norm": part.factory({})} if norm else {})

    def normal(*shape: int) -> Callable[[torch.Generator], Tensor]:
        return lambda g: torch.randn(BATCH, *shape, generator=g, dtype=torch.float64)

    def labels(classes: int, *shape: int) -> Callable[[torch.Generator], Tensor]:
        return lambda g: torch.randint(classes, (BATCH, *shape), generator=g)

    def host(
        name: str,
        net: str,
        widths: tuple[int, ...],
        norm: str,
        problem: Problem,
        x: Callable[..., Tensor],
        y: Callable[..., Tensor],
        **options: Any,
    ) -> Host:
        part: Any = catalogue.get(f"net/{net}")
        return Host(name, lambda: part.build(problem, widths, fill(norm), **options), problem, lambda g: (x(g), y(g)))

    of_vectors = _problem(CLASSES, (12,), (3,), 3, "labels vector")
    of_targets = _problem(TARGETS, (5,), (2,), None, "targets vector")
    of_images = _problem(CLASSES, (2, 6, 6), (3,), 3, "labels image")
    of_tokens = _problem(CLASSES, (5,), (5, 11), 11, "tokens")
    of_nodes = _problem(CLASSES, (), (3,), 3, "labels graph")
    nodes, graph = (lambda g: torch.randperm(9, generator=g)[:BATCH]), Toy(nodes=9).graph
    return (
        host("mlp", "mlp", (8, 7, 6), "", of_vectors, normal(12), labels(3)),
        host("mlp with batch norm", "mlp", (8, 7), "layer/batch-norm", of_vectors, normal(12), labels(3)),
        host("mlp for real targets", "mlp", (8, 7), "", of_targets, normal(5), normal(2)),
        host("convnet with batch norm", "convnet", (4, 6), "layer/batch-norm", of_images, normal(2, 6, 6), labels(3)),
        host(
            "transformer", "tiny-transformer", (12, 10), "layer/layer-norm", of_tokens, labels(11, 5), labels(11, 5), d=8, heads=2
        ),
        host("gcn", "gcn", (8, 8), "", of_nodes, nodes, labels(3), graph=graph),
    )


@final
@dataclass(frozen=True, eq=False)
class Case:
    """A rule part at one setting on one host that it fits."""

    part: RulePart
    host: Host
    options: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.host.name}{''.join(f', {k}={v}' for k, v in self.options.items())}"

    @property
    def tags(self) -> Tags:
        return self.part.tags_at(**self.options)

    def rule(self, seed: int = 0) -> Rule:
        """The rule built on meta and drawn by the seed, in float64 and in training mode."""
        with torch.device("meta"):
            rule = self.part.build(self.host.net(), self.host.problem, **self.options)
        rule.to_empty(device="cpu")
        initialise(rule, seed)
        return rule.double().train()

    def step(self, rule: Rule, seed: int = 0) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """x, y and the rule's draws for one step."""
        x, y = self.host.batch(generator(seed, "probe", self.host.name))
        return x, y, rule.draw(x, y, generator(seed, "draw"))


def cases(part: RulePart) -> list[Case]:
    """The default setting on every host the rule fits, each other on the first; raises Wrong where it fits none."""
    found = []
    for options in part.settings():
        for host in hosts():
            case = Case(part, host, options)
            try:
                case.rule()
            except Misfit:
                continue
            found.append(case)
            if options:
                break
    expect(found, "the rule fits none of the hosts", given=[host.name for host in hosts()])
    return found


def stepping(part: RulePart) -> list[Case]:
    """The cases that learn in steps; raises Skip where every setting has a closed form."""
    found = [case for case in cases(part) if not case.tags.closed_form]
    if not found:
        raise Skip("learns in closed form, not in steps")
    return found


def in_steps(part: RulePart) -> Iterator[tuple[Case, Rule, Tensor, Tensor, tuple[Tensor, ...]]]:
    """Each case that learns in steps, with its rule and one batch."""
    for case in stepping(part):
        rule = case.rule()
        yield case, rule, *case.step(rule)


def far(a: Tensor, b: Tensor, scale: float | None = None) -> float:
    """Largest difference, relative to `scale` (by default the largest value of b)."""
    if not a.numel():
        return 0.0
    worst = (a - b).abs().max().item()
    return worst / max(b.abs().max().item() if scale is None else scale, 1e-30) if worst else 0.0


def state(rule: Rule) -> dict[str, Tensor]:
    return {name: t.detach().clone() for name, t in (*rule.named_parameters(), *rule.named_buffers())}


def reach(rule: Rule, x: Tensor, y: Tensor, *draws: Tensor) -> list[dict[int, Any]]:
    """For every loss: parameter id -> its gradient, or None where the loss doesn't reach it."""
    params = [p for unit in rule.units() for p in unit]
    found = []
    for loss in rule.losses(x, y, *draws):
        expect(loss.dim() == 0, "a loss isn't a scalar", got=tuple(loss.shape))
        grads = torch.autograd.grad(loss, params, retain_graph=True, allow_unused=True)
        found.append(dict(zip(map(id, params), grads, strict=True)))
    return found
