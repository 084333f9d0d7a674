"""The laws of the house (docs/adding-a-part.md), held on the source itself."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from house import FLOOR_OF, MODULES, PACKAGE, ROOT, SOURCES, TREES, WAITING, arrows, is_part_file, room_of

import netwright
from netwright.core import catalogue
from netwright.core.fingerprint import Sources
from netwright.core.kind import HOST
from netwright.core.part import Part
from netwright.rules._kind import FAMILIES

PART_FILES = [path for path in SOURCES if is_part_file(path)]
OTHERS = [path for path in SOURCES if path not in PART_FILES]


# Law 1 ----------------------------------------------------------------------------------------------------------------


def new_activation(name: str) -> str:
    return f'''"""{name}: x itself, bent at zero."""

import math
import torch
from torch import Tensor
from netwright.activations import Tags, activation
from netwright.core.part import Claim, Paper


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


def declared_in(path: Path) -> Part:
    """The part of a file that declares one."""
    return next(p for p in catalogue.parts() if Path(sys.modules[p.module].__file__ or "") == path)


def copied(path: Path, name: str, new: str) -> str:
    """The source of an existing part under a new name: the smallest valid file of its kind."""
    part = declared_in(path)
    source = path.read_text(encoding="utf-8")
    old = part.subject.__name__
    renamed = re.sub(rf"(?<![\w\"]){old}(?![\w\"])", new, source).replace(f'"{part.id}"', f'"{part.kind}/{name}"')
    return renamed.replace(f'name="{part.name}"', f'name="{name}"')


#: A wing of a kind that nothing else has heard of: its files below netwright/.
WING = {
    "widgets/__init__.py": """from netwright.core.catalogue import module_getattr

__getattr__ = module_getattr("widget", __name__)
""",
    "widgets/_kind.py": '''"""The kind `widget`: what stands where a norm stood, and keeps the signs of its input."""

from dataclasses import dataclass

from torch import nn

from netwright.core.kind import NET, Kind
from netwright.core.part import Part

KIND_VERSION = 1


@dataclass(frozen=True)
class WidgetPart(Part):
    @property
    def kind(self):
        return "widget"

    def slots(self):
        return ("norm",)

    def build(self, channels=1, channel_dim=-1, **options):
        return self.subject(**self.resolve(options))

    def factory(self, options):
        return lambda channels, channel_dim: self.build(channels, channel_dim, **options)

    def operations(self, built, x, y):
        return float(y.numel())


KIND = Kind("widget", "widgets", "what keeps the signs of its input", NET)
''',
    "widgets/_contract.py": '''"""What a widget has to hold."""

import torch

from netwright.core.contract import Check, expect


def signs(part):
    """Every sign stays."""
    x = torch.linspace(-2, 2, 9)
    expect(torch.equal(part.build()(x).sign(), x.sign()), "a sign is lost")


CHECKS = (Check("signs", signs),)
''',
    "widgets/plain/stretch.py": '''"""Its input times a constant."""

from torch import nn

from netwright.core.part import Option, Paper
from netwright.widgets._kind import WidgetPart


class Stretch(nn.Module):
    def __init__(self, by):
        super().__init__()
        self.by = by

    def forward(self, x):
        return self.by * x


PART = WidgetPart(
    Stretch, paper=Paper(title="A test of the house", authors="Nobody", year=2026), summary="Its input times a constant.",
    formula=r"c\\,x",
    options=(Option("by", 1.5, "the constant", bounds=(0.0, 10.0)),),
)
''',
}

#: What is done with new parts; arguments: a folder to write to, the new activation, the widget, the other newcomers.
USED = """
import sys
from pathlib import Path

from markupsafe import escape

import netwright
from netwright.bench.carry import Means
from netwright.contract import run
from netwright.core import catalogue
from netwright.show import gallery, pages, stubs

out, names = Path(sys.argv[1]), sys.argv[2:]
assert not catalogue.broken(), catalogue.broken()
parts = [netwright.get(name) for name in names]
for part in parts:
    assert part in netwright.list(part.kind), part.id
    made = netwright.card(part.id)
    assert part.summary in str(made) and made.to_json()["summary"] == part.summary, part.id
    asked = () if part.id in names[:2] else ("declaration", "formula", "claims")
    bad = [str(result) for result in run(part, only=asked) if not result.ok]
    assert not bad, bad

pages.write(out / "site", parts)
for part in parts:
    for page in ("index.html", part.id + ".html"):
        assert escape(part.summary) in (out / "site" / page).read_text(encoding="utf-8"), part.id
assert parts[0].summary in gallery.page(gallery.shown(parts))

kind = catalogue.kinds()[parts[1].kind]
import netwright.activations, netwright.widgets
assert f"class {netwright.widgets.Stretch.__name__}(" in stubs.stub(kind.name)
assert f"class {netwright.activations.Newcomer.__name__}(" in stubs.stub(parts[0].kind)
assert netwright.activations.Newcomer()(__import__("torch").ones(2)).tolist() == [1, 1]

arms = ["default", parts[0].name, f"{parts[1].id}:by=2"]
means = Means(executor="serial")
result = netwright.compare(arms, "moons", seeds=2, trials=1, steps=10, out=out / "study", means=means)
assert [arm.n for arm in result.arms] == [2, 2, 2] and (out / "study" / "report.html").is_file()
"""


@pytest.mark.every_part
def test_adding_a_part_is_adding_one_file_and_a_kind_one_folder(tmp_path: Path) -> None:
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
    written, names = {}, ["activation/newcomer", "widget/stretch"]
    for kind, path in smallest.items():
        target = f"{kind.folder}/{path.parent.name}/newcomer_{kind.name}.py"
        if kind.name == "activation":
            written[target] = new_activation("newcomer")
        else:
            new = f"newcomer_{kind.name}"
            new = "".join(map(str.title, new.split("_"))) if isinstance(declared_in(path).subject, type) else new
            name = re.sub("(?<!^)(?=[A-Z])", "-", new).lower().replace("_", "-")
            written[target] = copied(path, name, new)
            names.append(f"{kind.name}/{name}")
    written |= WING
    for place, text in written.items():
        path = house / "netwright" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    words = [sys.executable, "-c", USED, str(tmp_path / "out"), *names]
    environment = {"PYTHONPATH": str(house), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, cwd=house, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    status = [*git, "status", "--porcelain", "-uall"]
    changed = subprocess.run(status, capture_output=True, text=True, check=True).stdout.splitlines()
    assert sorted(changed) == sorted(f"?? netwright/{place}" for place in written)


# Law 2 ----------------------------------------------------------------------------------------------------------------


def test_arrows_run_downward() -> None:
    wrong = []
    for module, path in MODULES.items():
        if module == "":
            continue  # the public face, which names the verbs
        mine = FLOOR_OF[room_of(module)]
        for other, _ in arrows(path):
            theirs = FLOOR_OF[room_of(other)]
            if theirs > mine or theirs == mine and room_of(other) != room_of(module) and "waiting" not in module + other:
                wrong.append(f"{module} -> {other or 'netwright'}")
    assert not wrong, wrong


def test_no_files_import_each_other_in_a_circle() -> None:
    after = {module: {other for other, _ in arrows(path)} - {module} for module, path in MODULES.items() if module}
    state: dict[str, int] = {}

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert state.get(module) != 1, " -> ".join((*trail[trail.index(module) :], module))
        if state.get(module) != 2:
            state[module] = 1
            for other in sorted(after.get(module, ())):
                visit(other, (*trail, module))
            state[module] = 2

    for module in sorted(after):
        visit(module, ())


def defined(path: Path) -> set[str]:
    """Names that a file binds at its top other than by import."""
    found = set()
    for node in TREES[path].body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)}
    return found


def test_a_name_is_imported_from_where_it_is_defined() -> None:
    wrong = []
    for module, path in MODULES.items():
        for other, name in arrows(path):
            if name and name not in defined(MODULES[other]):
                wrong.append(f"{module or 'netwright'} takes {name} from {other or 'netwright'}, which doesn't define it")
    assert not wrong, wrong


def test_nothing_but_the_verbs_stands_at_the_root() -> None:
    assert {p.name for p in PACKAGE.glob("*.py")} <= {"__init__.py", "__main__.py", "cli.py", "compare.py"}
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert rooms <= set(FLOOR_OF) | {"waiting"}, rooms - set(FLOOR_OF)


def test_what_waits_for_its_kind_is_listed() -> None:
    assert {p.stem for p in (PACKAGE / "waiting").glob("*.py")} - {"__init__"} == set(WAITING)


def test_a_wing_has_its_interface_and_its_contract() -> None:
    for kind in catalogue.kinds().values():
        assert {"__init__.py", "_kind.py", "_contract.py"} <= {p.name for p in (PACKAGE / kind.folder).glob("*.py")}, kind
        assert isinstance(Sources(ROOT).constant(f"netwright.{kind.folder}._kind", "KIND_VERSION"), int), kind


@pytest.mark.parametrize("path", PART_FILES, ids=lambda p: p.stem)
@pytest.mark.every_part
def test_a_part_reaches_other_wings_through_the_catalogue(path: Path) -> None:
    wing = path.relative_to(PACKAGE).parts[0]
    others = {room_of(other) for other, _ in arrows(path)} & {kind.folder for kind in catalogue.kinds().values()} - {wing}
    assert not others, f"imports from {sorted(others)}; ask netwright.core.catalogue for the part, and name it in uses="


BARE = """
import importlib.abc, sys

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {extras!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Refuse())
import torch, netwright
from netwright.core import catalogue
parts = netwright.list()
assert not catalogue.broken(), catalogue.broken()
asked = [name for name in sys.modules if name.startswith("netwright.") and name.rpartition(".")[2] in ("_page", "_sites")]
asked += [name for name in sys.modules if name.startswith("netwright.") and name.rpartition(".")[2].startswith("_contract")]
assert not asked, asked
for part in parts:
    assert part.summary in str(netwright.card(part.id)), part.id
    if part.kind == "activation":
        part.build(channels=4)
    elif hasattr(part, "size_names"):
        part.build(**part.toy)
    elif part.kind == "net":
        for case in part.cases():
            fill = dict(activation=lambda c, d: torch.nn.ReLU(), norm=lambda c, d: torch.nn.Identity())
            part.build(case.problem, case.widths, fill, **case.options)
print(len(parts))
"""


@pytest.mark.every_part
def test_every_part_is_listed_made_and_carded_without_extras() -> None:
    names = (
        "scipy sklearn rich typer jinja2 matplotlib filelock pandas statsmodels pyarrow datasets PIL ray timm transformers onnx"
    )
    extras = {*names.split(), "onnxruntime", "hypothesis", "sympy"}
    words = [sys.executable, "-c", BARE.format(extras=extras)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.split()[-1]) == len([p for p in catalogue.parts() if p.origin == "netwright"])


def needed(path: Path) -> set[str]:
    """Ids of the parts of a file, and of those that are built from them."""
    module = sys.modules[".".join(path.relative_to(ROOT).with_suffix("").parts)]
    lost = {part.id for part in catalogue.declared(module)}
    while more := {part.id for part in catalogue.parts() if lost & set(part.uses)} - lost:
        lost |= more
    return lost


@pytest.mark.every_part
@pytest.mark.parametrize("used", [False, True])
def test_a_part_file_that_fails_takes_only_what_is_built_from_it(used: bool, tmp_path: Path) -> None:
    house = tmp_path / "house"
    shutil.copytree(PACKAGE, house / "netwright", ignore=shutil.ignore_patterns("__pycache__"))
    path = next(path for path in PART_FILES if (len(needed(path)) > 3) == used)
    (house / "netwright" / path.relative_to(PACKAGE)).write_text("import no_such_module\n", encoding="utf-8")
    words = [sys.executable, "-c", "import netwright; print(*(p.id for p in netwright.list()))"]
    environment = {"PYTHONPATH": str(house), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(words, cwd=house, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lost = needed(path)
    assert set(done.stdout.split()) == {p.id for p in catalogue.parts() if p.origin == "netwright"} - lost
    said = [line for line in done.stderr.splitlines() if line]
    assert str(path.relative_to(ROOT)) in said[0] and "no_such_module" in said[0]
    own = {part.id for part in catalogue.declared(sys.modules[".".join(path.relative_to(ROOT).with_suffix("").parts)])}
    assert len(said) == 1 + len(lost - own) and all(any(name in line for line in said[1:]) for name in lost - own)


# Law 3 ----------------------------------------------------------------------------------------------------------------

MACHINERY = [
    p
    for p in SOURCES
    if p.relative_to(PACKAGE).parts[0] in ("core", "tensor", "engine", "bench", "contract") and "own" not in p.parts
]  # a task's defaults are parts


def names_of_parts() -> set[str]:
    """Ids of all parts, and short names of those that fill a place of a net or train it; a family of rules may be called as one
    of its rules."""
    filling = [part for part in catalogue.parts() if set(part.slots()) - {HOST}]
    return {part.id for part in catalogue.parts()} | {part.name for part in filling} - set(FAMILIES)


def strings(tree: ast.AST) -> set[str]:
    """String constants that are values: docstrings don't count."""
    docs = {
        id(n.body[0].value)
        for n in ast.walk(tree)
        if isinstance(n, (ast.Module, ast.FunctionDef, ast.ClassDef))
        and n.body
        and isinstance(n.body[0], ast.Expr)
        and isinstance(n.body[0].value, ast.Constant)
    }
    return {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str) and id(n) not in docs}


@pytest.mark.parametrize("path", MACHINERY, ids=lambda p: p.stem)
def test_the_machinery_names_no_part(path: Path) -> None:
    named = strings(TREES[path]) & names_of_parts()
    assert not named, sorted(named)


FOLDERS = {kind.folder for kind in catalogue.kinds().values()}
OUTSIDE = [p for p in SOURCES if p.relative_to(PACKAGE).parts[0] not in FOLDERS | {"waiting"}]
KINDS = {name for kind in catalogue.kinds().values() for name in (kind.name, kind.folder, *kind.once)}
SLOTS = {slot for part in catalogue.parts() for slot in (*part.slots(), *getattr(part, "places", ()))}
PARTS = {name for part in catalogue.parts() for name in (part.id, part.name)}


def records(cls: type = Part) -> set[str]:
    """Names of the records that declare parts."""
    return {name for child in cls.__subclasses__() for name in (child.__name__, *records(child))}


def literals(*nodes: ast.AST) -> set[str]:
    return {n.value for node in nodes for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)}


def knowing(tree: ast.AST) -> list[str]:
    """Where a file knows a kind: it imports from a wing, asks the catalogue for a kind or a part by a literal, compares a kind,
    a name or a slot with one, takes a slot by one, or asks whether something is the record of one kind."""
    found = []
    for n in ast.walk(tree):
        seen: set[str] = set()
        if isinstance(n, (ast.Import, ast.ImportFrom)):
            modules = [a.name for a in n.names] if isinstance(n, ast.Import) else [n.module or ""]
            seen = {m for m in modules if m.split(".")[0] == "netwright" and m.split(".")[1:2] and m.split(".")[1] in FOLDERS}
        elif isinstance(n, ast.Call):
            called = getattr(n.func, "attr", getattr(n.func, "id", ""))
            of_catalogue = isinstance(n.func, ast.Name) or getattr(getattr(n.func, "value", None), "id", "") == "catalogue"
            if called in ("get", "parts", "make", "parse") and of_catalogue:
                seen = literals(*n.args, *(k.value for k in n.keywords)) & (KINDS | PARTS)
            elif called in ("get", "pop", "setdefault") and n.args and isinstance(n.args[0], ast.Constant):
                seen = literals(n.args[0]) & SLOTS
            elif called == "isinstance" and len(n.args) == 2:
                seen = {getattr(x, "id", getattr(x, "attr", "")) for x in ast.walk(n.args[1])} & records()
        elif isinstance(n, ast.Compare):
            sides = [n.left, *n.comparators]
            named = any(isinstance(side, ast.Attribute) and side.attr in ("kind", "name", "id") for side in sides)
            plain = [s for s in sides if isinstance(s, (ast.Constant, ast.Tuple, ast.List, ast.Set))]
            seen = literals(*sides) & (KINDS | PARTS) if named else literals(*plain) & SLOTS
        elif isinstance(n, ast.Subscript) and isinstance(n.slice, ast.Constant):
            seen = literals(n.slice) & SLOTS
        found += [f"line {n.lineno}: {name}" for name in sorted(seen)]  # type: ignore[attr-defined]
    return found


@pytest.mark.parametrize("path", OUTSIDE, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_nobody_outside_a_wing_knows_a_kind(path: Path) -> None:
    assert not knowing(TREES[path]), f"{knowing(TREES[path])}: ask the kind (netwright.core.kind)"


@pytest.mark.parametrize("index", range(9))
def test_whoever_knows_a_kind_is_seen(index: int) -> None:
    kind = next(iter(catalogue.kinds().values()))
    part = catalogue.parts(kind.name)[0]
    slot, record = part.slots()[0], type(part).__name__
    sources = (
        f"from netwright.{kind.folder}._kind import {record}",
        f"import netwright.{kind.folder}",
        f"catalogue.parts({kind.name!r})",
        f"catalogue.get(name, kind={kind.name!r})",
        f"catalogue.parse({part.id!r})",
        f"part.kind in ({kind.name!r}, 'other')",
        f"parts[{slot!r}]",
        f"{slot!r} in parts or parts.pop({slot!r})",
        f"isinstance(part, (int, {record}))",
    )
    assert knowing(ast.parse(sources[index])), sources[index]
    assert not knowing(ast.parse("catalogue.parts(kind.name); part.kind == kind.name; parts[RULE]; isinstance(part, Part)"))


# Law 4 ----------------------------------------------------------------------------------------------------------------

TESTS = [
    p for p in sorted((ROOT / "tests").rglob("*.py")) if not {"scenarios", "golden", "fixtures"} & set(p.relative_to(ROOT).parts)
]


def laid_out_by_hand(source: str) -> list[ast.stmt]:
    """Statements that the formatter is told to leave alone."""
    lines = source.split("\n")
    marked = [n for n, line in enumerate(lines, 1) if re.search(r"#\s*fmt:\s*(skip|off)", line.replace('"', ""))]
    every = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.stmt)]
    return [
        min((s for s in every if s.lineno <= n <= (s.end_lineno or n)), key=lambda s: (s.end_lineno or 0) - s.lineno)
        for n in marked
    ]


def is_table_of_numbers(statement: ast.stmt) -> bool:
    nodes = list(ast.walk(statement))
    numbers = [n for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, (int, float))]
    others = [n for n in nodes if isinstance(n, (ast.Name, ast.Call)) or isinstance(n, ast.Constant) and isinstance(n.value, str)]
    return len(numbers) >= 10 and len(numbers) >= 2 * len(others)


def test_only_tables_of_numbers_are_laid_out_by_hand() -> None:
    found = {}
    for path in (
        p for folder in ("netwright", "tests", "tools", "benchmarks", "evidence") for p in (ROOT / folder).rglob("*.py")
    ):
        source = path.read_text(encoding="utf-8")
        if "fmt:" in source and path != Path(__file__):
            found[str(path.relative_to(ROOT))] = laid_out_by_hand(source)
    assert sum(map(len, found.values())) <= 20, found
    wrong = [f"{path} line {s.lineno}" for path, each in found.items() for s in each if not is_table_of_numbers(s)]
    assert not wrong, f"{wrong}: let the formatter do it"


def test_what_is_laid_out_by_hand_is_seen() -> None:
    table = f"T = ({', '.join(map(str, range(20)))})  # fmt: skip"
    call = "f(name,\n  other, 1)  # fmt: skip"
    assert [is_table_of_numbers(s) for s in laid_out_by_hand(f"{table}\n{call}\n")] == [True, False]


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_file_is_named_by_its_idea(path: Path) -> None:
    words = set(re.split(r"[_\d]+", path.stem))
    assert not words & {"shared", "more", "uses", "misc", "utils", "helpers", "common", "survey", "rest"}, path


@pytest.mark.parametrize("path", TESTS, ids=lambda p: p.stem)
def test_no_test_names_a_part(path: Path) -> None:
    named = strings(ast.parse(path.read_text(encoding="utf-8"))) & names_of_parts()
    assert not named, f"names {sorted(named)}; choose parts by property, or move the test to tests/scenarios"


# Law 5 ----------------------------------------------------------------------------------------------------------------


@pytest.mark.every_part
def test_status_is_computed_never_typed() -> None:
    assert "status" not in {f.name for f in dataclasses.fields(Part)}
    for path in PART_FILES:
        assert "status" not in {k.arg for n in ast.walk(TREES[path]) if isinstance(n, ast.Call) for k in n.keywords}, path


# Law 8 ----------------------------------------------------------------------------------------------------------------


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
    return [
        n
        for body in bodies
        for n in body
        if isinstance(n, ast.FunctionDef)
        and not n.name.startswith("_")
        or isinstance(n, ast.FunctionDef)
        and n.name == "__init__"
    ]


def test_no_public_function_swallows_keywords() -> None:
    """`**options` hands a part's own options on to what checks each by name; nothing else is open-ended."""
    bad = [
        f"{p.relative_to(ROOT)}:{n.lineno} {n.name}"
        for p in SOURCES
        for n in public_functions(TREES[p])
        if n.args.kwarg and n.args.kwarg.arg != "options"
    ]
    assert not bad, bad


@pytest.mark.parametrize("part", catalogue.parts("activation"), ids=lambda p: p.name)
@pytest.mark.every_part
def test_building_on_meta_touches_no_global_generator(part: Part) -> None:
    before = torch.get_rng_state()
    with torch.device("meta"):
        module = part.build(channels=4)
    assert torch.equal(before, torch.get_rng_state())
    assert all(p.is_meta for p in module.parameters())
    assert all(p.requires_grad or not module.options.get("learnable", True) for p in module.parameters())


def assigned_from_outside(tree: ast.AST) -> list[str]:
    """Attributes of what a function was given, of a subject and of anything further in that a function sets; its own don't count:
    those of a method's first argument, and of the class that asks a descriptor."""
    found: list[str] = []
    methods = {f for c in ast.walk(tree) if isinstance(c, ast.ClassDef) for f in c.body}
    for function in [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]:
        names = [a.arg for a in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)]
        own = {"__get__": names[2:3]}.get(function.name, names[:1]) if function in methods else []
        for n in ast.walk(function):
            held = n.value if isinstance(n, ast.Attribute) and isinstance(n.ctx, (ast.Store, ast.Del)) else None
            if isinstance(n, ast.Call) and ast.unparse(n.func).split(".")[-1] in ("setattr", "__setattr__", "delattr"):
                held = n.args[0]
            if isinstance(held, ast.Name) and held.id in set(names) - set(own) or isinstance(held, ast.Attribute):
                found.append(f"{n.lineno}: {ast.unparse(n)}")
    return found


DECLARING = [p for p in SOURCES if p.name == "_kind.py" or p.parent.name == "core" or p == PACKAGE / "tensor" / "modules.py"]


@pytest.mark.parametrize("path", DECLARING, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_declaration_sets_nothing_on_a_class_from_outside(path: Path) -> None:
    assert not assigned_from_outside(TREES[path])


@pytest.mark.parametrize(
    "line", ["part.cls.part = part", "part.x, y = 1, 2", "setattr(part.subject, 'part', part)", "del part.x"]
)
def test_what_is_set_from_outside_is_found(line: str) -> None:
    assert assigned_from_outside(ast.parse(f"def bind(part):\n    {line}"))
    assert assigned_from_outside(ast.parse(f"class A:\n    def bind(self, part):\n        {line}"))
    assert not assigned_from_outside(ast.parse("class A:\n    def bind(self, part):\n        self.part = part"))


@pytest.mark.every_part
def test_what_declares_a_part_is_the_class_of_its_record() -> None:
    for kind in catalogue.kinds().values():
        interface = importlib.import_module(f"netwright.{kind.folder}._kind")
        files = [TREES[path] for path in PART_FILES if path.relative_to(PACKAGE).parts[0] == kind.folder]
        calls = [n for tree in files for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]
        names = {n.func.id for n in calls if any(k.arg == "paper" for k in n.keywords)}  # type: ignore[attr-defined]
        declaring = {name: getattr(interface, name) for name in names if hasattr(interface, name)}
        assert declaring and all(isinstance(made, type) and issubclass(made, Part) for made in declaring.values()), declaring


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
