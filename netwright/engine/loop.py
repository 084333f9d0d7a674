"""The loop: one copy of one net, one seed, one rate. Readable in one sitting.

A rule yields losses; each is taken as it comes: backward, step that unit, free its gradients, next. The unit that
several losses share comes last and steps last.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, final

import torch
from torch import Tensor, nn

from netwright.core.errors import BadInput, unknown
from netwright.core.guard import foreign
from netwright.core.kind import OPTIMIZER, SCHEDULE
from netwright.engine.build import Chosen, defaults_of, named
from netwright.engine.rule import Phase, Rule
from netwright.engine.task import Data, Problem, Task
from netwright.tensor.groups import parameter_groups
from netwright.tensor.streams import generator, permutation
from netwright.tensor.tap import evaluating, tapped

PRECISIONS = ("fp32", "bf16", "amp", "fp64")
CHUNK = 1024  # rows a prediction takes at once
SETTLING = 50  # batches over which statistics are taken anew where a net is read at other values than it trains at


@final
@dataclass(frozen=True)
class Setting:
    """All that one training needs beside the rule and the data. The seed feeds the streams "order", "draw", "augment".

    optimizer, schedule: parts as text, "adam" or "adamw:beta2=0.99".
    """

    seed: int
    lr: float
    steps: int
    batch: int
    evals: tuple[int, ...]
    optimizer: str
    schedule: str
    weight_decay: float = 0.0
    clip: float | None = None
    precision: str = "fp32"
    augment: Callable[[Tensor, torch.Generator], Tensor] | None = None

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise unknown("precision", self.precision, PRECISIONS)
        self.steps_by.part.accept(self.lr, self.weight_decay)
        _ = self.rated_by

    @cached_property
    def steps_by(self) -> Any:
        """The optimizer, a part with its options."""
        return named(OPTIMIZER, self.optimizer)

    @cached_property
    def rated_by(self) -> Any:
        """The schedule, a part with its options."""
        return named(SCHEDULE, self.schedule)

    def factors(self) -> Callable[[int], float]:
        """The factor on the rate at each step from 0."""
        return self.rated_by.part.build(self.steps, **self.rated_by.options)

    @staticmethod
    def of(
        task: Task,
        seed: int,
        point: Mapping[str, Any],
        precision: str = "fp32",
        parts: Mapping[str, Chosen] | None = None,
    ) -> Setting:
        """The task's setting at one trial point ({"lr": ..., "weight_decay": ...}).

        parts: slot -> what fills it, where that isn't the task's own optimizer or schedule.
        """
        usual = defaults_of(task)
        said = {slot: str(parts[slot]) if parts else usual[slot] for slot in (OPTIMIZER, SCHEDULE)}
        decay = point.get("weight_decay", task.weight_decay)
        return Setting(
            seed=seed,
            lr=float(point["lr"]),
            steps=task.steps,
            batch=task.batch,
            evals=tuple(task.evals),
            optimizer=said[OPTIMIZER],
            schedule=said[SCHEDULE],
            weight_decay=float(decay[0] if isinstance(decay, tuple) else decay),
            clip=task.clip,
            precision=precision,
            augment=task.augment,
        )


@dataclass
class Outcome:
    """What a training leaves: the curve, the best evaluation and the state it had there; or where it went wrong.

    test: the score of that state on the test rows; None where there is no such state, or `untested` says what was raised.
    """

    curve: list[tuple[int, float, float]] = field(default_factory=list)  # (step, mean train loss, validation score)
    best_step: int | None = None
    best_val: float | None = None
    best_state: dict[str, Tensor] | None = None
    test: float | None = None
    untested: str = ""
    bad_step: int | None = None
    bad_module: str = ""
    values: dict[str, float | None] = field(default_factory=dict)  # named numbers that were read off that state

    def note(self, step: int, loss: float, score: float, problem: Problem) -> bool:
        """Add a point to the curve; True where it is the best so far (ties: the earlier stays)."""
        self.curve.append((step, loss, score))
        if math.isfinite(score) and (self.best_val is None or problem.better(score, self.best_val)):
            self.best_step, self.best_val = step, score
            return True
        return False


def make_optimizer(parameters: Any, setting: Setting) -> torch.optim.Optimizer:
    """The setting's optimizer over what torch's take as parameters."""
    by = setting.steps_by
    return by.part.build(parameters, setting.lr, setting.weight_decay, **by.options)


def orders(n: int, batch: int, steps: int, seeds: Sequence[int]) -> Iterator[Tensor]:
    """`steps` index batches (seeds, batch), a fresh permutation an epoch; a row depends on n, batch and its seed alone."""
    batch = min(batch, n)
    per_epoch = n // batch
    for step in range(steps):
        epoch, i = divmod(step, per_epoch)
        if i == 0:
            shuffled = torch.stack([permutation(n, seed, "order", str(epoch)) for seed in seeds])
        yield shuffled[:, i * batch : (i + 1) * batch]


def autocast(setting: Setting, device: torch.device) -> Any:
    """The context forward passes run in."""
    return torch.autocast(device.type, torch.bfloat16) if setting.precision == "amp" else nullcontext()


def cast(rule: Rule, x: Tensor, setting: Setting) -> tuple[Rule, Tensor]:
    """Rule and inputs in the setting's own dtype."""
    dtype = {"bf16": torch.bfloat16, "fp64": torch.float64}.get(setting.precision)
    if dtype is None:
        return rule, x
    return rule.to(dtype), x.to(dtype) if x.is_floating_point() else x


@torch.no_grad()
def predict(rule: Rule, x: Tensor, setting: Setting | None = None) -> Tensor:
    """Predictions for all rows of x, in chunks, in evaluation mode; every module gets its own mode back."""
    with evaluating(rule), autocast(setting, x.device) if setting else nullcontext():
        return torch.cat([rule(x[i : i + CHUNK]).float() for i in range(0, len(x), CHUNK)])


class Loop:
    """One rule with one optimizer a unit."""

    def __init__(self, rule: Rule, setting: Setting) -> None:
        self.rule, self.setting = rule, setting
        self.units = [list(unit) for unit in rule.units()]
        self.optimizers = [
            make_optimizer(parameter_groups(rule, setting.weight_decay, only=unit), setting) if unit else None
            for unit in self.units
        ]

    def step(self, x: Tensor, y: Tensor, draws: tuple[Tensor, ...] = (), rate: float | None = None) -> Tensor:
        """One step on one batch; returns the sum of the losses, detached. Stops at a loss that isn't finite."""
        self.rule.train()
        total = torch.zeros((), device=x.device)
        last = len(self.units) - 1
        with autocast(self.setting, x.device):
            for i, loss in enumerate(self.rule.losses(x, y, *draws)):
                total = total + loss.detach()
                if not bool(torch.isfinite(loss)):  # no update: what is wrong can still be found
                    return total
                loss.backward()
                if i < last:
                    self._update(i, rate)
        self._update(last, rate)
        self.rule.after_step()
        return total

    def _update(self, i: int, rate: float | None) -> None:
        optimizer = self.optimizers[i]
        if optimizer is None:
            return
        if self.setting.clip is not None:
            nn.utils.clip_grad_norm_(self.units[i], self.setting.clip)
        if rate is not None:
            for group in optimizer.param_groups:
                group["lr"] = rate
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    @contextmanager
    def reading(self, batches: Sequence[Tensor] = ()) -> Iterator[None]:
        """Inside, the rule has the values it is evaluated and kept at, which some optimizers have apart from where they train.

        batches: inputs over which its statistics are taken anew at those values; afterwards they are what they were.
        """
        if self.setting.steps_by.part.read is None:
            yield
            return
        before = {name: b.detach().clone() for name, b in self.rule.named_buffers()}
        with ExitStack() as exits:
            for optimizer in self.optimizers:
                if optimizer is not None:
                    exits.enter_context(optimizer.reading())  # type: ignore[attr-defined]
            if before:
                self.rule.train()
                with torch.no_grad(), autocast(self.setting, next(self.rule.parameters()).device):
                    for x in batches:
                        self.rule(x)
            yield
        for name, b in self.rule.named_buffers():
            b.copy_(before[name])


def phase_starts(phases: Sequence[Phase], steps: int) -> dict[int, Phase]:
    """The step (from 0) each phase begins at."""
    starts, done = {}, 0.0
    for phase in phases:
        starts[round(done * steps)] = phase
        done += phase.share
    if abs(done - 1) > 1e-6:
        raise BadInput(f"the shares of phases {[p.name for p in phases]} sum to {done}; they have to sum to 1")
    return starts


def train(
    rule: Rule, data: Data, setting: Setting, closed_form: bool = False, on_eval: Callable[[int], None] | None = None
) -> Outcome:
    """Train one copy and keep its best state on the fixed evaluation grid, which is tested at the end.

    A loss that isn't finite ends the run: `bad_step` (counted from 1) and `bad_module` say where.
    on_eval(step) is told after each evaluation.
    """
    rule, pool = cast(rule, data.x, setting)
    x_val, y_val = pool[data.val], data.y[data.val]
    out = Outcome()
    draws_from, augment_from = generator(setting.seed, "draw"), generator(setting.seed, "augment")
    batches = orders(len(data.train), setting.batch, setting.steps, [setting.seed])

    def evaluate(step: int, loss: float) -> None:
        score = float(rule.problem.metric(predict(rule, x_val, setting), y_val))
        if out.note(step, loss, score, rule.problem):
            out.best_state = {k: v.detach().clone() for k, v in rule.state_dict().items()}
        if on_eval is not None:
            on_eval(step)

    if closed_form:
        rule.fit((pool[rows], data.y[rows]) for rows in data.train.split(setting.batch))
        evaluate(setting.steps, math.nan)
        return tested(out, rule, pool, data, setting)
    loop = Loop(rule, setting)
    starts = phase_starts(rule.phases(), setting.steps)
    factor, since, evals = setting.factors(), [], set(setting.evals)
    recent: deque[Tensor] = deque(maxlen=SETTLING)
    for step, positions in enumerate(batches):
        if step in starts:
            rule.enter(starts[step])
        rows = data.train[positions[0].to(data.train.device)]
        x, y = pool[rows], data.y[rows]
        if setting.augment is not None:
            x = setting.augment(x, augment_from)
        draws = rule.draw(x, y, draws_from)
        loss = loop.step(x, y, draws, setting.lr * factor(step))
        since.append(float(loss))
        if not math.isfinite(since[-1]):
            out.bad_step, out.bad_module = step + 1, first_bad_module(rule, x, y, draws)
            break
        recent.append(x)
        if step + 1 in evals:
            with loop.reading(recent):
                evaluate(step + 1, sum(since) / len(since))
            since = []
    return tested(out, rule, pool, data, setting)


def tested(out: Outcome, rule: Rule, pool: Tensor, data: Data, setting: Setting) -> Outcome:
    """The outcome of a whole training with its one test score, of its best state, in which the rule is left.

    Every training computes it; who may read it is the bench's business. What evaluating raises is kept: the training stands.
    """
    if out.best_state is None or out.bad_step is not None:
        return out
    try:
        with foreign("the test evaluation"):
            rule.load_state_dict(out.best_state)
            out.test = float(rule.problem.metric(predict(rule, pool[data.test], setting), data.y[data.test]))
    except Exception as error:
        out.untested = f"the test evaluation raised {type(error).__name__}: {error}"
    return out


def first_bad_module(rule: Rule, x: Tensor, y: Tensor, draws: tuple[Tensor, ...] = ()) -> str:
    """The path of the first module whose parameters aren't finite, else whose output isn't in this step; '' if none."""
    leaves = {path: m for path, m in rule.named_modules() if path and not any(True for _ in m.children())}
    for path, module in leaves.items():
        if any(not bool(torch.isfinite(p).all()) for p in module.parameters()):
            return path
    found: list[str] = []

    def look(path: str, module: nn.Module, args: Any, output: Any) -> None:
        if not found and isinstance(output, Tensor) and not bool(torch.isfinite(output).all()):
            found.append(path)

    with tapped(leaves, look):
        for _ in rule.losses(x, y, *draws):
            if found:
                break
    return found[0] if found else ""
