"""Each check of learning rules fails on a toy rule that is broken in its way, and passes on one that isn't."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from netwright.contract import apply, checks
from netwright.core import catalogue
from netwright.core.part import Paper
from netwright.engine.blocks import Blocks
from netwright.engine.rule import Rule, trainable
from netwright.engine.task import Problem
from netwright.rules import RulePart, Tags, rule
from netwright.rules._toy import linear_gradients, softmax_error

PAPER = Paper(title="A toy", authors="Nobody", year=2020)
LOCAL = Tags(family="local", local=True, needs=frozenset({"blocks"}))
CHECKS = {check.name: check for check in checks("rule")}


class Local(Rule):
    """Every block has a head of its own and learns from its loss alone."""

    def __init__(self, net: Blocks, problem: Problem) -> None:
        super().__init__(net, problem)
        widths = [shape[0] if len(shape) == 3 else shape[-1] for shape in net.shapes]
        self.heads = nn.ModuleList(nn.Linear(width, problem.output[-1]) for width in widths[:-1])

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def guess(self, k: int, h: Tensor) -> Tensor:
        if k == len(self.heads):
            return self.net.readout(h)
        return self.heads[k](h.mean((-2, -1)) if h.dim() == 4 else h)

    def losses(self, x: Tensor, y: Tensor, *draws: Tensor) -> Iterator[Tensor]:
        h = x
        for k, block in enumerate(self.net.blocks):
            h = block(h.detach())
            yield self.problem.loss(self.guess(k, h), y)

    def units(self) -> list[list[nn.Parameter]]:
        heads = [*self.heads, self.net.readout]
        return [trainable(block, head) for block, head in zip(self.net.blocks, heads, strict=True)]


def reference(rule: Local, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    grads: dict[str, Tensor] = {}
    for k, block in enumerate(rule.net.blocks):
        path = f"heads.{k}" if k < len(rule.heads) else "net.readout"
        head = rule.get_submodule(path)
        h = (x @ block[0].weight.T + block[0].bias).clamp(min=0)
        delta = softmax_error(h @ head.weight.T + head.bias, y)
        grads |= linear_gradients(path, delta, h)
        grads |= linear_gradients(f"net.blocks.{k}.0", (delta @ head.weight) * (h > 0), x)
        x = h
    return grads


def declare(cls: type[Rule], tags: Tags = LOCAL, **more: object) -> RulePart:
    return rule(cls, paper=PAPER, name="toy", summary="a toy", tags=tags, reference=reference, **more)


def outcome(name: str, cls: type[Rule], tags: Tags = LOCAL, **more: object):
    return apply(declare(cls, tags, **more), CHECKS[name])


@cache
def sound(name: str):
    return outcome(name, Local)


def broken(name: str, cls: type[Rule], tags: Tags = LOCAL, **more: object) -> str:
    """What the check says of a broken rule, after making sure that it lets the sound one pass."""
    assert sound(name).ok
    result = outcome(name, cls, tags, **more)
    assert not result.ok, f"{name} lets it pass"
    return result.message


def test_a_sound_rule_passes_all_checks():
    results = {name: sound(name) for name, check in CHECKS.items() if not check.slow}
    assert results.keys() >= {"update_tree", "stackable", "forwards", "reference"}
    assert not [str(r) for r in results.values() if not r.ok]


class LeakyDetach(Local):
    def losses(self, x, y, *draws):
        h = x
        for k, block in enumerate(self.net.blocks):
            h = block(h)
            yield self.problem.loss(self.guess(k, h), y)


class ReadsDownstream(Local):
    def losses(self, x, y, *draws):
        scale = self.net.readout.weight if isinstance(self.net.readout, nn.Linear) else next(self.net.readout.parameters())
        for loss in super().losses(x, y, *draws):
            yield loss * scale.detach().square().mean()


def test_no_cross_gradient():
    assert "parameters of other units" in broken("no_cross_gradient", LeakyDetach)
    assert "sees the parameters of later units" in broken("no_cross_gradient", ReadsDownstream)


class Forgotten(Local):
    def units(self):
        return super().units()[:-1]


class Twice(Local):
    def units(self):
        units = super().units()
        return [units[0], units[0] + units[1], *units[2:]]


class Unused(Local):
    def __init__(self, net, problem):
        super().__init__(net, problem)
        self.idle = nn.Linear(2, 2)

    def units(self):
        *first, last = super().units()
        return [*first, last + trainable(self.idle)]


class Frozen(Local):
    def __init__(self, net, problem):
        super().__init__(net, problem)
        self.all_units = super().units()
        net.blocks[0].requires_grad_(False)

    def units(self):
        heads = [*self.heads, self.net.readout]
        return [list((*block.parameters(), *head.parameters())) for block, head in zip(self.net.blocks, heads, strict=True)]


class Vectors(Local):
    def losses(self, x, y, *draws):
        for loss in super().losses(x, y, *draws):
            yield loss[None]


def test_update_tree():
    assert "in no unit" in broken("update_tree", Forgotten)
    assert "two places" in broken("update_tree", Twice)
    assert "no loss reaches" in broken("update_tree", Unused)
    assert "frozen parameters" in broken("update_tree", Frozen)
    assert "isn't a scalar" in broken("update_tree", Vectors)
    assert "stepped before it" in broken("update_tree", LeakyDetach)


class ReadsWhatAStepChanges(Local):
    """The second loss runs the first block again, after it was stepped."""

    def losses(self, x, y, *draws):
        for k in range(len(self.net.blocks)):
            h = x
            for block in self.net.blocks[: k + 1]:
                h = block(h.detach())
            yield self.problem.loss(self.guess(k, h), y)


class Accumulates(Local):
    """Each loss depends on the gradients that others have left behind."""

    def losses(self, x, y, *draws):
        for loss in super().losses(x, y, *draws):
            yield loss * (1.0 + sum(p.grad is not None for p in self.parameters()))


def test_losses_do_not_depend_on_steps():
    assert "depends on the steps of other units" in broken("between_yields", ReadsWhatAStepChanges)
    assert "another gradient loss by loss" in broken("one_backward", Accumulates)


class GlobalNoise(Local):
    def losses(self, x, y, *draws):
        yield from super().losses(x + torch.randn_like(x) if x.is_floating_point() else x, y)


class GlobalDraw(Local):
    def draw(self, x, y, generator):
        return (torch.rand(len(x)),)


def test_randomness():
    assert "the same draws give other losses" in broken("randomness", GlobalNoise)
    assert "the same generator gives other draws" in broken("randomness", GlobalDraw)


class Ascends(Local):
    def losses(self, x, y, *draws):
        for loss in super().losses(x, y, *draws):
            yield loss.detach() * 2 - loss


def test_descent():
    assert "don't lower the loss" in broken("descent", Ascends)
    surrogate = Tags(family="local", local=True, needs=frozenset({"blocks"}), surrogate=True)
    assert "don't lower the loss" in broken("descent", Ascends, surrogate)


class Stale(Local):
    """Sends the batch through the blocks twice a step."""

    def losses(self, x, y, *draws):
        self.net.features(x)
        yield from super().losses(x, y, *draws)


def test_statistics_and_forwards():
    assert "2 times" in broken("statistics_once", Stale)
    message = broken("forwards", Stale)
    assert "got 2.0" in message and "expected 1.0" in message
    declared = Tags(family="local", local=True, needs=frozenset({"blocks"}), forwards_train=2.0)
    assert outcome("forwards", Stale, declared).ok
    dear = Tags(family="local", local=True, needs=frozenset({"blocks"}), forwards_predict="classes")
    assert "of a prediction" in broken("forwards", Local, dear)


class LearnsWhilePredicting(Local):
    def forward(self, x):
        with torch.no_grad():
            next(self.net.readout.parameters()).add_(1e-9)
        return self.net(x)


class Counts(Local):
    def __init__(self, net, problem):
        super().__init__(net, problem)
        self.register_buffer("asked", torch.zeros(1))

    def reset_parameters(self, generator):
        self.asked.zero_()

    def forward(self, x):
        self.asked += 1
        return self.net(x)


class Noisy(Local):
    def forward(self, x):
        return self.net(x) + torch.randn(())


class BatchDependent(Local):
    def forward(self, x):
        out = self.net(x)
        return out - out.mean(0)


class StaysInTraining(Local):
    def forward(self, x):
        self.train()
        return self.net(x)


class WrongShape(Local):
    def forward(self, x):
        return self.net(x)[:, :1]


@pytest.mark.parametrize(
    ("cls", "said"),
    [
        (LearnsWhilePredicting, "changes parameters or buffers"),
        (Counts, "changes parameters or buffers"),
        (Noisy, "draws from the global generator"),
        (BatchDependent, "depends on the other rows"),
        (StaysInTraining, "changes"),
        (WrongShape, "shape"),
    ],
)
def test_predict_pure(cls, said):
    assert said in broken("predict_pure", cls)


class NeverFilled(Local):
    def __init__(self, net, problem):
        super().__init__(net, problem)
        self.register_buffer("target", torch.empty(3))

    def reset_parameters(self, generator):
        pass


class FilledGlobally(NeverFilled):
    def reset_parameters(self, generator):
        self.target.normal_()


def test_initialised():
    assert "isn't filled" in broken("initialised", NeverFilled)
    assert "global generator" in broken("initialised", FilledGlobally)


class WrongSign(Local):
    def losses(self, x, y, *draws):
        first, *rest = super().losses(x, y, *draws)
        yield -first
        yield from rest


def test_reference():
    assert "isn't the reference's" in broken("reference", WrongSign)
    assert "different parameters" in broken("reference", Forgetful)
    missing = apply(rule(Local, paper=PAPER, tags=LOCAL), CHECKS["reference"])
    assert not missing.ok and "no reference" in missing.message


class Forgetful(Local):
    def __init__(self, net, problem):
        super().__init__(net, problem)
        net.blocks[0].requires_grad_(False)


class AsksTheData(Local):
    def losses(self, x, y, *draws):
        for loss in super().losses(x, y, *draws):
            yield loss * 2 if loss > 1.0 else loss


class HiddenSetting(Local):
    """Keeps a drawn number outside its buffers, where a stack sees the first copy's alone."""

    def __init__(self, net, problem):
        super().__init__(net, problem)
        self.register_buffer("unused", torch.empty(1))

    def reset_parameters(self, generator):
        drawn = float(self.unused.uniform_(generator=generator)) + 0.5
        self.scale = lambda: drawn

    def losses(self, x, y, *draws):
        for loss in super().losses(x, y, *draws):
            yield loss * self.scale()


def test_stackable():
    assert "raised" in broken("stackable", AsksTheData)
    assert "differs from the loop's" in broken("stackable", HiddenSetting)
    honest = Tags(local=True, needs=frozenset({"blocks"}), stackable=False, why_not_stackable="asks the data")
    assert outcome("stackable", AsksTheData, honest).skipped_reason.endswith("asks the data")
    assert "declared not stackable, and stacks" in broken("stackable", Local, honest)


class BuildsAnywhere(Rule):
    def forward(self, x):
        return self.net(x)

    def losses(self, x, y, *draws):
        yield self.problem.loss(self.net(x), y)


def test_misfit():
    class Careless(RulePart):  # builds without asking what is needed
        def build(self, net=None, problem=None, **options):
            return self.cls(net, problem)

    careless = Careless(BuildsAnywhere, name="careless", paper=PAPER, tags=Tags(needs=frozenset({"labels"})))
    result = apply(careless, CHECKS["misfit"])
    assert not result.ok and "built on a task that lacks 'labels'" in result.message


@pytest.mark.slow
def test_above_control():
    control = next(part for part in catalogue.parts("rule") if not part.tags.above_control)
    plain = Tags(needs=frozenset({"blocks"}))
    below = apply(rule(control.cls, paper=PAPER, name="toy", tags=plain), CHECKS["above_control"])
    assert not below.ok and "not above the control" in below.message
    assert outcome("above_control", Local).ok


class Uncounted(Local):
    """Counts its steps where no checkpoint sees it, and lets the count weigh the losses."""

    def losses(self, x: Tensor, y: Tensor, *draws: Tensor) -> Iterator[Tensor]:
        self.count = getattr(self, "count", 0) + 1
        for loss in super().losses(x, y):
            yield loss * self.count


class Narrow(Local):
    """Overflows where sums run in half the bits: it measures its distance from a large number."""

    def losses(self, x: Tensor, y: Tensor, *draws: Tensor) -> Iterator[Tensor]:
        for loss, block in zip(super().losses(x, y), self.net.blocks, strict=True):
            a = trainable(block)[0]
            low = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else a.dtype
            yield loss + (1e3 * (a.to(low) + 1e6).to(a.dtype) - 1e9).square().mean()


def test_steps_resume_and_survive_mixed_precision():
    assert "resumed after two of four steps" in broken("resume", Uncounted)
    assert "mixed precision" in broken("autocast", Narrow)


class Silent(Local):
    """Says nothing of its last block."""

    def features(self, x: Tensor) -> list[Tensor]:
        return super().features(x)[:-1]


def test_features_are_one_a_block():
    assert "features of a net of" in broken("features", Silent)


class Hoards(Local):
    """Keeps what every block put out until the step is over."""

    def losses(self, x: Tensor, y: Tensor, *draws: Tensor) -> Iterator[Tensor]:
        h, kept = x, []
        for k, block in enumerate(self.net.blocks):
            h = block(h.detach())
            kept.append(h[:0])
            yield self.problem.loss(self.guess(k, h), y)


def test_the_memory_of_a_local_rule_is_flat_in_depth():
    assert "memory grows with depth" in broken("flat_memory", Hoards)
