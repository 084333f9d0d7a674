"""Opening, owning, writing and closing a study's file."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Self

from netwright.bench.store.lock import FileLock, Held, Owner, network, owner_from
from netwright.bench.store.salvage import Salvage, rescue, settle
from netwright.bench.store.schema import (
    TABLES,
    TIMEOUT,
    Damaged,
    build,
    census,
    connect,
    meta,
    plain,
    problems,
    put,
    refuse_links,
    refuse_newer,
    stamped,
    whole,
)
from netwright.bench.store.typed import understood
from netwright.core.canonical import canonical_json, parse
from netwright.core.errors import BadInput, printable
from netwright.core.writing import check_target, in_place_of

FILE = "study.sqlite"
LOCK = "study.lock"
FREE = 8 << 20  # bytes that have to be free before a study starts
BEAT = 5.0  # seconds between two heartbeats that are written

Wait = float | Callable[[Owner | None], bool] | None


class Database(ABC):
    """One study's file. `salvaged` is the report of the salvage that opening needed, or None."""

    def __init__(self, path: Path, db: sqlite3.Connection | None, lock: FileLock | None, me: Owner | None):
        self.path = path
        self.folder = path.parent
        self.salvaged: Salvage | None = None
        self._db, self._lock, self._me = db, lock, me
        self._mutex = threading.RLock()
        self._census: dict[str, int] | None = None
        self._environment = ""
        self._patience = TIMEOUT
        self._file: tuple[int, int] | None = None  # which file on the disk it is, once it is open to be written

    @abstractmethod
    def _resume(self) -> None:
        """Inside the transaction that takes the study over: what becomes of the runs that were left."""

    @abstractmethod
    def _put_back(self) -> None:
        """Before a clean close: queues the runs that are not finished."""

    @classmethod
    def create_or_open(cls, folder: str | Path, study_id: str, request_json: str, wait: Wait = None) -> Self:
        """Opens the study's store to write it, or creates it; a damaged file is salvaged first.

        study_id, request_json: this study; the request is stored, the latest one wins (it may add seeds).
        wait: seconds to wait for another owner, or a function of the Owner (None: just starting) that says whether to
        go on waiting; it is asked twice a second. Raises Held where the wait is over.
        """
        folder = Path(folder).absolute()
        path = folder / FILE
        with plain(folder):
            folder.mkdir(parents=True, exist_ok=True)
            refuse_links(path)
            if (free := shutil.disk_usage(folder).free) < FREE:
                raise BadInput(f"only {free >> 20} MiB are free for {folder}; a study needs at least {FREE >> 20} MiB")
            remote = network(folder.resolve())
            lock = _acquire(path, study_id, wait, bool(remote))
        me = Owner.me()
        store = cls(path, None, lock, me)
        try:
            with plain(path):
                store.salvaged = _prepare(path, study_id)
                store._db, store._file = connect(path), _which(path)
                store._db.execute("PRAGMA synchronous=FULL")
                store._db.execute(f"PRAGMA journal_mode={'DELETE' if remote else 'WAL'}")
            created = store._meta("created") or time.time()
            with store._transaction(claim=True):
                for name, value in (("study", study_id), ("request", request_json), ("created", created)):
                    store._put("meta", name, canonical_json(value))
                store._put("meta", "owner", canonical_json(asdict(me)))
                store._resume()
            if remote:
                store.note(f"the study lies on a network file system ({remote}): no write-ahead log, so it is slower")
        except BaseException:
            store._abandon()
            raise
        return store

    @classmethod
    def read(cls, folder: str | Path, patience: float = TIMEOUT) -> Self:
        """The study's store for reading: it neither blocks its owner nor waits for it. BadInput where there is none.

        patience: seconds to wait at most while another process keeps the whole file locked.
        """
        store = cls(Path(folder).absolute() / FILE, None, None, None)
        store._patience = patience
        with plain(store.path):
            if not store.path.is_file():
                raise BadInput(f"there is no study in {store.folder}: no file {FILE}")
        with plain(store.path), closing(connect(store.path, "ro", patience)) as db:
            refuse_newer(db, store.path)
        if not store._meta("study"):
            raise Damaged(f"{store.path} does not say whose it is. Run its command again: it saves what is whole")
        return store

    def close(self) -> None:
        """Puts unfinished runs back, folds the log into the one file and lets the study go. Twice does nothing."""
        if self._db is None:
            return
        try:
            self._put_back()
            with self._transaction() as db:
                db.execute("DELETE FROM meta WHERE key='owner'")
            with suppress(sqlite3.Error):  # a reader at this very moment: the next clean close does it
                self._db.execute("PRAGMA busy_timeout=2000")
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                self._db.execute("PRAGMA journal_mode=DELETE")
            self._check_there()
        finally:
            self._abandon()

    def _check_there(self) -> None:
        """What is written to a file that has no name any more is lost without a word."""
        if _which(self.path) != self._file:
            raise BadInput(
                f"{self.path} was deleted, moved or replaced while the study ran, so its results are not stored and nothing is "
                "reported. Put it back, or run the same command again to begin anew"
            )

    def _abandon(self) -> None:
        db, self._db = self._db, None
        with suppress(sqlite3.Error):
            if db is not None:
                db.close()
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def owner(self) -> Owner | None:
        """Who writes the study now, by its own word; None after a clean close."""
        return owner_from(self._meta("owner"))

    def heartbeat(self) -> None:
        """Says that the owner lives. Call it often: it writes at most every few seconds."""
        now = time.time()
        if self._me is None or now - self._me.heartbeat >= BEAT:
            with self._transaction():
                assert self._me is not None
                me = replace(self._me, heartbeat=now)
                self._put("meta", "owner", canonical_json(asdict(me)))
            self._me = me

    def note(self, text: str) -> None:
        """Adds a note for whoever reads the report; the same text is kept once."""
        with self._transaction():
            rows = self._select("notes")
            if all(row["text"] != text for row in rows):
                self._put("notes", 1 + max((row["number"] for row in rows), default=0), text)

    def notes(self) -> tuple[str, ...]:
        """All notes, in order."""
        return tuple(printable(str(row["text"])) for row in self._select("notes"))

    def export(self, path: str | Path) -> None:
        """Writes a complete copy, one file, to `path`, also while the study runs. BadInput where the file exists."""
        target = Path(path).absolute()
        if check_target(target).exists():
            raise BadInput(f"{target} exists; choose a name that is free")
        with plain(target), in_place_of(target) as draft:
            with closing(connect(self.path, "ro")) as source, closing(connect(draft)) as copy:
                source.backup(copy)
                copy.execute("PRAGMA journal_mode=DELETE")

    @contextmanager
    def _transaction(self, claim: bool = False) -> Iterator[sqlite3.Connection]:
        with self._mutex, plain(self.path):
            if self._db is None or self._me is None:
                raise BadInput(f"{self.path} was opened to be read, or is closed; only create_or_open() writes")
            if self._me.pid != os.getpid():
                raise BadInput(f"{self.path} belongs to process {self._me.pid}; a forked process can't write it")
            self._check_there()
            self._db.execute("BEGIN IMMEDIATE")
            try:
                owner = self.owner()
                if not claim and (owner is None or owner.token != self._me.token):
                    raise BadInput(f"{self.path} was taken over by {owner}; this process can't write it any more")
                yield self._db
                if (counts := census(self._db)) != self._census:
                    self._put("meta", "census", canonical_json(counts))
                self._db.execute("COMMIT")
                self._census = counts
            except BaseException:
                with suppress(sqlite3.Error):
                    if self._db.in_transaction:
                        self._db.execute("ROLLBACK")
                raise

    def _put(self, table: str, *values: Any) -> None:
        assert self._db is not None  # only inside a transaction
        put(self._db, table, stamped(table, *values))

    def _query(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._mutex, plain(self.path):
            if self._db is not None:
                return self._db.execute(statement, values).fetchall()
            # A connection kept open would keep the owner from folding its log into the file.
            with closing(connect(self.path, "ro", self._patience)) as db:
                return db.execute(statement, values).fetchall()

    def _select(self, table: str, where: str = "ORDER BY rowid", *values: Any) -> list[dict[str, Any]]:
        columns = (*TABLES[table], "updated", "checksum")
        rows = self._query(f"SELECT {','.join(columns)} FROM {table} {where}", *values)
        if not all(whole(table, row) for row in rows):
            raise Damaged(f"{self.path}: a row of {table} is damaged. Run the same command again: it saves the others")
        return [dict(zip(columns, row, strict=True)) for row in rows]

    @understood("head")
    def _meta(self, name: str) -> Any:
        rows = self._select("meta", "WHERE key=?", name)
        return parse(rows[0]["value"]) if rows else None


def _which(path: Path) -> tuple[int, int] | None:
    """What tells one file from another of the same name; None where there is none."""
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


def salvage(folder: str | Path) -> Salvage | None:
    """Saves every whole row of a damaged store; None where nothing is wrong. Held where a process writes it now."""
    path = Path(folder).absolute() / FILE
    if not path.parent.is_dir():
        raise BadInput(f"there is no folder {path.parent}")
    with plain(path):
        refuse_links(path)
        lock = _acquire(path, "", None, bool(network(path.parent.resolve())))
        try:
            settle(path)
            if path.exists():
                with closing(connect(path)) as db:
                    refuse_newer(db, path)
                if not problems(path, write=True):
                    return None
            return rescue(path)
        finally:
            lock.release()


def examine(folder: str | Path) -> list[str]:
    """What is wrong with the store in this folder, one line each; changes nothing. [] where all is well."""
    path = Path(folder).absolute() / FILE
    with plain(path):
        with closing(connect(path, "ro")) as db:
            refuse_newer(db, path)
        return problems(path)


def _other(path: Path, found: Any, study_id: str) -> None:
    if found and study_id and found != study_id:
        raise BadInput(f"{path} belongs to the study {found}, this is {study_id}; choose another folder for this one")


def _acquire(path: Path, study_id: str, wait: Wait, remote: bool) -> FileLock:
    """The study's lock, once it is ours. Over a network others may not see it: there the owner row counts."""
    lock = FileLock(path.with_name(LOCK))
    until = time.monotonic() + (0.0 if wait is None or callable(wait) else wait)
    while True:
        got = lock.acquire()
        if got and not remote:
            return lock
        owner = None
        if path.exists():
            with suppress(sqlite3.Error), closing(connect(path, "ro")) as db:
                known = meta(db)
                owner = owner_from(known.get("owner"))
                _other(path, known.get("study"), study_id)
        if got and (owner is None or owner.host == socket.gethostname()):
            return lock
        if got is not False and (owner is None or not owner.seems_alive()):
            return lock
        lock.release()
        if not (wait(owner) if callable(wait) else time.monotonic() < until):
            raise Held(path.parent, owner)
        time.sleep(0.5 if callable(wait) else min(0.5, max(until - time.monotonic(), 0.01)))


def _prepare(path: Path, study_id: str) -> Salvage | None:
    """Makes sure the file is there, whole, and this study's; returns the report where it had to be salvaged."""
    settle(path)
    if not path.exists():
        for suffix in ("-wal", "-journal", "-shm"):  # left by a file that somebody deleted
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        build(path, {})
    with closing(connect(path)) as db:
        refuse_newer(db, path)
        _other(path, meta(db).get("study"), study_id)
    return rescue(path) if problems(path, write=True) else None
