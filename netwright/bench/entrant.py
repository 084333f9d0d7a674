"""Entrant: an arm that has met its task. Every slot holds a part, everything is decided once; what follows takes entrants."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, final

import torch
from torch import Tensor

from netwright.bench.own.model import put_in
from netwright.bench.request import PROTOCOL, ArmSpec, Request, open_task
from netwright.core import catalogue
from netwright.core.canonical import canonical_json, digest, parse
from netwright.core.errors import BadInput, NetwrightError
from netwright.core.fingerprint import ENGINE_VERSION, fingerprint, fingerprints, of
from netwright.core.guard import foreign, remark
from netwright.core.kind import NET, OPTIMIZER, RULE
from netwright.core.part import Option
from netwright.engine.build import Chosen, build, chosen, defaults_of, named, problem_of
from netwright.engine.loop import Outcome, Setting, cast, train
from netwright.engine.meter import flops_of
from netwright.engine.rule import Rule
from netwright.engine.task import Data, Task
from netwright.engine.view import View
from netwright.tensor.groups import parameter_groups
from netwright.tensor.streams import global_draws

#: Dimensions of a trial point that all arms share; the others are options of a part, as "slot.option".
SHARED = ("lr", "weight_decay")
MEASURED = 128  # rows that a measure sees
OWN = "own"  # the family of trainings of the user's own
DIMENSIONS = 8  # of a trial point at most: the shared ones, then up to six of a part's own


@final
@dataclass(frozen=True, eq=False)
class Entrant:
    """An arm on its task: which part fills which slot, how wide the net is, on what it runs; its key, price and runs.

    parts: slot -> part with its options, of every slot that is filled. widths: of the net; the task's own until they are
    matched. measures: what is read off its trained nets. opened: how another process opens the task, (reference, options,
    budget); None where it exists only in this one.
    """

    arm: ArmSpec
    task: Task
    parts: Mapping[str, Chosen]
    widths: tuple[int, ...]
    device: str = "cpu"
    precision: str = "fp32"
    threads: int = 1
    measures: tuple[Chosen, ...] = ()
    opened: tuple[str, str, str] | None = None

    @property
    def name(self) -> str:
        return self.arm.name

    def at(self, widths: Sequence[int]) -> Entrant:
        """The same with another net's widths."""
        return self if tuple(widths) == self.widths else dataclasses.replace(self, widths=tuple(widths))

    def __reduce__(self) -> Any:
        """Travels as text and meets its task again where it arrives."""
        if self.opened is None:
            raise BadInput(f"{self.task.name} exists only in this process; put it in a file and name it path/to/file.py:NAME")
        measures = tuple(map(str, self.measures))
        return _arrived, (self.opened, self.arm, self.widths, self.device, self.precision, self.threads, measures)

    # -- what its parts declare

    @cached_property
    def tags(self) -> Any:
        """Those of the way it learns, at its options."""
        rule: Any = self.parts[RULE]
        return rule.part.tags_at(**rule.options)

    @property
    def family(self) -> str:
        """Arms of one family share a range of rates, and its widening: those that learn, and step, in the same way."""
        if self.task.call:
            return OWN
        by, own = self.parts[OPTIMIZER].part, named(OPTIMIZER, defaults_of(self.task)[OPTIMIZER]).part
        return self.tags.family if by.id == own.id else f"{self.tags.family}, {by.name}"

    @property
    def rates(self) -> tuple[float, float, float]:
        """Lowest, highest and published rate: the task's, by the factors that the way it learns and the optimizer declare.

        The task's are those of its own optimizer. An optimizer that finds its own rate is given 1. Raises BadInput where that
        is the task's, which then has none for others.
        """
        if self.task.call:
            return self.task.lr
        by: Any = self.parts[OPTIMIZER].part
        own: Any = named(OPTIMIZER, defaults_of(self.task)[OPTIMIZER]).part
        if by.tags.free:
            return 1.0, 1.0, 1.0
        if own.tags.free:
            raise BadInput(f"{self.task.id} has no range of rates, as its {own.id} finds its own; {by.id} needs one: give lr=")
        each = zip(self.task.lr, self.tags.rates, by.tags.rates, own.tags.rates, strict=True)
        low, high, published = (rate * (learns * (steps / usual)) for rate, learns, steps, usual in each)
        return low, high, published

    @cached_property
    def searched(self) -> list[tuple[str, Option]]:
        """(slot, option) of every option that the arm leaves to the search: its dimensions after the shared ones."""
        found = []
        for slot, one in sorted(self.parts.items()):
            found += [(slot, o) for o in one.part.options if o.search is not None and o.name not in one.options]
        return found[: DIMENSIONS - len(SHARED)]

    @property
    def tuned(self) -> bool:
        """Whether its trials differ: by a rate, a decay or an option of its own."""
        low, high, _ = self.rates
        return low < high or isinstance(self.task.weight_decay, tuple) or bool(self.searched)

    @property
    def left_to_others(self) -> str:
        """How many values its optimizer leaves to another, in words; "" where it takes all."""
        if self.task.call or not self.parts[OPTIMIZER].part.tags.matrices:
            return ""
        steps, counted = self.setting(0, {"lr": self.rates[2]}), self._counted
        by = steps.steps_by
        taken = by.part.build(parameter_groups(counted), **by.options).taken()
        return f"{self.name}: " + ", ".join(f"{count:,} values by {part_id}" for part_id, count in taken.items())

    def why_not_stackable(self, tuned: bool) -> str:
        """The reason its runs can't be trained as one stack, or ''. tuned: they differ in trial points."""
        if self.task.call:
            return "its training is the user's own"
        if self.precision == "amp":
            return "stacks don't know mixed precision"
        if self.task.per_seed_data:
            return "its data are a function of the seed, so copies share no pool"
        if self.task.foreign:
            return "its model is the user's own, and copies of a stack would share what it draws"
        if tuned and isinstance(self.task.weight_decay, tuple):
            return "weight decay is tuned, and copies of a stack share it"
        if tuned and self.searched:
            own = ", ".join(f"{slot} {option.name}" for slot, option in self.searched)
            return f"its own options are tuned ({own}), and copies of a stack share them"
        if why := next((why for one in self.parts.values() if (why := one.part.why_not_stackable)), ""):
            return why
        steps: Any = self.parts[OPTIMIZER].part
        if steps.read is not None and any(True for _ in self._counted.buffers()):
            return f"{steps.id} is read at other values than it trains at, where statistics (buffers) are taken anew"
        if self.tags.closed_form:
            return "it is solved in closed form, not in steps"
        return "" if self.tags.stackable else self.tags.why_not_stackable

    # -- identity

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """Part id -> fingerprint of all that fills its slots, and of the task: what its records rest on."""
        found = {self.task.id: self.task.source_hash or fingerprint(catalogue.get(self.task.id))}
        for one in (*self.parts.values(), *self.measures):
            found |= fingerprints(one.part, one.options)
        return found

    @cached_property
    def slots(self) -> dict[str, Any]:
        """What fills its slots, for keys: id, resolved options and fingerprints of every part; and the task's own."""
        own = {"put in by": of(put_in)} if self.task.foreign else {}
        parts = {slot: [c.part.id, c.resolved, fingerprints(c.part, c.options)] for slot, c in self.parts.items()}
        return own | {"task": self.fingerprints[self.task.id]} | parts

    def key(self, seed: int, point: Mapping[str, Any], engine: str, data: str) -> str:
        """Identity of one run: hash of everything that can change its result. data: hash of the task's."""
        task = self.task
        row = {
            "schema": 1,
            "protocol": PROTOCOL,
            "engine_version": ENGINE_VERSION,
            "engine": engine,
            "arm": [self.name, self.arm.rekey],
            "task": task.id,
            "task_options": {"size": task.size, **task.options},
            "task_version": task.version,
            "task_source": task.source_hash,
            "data": data,
            "host": task.host,
            "widths": list(self.widths),
            "slots": self.slots,
            "seed": seed,
            "point": dict(point),
            "steps": task.steps,
            "batch": task.batch,
            "evals": list(task.evals),
            "device": self.device.split(":")[0],
            "precision": self.precision,
            "weight_decay": task.weight_decay,
            "clip": task.clip,
        } | ({"call": task.call.rpartition(":")[2]} if task.call else {})
        if self.measures:
            row["measures"] = [[c.part.id, c.resolved, fingerprints(c.part, c.options)] for c in self.measures]
        return digest(row)[:32]

    # -- price

    @cached_property
    def params(self) -> float:
        """Values of its parameters."""
        return float(sum(p.numel() for p in self._counted.parameters()))

    @property
    def flops(self) -> tuple[float, float] | None:
        """Floating-point operations of one training step and of one prediction of a batch; None where they can't be counted."""
        try:
            return self._flops
        except (NetwrightError, RuntimeError, TypeError):
            return None

    def price(self, what: str) -> float:
        """What is matched: "params", or "flops" of a training step. Raises what its parts raise where it can't be counted."""
        return self.params if what == "params" else self._flops[0]

    @cached_property
    def _counted(self) -> Rule:
        return self.build(0, meta=True)

    @cached_property
    def _flops(self) -> tuple[float, float]:
        with foreign(self.name):
            return flops_of(self.task, self._counted)

    # -- runs

    def build(self, seed: int, point: Mapping[str, Any] | None = None, meta: bool = False) -> Rule:
        """Its rule over its net, every value drawn from the stream of its own path.

        point: a trial point; whatever is not a shared dimension goes to the options of the part that searches it.
        meta: leave it on the meta device (for counting); a user's model is made on real tensors all the same.
        """
        parts, stream = self.parts_at(point or {}), self.arm.stream(seed)
        with foreign(self.name), global_draws(stream, "init"):
            if self.task.foreign:
                in_net = [one for one in parts.values() if one.place == NET]
                task = dataclasses.replace(self.task, problem=problem_of(self.task, parts))
                return put_in(task, in_net, parts[RULE], seed, stream, self.device)
            return build(self.task, parts, stream, self.widths, self.device, meta)

    def parts_at(self, point: Mapping[str, Any]) -> dict[str, Chosen]:
        """What fills its slots at a trial point: what isn't a shared dimension is an option of the part that searches it."""
        parts = dict(self.parts)
        for name, value in point.items():
            if name not in SHARED:
                slot, _, option = name.partition(".")
                parts[slot] = Chosen(parts[slot].part, {**parts[slot].options, option: value})
        return parts

    def data(self, seed: int) -> Data:
        """One seed's data, on its device."""
        return data_of(self.task, seed, self.device)

    def setting(self, seed: int, point: Mapping[str, Any]) -> Setting:
        """The task's setting at a trial point, with the streams of the arm."""
        return Setting.of(self.task, self.arm.stream(seed), point, self.precision, self.parts_at(point))

    def train(self, seed: int, point: Mapping[str, Any]) -> Outcome:
        """One training, alone."""
        rule, data, setting = self.build(seed, point), self.data(seed), self.setting(seed, point)
        with global_draws(setting.seed, "forward"):
            out = train(rule, data, setting, self.tags.closed_form)
            return self._measured(out, rule, data, setting)

    def train_together(self, runs: Sequence[tuple[int, Mapping[str, Any]]], compiled: bool) -> list[Outcome]:
        """Several trainings, (seed, point) each, as one stack."""
        from netwright.engine.stack import train_stack

        rules = [self.build(seed, point) for seed, point in runs]
        data, settings = [self.data(seed) for seed, _ in runs], [self.setting(*run) for run in runs]
        with global_draws(settings[0].seed, "forward"):
            outs = train_stack(rules, data, settings, compiled=compiled)
            return [self._measured(*each) for each in zip(outs, rules, data, settings, strict=True)]

    def _measured(self, out: Outcome, rule: Rule, data: Data, setting: Setting) -> Outcome:
        """The outcome with the numbers its measures read off the best state, on the first MEASURED rows of validation.

        They are called "measure.number"; one that isn't finite did not occur, and a measure that raises gives none and a note.
        """
        for one in self.measures if out.best_state is not None and out.bad_step is None else ():
            measure: Any = one.part
            rows = data.val[:MEASURED]
            try:
                view = View(cast(rule, data.x[rows], setting)[1], data.y[rows])
                given = measure.build(**one.options)(rule, view)
                numbers = {name: float(v) for name, v in given.items() if not (isinstance(v, Tensor) and v.dim())}
            except Exception as error:
                remark(f"{self.name}: {measure.id} raised {type(error).__name__}: {error}")
                continue
            out.values |= {f"{measure.name}.{name}": v if math.isfinite(v) else None for name, v in numbers.items()}
        return out

    def computing(self) -> AbstractContextManager[None]:
        """As many compute threads inside as it asks for, as many as before outside."""
        return computing(self.threads)


@contextmanager
def computing(threads: int) -> Iterator[None]:
    """So many compute threads inside, as many as before outside."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def enter(task: Task, arm: ArmSpec, request: Request | None = None) -> Entrant:
    """The arm on an open task. request: on what it runs, and how another process opens the task."""
    found = Entrant(arm, task, chosen(task, arm.parts), tuple(task.widths))
    if request is None:
        return found
    importable = not request.task.startswith(GIVEN)
    opened = (request.task, canonical_json(request.task_options), canonical_json(request.budget)) if importable else None
    measures = tuple(Chosen(*catalogue.parse(text)) for text in request.measures)
    on: dict[str, Any] = {"device": request.device, "precision": request.precision, "threads": request.threads}
    return dataclasses.replace(found, measures=measures, opened=opened, **on)


def enter_all(task: Task, request: Request) -> list[Entrant]:
    """Every arm of a request on its open task, the baseline first."""
    return [enter(task, arm, request) for arm in request.arms]


#: How the reference of a task begins that exists only in this process.
GIVEN = "given:"


@lru_cache(maxsize=8)
def _opened(ref: str, options: str, budget: str) -> Task:
    return open_task(ref, parse(options), parse(budget))


def _arrived(
    opened: tuple[str, str, str],
    arm: ArmSpec,
    widths: tuple[int, ...],
    device: str,
    precision: str,
    threads: int,
    measures: tuple[str, ...],
) -> Entrant:
    task, read = _opened(*opened), tuple(Chosen(*catalogue.parse(text)) for text in measures)
    return Entrant(arm, task, chosen(task, arm.parts), widths, device, precision, threads, read, opened)


@lru_cache(maxsize=64)
def data_of(task: Task, seed: int, device: str) -> Data:
    """One seed's data; pools are shared between seeds where the task shares them."""
    data = task.data(seed)
    if device == "cpu":
        return data
    pool = _pool(task, device) if not task.per_seed_data else (data.x.to(device), data.y.to(device))
    return Data(*pool, data.train.to(device), data.val.to(device), data.test.to(device))


@lru_cache(maxsize=2)
def _pool(task: Task, device: str) -> tuple[Tensor, Tensor]:
    data = task.data(0)
    return data.x.to(device), data.y.to(device)


def rests_on(entrants: Sequence[Entrant]) -> dict[str, str]:
    """Part id -> fingerprint of everything that fills a slot of an entrant, and of the task: what keeps a record fresh."""
    found: dict[str, str] = {}
    for entrant in entrants:
        found |= entrant.fingerprints
    return dict(sorted(found.items()))
