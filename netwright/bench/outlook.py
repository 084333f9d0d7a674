"""What a person should know before a study runs: verdicts in reach, number of runs, about how long."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from netwright.bench import stats
from netwright.bench.entrant import Entrant
from netwright.bench.overlap import shared_rows
from netwright.bench.plan import choose_engines
from netwright.bench.request import Request
from netwright.bench.store.store import Store
from netwright.core.errors import BadInput
from netwright.core.guard import foreign


def outlook(request: Request, entrants: Sequence[Entrant], folder: Path, limit: float | None = None) -> list[str]:
    """One line each: what can be concluded, what is run, how long it takes on this machine.

    limit: seconds a run may take. With it nothing is tried here, where a part that hangs could not be stopped.
    """
    n, m = len(request.seeds), len(request.judged) - 1
    m = m * (m + 1) // 2 if request.all_pairs else m
    lines = [stats.attainable(n, m, look(request, folder)).sentence] if m else ["One arm: scores, but nothing to compare with."]
    task, runs = entrants[0].task, runs_of(request, entrants)
    once = sum(trials_of(request, entrant) < request.trials for entrant in entrants)
    engines, _ = choose_engines(request, entrants)
    names = " and ".join(sorted(set(engines.values())))
    trials = f"{request.trials} trials" + (f", of {once} of them one," if once else "")
    lines.append(f"{len(entrants)} arms x {n} seeds x {trials} = {runs} runs of {task.steps} steps, engine {names}")
    if task.call:
        lines[-1] = f"{len(entrants)} arms x {n} seeds x {request.trials} trials = {runs} runs of your own training"
        lines.append("how long one takes is not known here" if limit is None else f"at most {duration(limit * runs)} of one core")
        return lines
    if limit is None:
        lines.append(f"about {duration(estimate(entrants, engines, request))} of one core on this machine")
    else:
        lines.append(f"at most {duration(limit * runs)} of one core, by the limit of {limit:g} s a run")
    return [*lines, *shared_rows(task)]


def trials_of(request: Request, entrant: Entrant) -> int:
    """Trials a seed: one of an arm that has nothing to tune."""
    return request.trials if entrant.tuned else 1


def runs_of(request: Request, entrants: Sequence[Entrant]) -> int:
    """Trainings that are asked for, before any range is widened."""
    return len(request.seeds) * sum(trials_of(request, entrant) for entrant in entrants)


def look(request: Request, folder: Path) -> int:
    """Which look at the study in this folder the request would be."""
    with contextlib.suppress(BadInput), Store.read(folder) as store:
        looks, mine = store.looks(), tuple(sorted(request.seeds))
        return looks.index(mine) + 1 if mine in looks else len(looks) + 1
    return 1


def estimate(entrants: Sequence[Entrant], engines: Mapping[str, str], request: Request) -> float:
    """Seconds of training on one thread, from a few steps of each."""
    from netwright.bench.probe import Stepper, seconds

    total = 0.0
    for entrant in entrants:
        try:
            with foreign(entrant.name):
                stepper = Stepper(entrant)
                stepper.step()
                each = min(seconds(stepper, stepper.step, 1) for _ in range(3))
        except Exception:  # a part that raises is reported by its runs; here it only makes the guess a lower bound
            continue
        runs = len(request.seeds) * trials_of(request, entrant)
        # a stacked copy costs about a quarter of a step of its own, evaluations a fifth on top
        total += each * entrant.task.steps * (0.25 * runs + 2 if engines[entrant.name] != "loop" else runs) * 1.2
    return total


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
