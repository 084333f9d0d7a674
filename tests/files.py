"""Files of a user's: an experiment and a training of their own, whose runs draw at random and take a moment each."""

from __future__ import annotations

from pathlib import Path

EXPERIMENT = """
import random
import time

from netwright.core.part import Paper
from netwright.experiments import Control, Figure, Predicate, experiment


def cell(seed, *, n):
    time.sleep({seconds})
    return {{"y": 1 / n + random.random()}}


PART = experiment(
    cell, name="moments", paper=Paper(title="Mine", authors="Me", year=2026), summary="One over n, and noise.",
    grid={{"n": (1, 10, 100)}}, gives=("y",),
    predicates=(Predicate("falls", "it falls", lambda t: t.at({{"n": 1}})["y"] - t.at({{"n": 10}})["y"], (0.5, 1.5), ("y",)),),
    controls=(Control("none", {{}}, ("falls",)),), figure=Figure("n", "y"),
    sizes={{size: {{"seeds": 6}} for size in ("tiny", "small", "full")}},
)
"""
LOOP = """
import random
import time

import netwright


def train(arm, seed, point):
    time.sleep({seconds})
    return {{"validation": len(arm) + random.random(), "test": len(arm) + random.random(), "bytes": 7 * seed}}


TASK = netwright.task("moments", run=train, higher_is_better=True, worst=0.0, delta=0.01, lr=(1e-4, 1e-2))
"""


def experiment(folder: Path, seconds: float) -> str:
    """A file with an experiment of 18 cells that take so long each; its reference."""
    return _written(folder / "moments_of_cells.py", EXPERIMENT.format(seconds=seconds), "PART")


def loop(folder: Path, seconds: float) -> str:
    """A file with a training that takes so long; the reference of its task."""
    return _written(folder / "moments_of_runs.py", LOOP.format(seconds=seconds), "TASK")


def _written(path: Path, text: str, name: str) -> str:
    path.write_text(text, encoding="utf-8")
    return f"{path}:{name}"
