"""python tests/plan.py [--measure]: what `make test` runs and about how long it takes, now and at 900 parts.

Costs are seconds of CPU, children too, measured on one machine and kept in costs.json: they say where time goes, not how
long it takes elsewhere. Tests marked `every_part` grow with the catalogue; the others, those of the sample among them, don't.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
FILE = HERE / "costs.json"
#: Seconds of CPU: what two idle cores do in ten minutes, less what starting and waiting takes.
MOST = 18 * 60
MANY = 900  # parts, at which the suite has to be as short


def measure() -> None:
    """Run the suite of `make test` and write what each file costs."""
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "worksteal", "-m", "not slow"]
        environment = os.environ | {"NETWRIGHT_COSTS": folder, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        subprocess.run(words, cwd=HERE.parent, env=environment, check=False)
        rows: dict[str, list[float]] = {}
        for path in Path(folder).glob("*.json"):
            for file, spent in json.loads(path.read_text(encoding="utf-8")).items():
                old = rows.get(file, [0.0, 0.0])
                rows[file] = [round(a + b, 1) for a, b in zip(old, spent, strict=True)]
    FILE.write_text(json.dumps(dict(sorted(rows.items())), indent=0) + "\n", encoding="utf-8")


def costs() -> dict[str, tuple[float, float]]:
    """Test file -> (seconds that stay, seconds that grow with the number of parts)."""
    return {file: (stays, grows) for file, (stays, grows) in json.loads(FILE.read_text(encoding="utf-8")).items()}


def totals() -> tuple[float, float]:
    """Seconds of CPU in all: now, and with MANY parts."""
    from netwright.core import catalogue

    rows = costs().values()
    stays, grows = sum(a for a, _ in rows), sum(b for _, b in rows)
    return stays + grows, stays + grows * MANY / len(catalogue.parts())


def main() -> None:
    if "--measure" in sys.argv[1:]:
        measure()
    from sample import text

    print(text())
    print(f"{'file':<44}{'stays':>8}{'grows':>8}")
    for file, (stays, grows) in sorted(costs().items(), key=lambda row: -sum(row[1])):
        print(f"{file:<44}{stays:>8.1f}{grows:>8.1f}")
    now, later = totals()
    print(f"\n{now / 60:.1f} min of CPU, {later / 60:.1f} with {MANY} parts; at most {MOST / 60:.0f}")


if __name__ == "__main__":
    main()
