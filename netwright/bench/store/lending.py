"""Records belong to runs, not to studies: what a store nearby holds of a run that is queued here is taken over.

A key is the hash of everything that changes a result, so it says nothing of whom the run was made for: another order of arms,
an added arm and another folder ask for runs that are there already. Nearby is the folder a study lies in, down to LEVELS.
Other stores are only read, and nobody waits for them: one that is damaged, newer or locked just now gives nothing, and two
studies that run at once make a run twice at worst.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from netwright.bench.causes import to_retry
from netwright.bench.records import TEST, RunRecord
from netwright.bench.store.database import FILE
from netwright.bench.store.store import KEPT, Store
from netwright.core.errors import NetwrightError

#: NETWRIGHT_SHARE=0 keeps studies apart.
SWITCH = "NETWRIGHT_SHARE"
LEVELS = 2  # of folders: studies lie side by side, or in groups


def take_over(store: Store, keys: Collection[str], limit: float | None, states: Collection[str]) -> list[str]:
    """Finish those of these queued runs that a store nearby has finished; returns a note, how many and from where, a store.

    limit, states: as of to_retry, for what this command would try again is no result to it.
    """
    left, notes = set(keys), []
    for folder in beside(store.path) if left and os.environ.get(SWITCH) != "0" else ():
        found = []
        with suppress(NetwrightError), Store.read(folder, patience=0.0) as other:
            found = [result for result in other.results(left) if _counts(result.record)]
        again = set(to_retry([result.record for result in found], limit, states))
        if here := [result for result in found if result.record.key not in again]:
            taken = store.take(here)
            left.difference_update(taken)
            runs = "run was" if len(taken) == 1 else "runs were"
            notes.append(f"{len(taken)} {runs} there already, from {os.path.relpath(folder, store.folder)}")
        if not left:
            break
    return notes


def _counts(record: RunRecord) -> bool:
    """Whether it is a result and nothing is missing: an older release stored no test score of a training."""
    tested = record.state != "done" or record.engine == "call" or TEST in record.sealed
    return record.state in KEPT and tested


def beside(mine: Path) -> Iterator[Path]:
    """The folders nearby that hold a store of the same person's, the near ones first: others may write to /tmp as well."""
    own, level = os.lstat(mine), [mine.parent.parent]
    for _ in range(LEVELS):
        level = [inner for folder in level for inner in _folders(folder)]
        for folder in level:
            with suppress(OSError):
                there = os.lstat(folder / FILE)
                if stat.S_ISREG(there.st_mode) and there.st_uid == own.st_uid and not os.path.samestat(there, own):
                    yield folder


def _folders(folder: Path) -> list[Path]:
    """The folders right below one, without hidden ones and links; none where it can't be read."""
    with suppress(OSError), os.scandir(folder) as entries:
        return sorted(Path(e.path) for e in entries if not e.name.startswith(".") and e.is_dir(follow_symlinks=False))
    return []
