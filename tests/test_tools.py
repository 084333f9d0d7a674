"""The commands in tools/ that read the package: the picture of its rooms, and the trip of a comparison."""

from __future__ import annotations

import ast
import importlib
import importlib.util
from pathlib import Path

import house
import pytest
import rooms
import trip

from netwright.core import catalogue

ROOT = Path(__file__).parents[1]


def test_imports_inside_functions_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    path = house.PACKAGE / "bench" / "imagined.py"
    source = "from netwright.core import kind\ndef f():\n    from netwright.show.html import page\n"
    monkeypatch.setitem(house.TREES, path, ast.parse(source))
    assert house.arrows(path) == {("core.kind", ""), ("show.html", "page")}
    assert house.arrows(path, inside=False) == {("core.kind", "")}


def test_every_room_is_read_with_what_it_imports() -> None:
    plan = rooms.read()
    assert plan.lines.keys() == {house.room_of(module) for module in house.MODULES}
    seen = {(house.room_of(m), house.room_of(other)) for m, path in house.MODULES.items() for other, _ in house.arrows(path)}
    assert plan.imports.keys() == {(a, b) for a, b in seen if a != b}
    assert not rooms.upward(plan.imports.keys())
    assert ("cli", "show") in plan.imports.keys() - plan.outside, "the command line imports nothing before it is asked to"


def test_the_reduction_keeps_what_no_chain_implies() -> None:
    chain = {("show", "bench"), ("bench", "engine"), ("engine", "core")}
    more = {("show", "engine"), ("show", "core"), ("bench", "core")}
    assert rooms.reduced(chain | more) == chain
    assert rooms.reduced(chain | {("show", "tensor")}) == chain | {("show", "tensor")}


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_the_picture_is_the_same_twice_and_shows_what_is_wrong(ending: str, tmp_path: Path) -> None:
    def drawn(name: str, **more: int) -> bytes:
        lines = {"core": 1200, "tensor": 30, "bench": 7}
        imports = {("tensor", "core"): 4, ("bench", "tensor"): 1} | {("core", room): count for room, count in more.items()}
        path = tmp_path / f"{name}.{ending}"
        rooms.save(rooms.draw(rooms.Rooms(lines, {"bench": 2}, imports, {("tensor", "core")})), path)
        return path.read_bytes()

    good, again, wrong = drawn("good"), drawn("again"), drawn("wrong", bench=1)
    assert good == again != wrong
    if ending == "svg":
        assert all(text in good for text in (b"tensor", b"1,200 lines", b"7 lines, 2 waiting"))
        assert rooms.RED.encode() in wrong and rooms.RED.encode() not in good


def test_a_trip_tells_files_by_the_functions_that_are_called() -> None:
    ids = [part.id for part in catalogue.parts()[:3]]
    recorded = trip.Trip()
    with recorded.recorded():
        for name in ids:
            catalogue.parse(name)
    catalogue.parse(ids[0])  # after the trip
    names = ("netwright.core.catalogue.parse", "netwright.core.part.Part.resolve", "netwright.core.part.Part.no_such")
    assert recorded.counted((*names, "netwright.no_such.function")) == {
        "netwright.core.catalogue.parse": 3,
        "netwright.core.part.Part.resolve": 0,
        "netwright.core.part.Part.no_such": "gone",
        "netwright.no_such.function": "gone",
    }
    assert next(iter(recorded.entered().items())) == (house.PACKAGE / "core" / "catalogue.py", "parse")


def test_running_the_top_of_a_file_enters_nothing() -> None:
    path = house.PACKAGE / "imagined.py"
    source = "class A:\n    x = [i for i in range(2)]\n    def f(self): ...\ndef g(): A().f()\n"
    names: dict = {}
    recorded = trip.Trip()
    with recorded.recorded():
        exec(compile(source, str(path), "exec"), names)
    assert path not in recorded.entered()
    with recorded.recorded():
        names["g"]()
    assert recorded.entered()[path] == "g"


#: Scripts that no test runs: what they import of the package has to be there all the same.
SCRIPTS = [path for folder in ("benchmarks", "evidence/commands", "tools") for path in sorted((ROOT / folder).glob("*.py"))]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_what_a_script_imports_of_the_package_is_there(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("netwright"):
            module = importlib.import_module(node.module)
            for name in (alias.name for alias in node.names):
                assert hasattr(module, name) or importlib.util.find_spec(f"{node.module}.{name}"), f"{node.module} has no {name}"
