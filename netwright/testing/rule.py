"""Checks of learning rules: what a step and a prediction may do, on small hosts in float64, at every setting of a rule.

Shape suffixes: K copies, B batch.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, final

import torch
from torch import Tensor, nn

from netwright import catalogue
from netwright.kinds.rule import Blocks, Problem, Rule, RulePart, Tags, gradients
from netwright.kinds.task import Task
from netwright.losses import accuracy, cross_entropy, mean_squared_error, mse, nats, one_hot, same
from netwright.nets import ConvNet, Mlp, TinyTransformer, fill_named, norm_named
from netwright.part import Misfit
from netwright.stack import Stack, train_stack
from netwright.streams import generator, initialise
from netwright.testing import Check, Skip, expect
from netwright.train import Loop, Setting, predict, train

BATCH = 6
TINY = 1e-12  # relative: one order of summation against another, in float64
SETTING = Setting(seed=0, lr=0.05, steps=1, batch=BATCH, evals=(1,), optimizer="sgd")
#: Seeds of the comparison with the control.
SEEDS = (0, 1, 2, 3)


@final
@dataclass(frozen=True, eq=False)
class Host:
    """A small net to bind rules to, its problem, and a batch of `BATCH` rows drawn by a seed."""

    name: str
    net: Callable[[], Blocks]
    problem: Problem
    batch: Callable[[torch.Generator], tuple[Tensor, Tensor]]


def _problem(loss: Any, shape: tuple[int, ...], output: tuple[int, ...], classes: int | None, gives: str) -> Problem:
    metric = {cross_entropy: accuracy if len(output) == 1 else nats}.get(loss, mse)
    return Problem(
        loss, metric, metric.__name__, higher_is_better=metric is accuracy, worst=0.0, delta=0.01, input=shape, output=output,
        classes=classes, gives=frozenset(gives.split()), encode=(lambda y: one_hot(y, classes)) if classes else same,
    )  # fmt: skip


@cache
def hosts() -> tuple[Host, ...]:
    """The hosts of every check: classes and real targets of vectors, images under batch normalisation, tokens."""

    def fill(norm: str) -> dict[str, Any]:
        return {"activation": lambda channels, dim: nn.GELU(), "norm": norm_named(norm)}

    def normal(*shape: int) -> Callable[[torch.Generator], Tensor]:
        return lambda g: torch.randn(BATCH, *shape, generator=g, dtype=torch.float64)

    def labels(classes: int, *shape: int) -> Callable[[torch.Generator], Tensor]:
        return lambda g: torch.randint(classes, (BATCH, *shape), generator=g)

    def both(x: Callable[..., Tensor], y: Callable[..., Tensor]) -> Callable[[torch.Generator], tuple[Tensor, Tensor]]:
        return lambda g: (x(g), y(g))

    return (
        Host(
            "mlp", lambda: Mlp(12, 3, (8, 7, 6), fill("none")),
            _problem(cross_entropy, (12,), (3,), 3, "labels vector"), both(normal(12), labels(3)),
        ),
        Host(
            "mlp with batch norm", lambda: Mlp(12, 3, (8, 7), fill("batch")),
            _problem(cross_entropy, (12,), (3,), 3, "labels vector"), both(normal(12), labels(3)),
        ),
        Host(
            "mlp for real targets", lambda: Mlp(5, 2, (8, 7), fill("none")),
            _problem(mean_squared_error, (5,), (2,), None, "targets vector"), both(normal(5), normal(2)),
        ),
        Host(
            "convnet with batch norm", lambda: ConvNet((2, 6, 6), 3, (4, 6), fill("batch")),
            _problem(cross_entropy, (2, 6, 6), (3,), 3, "labels image"), both(normal(2, 6, 6), labels(3)),
        ),
        Host(
            "transformer", lambda: TinyTransformer(11, 5, 8, 2, (12, 10), fill("layer")),
            _problem(cross_entropy, (5,), (5, 11), 11, "tokens"), both(labels(11, 5), labels(11, 5)),
        ),
    )  # fmt: skip


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
    """Every setting on every host the rule fits; raises Wrong where it fits none."""
    found = []
    for options in part.settings():
        for host in hosts():
            case = Case(part, host, options)
            try:
                case.rule()
            except Misfit:
                continue
            found.append(case)
    expect(found, "the rule fits none of the hosts", given=[host.name for host in hosts()])
    return found


def _iterative(part: RulePart) -> Iterator[tuple[Case, Rule, Tensor, Tensor, tuple[Tensor, ...]]]:
    """Each case with its rule and one batch, for rules that learn in steps."""
    if part.tags.closed_form:
        raise Skip("learns in closed form, not in steps")
    for case in cases(part):
        rule = case.rule()
        yield case, rule, *case.step(rule)


def _far(a: Tensor, b: Tensor, scale: float | None = None) -> float:
    """Largest difference, relative to `scale` (by default the largest value of b)."""
    if not a.numel():
        return 0.0
    worst = (a - b).abs().max().item()
    return worst / max(b.abs().max().item() if scale is None else scale, 1e-30) if worst else 0.0


def _state(rule: Rule) -> dict[str, Tensor]:
    return {name: t.detach().clone() for name, t in (*rule.named_parameters(), *rule.named_buffers())}


# Parameters and units -------------------------------------------------------------------------------------------------


def initialised(part: RulePart) -> None:
    """Built on meta, every parameter and buffer is filled by the seed alone; the global generator stays untouched."""
    for case in cases(part):
        before = torch.random.get_rng_state()
        filled = []
        for _ in range(2):
            with torch.device("meta"):
                rule = part.build(case.host.net(), case.host.problem, **case.options)
            rule.to_empty(device="cpu")
            for t in (*rule.parameters(), *rule.buffers()):
                t.data.fill_(math.nan if t.is_floating_point() else 77)
            initialise(rule, 3)
            filled.append(_state(rule))
        expect(torch.equal(before, torch.random.get_rng_state()), "building draws from the global generator", given=case)
        for name, t in filled[0].items():
            expect(not t.isnan().any() if t.is_floating_point() else True, f"{name} isn't filled by initialise", given=case)
            expect(torch.equal(t, filled[1][name]), f"{name} differs between two builds from one seed", given=case)


def _reach(rule: Rule, x: Tensor, y: Tensor, *draws: Tensor) -> list[dict[int, Tensor | None]]:
    """For every loss: parameter id -> its gradient, or None where the loss doesn't reach it."""
    params = [p for unit in rule.units() for p in unit]
    found = []
    for loss in rule.losses(x, y, *draws):
        expect(loss.dim() == 0, "a loss isn't a scalar", got=tuple(loss.shape))
        grads = torch.autograd.grad(loss, params, retain_graph=True, allow_unused=True)
        found.append(dict(zip(map(id, params), grads, strict=True)))
    return found


def update_tree(part: RulePart) -> None:
    """Every trainable parameter lies in exactly one unit and gets a gradient; a loss reaches no unit stepped before it."""
    for case, rule, x, y, draws in _iterative(part):
        name = {id(p): n for n, p in rule.named_parameters()}
        units = [[id(p) for p in unit] for unit in rule.units()]
        listed = [i for unit in units for i in unit]
        expect(set(listed) <= set(name), "units() holds a parameter that isn't the rule's", given=case)
        twice = sorted({name[i] for i in listed if listed.count(i) > 1})
        expect(not twice, "parameters in two places of units()", given=case, got=twice)
        trains = {id(p) for p in rule.parameters() if p.requires_grad}
        lost = sorted(name[i] for i in trains - set(listed))
        expect(not lost, "trainable parameters in no unit", given=case, got=lost)
        frozen = sorted(name[i] for i in set(listed) - trains)
        expect(not frozen, "frozen parameters in a unit", given=case, got=frozen)
        reach = _reach(rule, x, y, *draws)
        dry = sorted(name[i] for i in listed if all(grads[i] is None for grads in reach))
        expect(not dry, "parameters no loss reaches", given=case, got=dry)
        for k, unit in enumerate(units):
            moved = any(bool(grads[i].any()) for grads in reach for i in unit if grads[i] is not None)  # type: ignore[union-attr]
            expect(moved, f"unit {k} has a zero gradient", given=case)
        for k, grads in enumerate(reach):
            late = sorted(name[i] for unit in units[: min(k, len(units) - 1)] for i in unit if grads[i] is not None)
            expect(not late, f"loss {k} reaches parameters that were stepped before it", given=case, got=late)


def no_cross_gradient(part: RulePart) -> None:
    """Of a local rule, a unit's update comes from its own loss and doesn't see the parameters of later units."""
    if not part.tags.local:
        raise Skip("doesn't call itself local")
    for case, rule, x, y, draws in _iterative(part):
        units = [list(unit) for unit in rule.units()]
        name = {id(p): n for n, p in rule.named_parameters()}
        before = _reach(rule, x, y, *draws)
        shared = {id(p) for p in units[-1]} if len(before) < len(units) else set()
        for k, grads in enumerate(before):
            own = {id(p) for p in units[min(k, len(units) - 1)]} | shared
            crossed = sorted(name[i] for i, g in grads.items() if g is not None and i not in own)
            expect(not crossed, f"loss {k} reaches parameters of other units", given=case, got=crossed)
        for k in range(min(len(before), len(units) - 1)):
            with torch.no_grad():
                for p in (p for unit in units[k + 1 :] for p in unit if id(p) not in shared):
                    p.add_(1.0)
            after = _reach(rule, x, y, *draws)[k]
            for p in units[k]:
                equal = torch.equal(before[k][id(p)], after[id(p)])  # type: ignore[arg-type]
                expect(equal, f"the update of {name[id(p)]} sees the parameters of later units", given=case)
            rule = case.rule()
            units = [list(unit) for unit in rule.units()]
            name = {id(p): n for n, p in rule.named_parameters()}
            before = _reach(rule, x, y, *draws)
            shared = {id(p) for p in units[-1]} if shared else set()


# One step -------------------------------------------------------------------------------------------------------------


def one_backward(part: RulePart) -> None:
    """One backward through the sum of all losses gives what a backward for each loss as it comes gives."""
    for case, rule, x, y, draws in _iterative(part):
        at_once = gradients(case.rule(), x, y, *draws)
        for loss in rule.losses(x, y, *draws):
            loss.backward()
        scale = max(g.abs().max().item() for g in at_once.values())
        for name, g in at_once.items():
            p = rule.get_parameter(name)
            one_by_one = torch.zeros_like(p) if p.grad is None else p.grad
            expect(_far(one_by_one, g, scale) <= TINY, f"{name} gets another gradient loss by loss", given=case)


def between_yields(part: RulePart) -> None:
    """Stepping a unit between two losses changes no later loss: after a looped step every parameter moved by its gradient."""
    for case, rule, x, y, draws in _iterative(part):
        if type(rule).after_step is not Rule.after_step:
            raise Skip("changes parameters after the step, too")
        at_once = gradients(case.rule(), x, y, *draws)
        before = _state(rule)
        Loop(rule, SETTING).step(x, y, draws)
        scale = max(g.abs().max().item() for g in at_once.values())
        for name, g in at_once.items():
            moved = (before[name] - rule.get_parameter(name).detach()) / SETTING.lr
            expect(_far(moved, g, scale) <= 1e-9, f"{name}'s update depends on the steps of other units", given=case)


def randomness(part: RulePart) -> None:
    """All randomness of a step comes from draw: the same draws give the same losses, and no global generator moves."""
    for case, rule, x, y, draws in _iterative(part):
        before = torch.random.get_rng_state()
        g = generator(0, "draw")
        again = rule.draw(x, y, g)
        expect(all(map(torch.equal, draws, again)), "the same generator gives other draws", given=case)
        first = torch.stack(list(rule.losses(x, y, *draws)))
        other = torch.stack(list(case.rule().losses(x, y, *draws)))
        expect(torch.equal(first, other), "the same draws give other losses", given=case)
        expect(torch.equal(before, torch.random.get_rng_state()), "a step draws from the global generator", given=case)


def descent(part: RulePart) -> None:
    """Fifty steps on one batch lower the sum of the losses, or the problem's loss where the losses are surrogates."""
    for case, rule, x, y, draws in _iterative(part):

        def height(rule: Rule = rule, case: Case = case, x: Tensor = x, y: Tensor = y, draws: Any = draws) -> float:
            with torch.no_grad():
                if case.tags.surrogate:
                    return float(case.host.problem.loss(rule(x), y))
                return float(torch.stack(list(rule.losses(x, y, *draws))).sum())

        loop = Loop(rule, replace(SETTING, optimizer="adam", lr=3e-3, steps=50))
        before = height()
        for _ in range(50):
            loop.step(x, y, draws)
        after = height()
        expect(after < before, "fifty steps on one batch don't lower the loss", given=case, got=after, wanted=f"below {before}")


def statistics_once(part: RulePart) -> None:
    """Running statistics change exactly once a step."""
    seen = 0
    for case, rule, x, y, draws in _iterative(part):
        norms = [(n, m) for n, m in rule.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        Loop(rule, SETTING).step(x, y, draws)
        for name, norm in norms:
            seen += 1
            got = int(norm.num_batches_tracked)  # type: ignore[arg-type]
            expect(got == 1, f"one step updates the running statistics of {name} {got} times", given=case)
    if not seen:
        raise Skip("fits no host with running statistics")


# Prediction and cost --------------------------------------------------------------------------------------------------


def predict_pure(part: RulePart) -> None:
    """Predicting changes nothing, repeats itself, has the output's shape, and gives each row what it gives it alone."""
    for case in cases(part):
        rule = case.rule().eval()
        x, _, _ = case.step(rule)
        before, random = _state(rule), torch.random.get_rng_state()
        with torch.no_grad():
            out, again, alone = rule(x), rule(x), torch.cat([rule(row[None]) for row in x])
        after = _state(rule)
        changed = [name for name, t in after.items() if not torch.equal(t, before[name])]
        expect(after.keys() == before.keys() and not changed, "predicting changes parameters or buffers", given=case, got=changed)
        expect(torch.equal(random, torch.random.get_rng_state()), "predicting draws from the global generator", given=case)
        expect(not rule.training, "predicting changes the mode", given=case)
        wanted = (BATCH, *case.host.problem.output)
        expect(tuple(out.shape) == wanted, "a prediction's shape", given=case, got=tuple(out.shape), wanted=wanted)
        expect(torch.equal(out, again), "two predictions of one input differ", given=case)
        expect(_far(alone, out) <= 1e-10, "a row's prediction depends on the other rows", given=case)


def forwards(part: RulePart) -> None:
    """Rows sent through the blocks in a step and in a prediction are as declared (tags forwards_train, forwards_predict)."""
    for case in cases(part):
        rule = case.rule()
        x, y, draws = case.step(rule)
        rows: list[int] = []
        for block in rule.net.blocks:
            block.register_forward_hook(lambda module, given, out: rows.append(len(given[0])))
        equivalent = BATCH * len(rule.net.blocks)
        if not case.tags.closed_form:
            for _ in rule.losses(x, y, *draws):
                pass
            got, wanted = sum(rows) / equivalent, case.tags.forwards_train
            expect(math.isclose(got, wanted), "forward-equivalents of a step", given=case, got=got, wanted=wanted)
        rows.clear()
        with torch.no_grad():
            rule.eval()(x)
        declared = case.tags.forwards_predict
        got, wanted = sum(rows) / equivalent, float(case.host.problem.classes or 0) if declared == "classes" else float(declared)
        expect(math.isclose(got, wanted), "forward-equivalents of a prediction", given=case, got=got, wanted=wanted)


def misfit(part: RulePart) -> None:
    """Where a task or a net lacks what the rule needs, the error names it."""
    if not part.tags.needs:
        raise Skip("needs nothing")
    for case in cases(part):
        for need in case.tags.needs:
            net: nn.Module = nn.Linear(2, 2) if need == "blocks" else case.host.net()
            problem = replace(case.host.problem, gives=case.host.problem.gives - {need})
            try:
                part.build(net, problem, **case.options)
            except Misfit as error:
                expect(need in str(error), f"the error doesn't name {need!r}", given=case, got=error)
            else:
                expect(False, f"built on a task that lacks {need!r}", given=case)


# Stacks and learning --------------------------------------------------------------------------------------------------


def stackable(part: RulePart) -> None:
    """Three copies stacked do what three loops do: gradients to 1e-9, equal buffers, and 20 plain-SGD steps to 1e-7."""
    if not part.tags.stackable:
        raise Skip(f"declared: {part.tags.why_not_stackable}")
    for case in cases(part):
        seeds = (0, 1, 2)
        rules = [case.rule(seed) for seed in seeds]
        steps = [case.step(rule, seed) for rule, seed in zip(rules, seeds, strict=True)]
        x, y = torch.stack([s[0] for s in steps]), torch.stack([s[1] for s in steps])
        draws = tuple(torch.stack(each) for each in zip(*(s[2] for s in steps), strict=True))
        settings = [replace(SETTING, seed=seed, lr=lr) for seed, lr in zip(seeds, (0.02, 0.05, 0.03), strict=True)]
        stack = Stack(rules, settings)
        for flat in stack.flats:
            flat.leaf.grad = None
        stack.losses(x, y, draws).sum().backward()
        for k, seed in enumerate(seeds):
            loss_by_loss = gradients(case.rule(seed), *steps[k][:2], *steps[k][2])
            scale = max(g.abs().max().item() for g in loss_by_loss.values())
            for flat in stack.flats:
                assert flat.leaf.grad is not None
                for name, got in zip(flat.names, flat.leaf.grad[k].split(flat.sizes), strict=True):
                    far = _far(got.view_as(loss_by_loss[name]), loss_by_loss[name], scale)
                    expect(far <= 1e-9, f"copy {k}'s gradient of {name} differs from the loop's", given=case, got=far)
        stack = Stack([case.rule(seed) for seed in seeds], settings)
        loops = [Loop(rule, setting) for rule, setting in zip(rules, settings, strict=True)]
        for step in range(20):
            stack.step(x, y, draws)
            for loop, (x_k, y_k, draws_k) in zip(loops, steps, strict=True):
                loop.step(x_k, y_k, draws_k)
            if step in (0, 19):
                state = stack.state()
                for k, rule in enumerate(rules):
                    for name, wanted in _state(rule).items():
                        far = _far(state[name][k].double(), wanted.double())
                        expect(far <= 1e-7, f"after {step + 1} steps copy {k}'s {name} differs from the loop's", given=case, got=far)
        out = stack.predict(x)
        for k, rule in enumerate(rules):
            expect(_far(out[k].double(), predict(rule, x[k]).double()) <= 1e-5, f"copy {k} predicts something else", given=case)


def _scores(part: RulePart, task: Task) -> list[float]:
    """Test scores at the task's published rate, best evaluation each, one a seed; the same splits and nets for all rules."""
    rules, data, settings = [], [], []
    for seed in SEEDS:
        with torch.device("meta"):
            rule = part.build(task.net(fill_named(_slots(task)), task.widths), task.problem)
        rule.to_empty(device="cpu")
        initialise(rule, seed)
        rules.append(rule)
        data.append(task.data(seed))
        settings.append(Setting.of(task, seed, {"lr": task.lr[part.tags.family][2]}))
    if part.tags.stackable and not part.tags.closed_form:
        outs = train_stack(rules, data, settings)
    else:
        outs = [train(r, d, s, part.tags.closed_form) for r, d, s in zip(rules, data, settings, strict=True)]
    scores = []
    for rule, d, out in zip(rules, data, outs, strict=True):
        rule.load_state_dict(out.best_state or {}, strict=out.best_state is not None)
        x, y = d.split("test")
        scores.append(task.problem.metric(predict(rule, x), y) if out.best_state else task.problem.worst)
    return scores


def _slots(task: Task) -> dict[str, Any]:
    """What the task puts in its slots, but the rule."""
    return {
        slot: catalogue.parse(spec) if "/" in spec else spec for slot, spec in task.slots.items() if slot != "rule"
    }  # fmt: skip


@cache
def _control(task_id: str) -> tuple[Task, tuple[float, ...]]:
    task = catalogue.get(task_id).build(size="small")  # type: ignore[call-arg]
    return task, tuple(_scores(catalogue.get(task.control), task))  # type: ignore[arg-type]


def above_control(part: RulePart) -> None:
    """On digits the rule beats frozen hidden layers by two standard deviations of the paired differences, over four seeds."""
    task, control = _control("task/digits")
    try:
        scores = _scores(part, task)
    except Misfit as error:
        raise Skip(str(error)) from None
    sign = 1 if task.problem.higher_is_better else -1
    differences = [sign * (a - b) for a, b in zip(scores, control, strict=True)]
    mean, spread = statistics.mean(differences), statistics.stdev(differences)
    expect(
        mean > 0 and mean >= 2 * spread, "not above the control", given=f"seeds {SEEDS}",
        got=f"{mean:.4f} above, sd {spread:.4f}", wanted="at least 2 sd",
    )  # fmt: skip


CHECKS = (
    Check("above_control", above_control, slow=True),
    Check("between_yields", between_yields),
    Check("descent", descent),
    Check("forwards", forwards),
    Check("initialised", initialised),
    Check("misfit", misfit),
    Check("no_cross_gradient", no_cross_gradient),
    Check("one_backward", one_backward),
    Check("predict_pure", predict_pure),
    Check("randomness", randomness),
    Check("stackable", stackable),
    Check("statistics_once", statistics_once),
    Check("update_tree", update_tree),
)
