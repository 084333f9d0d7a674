"""The frozen request: which arms, on which task, how many seeds and trials, at what equality of cost."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

from netwright.bench.own.model import put_in
from netwright.core import catalogue
from netwright.core.canonical import digest
from netwright.core.errors import BadInput, Misfit, UnknownName, printable, unknown
from netwright.core.fingerprint import ENGINE_VERSION, fingerprint, fingerprints, of
from netwright.engine.build import filled
from netwright.engine.task import Task
from netwright.tensor.streams import derive

#: Comparability of records: raised when the meaning of a score changes (Major) or gains a field (Minor).
PROTOCOL = "1.0"

MATCHES = ("none", "params", "flops", "time")
ENGINES = ("auto", "loop", "stack", "stack-compiled")
EXECUTORS = ("auto", "serial", "processes", "ray")
DEFAULT_ARM = "default"
#: What an arm may put into the one slot of a task of the user's own.
SWAPPED = ("activation", "layer", "head", "conv", "channelwise", "norm")


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

    def filled(self, task: Task) -> dict[str, Any]:
        """Every slot of the task: see netwright.engine.build.filled."""
        return filled(task, self.parts)

    def rule_family(self, task: Task) -> str:
        """The family whose learning-rate range the arm takes."""
        part, _ = self.filled(task)["rule"]
        return part.tags.family


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

    @property
    def judged(self) -> tuple[ArmSpec, ...]:
        """The arms of the family of comparisons, the baseline first."""
        return tuple(arm for arm in self.arms if not (self.control_added and arm.name == self.control))

    @property
    def study_id(self) -> str:
        row = dataclasses.asdict(self)
        for name in ("seeds", "control", "control_added"):  # the latter two follow from the arms
            row.pop(name)
        for arm in row["arms"]:  # a study made when a part's kind was called otherwise is still this one
            arm["parts"] = {slot: (catalogue.first_id(part_id), options) for slot, (part_id, options) in arm["parts"].items()}
        return digest({"protocol": PROTOCOL, **row})[:16]


def slots_of(task: Task) -> tuple[str, ...]:
    """Slots an arm may fill on this task."""
    own = SWAPPED if task.foreign and task.swap_slot is not None else () if task.foreign else _places(task.host)
    return tuple(dict.fromkeys((*task.slots, *own)))


def _places(host: str) -> tuple[str, ...]:
    """The places of a host, in the order a part that fits several takes them; none where it is no net of the catalogue."""
    try:
        part: Any = catalogue.get(host, kind="net")
        return tuple(part.places)
    except UnknownName:
        return ()


def parse_arm(text: str, task: Task) -> ArmSpec:
    """ "golu", "swish:beta=2", "golu+mono-forward", or "default" (nothing changed) as an ArmSpec.

    Raises UnknownName with near names, Misfit where no slot of the task admits a part, or two want the same slot.
    """
    text = printable(text).strip()
    if text == DEFAULT_ARM:
        return ArmSpec(DEFAULT_ARM)
    admitted = slots_of(task)
    parts: dict[str, tuple[str, Mapping[str, Any]]] = {}
    for piece in text.split("+"):
        part, options = catalogue.parse(piece)
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
        if slot == "rule":
            _check_rule(part, task)
    if task.foreign and len(swapped := [part_id for slot, (part_id, _) in parts.items() if slot != "rule"]) > 1:
        raise Misfit(f"{text!r}: a task of your own has one slot, and an arm puts one part into it; given {', '.join(swapped)}")
    return ArmSpec(text, parts)


def _check_rule(part: Any, task: Task) -> None:
    missing = sorted(set(part.tags.needs) - set(task.problem.gives) - {"blocks"})
    if missing:
        raise Misfit(
            f"{part.id} needs {', '.join(missing)}, which {task.id} doesn't offer "
            f"(it offers {', '.join(sorted(task.problem.gives)) or 'nothing'})"
        )
    if part.tags.family not in task.lr:
        raise Misfit(f"{task.id} has no learning-rate range for rules of the family {part.tags.family!r}")


def make_request(
    task: Task,
    task_ref: str,
    task_options: Mapping[str, Any],
    arms: Sequence[str | ArmSpec],
    *,
    seeds: int | Sequence[int] = 10,
    trials: int = 5,
    match: str = "params",
    baseline: str | None = None,
    all_pairs: bool = False,
    engine: str = "auto",
    device: str = "cpu",
    precision: str = "fp32",
    threads: int = 1,
    steps: int | None = None,
    batch: int | None = None,
    control: bool = True,
) -> Request:
    """Check every field early and name the one that is wrong. control: add the task's control where rules are compared."""
    from netwright.engine.loop import PRECISIONS

    specs = [arm if isinstance(arm, ArmSpec) else parse_arm(arm, task) for arm in arms]
    if not specs:
        raise BadInput("no arm given; name at least one part, e.g. compare(['relu', 'golu'], task='digits')")
    names = [arm.name for arm in specs]
    if twice := {n for n in names if names.count(n) > 1}:
        raise BadInput(f"arm {sorted(twice)[0]!r} is given twice; each arm stands once")
    for what, value, known in (("match", match, MATCHES), ("engine", engine, ENGINES), ("precision", precision, PRECISIONS)):
        if value not in known:
            raise unknown(what, value, known)
    first = baseline or names[0]
    if first not in names:
        raise unknown("arm", first, names, owner="baseline")
    specs.sort(key=lambda arm: arm.name != first)  # the baseline first, the others in the order given
    found, added = _control_of(specs, task) if control else ("", False)
    if added:
        specs.append(ArmSpec(found, {**specs[0].parts, "rule": (task.control, {})}))
    numbers = tuple(range(seeds)) if isinstance(seeds, int) else tuple(int(s) for s in seeds)
    if not numbers or len(set(numbers)) != len(numbers) or min(numbers) < 0:
        raise BadInput(f"seeds={seeds!r}; give a number of at least 1, or different whole numbers from 0")
    for what, count in (("trials", trials), ("threads", threads), ("steps", steps), ("batch", batch)):
        if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
            raise BadInput(f"{what}={count!r}; expected a whole number of at least 1")
    budget = {k: v for k, v in (("steps", steps), ("batch", batch)) if v is not None}
    return Request(
        task=task_ref, task_options=dict(task_options), arms=tuple(specs), seeds=numbers, trials=trials, match=match,
        baseline=first, all_pairs=all_pairs, engine=engine, device=device, precision=precision, threads=threads, budget=budget,
        control=found, control_added=added,
    )  # fmt: skip


def _control_of(arms: Sequence[ArmSpec], task: Task) -> tuple[str, bool]:
    """(the arm that is the task's control, whether it has to be added): ("", False) where no two rules are compared."""
    if not task.control or len(arms) < 2 or not any("rule" in arm.parts for arm in arms):
        return "", False
    for arm in arms:
        if arm.filled(task)["rule"][0].id == task.control:
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
        try:
            part, given = catalogue.parse(ref, kind="task")
        except UnknownName as error:
            raise UnknownName(f"{error} (your own task: --task path/to/file.py:NAME)") from None
        task = part.build(**(given | dict(options)))
    return with_budget(task, budget or {})


def with_budget(task: Task, budget: Mapping[str, int]) -> Task:
    """The task with another number of steps or another batch; the evaluation grid scales along."""
    if not budget:
        return task
    steps = budget.get("steps", task.steps)
    evals = tuple(sorted({max(1, round(e * steps / task.steps)) for e in task.evals}))
    return dataclasses.replace(task, steps=steps, batch=budget.get("batch", task.batch), evals=evals)


def slots_key(arm: ArmSpec, task: Task) -> dict[str, Any]:
    """What fills the arm's slots, for job keys: id, resolved options and fingerprint of every part; and the task's own."""
    own = {"put in by": of(put_in)} if task.foreign else {}
    return (
        own
        | {"task": task.source_hash or fingerprint(catalogue.get(task.id))}
        | {
            slot: value if isinstance(value, str) else [value[0].id, value[0].resolve(value[1]), fingerprints(*value)]
            for slot, value in arm.filled(task).items()
        }
    )


def rests_on(arms: Sequence[ArmSpec], task: Task) -> dict[str, str]:
    """Part id -> fingerprint of everything that fills a slot of an arm, and of the task: what keeps a record fresh."""
    found = {task.id: task.source_hash or fingerprint(catalogue.get(task.id))}
    for value in (value for arm in arms for value in arm.filled(task).values()):
        found |= {} if isinstance(value, str) else fingerprints(*value)
    return dict(sorted(found.items()))


def job_key(
    request: Request, task: Task, arm: ArmSpec, slots: Mapping[str, Any], seed: int, point: Mapping[str, Any],
    widths: Sequence[int], engine: str, data_hash: str,
) -> str:  # fmt: skip
    """Identity of one run: hash of everything that can change its result. slots: of slots_key."""
    row = {
        "schema": 1, "protocol": PROTOCOL, "engine_version": ENGINE_VERSION, "engine": engine,
        "arm": [arm.name, arm.rekey], "task": task.id, "task_options": {"size": task.size, **task.options},
        "task_version": task.version, "task_source": task.source_hash, "data": data_hash,
        "host": task.host, "widths": list(widths), "slots": dict(slots), "seed": seed, "point": dict(point),
        "steps": task.steps, "batch": task.batch, "evals": list(task.evals), "device": request.device.split(":")[0],
        "precision": request.precision, "optimizer": [task.optimizer, dict(task.optimizer_options), task.schedule],
        "weight_decay": task.weight_decay, "clip": task.clip,
    }  # fmt: skip
    return digest(row)[:32]


def environment(device: str = "cpu") -> dict[str, str]:
    """Versions and machine, from a fixed list; no environment variables, no paths."""
    import platform

    import torch

    rows = {
        "netwright": _version("netwright"), "torch": torch.__version__, "numpy": _version("numpy"),
        "python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}", "cpu": _cpu(),
    }  # fmt: skip
    if device.startswith("cuda"):
        rows["gpu"] = torch.cuda.get_device_name(device)
        rows["cuda"] = str(torch.version.cuda)
    return rows


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _cpu() -> str:
    import platform

    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
