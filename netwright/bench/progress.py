"""Progress on stderr: bars on a terminal, plain lines elsewhere; and the time left, by what finished runs took."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, final

from netwright.bench.outlook import duration

EVERY = 10.0  # seconds between two plain lines


def time_left(still: Mapping[str, int], spent: Mapping[str, Sequence[float]], workers: int = 1) -> float | None:
    """Seconds until all is done; None before any run was measured.

    still: how many runs of each arm are left. spent: seconds of its finished ones; an arm without any takes the mean of the
    other arms'. workers: so many run at a time, but the last run can't be shared.
    """
    means = {arm: statistics.fmean(seconds) for arm, seconds in spent.items() if seconds}
    if not means:
        return None
    typical = statistics.fmean(means.values())
    each = {arm: means.get(arm, typical) for arm, runs in still.items() if runs}
    return max(sum(still[arm] * seconds for arm, seconds in each.items()) / workers, max(each.values(), default=0.0))


def in_words(left: float | None) -> str:
    """What time_left gives, as it is told."""
    if left is None:
        return "time left not known yet"
    return f"about {duration(left)} left" if left else "done"


@final
class Progress:
    """start(stage, total), then advance(n, what). `live`: None decides by whether stderr is a terminal; False: silent."""

    def __init__(self, tell: Callable[[str], None], live: bool | None = None) -> None:
        self.tell = tell
        self.bar: Any = None
        self.task: Any = None
        self.silent = live is False
        self.live = sys.stderr.isatty() if live is None else live
        self.stage, self.total, self.done, self.last = "", 0, 0, 0.0

    def __enter__(self) -> Progress:
        if self.live:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
            from rich.progress import Progress as Bars

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[what]}"))
            self.bar = Bars(*columns, console=Console(stderr=True), transient=True)
            self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.bar is not None:
            self.bar.stop()

    def start(self, stage: str, total: int, there: int = 0) -> None:
        """Begin a stage of `total` steps, of which so many were there already; one with nothing left to do shows nothing."""
        if there and not self.stage and not self.silent:  # of later stages it was said how they came to be there
            self.tell(f"{there} of {total} runs were there already")
        self.stage, self.total, self.done, self.last = stage, total, there, time.monotonic()
        if self.bar is not None and total > there:
            self.task = self.bar.add_task(stage, total=total, completed=there, what="")

    def advance(self, n: int, what: str, left: str = "") -> None:
        """n more steps are done. what: the last of them. left: time in words, of a stage whose end is told too."""
        self.done += n
        if self.bar is not None:
            from rich.markup import escape

            self.bar.update(self.task, advance=n, what=escape(f"{left} ({what})"))
        elif not self.silent and (time.monotonic() - self.last > EVERY or (left and self.done >= self.total)):
            self.last = time.monotonic()
            self.tell(f"{self.stage} {self.done}/{self.total}{', ' if left else ''}{left} ({what})")
