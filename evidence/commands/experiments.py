"""Runs the experiments of the catalogue and keeps what came of them in evidence/experiments/.

    python evidence/commands/experiments.py [--size small] [--only NAME ...] [--budget MINUTES] [--out FOLDER]

Resumable: finished cells and fresh records are not run again.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from netwright.compare import run
from netwright.core import catalogue
from netwright.core.kind import BENCH
from netwright.core.writing import write_whole
from netwright.corpus.status import fresh
from netwright.show.experiments import plain, told

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
        known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if given.only and part.name not in given.only or known.get("size") == given.size and fresh(known):
            continue
        if time.monotonic() - begun > 60 * given.budget:
            print(f"budget spent before {part.name}")
            continue
        result = run(part.name, size=given.size, out=given.out / f"{part.name}-{given.size}", tell=print)
        write_whole(path, json.dumps(plain(result), indent=1) + "\n")
        print("\n".join(told(result)))


if __name__ == "__main__":
    main()
