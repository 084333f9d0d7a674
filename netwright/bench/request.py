"""The frozen request: which arms, on which task, how many seeds and trials, at what equality of cost."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import torch

from netwright.core import catalogue
from netwright.core.canonical import digest
from netwright.core.errors import BadInput, Misfit, UnknownName, printable, unknown
from netwright.core.kind import BENCH, HOST, NET, READ, RULE, TASK
from netwright.core.part import Part
from netwright.engine.build import chosen, defaults_of, host_of
from netwright.engine.loop import PRECISIONS
from netwright.engine.task import Task
from netwright.tensor.streams import derive

#: Comparability of records: raised when the meaning of a score changes (Major) or gains a field (Minor).
PROTOCOL = "1.0"

MATCHES = ("none", "params", "flops", "time")
ENGINES = ("auto", "loop", "stack", "stack-compiled")
DEFAULT_ARM = "default"


MOST = 10_000  # seeds, and trials a replicate


def most_threads() -> int:
    """Threads or workers that are asked for at most: far more than the cores take the machine down with them."""
    return max(64, 4 * (os.cpu_count() or 1))


@final
@dataclass(frozen=True)
class Terms:
    """How arms are compared: the fields of a Study that decide a result. Whatever is wrong is named early.

    seeds: how many, from 0 on, or which. trials: points of the tuning space a replicate; 1 is the published rate, not tuned.
    match: equal cost in params, flops, time or none. baseline: an arm other than the first. all_pairs: compare the other arms
    with one another too. steps, batch: instead of the task's. control: add the task's control where rules are compared.
    measures: what is read off every trained net, as text ("empirical-ntk:output=1"). judge: a named value that arms are judged
    by instead of the score; delta: its smallest difference that matters, higher_is_better: which of its values are better.
    """

    seeds: int | Sequence[int] = 10
    trials: int = 5
    match: str = "params"
    baseline: str | None = None
    all_pairs: bool = False
    engine: str = "auto"
    device: str = "cpu"
    precision: str = "fp32"
    threads: int = 1
    steps: int | None = None
    batch: int | None = None
    control: bool = True
    measures: Sequence[str] = ()
    judge: str = ""
    delta: float | None = None
    higher_is_better: bool | None = None

    def __post_init__(self) -> None:
        for what, value, known in (
            ("match", self.match, MATCHES),
            ("engine", self.engine, ENGINES),
            ("precision", self.precision, PRECISIONS),
        ):
            if value not in known:
                raise unknown(what, value, known)
        for what in ("trials", "threads", "steps", "batch"):
            count = getattr(self, what)
            if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
                raise BadInput(f"{what}={count!r}; expected a whole number of at least 1")
        self._check_judge()
        if self.threads > most_threads():
            raise BadInput(f"threads={self.threads}; expected at most {most_threads()} on this machine")
        if self.trials > MOST or (isinstance(self.seeds, int) and self.seeds > MOST):
            raise BadInput(f"seeds={self.seeds!r}, trials={self.trials}; expected at most {MOST} of each")
        numbers = self.numbers
        if not numbers or len(set(numbers)) != len(numbers) or min(numbers) < 0:
            raise BadInput(f"seeds={self.seeds!r}; give a number of at least 1, or different whole numbers from 0")
        if self.device.startswith("cuda") and not torch.cuda.is_available():
            raise BadInput(f"device={self.device!r}, but torch sees no CUDA device; use --device cpu")
        try:
            torch.device(self.device)
        except RuntimeError as error:
            raise BadInput(f"device={self.device!r}: {str(error).splitlines()[0]}") from None
        if self.precision == "fp64" and self.device == "mps":
            raise Misfit("precision fp64 does not exist on mps")

    def _check_judge(self) -> None:
        """A named value is judged by a direction and a delta of its own, and the score by the task's."""
        given = {"delta": self.delta, "higher_is_better": self.higher_is_better}
        for name, value in given.items():
            if self.judge and value is None:
                raise BadInput(f"judge={self.judge!r} needs {name}=: the value's own, which no task knows")
            if value is not None and not self.judge:
                raise BadInput(f"{name}={value!r} is the task's, unless judge= names another value that arms are judged by")
        if self.delta is not None and not (isinstance(self.delta, (int, float)) and 0 < self.delta < math.inf):
            raise BadInput(f"delta={self.delta!r}; expected the smallest difference that matters, above 0")
        if self.higher_is_better not in (None, True, False):
            raise BadInput(f"higher_is_better={self.higher_is_better!r}; expected True or False")

    @property
    def numbers(self) -> tuple[int, ...]:
        """The seeds themselves."""
        return tuple(range(self.seeds)) if isinstance(self.seeds, int) else tuple(int(s) for s in self.seeds)

    @property
    def budget(self) -> dict[str, int]:
        """What is laid over the task's budget."""
        return {name: count for name in ("steps", "batch") if (count := getattr(self, name)) is not None}

    def words(self) -> list[str]:
        """As options of the command line; those at their defaults are left out, but for seeds and trials."""
        said: dict[str, Any] = {"seeds": len(self.numbers), "tune": self.trials}
        for name in ("match", "engine", "device", "precision", "threads", "steps", "batch"):
            if (value := getattr(self, name)) != getattr(Terms, name):
                said[name] = value
        if self.measures:
            said["measure"] = "+".join(self.measures)
        if self.judge:
            said |= {"judge": self.judge, "delta": self.delta}
        words = [word for name, value in said.items() for word in (f"--{name}", str(value))]
        if self.judge:
            words.append("--higher-is-better" if self.higher_is_better else "--lower-is-better")
        return words + ["--all-pairs"] * self.all_pairs + ["--no-control"] * (not self.control)


@final
@dataclass(frozen=True)
class ArmSpec:
    """One assignment of parts to slots. parts: slot -> (part id, options); unnamed slots take the task's defaults.

    rekey: another number gives the arm initial values, order, draws and augmentation of its own; data splits and trial
    points stay those of the other arms. This is how the bench tests itself.
    """

    name: str
    parts: Mapping[str, tuple[str, Mapping[str, Any]]] = field(default_factory=dict)
    rekey: int = 0

    def stream(self, seed: int) -> int:
        """The seed its streams derive from."""
        return derive(seed, "rekey", str(self.rekey)) if self.rekey else seed


@final
@dataclass(frozen=True)
class Request:
    """Everything that decides what is run. `study_id` leaves out the seeds, so that adding seeds extends a study."""

    task: str  # a task id, or "path/to/file.py:NAME"
    task_options: Mapping[str, Any]
    arms: tuple[ArmSpec, ...]
    seeds: tuple[int, ...]
    trials: int = 5
    match: str = "params"
    baseline: str = ""
    all_pairs: bool = False
    engine: str = "auto"
    device: str = "cpu"
    precision: str = "fp32"
    threads: int = 1
    budget: Mapping[str, int] = field(default_factory=dict)  # {"steps": n, "batch": n} laid over the task's
    control: str = ""  # where rules are compared, the arm that is the task's control
    control_added: bool = False  # nobody named it: it stands in every table, and not in the family of comparisons
    measures: tuple[str, ...] = ()
    judge: str = ""  # a named value; then with the two below
    delta: float | None = None
    higher_is_better: bool | None = None

    @property
    def judged(self) -> tuple[ArmSpec, ...]:
        """The arms of the family of comparisons, the baseline first."""
        return tuple(arm for arm in self.arms if not (self.control_added and arm.name == self.control))

    @property
    def study_id(self) -> str:
        row = dataclasses.asdict(self)
        # the control follows from the arms, and what is judged changes no run
        for name in ("seeds", "control", "control_added", "judge", "delta", "higher_is_better"):
            row.pop(name)
        if not self.measures:
            row.pop("measures")
        for arm in row["arms"]:  # a study made when a part's kind was called otherwise is still this one
            arm["parts"] = {slot: (catalogue.first_id(part_id), options) for slot, (part_id, options) in arm["parts"].items()}
        return digest({"protocol": PROTOCOL, **row})[:16]


def slots_of(task: Task, arm: Sequence[Part] = ()) -> tuple[str, ...]:
    """Slots an arm may fill on this task, in the order in which a part that fits several takes them.

    arm: its parts; where the task lets it choose the net, the places are those of the net that it chose.
    """
    if task.foreign:
        own = [
            s for kind in catalogue.kinds().values() if (sites := kind.sites()) for s in sites.SLOTS if task.swap_slot is not None
        ]
    else:
        given: Any = next((part for part in arm if HOST in part.slots() and HOST in task.slots), None)
        host = given or host_of(task, chosen(task))
        own = list(host.places) if host else []
    return tuple(dict.fromkeys((*defaults_of(task), *own)))


def parse_arm(text: str, task: Task) -> ArmSpec:
    """ "golu", "swish:beta=2", "golu+mono-forward", or "default" (nothing changed) as an ArmSpec.

    Raises UnknownName with near names, Misfit where no slot of the task admits a part, or two want the same slot.
    """
    text = printable(text).strip()
    if text == DEFAULT_ARM:
        return ArmSpec(DEFAULT_ARM)
    if task.call:  # what an arm is, the user's own training knows
        return ArmSpec(text)
    pieces = [catalogue.parse(piece) for piece in text.split("+")]
    admitted = slots_of(task, [part for part, _ in pieces])
    parts: dict[str, tuple[str, Mapping[str, Any]]] = {}
    in_net = []
    for part, options in pieces:
        fits = [slot for slot in part.slots() if slot in admitted]
        if not fits:
            wants = ", ".join(part.slots()) or "none"
            raise Misfit(
                f"{part.id} fills the slot {wants}; {task.id} has the slots {', '.join(admitted)}: no slot admits it. "
                "Choose another part or another task"
            )
        slot = fits[0]
        if slot in parts:
            raise Misfit(f"{text!r}: {parts[slot][0]} and {part.id} both fill the slot {slot}; an arm puts one part into a slot")
        parts[slot] = (part.id, part.resolve(options) and options)
        in_net += [part.id] if catalogue.kinds()[part.kind].place == NET else []
        _check_needs(part, task)
    if task.foreign and len(in_net) > 1:
        raise Misfit(f"{text!r}: a task of your own has one slot, and an arm puts one part into it; given {', '.join(in_net)}")
    return ArmSpec(text, parts)


def _check_needs(part: Part, task: Task) -> None:
    if missing := part.missing(task.problem.gives):
        raise Misfit(
            f"{part.id} needs {', '.join(missing)}, which {task.id} doesn't offer "
            f"(it offers {', '.join(sorted(task.problem.gives)) or 'nothing'})"
        )


def make_request(
    task: Task, task_ref: str, task_options: Mapping[str, Any], arms: Sequence[str | ArmSpec], terms: Terms | None = None
) -> Request:
    """The request of these arms on an open task. Raises BadInput, UnknownName or Misfit, naming what is wrong."""
    terms = terms or Terms()
    specs = [arm if isinstance(arm, ArmSpec) else parse_arm(arm, task) for arm in arms]
    if not specs:
        raise BadInput("no arm given; name at least one part, e.g. compare(['relu', 'golu'], task='digits')")
    names = [arm.name for arm in specs]
    if twice := {n for n in names if names.count(n) > 1}:
        raise BadInput(f"arm {sorted(twice)[0]!r} is given twice; each arm stands once")
    first = terms.baseline or names[0]
    if first not in names:
        raise unknown("arm", first, names, owner="baseline")
    specs.sort(key=lambda arm: arm.name != first)  # the baseline first, the others in the order given
    found, added = _control_of(specs, task) if terms.control else ("", False)
    if added:
        specs.append(ArmSpec(found, {**specs[0].parts, RULE: (task.control, {})}))
    same = {name: getattr(terms, name) for name in ("trials", "match", "all_pairs", "engine", "device", "precision", "threads")}
    if task.call:
        same["match"] = "none"  # what an arm costs is not seen
        if terms.trials > 1 and task.lr[0] == task.lr[1]:
            raise BadInput(
                f"trials={terms.trials}, but {task.id} has no range of rates to try: give lr= to its task, or trials=1"
            )
    measures = tuple(terms.measures)
    for text in measures:
        part, options = catalogue.parse(text, catalogue.kind_at(READ))
        part.resolve(options)
    if measures and task.call:
        raise BadInput(f"measures={list(measures)}, but {task.id} is a training of your own, whose net is not seen")
    return Request(
        task_ref,
        dict(task_options),
        tuple(specs),
        terms.numbers,
        baseline=first,
        budget=terms.budget,
        control=found,
        control_added=added,
        measures=measures,
        judge=terms.judge,
        delta=terms.delta,
        higher_is_better=terms.higher_is_better,
        **same,
    )


def _control_of(arms: Sequence[ArmSpec], task: Task) -> tuple[str, bool]:
    """(the arm that is the task's control, whether it has to be added): ("", False) where no two rules are compared."""
    if not task.control or len(arms) < 2 or not any(RULE in arm.parts for arm in arms):
        return "", False
    for arm in arms:
        if RULE in arm.parts and arm.parts[RULE][0] == task.control:
            return arm.name, False
    name = task.control.partition("/")[2]
    return (name, True) if name not in {arm.name for arm in arms} else ("", False)


def open_task(ref: str, options: Mapping[str, Any], budget: Mapping[str, int] | None = None) -> Task:
    """The task behind a reference: "digits", "task/digits:size=full", or "path/to/file.py:NAME"."""
    head = ref.split(":")[0]
    if head.endswith(".py"):
        from netwright.bench.own.task import load_file

        if options:
            raise BadInput(f"{ref} is a task of your own and takes no options; given {', '.join(options)}: set them in the file")
        task = load_file(ref)
    else:
        task = _of_a_recipe(ref, options) or _of_the_house(ref, options)
    return with_budget(task, budget or {})


def _of_the_house(ref: str, options: Mapping[str, Any]) -> Task:
    try:
        part, given = catalogue.parse(ref, catalogue.kind_at(TASK))
    except UnknownName as error:
        raise UnknownName(f"{error} (your own task: --task path/to/file.py:NAME)") from None
    return part.build(**(given | dict(options)))


def _of_a_recipe(ref: str, options: Mapping[str, Any]) -> Task | None:
    """The task that "recipe/NAME", or the id of an experiment, brings; None where the reference is of another sort."""
    kind = catalogue.kind_at(BENCH)
    where, slash, rest = ref.partition("/")
    if not slash or where not in ("recipe", kind):
        return None
    part, given = catalogue.parse(rest, kind)
    make = getattr(part, "task", None)
    if make is None:
        raise Misfit(f"{part.id} brings no task of its own; tasks: netwright list {catalogue.kind_at(TASK)}")
    return make(**(given | dict(options)))


def with_budget(task: Task, budget: Mapping[str, int]) -> Task:
    """The task with another number of steps or another batch; the evaluation grid scales along."""
    if not budget:
        return task
    steps = budget.get("steps", task.steps)
    evals = tuple(sorted({max(1, round(e * steps / task.steps)) for e in task.evals}))
    return dataclasses.replace(task, steps=steps, batch=budget.get("batch", task.batch), evals=evals)
