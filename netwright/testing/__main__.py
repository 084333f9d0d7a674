"""python -m netwright.testing [--all] [--stale] [--kind KIND] [--part ID ...]: every check of every part, as a matrix.

Without --all the sampled checks (those that call the compiler, and slow ones) are made of a few parts only. With it all
are made, and the results go to evidence/checks.json, from which the status of a part is computed.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from netwright import catalogue
from netwright.testing._matrix import results_of, stale, write

EVIDENCE = Path(__file__).parents[2] / "evidence" / "checks.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print a line a part and every failure; 0 where all passed, else 1."""
    parser = argparse.ArgumentParser(prog="python -m netwright.testing", description=(__doc__ or "").split("\n\n")[-1])
    parser.add_argument("--all", action="store_true", help="make the sampled checks too, and write --out")
    parser.add_argument("--kind", help="parts of this kind only")
    parser.add_argument("--part", nargs="+", default=[], metavar="ID", help="these parts only")
    parser.add_argument("--stale", action="store_true", help="only parts that have changed since --out was written")
    parser.add_argument("--workers", type=int, default=1, help="processes, one thread each (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=EVIDENCE, help="the file --all writes (default: %(default)s)")
    given = parser.parse_args(arguments)
    parts = [catalogue.get(name, given.kind) for name in given.part] or catalogue.parts(given.kind)
    names = [part.id for part in (stale(parts, given.out) if given.stale else parts)]
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
