"""What a person or a program has put into a store, a folder or a number is one clear line, and never a traceback."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from netwright.bench import jobs
from netwright.bench.carry import Means
from netwright.bench.records import RunRecord, to_json
from netwright.bench.request import Terms, most_threads
from netwright.bench.store import database, schema, store
from netwright.bench.store.store import Store
from netwright.bench.store.typed import check, fits, made
from netwright.cli import app
from netwright.compare import compare
from netwright.core.canonical import canonical_json, parse
from netwright.core.errors import BadInput

TERMS: dict[str, Any] = {"task": "moons", "seeds": 2, "trials": 1, "steps": 2, "match": "none", "engine": "loop"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "s"
    compare(["default"], out=folder, **TERMS)
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "s"))


def forge(folder: Path, table: str, change: Callable[[list[Any]], list[Any]], where: str = "1") -> None:
    """Rows with other values and a checksum that is right."""
    with closing(sqlite3.connect(folder / database.FILE)) as db:
        for row in db.execute(f"SELECT * FROM {table} WHERE {where}").fetchall():
            db.execute(f"DELETE FROM {table} WHERE {schema_key(table)}=?", row[:1])
            schema.put(db, table, schema.stamped(table, *change(list(row[:-2]))))
        db.commit()


def schema_key(table: str) -> str:
    return schema.TABLES[table][0]


def again(folder: Path) -> Any:
    return CliRunner().invoke(
        app,
        ["compare", "default", "--task", "moons", "--seeds", "2", "--tune", "1", "--steps", "2", "--match", "none"]
        + ["--engine", "loop", "--out", str(folder)],
    )


def one_line(folder: Path) -> str:
    with pytest.raises(BadInput) as refused:
        compare(["default"], out=folder, **TERMS)
    assert "\n" not in str(refused.value)
    return str(refused.value)


WRONG = ['"x"', "[]", "null", "-1", "1e400", "{}", "[[[[", '"\\u001b[31m"', "true"]


@pytest.mark.parametrize("text", WRONG)
@pytest.mark.parametrize("name", ["schema", "plan", "created", "owner", "census", "study", "request"])
def test_a_head_of_another_type(name: str, text: str, folder: Path) -> None:
    forge(folder, "meta", lambda row: [row[0], text], f"key='{name}'")
    done = again(folder)
    known = done.exception is None or isinstance(done.exception, SystemExit)
    assert known and done.exit_code in (0, 2), done.exception
    assert "\x1b" not in done.output and (done.exit_code == 0 or done.stderr.splitlines()[-1].startswith("error: "))
    for reading in (Store.read, database.examine, store.salvage):
        try:
            reading(folder)
        except BadInput:
            pass


@pytest.mark.parametrize("field", [f for f in RunRecord.__dataclass_fields__ if f not in ("point", "memory")])
def test_a_record_with_a_field_of_another_type(field: str, folder: Path) -> None:
    def change(row: list[Any]) -> list[Any]:
        return [*row[:-1], canonical_json({**parse(row[-1]), field: {"no": "thing"}})]

    forge(folder, "runs", change)
    assert "records can't be understood" in one_line(folder)


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        ("scores", 3, '{"arm": 1}'),
        ("scores", 3, "[]"),
        ("scores", 3, "x"),
        ("costs", 1, '{"arm": "default", "params": "many"}'),
        ("looks", 1, '"12"'),
        ("looks", 1, "[[1]]"),
        ("environments", 1, "7"),
        ("runs", 2, "zero"),
        ("runs", 4, "["),
        ("runs", 7, "x"),
    ],
)
def test_other_rows_of_another_type(table: str, column: int, value: str, folder: Path) -> None:
    forge(folder, table, lambda row: [*row[:column], value, *row[column + 1 :]])
    done = again(folder)
    assert done.exit_code in (0, 2) and (done.exception is None or isinstance(done.exception, SystemExit)), done.exception


@pytest.mark.parametrize("sealed", ["good", 0.5, [], {"test": "good"}, {"test": [0.5]}, {"test": True}])
def test_a_test_score_of_another_type(sealed: Any, folder: Path) -> None:
    forge(folder, "runs", lambda row: [*row[:-1], canonical_json({**parse(row[-1]), "sealed": sealed})])
    assert "records can't be understood" in one_line(folder)


@pytest.mark.parametrize("sealed", [{}, {"other": 0.5}, None], ids=["empty", "another", "older"])
def test_what_was_never_tested_is_trained_once_more(sealed: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def change(row: list[Any]) -> list[Any]:
        record = {name: value for name, value in parse(row[-1]).items() if name not in ("sealed", "untested")}
        return [*row[:-1], canonical_json(record if sealed is None else {**record, "sealed": sealed})]

    made: list[str] = []
    perform = jobs.perform
    monkeypatch.setattr("netwright.bench.executors.serial.perform", lambda job: made.extend(job.keys) or perform(job))
    first = compare(["default"], out=folder, **TERMS)
    forge(folder, "runs", change)
    assert compare(["default"], out=folder, **TERMS).scores == first.scores and not made, "what was scored stays"
    with closing(sqlite3.connect(folder / database.FILE)) as db:
        db.execute("DELETE FROM scores")
        schema.put(db, "meta", schema.stamped("meta", "census", canonical_json(schema.census(db))))
        db.commit()
    assert compare(["default"], out=folder, **TERMS).scores == first.scores
    assert made == [record.key for record in first.records]


def test_notes_hold_no_escapes(folder: Path) -> None:
    with closing(sqlite3.connect(folder / database.FILE)) as db:
        schema.put(db, "notes", schema.stamped("notes", 99, "\x1b]0;owned\x07 note\nline"))
        db.execute("DELETE FROM meta WHERE key='census'")
        schema.put(db, "meta", schema.stamped("meta", "census", canonical_json(schema.census(db))))
        db.commit()
    done = again(folder)
    assert done.exit_code == 0 and "owned" in done.output and not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", done.output)
    assert "\x1b" not in (folder / "report.html").read_text(encoding="utf-8")


def test_types_are_checked_as_annotated() -> None:
    record = RunRecord("k", "a", 0, 0, {"lr": 0.1}, "done", curve=((1, 0.5, float("nan")),), best_step=1)
    check(record)
    assert made(RunRecord, to_json(record)).curve == [[1, 0.5, pytest.approx(float("nan"), nan_ok=True)]]
    for value, hint in ((True, int), ("1", float), (1.0, int), ([1, "x"], tuple[int, ...]), ([1], tuple[int, int]), (None, str)):
        assert not fits(value, hint)
    for value, hint in ((1, float), (None, int | None), ([1, 2], tuple[int, int]), ({"a": (1,)}, dict[str, tuple[int, ...]])):
        assert fits(value, hint)


# Folders and numbers --------------------------------------------------------------------------------------------------


def test_a_report_that_is_a_folder_is_said_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "report.html").mkdir()
    assert "is a folder" in one_line(tmp_path)
    assert not (tmp_path / database.FILE).exists()


@pytest.mark.parametrize("name", ["x" * 256, "a/" * 3000, "a\0b", "\udcff" * 300])
def test_a_folder_no_system_takes(name: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput):
        compare(["default"], out=f"{tmp_path}/{name}", **TERMS)


@pytest.mark.parametrize(
    "words",
    [["--memory", "nan"], ["--memory", "-1"], ["--memory", "inf"], ["--memory", "1e300"], ["--threads", "100000"]]
    + [["--limit", "nan"], ["--limit", "-1"], ["--seeds", "1000000000"], ["--tune", "1000000000"], ["--workers", "100000"]]
    + [["--out", "x" * 256], ["--retry", "done"], ["--threads", "0"]],
)
def test_a_number_out_of_range(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["compare", "default", "--task", "moons", *words])
    said = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.exit_code == 2 and len(said) == 1 and done.stderr.splitlines()[-1] == said[0], done.output


def test_what_is_in_range_passes() -> None:
    assert Terms(threads=most_threads()).threads >= 64 and Means(memory=2**30, workers=2).memory == 2**30


# A store that vanishes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["deleted", "replaced", "moved", "linked"])
@pytest.mark.parametrize("when", [1, 2])
def test_a_store_that_vanishes_is_noticed(how: str, when: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, count, perform = tmp_path / "s", [0], jobs.perform
    file = folder / database.FILE

    def vanishing(job: Any) -> Any:
        count[0] += 1
        if count[0] == when:
            if how == "moved":
                os.rename(folder, tmp_path / "elsewhere")
            else:
                os.rename(file, tmp_path / "old") if how != "deleted" else file.unlink()
            if how == "replaced":
                file.write_bytes(b"")
            elif how == "linked":
                file.symlink_to(tmp_path / "old")
        return perform(job)

    monkeypatch.setattr("netwright.bench.executors.serial.perform", vanishing)
    assert "deleted, moved or replaced" in one_line(folder)
    assert count[0] == when and not (folder / "report.html").exists()
