"""Why runs fail: whether the part is to blame, whether another try may help, and whether anything works at all."""

from __future__ import annotations

import re
import traceback
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import final

from netwright.bench.records import RunRecord, Score
from netwright.core.errors import NetwrightError, printable, unknown

#: Stands at the end of an error whose cause lies outside the part.
OUTSIDE = "not the part's doing: the same command tries it again"
#: States that `--retry` names; a run that diverged would diverge again.
RETRIED = ("failed", "timeout", "oom", "lost")
FIRST = 2  # runs of every arm that are made first and looked at together
FEWEST = 4  # runs in all that have to fail alike before the rest is spared


class NothingWorks(NetwrightError):
    """The first runs of every arm failed alike, so that the others weren't made."""


def described(error: BaseException) -> str:
    """The last line of an error, and whether its cause lies outside the part."""
    text = printable("".join(traceback.format_exception_only(error)).strip().splitlines()[-1])[:400]
    return f"{text} ({OUTSIDE})" if outside(error) else text


def outside(error: BaseException) -> bool:
    """Whether files, the network, a missing package or a killed helper process are behind an error."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, (OSError, ImportError)) or re.match(r"DataLoader worker .* (killed|exited)", str(found)):
            return True
        found = found.__cause__ or (None if found.__suppress_context__ else found.__context__)
    return False


def known(states: Iterable[str]) -> None:
    """UnknownName for a state that can't be tried again."""
    for state in states:
        if state not in RETRIED:
            raise unknown("state to retry", state, RETRIED)


def to_retry(records: Sequence[RunRecord], limit: float | None, wanted: Collection[str]) -> list[str]:
    """Keys of runs that another try may help. limit: seconds a run may take now. wanted: states that are tried anyway."""
    return [r.key for r in records if r.state in wanted or _mended(r, limit)]


def _mended(record: RunRecord, limit: float | None) -> bool:
    if record.state == "failed":
        return OUTSIDE in record.error
    if record.state == "timeout" and (found := re.search(r"limit of ([\d.e+-]+) s", record.error)):
        return limit is None or limit > float(found[1]) * 1.001  # the text has six digits
    return False


@final
class Watch:
    """Looks at runs as they end and stops a study in which none works."""

    def __init__(self, runs: Mapping[str, int]) -> None:
        """runs: how many are to be made, by arm."""
        self.left = {arm: min(FIRST, n) for arm, n in runs.items()}
        self.reasons: dict[str, str] = {}
        self.seen, self.total, self.works = 0, sum(runs.values()), False

    def see(self, records: Iterable[RunRecord]) -> None:
        """Take in the results of a job; raises NothingWorks where enough have failed alike, and some are still to come."""
        for record in records:
            self.seen += 1
            self.works = self.works or record.state in ("done", "diverged")
            self.left[record.arm] = self.left.get(record.arm, 0) - 1
            self.reasons[re.sub(r"0x[0-9a-f]+|\d[\d.e+-]*", "N", f"{record.state} {record.error}")] = record.error or record.state
        enough = self.seen >= FEWEST and self.seen < self.total and max(self.left.values(), default=0) <= 0
        if enough and not self.works and len(self.reasons) == 1:
            (cause,) = self.reasons.values()
            raise NothingWorks(f"the first {self.seen} runs, of every arm, failed alike, so the others weren't made: {cause}")


def nothing_worked(records: Sequence[RunRecord], scores: Sequence[Score]) -> str:
    """Why no replicate of any arm has a score of its own; "" where one has."""
    if not scores or any(not (s.failed or s.dropped) for s in scores):
        return ""
    errors = [r.error or r.state for r in records if r.state != "done"] or [s.dropped for s in scores if s.dropped]
    most = max(errors, key=errors.count, default="the test evaluation failed")
    return f"nothing worked: no replicate of any arm has a score; most often: {most}"
