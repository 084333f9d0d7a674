"""Processes by their numbers, read off /proc: which were started, and which of them still run."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

THERE = Path("/proc/self/stat").exists()


def descendants(pid: int) -> set[int]:
    """Processes that this one started, and those that these did."""
    found: set[int] = set()
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # it ended meanwhile
            for child in map(int, children.read_text().split()):
                found |= {child} | descendants(child)
    return found


def alive(pids: Iterable[int]) -> set[int]:
    """Those that still run; one that has ended and that nobody asked about is none."""
    found = set()
    for pid in pids:
        with suppress(OSError):
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z":
                found.add(pid)
    return found


def outliving(pids: Iterable[int], patience: float = 10.0) -> set[int]:
    """Those that still run after so many seconds; returns as soon as there are none."""
    until, left = time.monotonic() + patience, alive(pids)
    while left and time.monotonic() < until:
        time.sleep(0.05)
        left = alive(left)
    return left
