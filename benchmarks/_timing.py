"""What the benchmarks share: interleaved samples on one thread's processor time, ratios within a round, JSON out."""

from __future__ import annotations

import json
import math
import os
import random
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch  # noqa: E402

torch.set_num_threads(1)

OUT = Path(__file__).parents[1] / "evidence" / "benchmarks"
SAMPLE = 0.008  # seconds a sample lasts at least


def cost(work: Callable[[], Any], n: int = 1) -> float:
    """Processor seconds of one call, over n calls."""
    start = time.process_time()
    for _ in range(n):
        work()
    return (time.process_time() - start) / n


def ratios(
    works: Mapping[str, Callable[[], Any]], unit: str, rounds: int = 25, seed: int = 0, sample: float = SAMPLE
) -> dict[str, dict[str, Any]]:
    """Cost of every work over that of `unit`, the ratio formed within a round of random order: median and quartiles.

    sample: seconds a sample lasts at least.
    """
    calls = {}
    for name, work in works.items():
        work()
        calls[name] = max(1, math.ceil(sample / max(1e-7, min(cost(work) for _ in range(5)))))
    rows: dict[str, list[float]] = {name: [] for name in works}
    shuffle, seconds = random.Random(seed), []
    for _ in range(rounds):
        names = list(works)
        shuffle.shuffle(names)
        taken = {name: cost(works[name], calls[name]) for name in names}
        seconds.append(taken[unit])
        for name, value in taken.items():
            rows[name].append(value / taken[unit])
    out = {name: summary(values) for name, values in rows.items()}
    out[unit]["seconds"] = statistics.median(seconds)
    return out


def summary(values: list[float]) -> dict[str, Any]:
    """Median and quartiles, to four digits."""
    low, middle, high = statistics.quantiles(values, n=4)
    return {"median": float(f"{middle:.4g}"), "quartiles": [float(f"{low:.4g}"), float(f"{high:.4g}")]}


def write(name: str, row: Mapping[str, Any], show: str = "") -> None:
    """evidence/benchmarks/<name>.json, with the machine it was measured on; prints it, or only the entry called `show`."""
    from netwright.bench.environment import environment
    from netwright.core.writing import write_whole

    OUT.mkdir(parents=True, exist_ok=True)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    text = json.dumps({**row, "environment": environment(), "load": load}, indent=1)
    write_whole(OUT / f"{name}.json", text + "\n")
    print(json.dumps(row[show], indent=1) if show else text)
