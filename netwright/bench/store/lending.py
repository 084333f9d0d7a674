"""Records that lie in other studies' stores: a record belongs to its run, whose key is the hash of all that can change it.

Looked for are stores beside the study's folder, and up to one folder below those: whatever lies under the same root. They are
read as they are, without waiting for anybody; one that can't be read, or was written by a newer release, has nothing to give.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Collection, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from netwright.bench.causes import to_retry
from netwright.bench.records import RunRecord, run_record
from netwright.bench.store.database import FILE
from netwright.bench.store.schema import SCHEMA, connect, meta, whole
from netwright.bench.store.store import KEPT, Store
from netwright.bench.store.typed import MISREAD, check
from netwright.core.canonical import parse

#: NETWRIGHT_SHARE=0 keeps studies apart.
SWITCH = "NETWRIGHT_SHARE"
AT_ONCE = 500  # keys a query asks for

Lent = tuple[RunRecord, dict[str, Any], bytes | None]  # a record, the environment it comes from, its arrays


def take_over(store: Store, keys: Collection[str], limit: float | None = None) -> dict[str, int]:
    """Finish those of the queued runs that another study has finished; returns its folder's name -> how many.

    Nothing is taken that the same command would try again: failures from outside the part, and time-outs under another limit.
    """
    left, found = set(keys), {}
    if os.environ.get(SWITCH) == "0":
        return {}
    for path in beside(store.folder) if left else ():
        given = [row for row in lent(path, left) if not to_retry([row[0]], limit, ())]
        if given:
            store.take_over(given)
            left -= {record.key for record, _, _ in given}
            found[path.parent.name] = len(given)
        if not left:
            break
    return found


def beside(folder: Path) -> list[Path]:
    """The other stores under the same root, in a fixed order."""
    mine, root = folder.resolve(), folder.resolve().parent
    paths = sorted({*root.glob(f"*/{FILE}"), *root.glob(f"*/*/{FILE}")})
    return [path for path in paths if path.parent != mine and not path.is_symlink()]


def lent(path: Path, keys: Collection[str]) -> list[Lent]:
    """What a store holds of the runs with these keys, whole rows alone."""
    try:
        with closing(connect(path, "ro")) as db:
            if meta(db).get("schema") != SCHEMA:
                return []
            return [row for found in _runs(db, sorted(keys)) if (row := _read(db, found)) is not None]
    except (sqlite3.Error, OSError, UnicodeDecodeError):
        return []


def _runs(db: sqlite3.Connection, keys: list[str]) -> Iterator[tuple[Any, ...]]:
    for i in range(0, len(keys), AT_ONCE):
        some = keys[i : i + AT_ONCE]
        yield from db.execute(f"SELECT * FROM runs WHERE record IS NOT NULL AND key IN ({','.join('?' * len(some))})", some)


def _read(db: sqlite3.Connection, row: tuple[Any, ...]) -> Lent | None:
    """A row of runs as it is lent; None where it isn't whole, or holds no result."""
    if not whole("runs", row):
        return None
    key, environment, text = row[0], row[8], row[9]
    try:
        record = run_record(parse(text))
        check(record)
        if record.key != key or record.state not in KEPT:
            return None
        told = [r for r in db.execute("SELECT * FROM environments WHERE id=?", (environment,)) if whole("environments", r)]
        blobs = [r for r in db.execute("SELECT * FROM weights WHERE key=?", (key,)) if whole("weights", r)]
        return record, parse(told[0][1]) if told else {}, blobs[0][1] if blobs else None
    except MISREAD:
        return None
