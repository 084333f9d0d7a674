"""How long the README's demonstration takes: 6 activations x 10 seeds x 5 trials on digits, report included.

    python benchmarks/demo.py        writes evidence/benchmarks/demo.json

Wall time belongs to one machine and its other work; CPU time of all processes stands beside it.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from netwright.core.writing import write_whole

OUT = Path(__file__).resolve().parents[1] / "evidence" / "benchmarks" / "demo.json"
ARMS = ["relu", "gelu", "silu", "mish", "golu", "snake"]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        words = ["-m", "netwright.cli", "compare", *ARMS, "--task", "digits", "--seeds", "10", "--tune", "5", "--json"]
        load = os.getloadavg()
        before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(
            [sys.executable, *words, "--out", str(Path(folder) / "demo")], check=True, capture_output=True, text=True
        )
        wall = time.perf_counter() - begun
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    document = json.loads(done.stdout)
    row = {
        "schema": 1,
        "command": "python benchmarks/demo.py",
        "asked": "at most 90 s on 2 cores",
        "wall_seconds": round(wall, 1),
        "cpu_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
        "cores": os.cpu_count(),
        "load_average_before": [round(v, 2) for v in load],
        "verdicts": {c["a"]: c["verdict"] for c in document["comparisons"]},
    }
    OUT.parent.mkdir(parents=True, exist_ok=True)
    write_whole(OUT, json.dumps(row, indent=1) + "\n")
    print(json.dumps(row, indent=1))


if __name__ == "__main__":
    main()
