"""What can still be read from a damaged store: every row that proves by its checksum that it is whole.

The rows are asked of SQLite first, as the file is and again with its first page replaced. What is then missing is
looked for in the pages themselves, whatever points to them.
Source of the page layout: https://www.sqlite.org/fileformat2.html
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import struct
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from netwright.bench.store import schema
from netwright.bench.store.schema import (
    PAGE,
    TABLES,
    Row,
    build,
    connect,
    identity,
    plain,
    refuse_newer,
    stamped,
    whole,
)
from netwright.core.canonical import parse
from netwright.core.errors import BadInput, printable

_WORK = ".salvage-"
_SIDECARS = ("-wal", "-journal", "-shm")


@dataclass(frozen=True)
class Salvage:
    """What a salvage did. `lost` counts rows a table (None: some, number unknown); `names` are lost rows' names."""

    path: Path
    broken: Path  # where the damaged file now is, byte for byte
    kept: Mapping[str, int]
    lost: Mapping[str, int | None] = field(default_factory=dict)
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __str__(self) -> str:
        text = f"{self.path.name} was damaged; it is kept as {self.broken.name}; "
        text += f"{sum(self.kept.values())} rows were saved, "
        gone = [f"{'an unknown number' if n is None else n} of {t}" for t, n in self.lost.items()]
        text += f"lost: {', '.join(gone)}" if gone else "none was lost"
        for table, names in self.names.items():
            text += f"; {table}: {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}"
        return printable(text)


def rescue(path: Path) -> Salvage:
    """Moves a damaged file aside and puts one with every whole row in its place. For the process that owns the study.

    Raises BadInput where there is no such file, a newer release wrote it, or the disk is full.
    """
    with plain(path):
        settle(path)
        if not path.exists():
            raise BadInput(f"there is no {path.name} in {path.parent} to salvage")
        with closing(connect(path, "ro")) as db:
            refuse_newer(db, path)
        for left in path.parent.glob(f"{_WORK}*"):  # by a salvage that was killed
            shutil.rmtree(left, ignore_errors=True)
        rows, lost, names = _remains(path)
        report = Salvage(path, _free_name(path), {table: len(found) for table, found in rows.items()}, lost, names)
        number = 1 + max((row[0] for row in rows["notes"].values()), default=0)
        rows["notes"][(number,)] = stamped("notes", number, str(report))
        build(_fresh(path), {table: found.values() for table, found in rows.items()})
        settle(path)
    return report


def settle(path: Path) -> None:
    """Puts a finished salvage in the file's place; also where a crash interrupted that."""
    fresh = _fresh(path)
    if fresh.exists():
        # A log left beside the new file would be replayed into it: the old files leave first, all of them.
        broken = _free_name(path)
        for suffix in ("", *_SIDECARS):
            old = path.with_name(path.name + suffix)
            if old.exists():
                os.replace(old, broken.with_name(broken.name + suffix))
        os.replace(fresh, path)
        schema.sync(path.parent)


def _fresh(path: Path) -> Path:
    return path.with_name(path.name + ".fresh")


def _free_name(path: Path) -> Path:
    n = 1
    while path.with_name(f"{path.name}.broken-{n}").exists():
        n += 1
    return path.with_name(f"{path.name}.broken-{n}")


def _remains(path: Path) -> tuple[dict[str, dict[Row, Row]], dict[str, int | None], dict[str, tuple[str, ...]]]:
    """Every whole row of a damaged file by table and name, how many are lost, and the names of those where known."""
    kept: dict[str, dict[Row, Row]] = {table: {} for table in TABLES}
    named: dict[str, set[Row]] = {table: set() for table in TABLES}
    cut = set(TABLES)  # tables that SQLite could not read to their end
    carved: dict[tuple[str, Row], Row] = {}
    with tempfile.TemporaryDirectory(prefix=_WORK, dir=path.parent) as name:
        folder = Path(name)
        build(folder / "empty", {})
        # Page 1 is the same in every store but for a few counters: where it is damaged, an empty store's replaces it.
        first = (folder / "empty").read_bytes()[:PAGE]
        for copy in (_copy(path, folder / "as-it-is"), _copy(path, folder / "grafted", first)):
            with closing(connect(copy)) as db:
                _try(db, "PRAGMA wal_checkpoint(TRUNCATE)")
                _try(db, "PRAGMA journal_mode=DELETE")
                for table, columns in TABLES.items():
                    n = identity(table)
                    rows, complete = _try(db, f"SELECT * FROM {table} NOT INDEXED")
                    for row in rows:
                        if whole(table, row):
                            kept[table].setdefault(row[:n], row)
                    index = f"sqlite_autoindex_{table}_1"
                    names, listed = _try(db, f"SELECT {','.join(columns[:n])} FROM {table} INDEXED BY {index}")
                    named[table].update(names if listed else [*names, *(row[:n] for row in rows)])
                    if complete and listed:
                        cut.discard(table)
            for row in _cells(copy.read_bytes()):
                for table in TABLES:
                    place = (table, row[: identity(table)])
                    if whole(table, row) and (place not in carved or carved[place][-2] < row[-2]):
                        carved[place] = row
    census = kept["meta"].get(("census",)) or carved.get(("meta", ("census",)))
    counts = _counts(census[1]) if census else {}
    for (table, key), row in carved.items():
        # A page that is free again still holds deleted rows: only what is missing is looked for there.
        if table not in counts or len(kept[table]) < counts[table]:
            kept[table].setdefault(key, row)
    lost: dict[str, int | None] = {}
    for table in TABLES:
        if table not in counts:
            if table in cut or named[table] - kept[table].keys():
                lost[table] = None
        elif (missing := counts[table] - len(kept[table])) > 0:
            lost[table] = missing
    gone = {t: sorted(" ".join(map(str, key)) for key in named[t] - kept[t].keys()) for t in lost}
    return kept, lost, {table: tuple(names) for table, names in gone.items() if names}


def _counts(text: Any) -> dict[str, int]:
    """The census as it was stored; {} where something else stands in its place."""
    try:
        found = parse(text)
    except (TypeError, ValueError, RecursionError):
        return {}
    return {table: n for table, n in found.items() if isinstance(n, int)} if isinstance(found, dict) else {}


def _copy(path: Path, target: Path, first: bytes | None = None) -> Path:
    """A copy of the file and its logs to work on; with `first`, its first page is replaced and made to fit its size."""
    for suffix in ("", "-wal", "-journal"):
        source = path.with_name(path.name + suffix)
        if source.exists():
            shutil.copyfile(source, target.with_name(target.name + suffix))
    if first is not None:
        data = target.read_bytes()
        data += bytes(-len(data) % PAGE)
        page = bytearray(first)
        if target.with_name(target.name + "-wal").exists():
            page[18:20] = b"\x02\x02"  # the write-ahead log is in use
        page[28:32] = struct.pack(">I", max(len(data) // PAGE, 1))
        page[92:96] = page[24:28]  # the page count is valid for this change counter
        target.write_bytes(bytes(page) + data[PAGE:])
    return target


def _try(db: sqlite3.Connection, statement: str) -> tuple[list[Row], bool]:
    """The rows until the first error, and whether there was none."""
    rows: list[Row] = []
    try:
        for row in db.execute(statement):
            rows.append(row)
    except (sqlite3.Error, UnicodeDecodeError, MemoryError, OverflowError):
        return rows, False
    return rows, True


def _cells(data: bytes) -> Iterator[Row]:
    """Every record in every page that is a table's leaf, whatever points to it; cells without sense are skipped."""
    for base in range(0, len(data) - PAGE + 1, PAGE):
        head = base + (100 if data[base : base + 6] == b"SQLite" else 0)
        if data[head] != 13:
            continue
        for i in range(min(int.from_bytes(data[head + 3 : head + 5], "big"), PAGE // 6)):
            (at,) = struct.unpack_from(">H", data, head + 8 + 2 * i)
            try:
                yield _record(_payload(data, base + at))
            except (IndexError, ValueError, struct.error):
                continue


def _payload(data: bytes, at: int) -> bytes:
    size, at = _varint(data, at)
    _, at = _varint(data, at)  # the row's number
    if size > len(data):
        raise ValueError("longer than the file")
    local = size
    if size > PAGE - 35:
        least = (PAGE - 12) * 32 // 255 - 23
        local = least + (size - least) % (PAGE - 4)
        local = local if local <= PAGE - 35 else least
    parts = [data[at : at + local]]
    missing, at = size - local, at + local
    while missing > 0:
        (page,) = struct.unpack_from(">I", data, at)
        at = (page - 1) * PAGE
        if page == 0:
            raise ValueError("the chain ends early")
        parts.append(data[at + 4 : at + 4 + min(missing, PAGE - 4)])
        missing -= PAGE - 4
    return b"".join(parts)


def _record(payload: bytes) -> Row:
    end, at = _varint(payload, 0)
    kinds = []
    while at < end:
        kind, at = _varint(payload, at)
        kinds.append(kind)
    at, values = end, list[Any]()
    for kind in kinds:
        size = (0, 1, 2, 3, 4, 6, 8, 8, 0, 0, 0, 0)[kind] if kind < 12 else (kind - 12) // 2
        raw, at = payload[at : at + size], at + size
        if len(raw) < size:
            raise ValueError("cut off")
        if kind >= 12:
            values.append(raw.decode("utf-8") if kind % 2 else raw)
        elif kind == 7:
            values.append(struct.unpack(">d", raw)[0])
        elif kind == 0:
            values.append(None)
        else:
            values.append(kind - 8 if kind in (8, 9) else int.from_bytes(raw, "big", signed=True))
    return tuple(values)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for i in range(9):
        byte = data[at + i]
        if i == 8:
            return value << 8 | byte, at + 9
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + i + 1
    raise AssertionError
