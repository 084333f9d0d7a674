"""Damaged files: every whole row is saved, every loss is told, nothing is made up."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from storing import child, filled, owned, run, said

from netwright.bench.store import database, salvage, schema, store
from netwright.bench.store.database import examine
from netwright.bench.store.schema import Damaged
from netwright.bench.store.store import Store
from netwright.core.canonical import canonical_json
from netwright.core.errors import BadInput

# -- damage


@pytest.fixture(scope="module")
def whole_file(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    filled(folder).close()
    return folder / database.FILE


def _rows(path: Path) -> dict[str, dict]:
    """Every row by table and name, without what an opening changes."""
    with closing(schema.connect(path, "ro")) as db:
        return {
            t: {row[: schema.identity(t)]: row[:-2] for row in db.execute(f"SELECT * FROM {t}")}
            for t in schema.TABLES
            if t != "meta"
        }


def _opened_after(damage: bytes, whole_file: Path, folder: Path) -> Store:
    """Opens the damaged file and checks what holds whatever was damaged."""
    before = _rows(whole_file)
    (folder / database.FILE).write_bytes(damage)
    with owned(folder) as made:
        made.runs(), made.records(), made.scores(), made.costs(), made.environments(), made.looks(), made.plan()
        assert examine(folder) == [] and made.study == "study-1"
    after = _rows(folder / database.FILE)
    lost = {t: len(before[t]) - sum(after[t].get(name) == row for name, row in before[t].items()) for t in before}
    lost = {t: n for t, n in lost.items() if n}
    if made.salvaged is None:
        assert not lost
    else:
        told = {t: n for t, n in made.salvaged.lost.items() if t != "meta"}
        assert told.keys() >= lost.keys() and all(n in (lost.get(t), None) for t, n in told.items())
        assert made.salvaged.broken.read_bytes() == damage
        assert any(str(made.salvaged) == note for note in made.notes())
        for t, rows in after.items():  # nothing was made up
            assert all(before[t].get(name) == row or row[1] == str(made.salvaged) for name, row in rows.items())
    assert not [p for p in folder.iterdir() if p.name.startswith((".salvage", database.FILE + ".fresh"))]
    return made


#: Every class of place: header fields, the schema, pages of each table and their middle and end.
OFFSETS = [0, 16, 18, 20, 24, 28, 36, 47, 56, 60, 68, 92, 100, 103, 105, 107, 108, 900, 3900]


@pytest.mark.parametrize("offset", OFFSETS)
def test_a_flipped_bit_in_page_one_loses_nothing(offset, whole_file, tmp_path):
    data = bytearray(whole_file.read_bytes())
    data[offset] ^= 1 << (offset % 8)
    made = _opened_after(bytes(data), whole_file, tmp_path)
    assert len(Store.read(tmp_path).records()) == 30 and (made.salvaged is None or not made.salvaged.lost)


@pytest.mark.parametrize("part", range(25))
def test_flipped_bits_lose_only_the_rows_they_hit(part, whole_file, tmp_path):
    data = bytearray(whole_file.read_bytes())
    pages = len(data) // schema.PAGE
    page = 1 + part * (pages - 2) // 24
    offset = page * schema.PAGE + (0, 3, 5, 8, 9, 2000, 4000)[part % 7]
    data[offset] ^= 1 << (part % 8)
    _opened_after(bytes(data), whole_file, tmp_path)
    assert len(Store.read(tmp_path).records()) >= 30 - 12  # the rows of one page at most


@pytest.mark.parametrize("page", [2, 5, 9, 17, 21, 30])
def test_a_lost_page_loses_only_its_rows(page, whole_file, tmp_path):
    data = bytearray(whole_file.read_bytes())
    data[page * schema.PAGE : (page + 1) * schema.PAGE] = bytes(schema.PAGE)
    _opened_after(bytes(data), whole_file, tmp_path)
    assert len(Store.read(tmp_path).records()) >= 30 - 12


@pytest.mark.parametrize("share", [0.0, 0.0005, 0.02, 0.1, 0.3, 0.5, 0.55, 0.7, 0.8, 0.9, 0.97, 0.999])
def test_a_truncated_file_keeps_what_is_before_the_cut(share, whole_file, tmp_path):
    data = whole_file.read_bytes()
    made = _opened_after(data[: int(len(data) * share)], whole_file, tmp_path)
    assert made.salvaged is not None
    if share >= 0.7:
        assert len(Store.read(tmp_path).records()) > 0


@pytest.mark.parametrize("junk", [b"", b"not a database", b"SQLite format 3\0" + bytes(84), bytes(range(250)) * 40])
def test_a_file_of_junk_is_moved_aside(junk, whole_file, tmp_path):
    made = _opened_after(junk, whole_file, tmp_path)
    assert made.salvaged is not None and sum(made.salvaged.kept.values()) <= 2


def test_lost_runs_are_named_and_run_again(whole_file, tmp_path):
    data = bytearray(whole_file.read_bytes())
    at = data.index(canonical_json(run(17).point).encode()) - 3
    data[at] ^= 4
    made = _opened_after(bytes(data), whole_file, tmp_path)
    assert made.salvaged.lost == {"runs": 1} and made.salvaged.names == {"runs": ("key-a-17",)}
    assert "lost: 1 of runs; runs: key-a-17" in str(made.salvaged)
    with owned(tmp_path) as again:
        assert again.salvaged is None and again.add_runs([run(i) for i in range(30)]) == ("key-a-17",)


def test_a_killed_study_is_salvaged_with_its_log(whole_file, tmp_path):
    shutil.copy(whole_file, tmp_path)
    code = """
        made = owned(Path(args[0])); made.add_runs(run(i) for i in range(30, 40))
        made.finish([record(run(i)) for i in range(30, 40)]); print('up', flush=True); time.sleep(60)
    """
    worker = child(code, tmp_path)
    assert said(worker) == "up"
    worker.kill()
    worker.communicate()
    assert (tmp_path / (database.FILE + "-wal")).stat().st_size > 10_000
    data = bytearray((tmp_path / database.FILE).read_bytes())
    data[:100] = bytes(100)  # the log holds this page, whole
    data[data.index(b"\x02" * 1000) + 500] ^= 1  # and does not hold this one
    (tmp_path / database.FILE).write_bytes(data)
    with owned(tmp_path) as made:
        assert made.salvaged is not None and made.salvaged.lost == {"weights": 1}
        assert len(made.records()) == 40 and made.weights("key-a-2") is None and made.weights("key-a-3")


def test_a_salvage_that_is_interrupted_is_finished_by_the_next_call(whole_file, tmp_path, monkeypatch):
    data = bytearray(whole_file.read_bytes())
    data[:16] = bytes(16)
    (tmp_path / database.FILE).write_bytes(data)
    real = os.replace

    def dies(source, target):
        if str(source).endswith(".fresh"):
            raise OSError("killed here")
        real(source, target)

    monkeypatch.setattr(salvage.os, "replace", dies)
    with pytest.raises(BadInput):
        owned(tmp_path)
    assert not (tmp_path / database.FILE).exists()
    monkeypatch.undo()
    with owned(tmp_path) as made:
        assert made.salvaged is None and len(made.records()) == 30 and "was damaged" in made.notes()[-1]


def test_salvage_by_itself_says_nothing_of_a_whole_file(whole_file, tmp_path):
    shutil.copy(whole_file, tmp_path)
    assert store.salvage(tmp_path) is None
    with open(tmp_path / database.FILE, "r+b") as file:
        file.truncate(60_000)
    assert examine(tmp_path)
    report = store.salvage(tmp_path)
    assert report is not None and report.lost and report.broken.name == f"{database.FILE}.broken-1"
    assert examine(tmp_path) == []


def test_a_reader_of_a_damaged_file_is_told_what_to_do(whole_file, tmp_path):
    data = bytearray(whole_file.read_bytes())
    data[data.index(canonical_json(run(3).point).encode()) - 3] ^= 4
    (tmp_path / database.FILE).write_bytes(data)
    with pytest.raises(Damaged, match="Run the same command again"):
        Store.read(tmp_path).records()
    (tmp_path / database.FILE).write_bytes(b"junk" * 100)
    with pytest.raises(Damaged, match="Run"):
        Store.read(tmp_path)


def test_a_row_changed_by_hand_is_seen(whole_file, tmp_path):
    shutil.copy(whole_file, tmp_path)
    with closing(sqlite3.connect(tmp_path / database.FILE)) as db:
        db.execute("UPDATE scores SET value=replace(value, '0.5', '0.9') WHERE seed=0")
        db.commit()
    assert examine(tmp_path) == ["1 row(s) of scores have a wrong checksum"]
    with owned(tmp_path) as made:
        assert made.salvaged.lost == {"scores": 1} and len(made.scores()) == 9
