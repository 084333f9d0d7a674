"""The file under a store: its tables, a checksum for every row, and what is asked of it before it is trusted.

Every row of every table ends with the time it was written and the digest of all that stands before. So a row found
anywhere, even in a page that nothing points to any more, proves by itself whether it is whole.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from netwright.core.canonical import canonical_json, digest, parse
from netwright.core.errors import BadInput
from netwright.core.writing import in_place_of

#: Raised by one whenever TABLES change. The table meta keeps its form in every schema, so that any release can tell.
SCHEMA = 1
APPLICATION = 0x4E575354  # "NWST"
PAGE = 4096
TIMEOUT = 30.0  # seconds to wait for another process's transaction
#: The columns of every table; `updated` (seconds since the epoch) and `checksum` follow in each.
TABLES: Mapping[str, tuple[str, ...]] = {
    "meta": ("key", "value"),
    "looks": ("number", "seeds"),
    "runs": ("key", "arm", "seed", "trial", "point", "stage", "state", "tries", "environment", "record"),
    "weights": ("key", "blob"),
    "scores": ("arm", "seed", "basis", "value"),
    "costs": ("arm", "value"),
    "notes": ("number", "text"),
    "environments": ("id", "value"),
}
Row = tuple[Any, ...]
#: SQLite's codes for a file that is not as written; ERROR because a statement of ours fails only on foreign tables.
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)
_ADVICE = "Run the same command again: it saves every row that is still whole"


class Damaged(BadInput):
    """The file holds something that was never written there; the next run, or salvage(), saves what is whole."""


def identity(table: str) -> int:
    """How many leading columns name a row."""
    return 3 if table == "scores" else 1


@contextmanager
def plain(path: Path) -> Iterator[None]:
    """Turns what sqlite3 and the system raise about the file into a BadInput that says what to do."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", -1) & 0xFF
        what = f"{path}: {error}"
        if code in _DAMAGE:
            raise Damaged(f"{what}. {_ADVICE}") from error
        if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
            why = "The disk is full or failing; what was stored before is kept. Free some space and run this again"
        elif code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
            why = "The folder or the file can't be written; choose another folder or copy the study to a writable one"
        elif code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            why = f"Another process kept the file locked for {TIMEOUT:.0f} s; close it and run this again"
        else:
            why = "Nothing was changed"
        raise BadInput(f"{what}. {why}") from error
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror or error}; check that the folder is writable and not full") from error
    except UnicodeDecodeError as error:
        raise Damaged(f"{path}: {error}. {_ADVICE}") from error
    except (OverflowError, UnicodeEncodeError) as error:
        raise BadInput(f"{path}: a value can't be stored: {error}") from error


def connect(path: Path, mode: str = "rw", patience: float = TIMEOUT) -> sqlite3.Connection:
    """A connection without implicit transactions; mode: "ro", "rw", or "rwc", which creates the file.

    patience: seconds to wait for another process's transaction. Text that is no UTF-8 is mangled, which its checksum then shows.
    """
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    db = sqlite3.connect(uri, uri=True, timeout=patience, isolation_level=None, check_same_thread=False)
    db.text_factory = lambda raw: raw.decode("utf-8", "replace")
    return db


def checksum(table: str, values: Iterable[Any]) -> str:
    """The digest of a row: its table and every column but the last; bytes enter as their sha256."""
    return digest([table, *(hashlib.sha256(v).hexdigest() if isinstance(v, bytes) else v for v in values)])


def whole(table: str, row: Row) -> bool:
    """Whether the row is one that was written to this table."""
    if len(row) != len(TABLES[table]) + 2 or not isinstance(row[-1], str):
        return False
    try:
        return checksum(table, row[:-1]) == row[-1]
    except ValueError:
        return False


def stamped(table: str, *values: Any) -> Row:
    """The full row: the values, the time, the checksum."""
    row = (*values, time.time())
    return (*row, checksum(table, row))


def put(db: sqlite3.Connection, table: str, row: Row) -> None:
    """Writes a full row over the one of the same name, keeping its place in the table."""
    columns = (*TABLES[table], "updated", "checksum")
    n = identity(table)
    db.execute(
        f"INSERT INTO {table} VALUES ({','.join('?' * len(columns))}) ON CONFLICT ({','.join(columns[:n])}) "
        f"DO UPDATE SET {','.join(f'{c}=excluded.{c}' for c in columns[n:])}",
        row,
    )


def census(db: sqlite3.Connection) -> dict[str, int]:
    """How many rows each table has, meta apart; stored with every change, so that a loss can be counted."""
    return {t: db.execute(f"SELECT count(*) FROM {t}").fetchone()[0] for t in TABLES if t != "meta"}


def build(path: Path, rows: Mapping[str, Iterable[Row]]) -> None:
    """Writes a complete store of these full rows to a new file, which appears under its name only once it is whole."""
    with in_place_of(path) as draft, closing(connect(draft)) as db:
        db.execute(f"PRAGMA page_size={PAGE}")
        db.execute("PRAGMA journal_mode=MEMORY")
        db.execute(f"PRAGMA application_id={APPLICATION}")
        db.execute("BEGIN")
        db.execute(f"PRAGMA user_version={SCHEMA}")
        # No column has a type: every value is stored as it is, so a row read by hand equals the row SQLite returns.
        for table, columns in TABLES.items():
            name = ",".join(columns[: identity(table)])
            db.execute(f"CREATE TABLE {table} ({','.join(columns)},updated,checksum,PRIMARY KEY ({name}))")
        for table, found in rows.items():
            for row in found:
                put(db, table, row)
        put(db, "meta", stamped("meta", "schema", canonical_json(SCHEMA)))
        put(db, "meta", stamped("meta", "census", canonical_json(census(db))))
        db.execute("COMMIT")
    sync(path.parent)


def sync(folder: Path) -> None:
    """Makes renames in the folder survive a power failure, where the system can."""
    if os.name == "posix":
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def refuse_links(path: Path) -> None:
    """Raises BadInput where the file, or one that SQLite or a salvage writes beside it, is a link to elsewhere."""
    for suffix in ("", "-wal", "-journal", "-shm", ".fresh"):
        if path.with_name(path.name + suffix).is_symlink():
            raise BadInput(f"{path}{suffix} is a link; a study's file lies in its own folder")


def meta(db: sqlite3.Connection) -> dict[str, Any]:
    """The parsed values of the whole rows of meta; {} where the table can't be read."""
    try:
        return {row[0]: parse(row[1]) for row in db.execute("SELECT * FROM meta") if whole("meta", row)}
    except (sqlite3.Error, ValueError):
        return {}


def refuse_newer(db: sqlite3.Connection, path: Path) -> None:
    """Raises BadInput where a newer release wrote the file. Only a whole row says so: a header may have been hit."""
    schema = meta(db).get("schema", SCHEMA)
    if not isinstance(schema, int):
        raise BadInput(f"{path} says that its schema is {schema!r:.60}, which is no number. Move the file away to begin anew")
    if schema > SCHEMA:
        raise BadInput(
            f"{path} was written by a newer netwright (its schema is {schema}, this release knows {SCHEMA}); "
            "upgrade netwright, or choose another folder"
        )


def problems(path: Path, write: bool = False) -> list[str]:
    """What is wrong with the file: SQLite's integrity check, the header, the row checksums and the number of rows.

    write: try to begin writing too, for a header can forbid that alone; only for the owner, before it opens its store.
    """
    # The file is never opened by hand: closing it would drop the locks of this process's other connections.
    try:
        with closing(connect(path, "rw" if write else "ro")) as db:
            if write:
                db.execute("BEGIN IMMEDIATE")
            found = [row[0] for row in db.execute("PRAGMA integrity_check(9)") if row[0] != "ok"]
            for pragma, wanted in (("application_id", APPLICATION), ("user_version", SCHEMA), ("page_size", PAGE)):
                if db.execute(f"PRAGMA {pragma}").fetchone()[0] != wanted:
                    found.append(f"{pragma} is not {wanted}")
            for table in TABLES:
                if bad := sum(not whole(table, row) for row in db.execute(f"SELECT * FROM {table}")):
                    found.append(f"{bad} row(s) of {table} have a wrong checksum")
            if meta(db).get("census") != census(db):
                found.append("the number of rows is not what was stored")
            return found
    except UnicodeDecodeError as error:  # in the name of a column
        return [str(error)]
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", -1) & 0xFF
        if code == sqlite3.SQLITE_READONLY and all(os.access(p, os.W_OK) for p in (path, path.parent)):
            return ["the header says that the file can't be written"]
        if code in (*_DAMAGE, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_NOMEM):
            return [str(error)]
        raise  # a lock or the disk: no reason to touch the file
