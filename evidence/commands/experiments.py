"""Runs the experiments of the catalogue and keeps what came of them in evidence/experiments/.

    python evidence/commands/experiments.py [--size small] [--only NAME ...] [--budget MINUTES] [--out FOLDER]

Resumable: cells and studies that were made with the present code are not run again; what is left when the budget is spent
stands as missing. Writes NAME.json and NAME.md, also of what is there alone (--budget 0).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from netwright.bench.experiment import Experiment
from netwright.core import catalogue
from netwright.core.kind import BENCH
from netwright.core.writing import write_whole
from netwright.corpus.status import fresh
from netwright.show.experiments import markdown, plain, told

EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="small")
    parser.add_argument("--only", nargs="+", default=[], help="only these experiments")
    parser.add_argument("--budget", type=float, default=60.0, help="minutes after which no further experiment is begun")
    parser.add_argument("--out", type=Path, default=Path("netwright-studies/experiments"))
    given = parser.parse_args()
    begun = time.monotonic()
    EXPERIMENTS.mkdir(parents=True, exist_ok=True)
    for part in catalogue.parts(catalogue.kind_at(BENCH)):
        path = EXPERIMENTS / f"{part.name}.json"
        record = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if given.only and part.name not in given.only:
            continue
        if not (record.get("size") == given.size and done(record)):
            left = given.budget - (time.monotonic() - begun) / 60
            if left <= 0 and not record:
                print(f"budget spent before {part.name}")
                continue
            out = given.out / f"{part.name}-{given.size}"
            result = Experiment(part, size=given.size, out=out, budget=max(left, 1e-9)).run(print, known=record)
            print("\n".join(told(result)))
            record = json.loads(json.dumps(plain(result)))
            write_whole(path, json.dumps(record, indent=1) + "\n")
        write_whole(path.with_suffix(".md"), markdown(record, part))


def done(record: Mapping[str, Any]) -> bool:
    """Whether nothing of it is left to run."""
    return fresh(record) and not record.get("missing") and not record["failures"]


if __name__ == "__main__":
    main()
