"""The suite's own cost: `make test` stays short, and the sample covers every shape of every kind."""

from __future__ import annotations

import ast
from pathlib import Path

import plan
import sample

from netwright.core import catalogue

HERE = Path(__file__).parent


def test_the_suite_is_short_now_and_at_900_parts() -> None:
    """Where this fails: make test-plan shows what costs most, make test-plan ARGS=--measure measures anew."""
    now, later = plan.totals()
    assert max(now, later) <= plan.MOST, f"{now / 60:.1f} min of CPU now, {later / 60:.1f} later"


def test_every_test_file_has_its_cost() -> None:
    files = {path.relative_to(HERE).as_posix() for path in HERE.rglob("test_*.py")}
    missing = files - plan.costs().keys()
    assert not missing, f"no cost on record for {sorted(missing)}: make test-plan ARGS=--measure"


def whole(node: ast.AST) -> bool:
    """Whether an expression is all parts of the catalogue or of a kind: not one of them, and not the sample's."""
    return isinstance(node, ast.Call) and ast.unparse(node.func) == "catalogue.parts"


def going_through(tree: ast.Module) -> set[str]:
    """Tests of a file that go through the catalogue part by part, or through a list made of it, and are not marked so."""
    lists = {
        t.id
        for n in tree.body
        if isinstance(n, ast.Assign | ast.AnnAssign) and n.value is not None and whole(n.value)
        for t in ast.walk(n)
        if isinstance(t, ast.Name) and isinstance(t.ctx, ast.Store)
    }
    found = set()
    for test in (n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name.startswith("test_")):
        first = {
            id(inner)
            for n in ast.walk(test)
            if isinstance(n, ast.Call) and ast.unparse(n.func) == "next"
            for inner in ast.walk(n)
        }
        loops = [n.iter for n in ast.walk(test) if isinstance(n, ast.For | ast.comprehension) and id(n) not in first]
        loops += [n.args[1] for n in test.decorator_list if isinstance(n, ast.Call) and len(n.args) > 1]
        every = any(whole(n) or isinstance(n, ast.Name) and n.id in lists for n in loops)
        if every and not any("every_part" in ast.unparse(d) for d in test.decorator_list):
            found.add(test.name)
    return found


def test_what_grows_with_the_catalogue_is_marked() -> None:
    wrong = {
        path.name: names for path in sorted(HERE.rglob("test_*.py")) if (names := going_through(ast.parse(path.read_text())))
    }
    assert not wrong, f"mark them every_part, or take sampled(...): {wrong}"
    shown = "PARTS = catalogue.parts()\ndef test_a():\n    for p in PARTS: pass\ndef test_b():\n    next(p for p in PARTS)\n"
    assert going_through(ast.parse(shown)) == {"test_a"}


def test_the_sample_has_every_shape_and_changes_with_the_source() -> None:
    parts = catalogue.parts()
    draws = [sample.draw(parts, str(i)) for i in range(5)]
    for drawn in draws:
        assert {sample.shape(p) for p in drawn} == {sample.shape(p) for p in parts}
        assert len(drawn) == max(sample.MOST, len({sample.shape(p) for p in parts}))
    assert len({frozenset(p.id for p in drawn) for drawn in draws}) == 5
    few = sample.draw(parts, "0", most=1)
    assert len(few) == len({sample.shape(p) for p in parts})
