"""python -m netwright.testing [--all] [--kind KIND] [--part ID ...]: every check of every part, as a matrix.

Without --all the sampled checks (those that call the compiler, and slow ones) are made of a few parts only. With it all
are made, and the results go to evidence/checks.json, from which the status of a part is computed.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from netwright import catalogue
from netwright.part import Part
from netwright.testing import Result, run

EVIDENCE = Path(__file__).parents[2] / "evidence" / "checks.json"


def entry(part: Part, results: Sequence[Result]) -> dict[str, Any]:
    """What evidence/checks.json keeps of one part: its fingerprint, whether all passed, and every check's result."""
    return {
        "fingerprint": catalogue.fingerprint(part),
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
    path.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print a line a part and every failure; 0 where all passed, else 1."""
    parser = argparse.ArgumentParser(prog="python -m netwright.testing", description=(__doc__ or "").split("\n\n")[-1])
    parser.add_argument("--all", action="store_true", help="make the sampled checks too, and write --out")
    parser.add_argument("--kind", help="parts of this kind only")
    parser.add_argument("--part", nargs="+", default=[], metavar="ID", help="these parts only")
    parser.add_argument("--out", type=Path, default=EVIDENCE, help="the file --all writes (default: %(default)s)")
    given = parser.parse_args(arguments)
    parts = [catalogue.get(name, given.kind) for name in given.part] or catalogue.parts(given.kind)
    entries, failed = {}, 0
    for part in parts:
        begun = time.perf_counter()
        results = run(part, sample=not given.all)
        wrong = [result for result in results if not result.ok]
        made = sum(1 for result in results if not result.skipped_reason)
        failed += bool(wrong)
        entries[part.id] = entry(part, results)
        seconds = time.perf_counter() - begun
        print(f"{'FAIL' if wrong else 'ok':<5}{part.id:<40}{made:>3} checks {seconds:6.1f} s", flush=True)
        for result in wrong:
            print(f"     {result.message}", flush=True)
    if given.all:
        write(given.out, entries)
    print(f"{len(parts)} parts, {failed} failing")
    return int(failed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
