"""Progress on stderr: bars with time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

EVERY = 10.0  # seconds between two plain lines


class Progress:
    """start(stage, total), then advance(n, what). `live`: None decides by whether stderr is a terminal; False: silent."""

    def __init__(self, tell: Callable[[str], None], live: bool | None = None) -> None:
        self.tell = tell
        self.bar: Any = None
        self.task: Any = None
        self.silent = live is False
        self.live = sys.stderr.isatty() if live is None else live
        self.stage, self.total, self.done, self.last, self.begun = "", 0, 0, 0.0, 0.0

    def __enter__(self) -> Progress:
        if self.live:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bars

            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[what]}"),
            )
            self.bar = Bars(*columns, console=Console(stderr=True), transient=True)
            self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.bar is not None:
            self.bar.stop()

    def start(self, stage: str, total: int) -> None:
        """Begin a stage of `total` steps; one without any shows nothing."""
        self.stage, self.total, self.done, self.begun, self.last = stage, total, 0, time.monotonic(), time.monotonic()
        if self.bar is not None and total:
            self.task = self.bar.add_task(stage, total=total, what="")

    def advance(self, n: int, what: str) -> None:
        """n more steps are done."""
        self.done += n
        if self.bar is not None:
            from rich.markup import escape

            self.bar.update(self.task, advance=n, what=escape(what))
        elif not self.silent and (
            time.monotonic() - self.last > EVERY or self.done >= self.total > 0 and self.stage == "training"
        ):
            self.last = time.monotonic()
            left = (self.last - self.begun) / max(self.done, 1) * (self.total - self.done)
            self.tell(f"{self.stage} {self.done}/{self.total}, about {left:.0f} s left ({what})")
