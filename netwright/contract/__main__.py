"""python -m netwright.contract [--all] [--stale | --fresh] [--kind KIND] [--part ID ...]: every check of every part, as a matrix.

Without --all the sampled checks (those that call the compiler, and slow ones) are made of a few parts only. With it all
are made, and the results go to evidence/checks.json, from which the status of a part is computed.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from netwright.contract.matrix import results_of, stale, write
from netwright.core import catalogue

EVIDENCE = Path(__file__).parents[2] / "evidence" / "checks.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print a line a part and every failure; 0 where all passed, else 1."""
    parser = argparse.ArgumentParser(prog="python -m netwright.contract", description=(__doc__ or "").split("\n\n")[-1])
    parser.add_argument("--all", action="store_true", help="make the sampled checks too, and write --out")
    parser.add_argument("--kind", help="parts of this kind only")
    parser.add_argument("--part", nargs="+", default=[], metavar="ID", help="these parts only")
    parser.add_argument("--stale", action="store_true", help="only parts that have changed since --out was written")
    parser.add_argument("--workers", type=int, default=1, help="processes, one thread each (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=EVIDENCE, help="the file --all writes (default: %(default)s)")
    parser.add_argument("--fresh", action="store_true", help="make no check; name the parts that --stale would check, 1 if any")
    given = parser.parse_args(arguments)
    parts = [catalogue.get(name, given.kind) for name in given.part] or catalogue.parts(given.kind)
    names = [part.id for part in (stale(parts, given.out) if given.stale or given.fresh else parts)]
    if given.fresh:
        print(
            "".join(f"{name}\n" for name in names) + f"{len(names)} parts have changed since they were checked: make check-all"
            if names
            else f"the records of checks of {len(parts)} parts are up to date"
        )
        return int(bool(names))
    failed = 0
    for name, row, text in results_of(names, given.all, given.workers):
        print(text, flush=True)
        failed += not row["passed"]
        if given.all:  # at once: what is done stays done
            write(given.out, {name: row})
    print(f"{len(names)} parts, {failed} failing")
    return int(failed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
