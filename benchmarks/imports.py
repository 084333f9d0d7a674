"""What importing costs: `import netwright` beside `import torch`, and `netwright --help`, in fresh interpreters.

    python benchmarks/imports.py        writes evidence/benchmarks/imports.json

CPU seconds of the child, interleaved, the first round dropped; an A/A row (torch against torch).
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path

from netwright.core.writing import write_whole

ROUNDS = 11
OUT = Path(__file__).resolve().parents[1] / "evidence" / "benchmarks" / "imports.json"
ROWS = {
    "import torch": ["-c", "import torch"],
    "import torch (again)": ["-c", "import torch"],
    "import torch, netwright": ["-c", "import torch, netwright"],
    "import torch, netwright.nets": [
        "-c",
        "import torch, netwright.engine.blocks, netwright.core.catalogue, netwright.surgery.swap",
    ],
    "netwright --help": ["-m", "netwright.cli", "--help"],
    "python": ["-c", "pass"],
}


def cost(words: list[str]) -> float:
    """CPU seconds, user and system, of one child process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *words], check=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    times: dict[str, list[float]] = {name: [] for name in ROWS}
    for round_ in range(ROUNDS):
        for name, words in ROWS.items():
            seconds = cost(words)
            if round_:
                times[name].append(seconds)
    base = statistics.median(times["import torch"])
    rows = {
        name: {
            "ratio_to_import_torch": round(statistics.median(t) / base, 4),
            "added_cpu_seconds": round(statistics.median(t) - base, 4),
        }
        for name, t in times.items()
    }
    rows["netwright --help"]["cpu_seconds"] = round(statistics.median(times["netwright --help"]), 4)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    document = {"schema": 1, "command": "python benchmarks/imports.py", "rounds": ROUNDS - 1, "rows": rows}
    write_whole(OUT, json.dumps(document, indent=1) + "\n")
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
