"""The records that pass between plan, run, store, stats and report: frozen, plain data, JSON in and out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: What a training of the user's own calls its two scores; and by TEST a test score is sealed in any record.
VALIDATION, TEST = "validation", "test"
#: Every state a job can be in. `done` and `diverged` are results; `timeout` scores the task's worst; `oom` and `lost`
#: are crashes of the machinery; `superseded` rows belong to a changed fingerprint and never mix with fresh ones.
STATES = ("queued", "leased", "running", "done", "diverged", "oom", "timeout", "failed", "lost", "cancelled", "superseded")
FINAL = frozenset({"done", "diverged", "timeout", "failed", "oom", "lost"})
#: The training went wrong, which is a result: it scores the task's `worst`.
FAILURES = frozenset({"diverged", "timeout", "failed"})
#: The machinery crashed, which says nothing of the part: the seed is dropped from both arms.
CRASHES = frozenset({"oom", "lost"})


@dataclass(frozen=True)
class Run:
    """One training: one arm at one seed and trial. `key` identifies the result wherever it is computed."""

    key: str
    arm: str  # the arm's name
    seed: int
    trial: int
    point: Mapping[str, Any]  # e.g. {"lr": 3e-3} and the part's own searched options
    stage: str = "tune"  # "tune", or "widened" for the points of a widened range


@dataclass(frozen=True)
class RunRecord:
    """What a training left behind. Scores are in the task's metric on the validation split, but for what is sealed.

    sealed: what was read off the test rows, by name; None where nothing finite was, and `untested` says why. A store hands both
    out for one run at a time, Store.opened(key), so that no trial is seen on the test rows before validation selected it.
    """

    key: str
    arm: str
    seed: int
    trial: int
    point: Mapping[str, Any]
    state: str
    curve: tuple[tuple[int, float, float], ...] = ()  # (step, mean train loss since the last point, validation score)
    best_step: int | None = None
    best_val: float | None = None
    bad_step: int | None = None  # first step with a non-finite loss, counted from 1
    bad_module: str = ""
    error: str = ""  # last line of the failure, for a person
    engine: str = "loop"  # "loop" or "stack"; "call" of what is no training
    stage: str = "tune"
    seconds: float | None = None
    memory: int | None = None  # peak bytes, where known
    host: str = ""
    pid: int | None = None
    values: Mapping[str, float | None] = field(default_factory=dict)  # named numbers; None: what it measures did not occur
    sealed: Mapping[str, float | None] = field(default_factory=dict)
    untested: str = ""

    def closed(self) -> RunRecord:
        """The same without what is sealed."""
        return dataclasses.replace(self, sealed={}, untested="")

    def machine_free(self) -> dict[str, Any]:
        """All fields but time, memory, host and pid: what must be equal after a kill and a continue."""
        row = dataclasses.asdict(self)
        for name in ("seconds", "memory", "host", "pid"):
            row.pop(name)
        return row


@dataclass(frozen=True)
class Score:
    """The end of one replicate: the test score of the trial that validation selected."""

    arm: str
    seed: int
    trial: int | None  # None where every trial failed
    value: float  # the test score; the task's `worst` where failed
    failed: bool = False
    dropped: str = ""  # the crash that drops this seed from the comparison, else ""
    at_edge: bool = False  # the selected rate lies at an edge of the range
    key: str = ""  # of the selected run, or the digest of all keys where none could be: says whether the score is fresh


@dataclass(frozen=True)
class Cost:
    """What an arm costs, from the probe: one copy, loop engine, one thread, arms interleaved. None where unknown."""

    arm: str
    params: int | None = None
    buffers: int | None = None
    flops_train: float | None = None  # a training step of one batch
    flops_infer: float | None = None  # a prediction of one batch
    step_time: float | None = None  # seconds, median
    step_quartiles: tuple[float, float] | None = None
    step_ratio: float | None = None  # median of the in-round ratios to the baseline
    infer_time: float | None = None
    peak_memory: int | None = None  # bytes above the parameters and the optimizer state, one training step
    widths: tuple[int, ...] = ()
    repeats: bool | None = None  # whether its first step, done twice from the same seed, gave the same loss


@dataclass(frozen=True)
class Comparison:
    """Arm `a` judged against arm `b`. `difference` is mean(a - b) in the metric's own units and sign."""

    a: str
    b: str
    n: int
    differences: Mapping[int, float]  # by seed
    difference: float | None
    interval: tuple[float, float] | None  # Student t at the family's level
    bootstrap: tuple[float, float] | None  # information only
    p: float | None  # Holm-adjusted
    p_raw: float | None
    verdict: str  # "better" "worse" "equivalent" "cannot tell" "not comparable"
    reason: str  # one sentence a person can read
    seeds_needed: int | None = None  # for 80 % power at delta, where it can't be told
    hint: str = ""
    failures: tuple[int, int] = (0, 0)  # failed replicates of a and of b
    p_failures: float | None = None  # exact McNemar


@dataclass(frozen=True)
class ArmResult:
    """One row of the ranking."""

    name: str
    parts: Mapping[str, str]  # slot -> "id:options"
    scores: Mapping[int, float]  # by seed, test metric (the task's worst where failed)
    mean: float | None
    interval: tuple[float, float] | None  # 95 % t interval of the mean
    n: int
    failed: int
    cost: Cost | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ValueRow:
    """A named value of one arm beside its score, and how it differs from the baseline's. Nothing of it is judged."""

    value: str
    arm: str
    mean: float | None
    interval: tuple[float, float] | None  # 95 % t interval of the mean
    n: int
    difference: float | None  # mean(arm - baseline) over the seeds that both have; None of the baseline itself
    difference_interval: tuple[float, float] | None  # Student t at the level of the study's comparisons
    pairs: int


@dataclass(frozen=True)
class StudyResult:
    """Everything a report shows. `report` functions are pure: this in, text out."""

    study: str  # study id, a hash
    title: str
    task: str  # task id with its options, e.g. "task/digits:size=small"
    task_summary: str
    metric: str
    higher_is_better: bool
    worst: float
    delta: float
    baseline: str
    seeds: tuple[int, ...]
    trials: int
    match: str
    arms: tuple[ArmResult, ...]  # in the order given, the baseline first
    comparisons: tuple[Comparison, ...]
    records: tuple[RunRecord, ...]
    scores: tuple[Score, ...]
    looks: int  # how often the study has been looked at, this one included
    level: float  # family-wise level of this look
    engine: str  # "loop", "stack", or "mixed"; "" where the scores were given and nothing was run
    notes: tuple[str, ...]  # what a reader has to know: not tuned, widened, mixed environments, lost rows...
    environment: Mapping[str, str]
    command: str
    started: str = ""
    seconds: float | None = None
    aa_ratio: float | None = None  # the A/A row of the cost probe
    curves: Mapping[str, tuple[tuple[float, float, float], ...]] = field(default_factory=dict)  # arm -> (x, f, f') shapes
    shared_init: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # arm -> (shared initial values, all)
    papers: Mapping[str, str] = field(default_factory=dict)  # arm -> reference line
    control: str = ""  # the arm that is the task's control, where rules are compared
    against_control: tuple[Comparison, ...] = ()  # every other arm judged against it, each for itself
    values: tuple[ValueRow, ...] = ()  # named values that came with given scores


def to_json(record: Any) -> Any:
    """A record as plain JSON values (tuples become lists, keys become strings)."""
    if dataclasses.is_dataclass(record) and not isinstance(record, type):
        return {f.name: to_json(getattr(record, f.name)) for f in dataclasses.fields(record)}
    if isinstance(record, Mapping):
        return {str(k): to_json(v) for k, v in record.items()}
    if isinstance(record, (list, tuple)):
        return [to_json(v) for v in record]
    return record


def run_record(row: Mapping[str, Any]) -> RunRecord:
    """The inverse of to_json for a RunRecord; unknown fields of a newer minor version are ignored."""
    known = {f.name for f in dataclasses.fields(RunRecord)}
    values = {k: v for k, v in row.items() if k in known}
    values["curve"] = tuple(
        (int(s), float("nan") if a is None else a, float("nan") if b is None else b) for s, a, b in row.get("curve", ())
    )
    return RunRecord(**values)
