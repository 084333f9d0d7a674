"""The laws of the house (docs/adding-a-part.md), held on the source itself."""

from __future__ import annotations

import ast
import dataclasses
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import netwright
from netwright import catalogue
from netwright.kinds.rule import FAMILIES
from netwright.part import Part

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "netwright"
FOLDERS = {kind.folder for kind in catalogue.kinds().values()}
SOURCES = sorted(PACKAGE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}


def is_part_file(path: Path) -> bool:
    place = path.relative_to(PACKAGE).parts
    return len(place) == 3 and place[0] in FOLDERS and not path.name.startswith("_")


PART_FILES = [path for path in SOURCES if is_part_file(path)]
OTHERS = [path for path in SOURCES if path not in PART_FILES]


def imports(tree: ast.AST) -> set[str]:
    """Modules imported outside functions."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
                continue
            if isinstance(child, ast.Import):
                found.update(alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                found.add(child.module or "")
            visit(child)

    visit(tree)
    return found


# Law 1 ----------------------------------------------------------------------------------------------------------------


def new_activation(name: str) -> str:
    return f'''"""{name}: x itself, bent at zero."""

import math
import torch
from torch import Tensor
from netwright.kinds.activation import Tags, activation
from netwright.part import Claim, Paper


def {name}(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 0.125 * x)


def reference(x: float) -> float:
    return x if x > 0 else 0.125 * x


PART = activation(
    {name}, cls="{name.title()}", reference=reference, formula=r"\\max(x, x / 8)", limits=(-math.inf, math.inf),
    paper=Paper(title="A test of the house", authors="Nobody", year=2026),
    tags=Tags(monotone=True, kinks=(0.0,)), values={{1.0: 1.0, -8.0: -1.0}},
    claims=(Claim("leak", "lets an eighth through", check=lambda: reference(-8.0) == -1.0),),
)
'''


def copied(path: Path, name: str, new: str) -> str:
    """The source of an existing part under a new name: the smallest valid file of its kind."""
    part = next(p for p in catalogue.parts() if Path(sys.modules[p.module].__file__ or "") == path)
    source = path.read_text(encoding="utf-8")
    function = getattr(part, "make", None)
    old = function.__name__ if function is not None else part.cls.__name__  # type: ignore[attr-defined]
    renamed = re.sub(rf"\b{old}\b", new, source).replace(f'"{part.id}"', f'"{part.kind}/{name}"')
    return renamed.replace(f'name="{part.name}"', f'name="{name}"')


def test_adding_a_part_is_adding_one_file(tmp_path: Path) -> None:
    house = tmp_path / "house"
    house.mkdir()
    shutil.copytree(PACKAGE, house / "netwright", ignore=shutil.ignore_patterns("__pycache__"))
    git = ["git", "-C", str(house), "-c", "user.name=t", "-c", "user.email=t@t"]
    subprocess.run([*git, "init", "-q"], check=True)
    (house / ".gitignore").write_text("__pycache__/\n*.pyi\n")
    subprocess.run([*git, "add", "-A"], check=True)
    subprocess.run([*git, "commit", "-qm", "before"], check=True)
    kinds = catalogue.kinds().values()
    files = {kind: [p for p in PART_FILES if p.relative_to(PACKAGE).parts[0] == kind.folder] for kind in kinds}
    single = {
        p for p in PART_FILES if len(catalogue.declared(sys.modules[".".join(p.relative_to(ROOT).with_suffix("").parts)])) == 1
    }
    smallest = {kind: min(single & set(paths), key=lambda p: p.stat().st_size) for kind, paths in files.items()}
    added = []
    for kind, path in smallest.items():
        target = house / "netwright" / kind.folder / path.parent.name / f"newcomer_{kind.name}.py"
        if kind.name == "activation":
            target.write_text(new_activation("newcomer"))
            added.append("activation/newcomer")
        else:
            new = f"newcomer_{kind.name}" if kind.name == "task" else f"Newcomer{kind.name.title()}"
            name = re.sub("(?<!^)(?=[A-Z])", "-", new).lower().replace("_", "-")
            target.write_text(copied(path, name, new))
            added.append(f"{kind.name}/{name}")
    script = (
        "import sys, netwright\n"
        "from netwright.testing import run\n"
        "from netwright.card import card\n"
        f"for name in {added!r}:\n"
        "    part = netwright.get(name)\n"
        "    assert part in netwright.list(part.kind), name\n"
        "    assert part.summary in str(card(name))\n"
        "bad = [str(r) for r in run(netwright.get(sys.argv[1])) if not r.ok]\n"
        "assert not bad, bad\n"
        "from netwright import gallery, pages\n"
        "new = netwright.get(sys.argv[1])\n"
        "assert all(new.summary in text for text in (gallery.page([new]), pages.index([new])))\n"
        "import netwright.activations\n"
        "assert netwright.activations.Newcomer()(__import__('torch').ones(2)).tolist() == [1, 1]\n"
    )
    words = [sys.executable, "-c", script, added[0]]
    environment = {"PYTHONPATH": str(house), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(words, cwd=house, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    status = subprocess.run([*git, "status", "--porcelain", "-uall"], capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    changed = [line for line in status if line]
    assert len(changed) == len(added) and all(line.startswith("??") and "newcomer" in line for line in changed), changed


# Law 2 ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PART_FILES, ids=lambda p: p.stem)
def test_a_part_file_is_short_and_holds_one_idea(path: Path) -> None:
    assert path.read_text(encoding="utf-8").count("\n") <= 300
    module = sys.modules.get(".".join(path.relative_to(ROOT).with_suffix("").parts))
    assert module is not None, "the walk has not imported it"
    assert len(catalogue.declared(module)) <= 25


def test_files_and_folders_stay_small() -> None:
    long = [str(p.relative_to(ROOT)) for p in OTHERS if p.read_text(encoding="utf-8").count("\n") > 400]
    assert not long, f"over 400 lines: {long}"
    families = {p.parent for p in PART_FILES}
    crowded = [str(f) for f in families if len([p for p in PART_FILES if p.parent == f]) > 25]
    assert not crowded, crowded


# Law 3 ----------------------------------------------------------------------------------------------------------------

COMMON = {"__future__", "torch", "math", "typing", "dataclasses", "collections.abc", "functools", "itertools", "netwright.part"}


@pytest.mark.parametrize("path", PART_FILES, ids=lambda p: p.stem)
def test_a_part_file_imports_little(path: Path) -> None:
    place = path.relative_to(PACKAGE).parts
    kind = next(k for k in catalogue.kinds().values() if k.folder == place[0])
    allowed = COMMON | {f"netwright.kinds.{kind.name}", f"netwright.{place[0]}.{place[1]}._shared"}
    if kind.name == "task":
        allowed |= {"numpy"}
    extra = {m for m in imports(TREES[path]) if m not in allowed and not m.startswith("torch.")}
    assert not extra, f"imports {sorted(extra)} outside functions"


MACHINERY = [
    p for p in SOURCES if p.relative_to(PACKAGE).parts[0] in ("train.py", "stack.py", "study", "stats.py", "report", "nets.py")
]


def names_of_parts() -> set[str]:
    """Ids of all parts, and short names of all but tasks; a family of rules may be called as one of its rules."""
    return {part.id for part in catalogue.parts()} | {p.name for p in catalogue.parts() if p.kind != "task"} - set(FAMILIES)


def strings(tree: ast.AST) -> set[str]:
    """String constants that are values: docstrings don't count."""
    docs = {id(n.body[0].value) for n in ast.walk(tree) if isinstance(n, (ast.Module, ast.FunctionDef, ast.ClassDef)) and n.body
            and isinstance(n.body[0], ast.Expr) and isinstance(n.body[0].value, ast.Constant)}  # fmt: skip
    return {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str) and id(n) not in docs}


@pytest.mark.parametrize("path", MACHINERY, ids=lambda p: p.stem)
def test_the_machinery_names_no_part(path: Path) -> None:
    assert not strings(TREES[path]) & names_of_parts()


# Law 4 ----------------------------------------------------------------------------------------------------------------

TESTS = [
    p for p in sorted((ROOT / "tests").rglob("*.py")) if not {"scenarios", "golden", "fixtures"} & set(p.relative_to(ROOT).parts)
]


@pytest.mark.parametrize("path", TESTS, ids=lambda p: p.stem)
def test_no_test_names_a_part(path: Path) -> None:
    named = strings(ast.parse(path.read_text(encoding="utf-8"))) & names_of_parts()
    assert not named, f"names {sorted(named)}; choose parts by property, or move the test to tests/scenarios"


# Law 5 ----------------------------------------------------------------------------------------------------------------


def test_status_is_computed_never_typed() -> None:
    assert "status" not in {f.name for f in dataclasses.fields(Part)}
    for path in PART_FILES:
        assert "status" not in {k.arg for n in ast.walk(TREES[path]) if isinstance(n, ast.Call) for k in n.keywords}, path


# Law 7 ----------------------------------------------------------------------------------------------------------------


def classes() -> list[tuple[Path, ast.ClassDef]]:
    return [(p, n) for p in SOURCES for n in ast.walk(TREES[p]) if isinstance(n, ast.ClassDef)]


def test_classes_are_abstract_or_final() -> None:
    """A class of netwright that another one derives from is never built itself: it isn't marked final, and has no children
    that are derived from in turn unless it is abstract too."""
    finals = {n.name for _, n in classes() if any(getattr(d, "id", "") == "final" for d in n.decorator_list)}
    derived = {getattr(b, "id", "") for _, n in classes() for b in n.bases}
    assert not finals & derived, f"final and yet derived from: {finals & derived}"


def public_functions(tree: ast.Module) -> list[ast.FunctionDef]:
    """Functions and methods that can be reached by name, without those inside functions."""
    bodies = [tree.body, *(n.body for n in ast.walk(tree) if isinstance(n, ast.ClassDef))]
    return [n for body in bodies for n in body if isinstance(n, ast.FunctionDef) and not n.name.startswith("_") or
            isinstance(n, ast.FunctionDef) and n.name == "__init__"]  # fmt: skip


def test_no_public_function_swallows_keywords() -> None:
    """`**options` hands a part's own options on to what checks each by name; nothing else is open-ended."""
    bad = [
        f"{p.relative_to(ROOT)}:{n.lineno} {n.name}" for p in SOURCES for n in public_functions(TREES[p])
        if n.args.kwarg and n.args.kwarg.arg != "options"
    ]  # fmt: skip
    assert not bad, bad


@pytest.mark.parametrize("part", catalogue.parts("activation"), ids=lambda p: p.name)
def test_building_on_meta_touches_no_global_generator(part: Part) -> None:
    before = torch.get_rng_state()
    with torch.device("meta"):
        module = part.build(channels=4)
    assert torch.equal(before, torch.get_rng_state())
    assert all(p.is_meta for p in module.parameters())
    assert all(p.requires_grad or not module.options.get("learnable", True) for p in module.parameters())


# What the package never does ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_the_package_loads_no_code_from_data(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"\b(pickle\.load|torch\.load\(|dill\.|joblib\.load|yaml\.load\()", text)
    calls = {getattr(n.func, "id", "") for n in ast.walk(TREES[path]) if isinstance(n, ast.Call)}
    assert not calls & {"eval", "exec"}


def test_importing_netwright_imports_no_torch() -> None:
    script = "import sys, netwright, netwright.cli; sys.exit('torch' in sys.modules or 'scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 0


def test_every_verb_is_there() -> None:
    for name in netwright.__all__:
        assert getattr(netwright, name) is not None
    with pytest.raises(AttributeError, match="verbs"):
        netwright.no_such_verb  # noqa: B018
