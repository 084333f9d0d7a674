"""What commands share that fill a table with studies: a study as plain data, cells that are run once, tables."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from netwright.bench.entrant import rests_on
from netwright.bench.environment import environment
from netwright.bench.study import Study
from netwright.core.writing import write_whole
from netwright.corpus import status

Cell = Mapping[str, Any]


def study_row(study: Study) -> dict[str, Any]:
    """Runs a study and gives its verdicts, scores and costs as plain data, with the fingerprints that keep it fresh."""
    result = study.run()
    arms = {}
    for arm in result.arms:
        cost = arm.cost
        arms[arm.name] = {
            "mean": arm.mean,
            "interval": arm.interval,
            "n": arm.n,
            "failed": arm.failed,
            "scores": {str(seed): value for seed, value in arm.scores.items()},
            **(
                {}
                if cost is None
                else {
                    "params": cost.params,
                    "flops": cost.flops_train,
                    "step": cost.step_ratio,
                    "memory": cost.peak_memory,
                    "widths": list(cost.widths),
                }
            ),
        }
    comparisons = {
        c.a: {"difference": c.difference, "interval": c.interval, "p": c.p, "verdict": c.verdict, "reason": c.reason}
        for c in result.comparisons
    }
    return {
        "fingerprints": rests_on(study.entrants),
        "metric": result.metric,
        "higher_is_better": result.higher_is_better,
        "delta": result.delta,
        "baseline": result.baseline,
        "match": result.match,
        "seeds": len(result.seeds),
        "trials": result.trials,
        "engine": result.engine,
        "command": result.command,
        "arms": arms,
        "comparisons": comparisons,
        "notes": list(result.notes),
    }


def fresh(row: Mapping[str, Any] | None) -> bool:
    """Whether a cell was made with the parts as they are now, and didn't fail."""
    return bool(row) and "error" not in row and status.fresh(row)


def attempt(work: Callable[..., dict[str, Any]], cell: Cell) -> dict[str, Any]:
    """One cell; a failure is a row, not the end of the table. Importable by name: worker processes call it."""
    import torch

    torch.set_num_threads(1)
    begun = time.perf_counter()
    try:
        row = work(**cell)
    except Exception as error:
        row = {"error": f"{type(error).__name__}: {error}"[:400]}
    return {**cell, **row, "minutes": round((time.perf_counter() - begun) / 60, 2)}


def fill(
    cells: Iterable[tuple[str, Cell]],
    work: Callable[..., dict[str, Any]],
    path: Path,
    page: Callable[[Mapping[str, Any]], str],
    budget: float,
    workers: int,
    every: Iterable[str],
) -> None:
    """work(**cell) of the cells that aren't fresh, until the budget (minutes) is spent; writes path (.json, .md) after each.

    every: keys of all cells the table should have; those it hasn't are kept under "missing".
    """
    saved = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"cells": {}}
    rows: dict[str, Any] = saved["cells"]
    wanted, begun = list(every), time.monotonic()

    def write() -> None:
        stale = sorted(key for key, row in rows.items() if not fresh(row))
        missing = [key for key in wanted if key not in rows]
        whole = {"environment": environment(), "stale": stale, "missing": missing, "cells": dict(sorted(rows.items()))}
        text = json.dumps(whole, indent=1)
        write_whole(path, text + "\n")
        write_whole(path.with_suffix(".md"), page(json.loads(text)))

    running: dict[Future[dict[str, Any]], str] = {}

    def collect(everything: bool) -> None:
        while running and (everything or len(running) >= workers):
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                key = running.pop(future)
                rows[key] = future.result()
                write()
                print(f"{key}: {rows[key].get('error', 'done')} ({rows[key]['minutes']} min)", flush=True)

    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for key, cell in cells:
            if fresh(rows.get(key)):
                continue
            collect(False)
            if time.monotonic() - begun > 60 * budget:
                print(f"budget spent before {key}")
                break
            running[pool.submit(attempt, work, cell)] = key
        collect(True)
    write()


# Tables ---------------------------------------------------------------------------------------------------------------


def number(value: float | None, form: str, unit: float = 1.0) -> str:
    return "?" if value is None else f"{value / unit:{form}}"


def between(middle: float | None, interval: Sequence[float] | None, form: str) -> str:
    if middle is None:
        return "?"
    return f"{middle:{form}}" + (f" [{interval[0]:{form}}, {interval[1]:{form}}]" if interval else "")


def arm_line(name: str, arm: Mapping[str, Any], against: Mapping[str, Any] | None, form: str = ".4f") -> str:
    """name, score, difference to the baseline, verdict, widths, parameters, time and memory of a training step."""
    difference = "" if against is None else between(against["difference"], against["interval"], "+" + form)
    verdict = "baseline" if against is None else against["verdict"]
    failed = f" ({arm['failed']} of {arm['n']} failed)" if arm["failed"] else ""
    widths = "-".join(map(str, arm.get("widths", ())))
    return (
        f"| `{name}` | {between(arm['mean'], arm['interval'], form)}{failed} | {difference} | {verdict} | {widths}"
        f" | {number(arm.get('params'), ',.0f')} | {number(arm.get('step'), '.2f')} | {number(arm.get('memory'), '.2f', 2**20)} |"
    )


def ending(saved: Mapping[str, Any]) -> list[str]:
    """The last lines of a page: cells that aren't there, and what the others were measured on."""
    absent = ", ".join(f"`{key}`" for key in saved["missing"])
    env = saved["environment"]
    return [
        *(["", f"Not measured yet: {absent}."] if absent else []),
        "",
        f"torch {env.get('torch', '?')}, {env.get('cpu', '?')}, one thread a run.",
        "",
    ]


def heading(score: str) -> list[str]:
    names = ("arm", score, "difference", "verdict", "widths", "parameters", "step time", "memory, MiB")
    return ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
