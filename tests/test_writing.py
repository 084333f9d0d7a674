"""What netwright writes appears whole and never through a link."""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path

import pytest
from house import PACKAGE, ROOT, SOURCES, TREES

from netwright.bench.store.store import Store, salvage
from netwright.compare import compare, run
from netwright.core import catalogue
from netwright.core.errors import BadInput
from netwright.core.kind import BENCH
from netwright.core.writing import in_place_of, write_whole
from netwright.show import gallery, pages
from netwright.show.card import card_of

#: Files that move files of their own making, or write into a temporary folder: name -> why.
ALLOWED = {
    "core/writing.py": "the one place",
    "bench/store/salvage.py": "renames a damaged store, and works in a temporary folder",
    "contract/child.py": "a line at a time, in a temporary folder",
}


def writes(tree: ast.AST) -> list[str]:
    """Calls that put something into a file."""
    found = []
    for n in ast.walk(tree):
        if not isinstance(n, ast.Call):
            continue
        name = ast.unparse(n.func)
        opened = name.split(".")[-1] == "open" and re.search(r"'[rbt]*[wax+][rbt+]*'", ast.unparse(n))
        moved = name in ("os.replace", "os.rename", "shutil.copyfile", "shutil.copy", "shutil.move")
        if opened or moved or name.split(".")[-1] in ("write_text", "write_bytes", "symlink_to", "save_file"):
            found.append(f"{n.lineno}: {ast.unparse(n)[:60]}")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_are_written_in_one_place(path: Path) -> None:
    name = str(path.relative_to(PACKAGE))
    if name not in ALLOWED and not re.fullmatch(r"layers/_contract_\w+\.py", name):
        assert not writes(TREES[path]), "use netwright.core.writing"


@pytest.mark.parametrize("folder", ["evidence/commands", "benchmarks"])
def test_what_takes_hours_is_written_in_that_place_too(folder: str) -> None:
    for path in sorted((ROOT / folder).glob("*.py")):
        assert not writes(ast.parse(path.read_text(encoding="utf-8"))), f"{path.name}: use netwright.core.writing"


def test_a_write_is_seen() -> None:
    for line in ("open(p, 'w')", "p.open('xb')", "p.write_text(t)", "os.replace(a, b)", "io.open(p, mode='a')"):
        assert writes(ast.parse(line)), line
    assert not writes(ast.parse("open(p)\nopen(p, 'rb')\nopen(p, encoding='ascii')"))


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / ("x" * 255)
    assert write_whole(target, "é").read_text(encoding="utf-8") == "é"
    with pytest.raises(ZeroDivisionError), in_place_of(target) as draft:
        draft.write_bytes(b"half")
        1 / 0  # noqa: B018
    assert target.read_bytes() == "é".encode() and os.listdir(tmp_path) == [target.name]
    assert write_whole(target, b"2").stat().st_mode & 0o111 == 0


@pytest.mark.parametrize("make", ["link", "dangling", "folder", "long", "absent", "zero"])
def test_what_is_no_place_for_a_file_is_refused_in_one_line(make: str, tmp_path: Path) -> None:
    precious, target = tmp_path / "precious", tmp_path / "target"
    precious.write_text("kept")
    if make in ("link", "dangling"):
        target.symlink_to(precious if make == "link" else tmp_path / "nowhere")
    elif make == "folder":
        target.mkdir()
    target = {"long": tmp_path / ("x" * 300), "absent": tmp_path / "no" / "file", "zero": tmp_path / "a\0b"}.get(make, target)
    with pytest.raises(BadInput) as refused:
        write_whole(target, "other")
    assert "\n" not in str(refused.value) and precious.read_text() == "kept" and not (tmp_path / "nowhere").exists()
    assert not list(tmp_path.glob(".*"))


def planted(folder: Path, *names: str) -> Path:
    """Links of these names in the folder, to a file that must keep its text."""
    folder.mkdir(parents=True, exist_ok=True)
    precious = folder.parent / "precious"
    precious.write_text("kept")
    for name in names:
        (folder / name).symlink_to(precious)
    return precious


def test_every_page_and_picture_refuses_a_link(tmp_path: Path) -> None:
    part = next(p for p in catalogue.parts() if card_of(p).curve)
    precious = planted(tmp_path / "out", "index.html", "gallery.html", "card.svg", "card.png")
    for write in (
        lambda: pages.write(tmp_path / "out", [part]),
        lambda: gallery.write(tmp_path / "out" / "gallery.html", [part]),
        lambda: card_of(part).save(tmp_path / "out" / "card.svg"),
        lambda: card_of(part).save(tmp_path / "out" / "card.png"),
    ):
        with pytest.raises(BadInput, match="is a link"):
            write()
    assert precious.read_text() == "kept"


@pytest.mark.parametrize("name", ["report.html", "result.json"])
def test_an_experiment_whose_pages_have_no_place_is_refused_before_it_runs(name: str, tmp_path: Path) -> None:
    precious = planted(tmp_path / "out", name)
    part = catalogue.parts(catalogue.kind_at(BENCH))[0]
    with pytest.raises(BadInput, match="is a link"):
        run(part, size="tiny", seeds=2, out=tmp_path / "out")
    assert precious.read_text() == "kept" and os.listdir(tmp_path / "out") == [name]


def test_a_study_writes_through_no_link(tmp_path: Path) -> None:
    terms = {"task": "moons", "seeds": 1, "trials": 1, "steps": 2, "match": "none"}
    # Names that a draft once had are links; the report's own name comes later.
    precious = planted(tmp_path / "study", "report.part", "study.sqlite.draft", "copy.draft")
    compare(["default"], out=tmp_path / "study", **terms)
    with Store.read(tmp_path / "study") as store:
        store.export(tmp_path / "study" / "copy")
        (tmp_path / "study" / "other").symlink_to(tmp_path / "nowhere")
        with pytest.raises(BadInput, match="is a link"):
            store.export(tmp_path / "study" / "other")
    (tmp_path / "study" / "report.html").unlink()
    planted(tmp_path / "study", "report.html")
    with pytest.raises(BadInput, match="is a link"):
        compare(["default"], out=tmp_path / "study", **terms)
    for suffix in ("-wal", "-journal", "-shm", ".fresh"):
        planted(tmp_path / "study", f"study.sqlite{suffix}")
        for opening in (lambda: Store.create_or_open(tmp_path / "study", "s", "r"), lambda: salvage(tmp_path / "study")):
            with pytest.raises(BadInput, match="is a link"):
                opening()
        (tmp_path / "study" / f"study.sqlite{suffix}").unlink()
    assert precious.read_text() == "kept" and not (tmp_path / "nowhere").exists()
