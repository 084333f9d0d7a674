"""The matrix of every check of every part: made in several processes, kept in evidence/checks.json."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from netwright.contract import checks, run
from netwright.core import catalogue
from netwright.core.contract import Result
from netwright.core.fingerprint import fingerprint, judged
from netwright.core.part import Part
from netwright.core.writing import write_whole
from netwright.corpus.status import current


def entry(part: Part, results: Sequence[Result]) -> dict[str, Any]:
    """What evidence/checks.json keeps of one part: what it rests on, whether all passed, and every check's result."""
    return {
        "fingerprint": fingerprint(part),
        "judged": judged(part),
        "passed": all(result.ok for result in results),
        "checks": {result.check: str(result) for result in results},
    }


def write(path: Path, entries: dict[str, Any]) -> None:
    """Lay new entries over those on file; entries of parts that no longer exist are dropped."""
    old = json.loads(path.read_text(encoding="utf-8"))["parts"] if path.is_file() else {}
    present = {part.id for part in catalogue.parts()}
    parts = {name: row for name, row in (old | entries).items() if name in present}
    document = {"schema": 1, "parts": parts, "torch": torch.__version__.split("+")[0]}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(document, indent=1, sort_keys=True) + "\n")


def examine(name: str, everything: bool) -> tuple[dict[str, Any], str]:
    """One part, by its id: what to keep, and what to print."""
    torch.set_num_threads(1)
    begun, part = time.perf_counter(), catalogue.get(name)
    results = run(part, sample=not everything)
    wrong = [result for result in results if not result.ok]
    made = sum(1 for result in results if not result.skipped_reason)
    line = f"{'FAIL' if wrong else 'ok':<5}{name:<40}{made:>3} checks {time.perf_counter() - begun:6.1f} s"
    return entry(part, results), "\n".join([line, *(f"     {result.message}" for result in wrong)])


def stale(parts: Sequence[Part], path: Path) -> list[Part]:
    """Those without a passing result of every check, by its present judges, for their present fingerprint on file."""
    known = json.loads(path.read_text(encoding="utf-8"))["parts"] if path.is_file() else {}

    def fresh(part: Part) -> bool:
        row = known.get(part.id)
        whole = row is not None and row["passed"] and set(row["checks"]) == {check.name for check in checks(part.kind)}
        return whole and current(part, row)

    return [part for part in parts if not fresh(part)]


def results_of(names: Sequence[str], everything: bool, workers: int) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Name, entry and line of each part as it is done."""
    if workers == 1:
        yield from ((name, *examine(name, everything)) for name in names)
        return
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        waiting = {pool.submit(examine, name, everything): name for name in names}
        for done in as_completed(waiting):
            yield waiting[done], *done.result()
