"""Fingerprints follow what a part reaches: every definition, wherever it stands, and nothing else."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest
import torch
from sample import sampled

from netwright.core import catalogue
from netwright.core import fingerprint as prints
from netwright.core.errors import BadInput
from netwright.core.fingerprint import Key, Sources, fingerprint, house, judged, reach, source_hash
from netwright.losses._contract import batch
from netwright.rules._toy import Toy
from netwright.tensor.stepping import reading

ROOT = Path(__file__).parents[1]
PARTS = catalogue.parts()
TOYS = set(house().reached(Key(Toy.__module__, Toy.__name__)))  # what the toy's net and problem bring is not the rule's
TOYS |= {key for net in catalogue.parts("net") for key in reach(net)}

# A house of a few lines ------------------------------------------------------------------------------------------------

HOUSE = {
    "wing/a.py": '''"""A file."""
from netwright.wing._shared import RATE as R, halved, taught
from netwright.wing import _shared
from netwright.wing.stars import *
try: from netwright.wing.first import chosen
except ImportError: from netwright.wing.second import chosen
import math as m
import netwright.wing.table as t
FACTOR, OTHER = 2.0, 3.0
TABLE = {}
TABLE["x"] = 5.0
if m.pi > 3: GATE = 7.0
else: GATE = 8.0
def helper(x: float, by=R) -> float:
    """What it does."""
    said = f"{x} is beyond 9"
    if x > 9:
        raise ValueError(said)
    if x < 0:
        raise ValueError(f"x={x} is below 0")
    return halved(x) * by * GATE
def even(n): return n == 0 or odd(n - 1)
def odd(n): return n != 0 and even(n - 1)
class Base:
    size = 4
    def scale(self): return self.size * FACTOR
@taught
class Part(Base):
    step: float = 0.25
    def __call__(self, x):
        inner = lambda v: v * _shared.OFFSET + TABLE["x"]
        from netwright.wing.late import LATE as late
        return [inner(helper(v)) + t.lookup(v) + late + STARRED + chosen(v) + self.scale() for v in x if even(int(v))]
def reference(x): return x * 11.0
def unrelated(x): return x * 13.0
PART = declare(Part, paper="p", reference=reference, options=(Option("k", 1.5, "a text", bounds=(0, 1)),), summary="s",
               tags=Tags(smooth=True, reasons={"check": "why"}))
''',
    "wing/_shared.py": """from netwright.wing.deep import taught
RATE = 0.5
OFFSET = 0.125
UNUSED = 17.0
def halved(x):
    return x / 2.0
""",
    "wing/deep.py": "def taught(cls):\n    cls.level = 6.0\n    return cls\n",
    "wing/late.py": "LATE = 0.75\n",
    "wing/stars.py": "STARRED = 21.0\nUNSEEN = 22.0\n",
    "wing/first.py": "def chosen(v):\n    return v * 23.0\n",
    "wing/second.py": "def chosen(v):\n    return v * 24.0\n",
    "wing/table.py": """from pathlib import Path
def lookup(v): return float(Path(__file__).with_name("numbers.txt").read_text())
""",
    "wing/numbers.txt": "1 2 3\n",
    "core/base.py": "GUARDED = 19.0\n",
}


def written(folder: Path, changes: Iterable[tuple[str, str, str]] = (), more: dict[str, str] | None = None) -> str:
    """The hash of PART in the house with texts replaced: (file, old, new)."""
    files = HOUSE | (more or {})
    for name, old, new in changes:
        assert old in files[name], old
        files[name] = files[name].replace(old, new)
    for name, text in files.items():
        path = folder / "netwright" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    sources = Sources(folder)
    file = sources.file("netwright.wing.a")
    assert file is not None
    node = prints._value(file, "PART")
    return sources.digest(sources.expression("netwright.wing.a", node, "PART computes", prints.DESCRIBED | prints.JUDGED))


MOVES = {
    "a constant": ("wing/a.py", "FACTOR, OTHER = 2.0", "FACTOR, OTHER = 2.5"),
    "a default": ("wing/a.py", "by=R", "by=2 * R"),
    "a body": ("wing/a.py", "halved(x) * by", "halved(x) + by"),
    "a condition": ("wing/a.py", "x < 0", "x <= 0"),
    "the type of an error": ("wing/a.py", "raise ValueError", "raise KeyError"),
    "a base class": ("wing/a.py", "size = 4", "size = 5"),
    "a field's default": ("wing/a.py", "step: float = 0.25", "step: float = 0.5"),
    "a table filled later": ("wing/a.py", 'TABLE["x"] = 5.0', 'TABLE["x"] = 5.5'),
    "a name bound under a condition": ("wing/a.py", "GATE = 8.0", "GATE = 9.0"),
    "one of two that call each other": ("wing/a.py", "n != 0 and", "n > 0 and"),
    "a constant by an alias": ("wing/_shared.py", "RATE = 0.5", "RATE = 0.25"),
    "a constant by its module": ("wing/_shared.py", "OFFSET = 0.125", "OFFSET = 0.25"),
    "a function in another file": ("wing/_shared.py", "x / 2.0", "x / 4.0"),
    "a decorator, re-exported": ("wing/deep.py", "6.0", "6.5"),
    "an import inside a function": ("wing/late.py", "0.75", "0.5"),
    "an import of all names": ("wing/stars.py", "21.0", "21.5"),
    "the first of two imports": ("wing/first.py", "23.0", "23.5"),
    "the second of two imports": ("wing/second.py", "24.0", "24.5"),
    "a condition of an error": ("wing/a.py", "x > 9", "x > 8"),
    "a file that is read": ("wing/numbers.txt", "1 2 3", "1 2 4"),
    "an option's default": ("wing/a.py", '"k", 1.5', '"k", 2.5'),
    "an option's bounds": ("wing/a.py", "bounds=(0, 1)", "bounds=(0, 2)"),
    "a tag": ("wing/a.py", "smooth=True", "smooth=False"),
    "another external function": ("wing/a.py", "m.pi", "m.e"),
}
STAYS = {
    "a docstring": ("wing/a.py", '"""What it does."""', '"""Something else."""'),
    "a comment": ("wing/a.py", "TABLE = {}", "TABLE = {}  # why"),
    "annotations": ("wing/a.py", "(x: float, by=R) -> float", "(x, by=R) -> int"),
    "a field's annotation": ("wing/a.py", "step: float", "step: int"),
    "the text of an error": ("wing/a.py", 'f"x={x} is below 0"', 'f"given {x}, expected at least 0"'),
    "the text of an error in a variable": ("wing/a.py", "is beyond 9", "is too large"),
    "what an import of all names brings unused": ("wing/stars.py", "22.0", "22.5"),
    "the text of an option": ("wing/a.py", '"a text"', '"another text"'),
    "the reason of a tag": ("wing/a.py", '"why"', '"because"'),
    "the reference": ("wing/a.py", "x * 11.0", "x * 12.0"),
    "the paper": ("wing/a.py", 'paper="p"', 'paper="q"'),
    "what nobody reaches": ("wing/a.py", "x * 13.0", "x * 14.0"),
    "an unused constant beside used ones": ("wing/_shared.py", "17.0", "18.0"),
    "an alias": ("wing/a.py", "import math as m", "import math as m, math as n"),
    "the guarded rooms": ("core/base.py", "19.0", "20.0"),
}


@pytest.mark.parametrize("change", MOVES.values(), ids=MOVES.keys())
def test_what_is_used_moves_it(change: tuple[str, str, str], tmp_path: Path) -> None:
    assert written(tmp_path / "a") != written(tmp_path / "b", [change])


@pytest.mark.parametrize("change", STAYS.values(), ids=STAYS.keys())
def test_what_is_not_used_leaves_it(change: tuple[str, str, str], tmp_path: Path) -> None:
    assert written(tmp_path / "a") == written(tmp_path / "b", [change])


def test_moving_splitting_and_renaming_leave_it(tmp_path: Path) -> None:
    before = written(tmp_path / "a")
    moved = [
        ("wing/_shared.py", "def halved(x):\n    return x / 2.0\n", "from netwright.core.halves import halved as halved\n"),
    ]
    elsewhere = {"wing/halves.py": "def halved(x):\n    return x / 2.0\n"}
    moved_aside = [(moved[0][0], moved[0][1], moved[0][2].replace("core", "wing"))]
    assert written(tmp_path / "b", moved_aside, elsewhere) == before, "a definition in a file of its own"
    renamed = [("wing/a.py", "RATE as R", "RATE as RR"), ("wing/a.py", "by=R)", "by=RR)")]
    assert written(tmp_path / "c", renamed) == before, "another alias"
    by_name = [("wing/a.py", "import math as m\n", "from math import pi as its_pi\n"), ("wing/a.py", "m.pi", "its_pi")]
    assert written(tmp_path / "d", by_name) == before, "from math import pi, instead of math.pi"
    called = [("wing/a.py", "def helper", "def aid"), ("wing/a.py", "inner(helper(v))", "inner(aid(v))")]
    assert written(tmp_path / "e", called) == before, "another name of a function"
    circle = [
        (
            "wing/a.py",
            "def even(n): return n == 0 or odd(n - 1)\ndef odd(n): return n != 0 and even(n - 1)",
            "from netwright.wing.circle import even",
        )
    ]
    apart = {
        "wing/circle.py": "from netwright.wing.oddly import odd\ndef even(n): return n == 0 or odd(n - 1)\n",
        "wing/oddly.py": "def odd(n):\n    from netwright.wing.circle import even\n    return n != 0 and even(n - 1)\n",
    }
    assert written(tmp_path / "f", circle, apart) == before, "a circle of definitions over two files"
    guarded = {"core/halves.py": elsewhere["wing/halves.py"]}
    once, again = (
        written(tmp_path / n, moved, {"core/halves.py": guarded["core/halves.py"].replace("2.0", by)})
        for n, by in (("g", "2.0"), ("h", "4.0"))
    )
    assert once == again != before, "a version stands for what is guarded"


def test_a_local_name_is_not_the_modules(tmp_path: Path) -> None:
    shadow = "def helper(x, by=R):\n    GATE = x\n    return GATE\n"
    old = HOUSE["wing/a.py"][HOUSE["wing/a.py"].index("def helper") : HOUSE["wing/a.py"].index("def even")]
    change = ("wing/a.py", old, shadow)
    gate = ("wing/a.py", "GATE = 8.0", "GATE = 9.0")
    assert written(tmp_path / "a", [change]) == written(tmp_path / "b", [change, gate])


# The house itself -----------------------------------------------------------------------------------------------------


@pytest.mark.every_part
def test_every_part_has_its_own() -> None:
    marks = {part.id: fingerprint(part) for part in PARTS}
    assert len(set(marks.values())) == len(PARTS)
    for part in PARTS:
        unknown = [(k, t) for k in reach(part) for t in house().text(k) if isinstance(t, str) and t.startswith("unknown ")]
        assert not [t for k, t in unknown if t.removeprefix("unknown ") not in ("__name__", "__file__", "__path__")], part.id


def edited(key: Key) -> Sources | None:
    """netwright with one number changed in one definition; None where it holds none."""
    file = house().file(key.module)
    assert file is not None
    tree = ast.parse(file.path.read_text(encoding="utf-8"))
    for statement in tree.body:
        found = prints._File(key.module, file.path)
        prints._bind(found, key.module, statement, statement)
        numbers = [n for n in ast.walk(statement) if isinstance(n, ast.Constant) and type(n.value) in (int, float)]
        inside = [n for n in numbers if not _told(statement, n)]
        if key.name in found.statements and inside:
            inside[0].value = inside[0].value * 2 + 1
            changed = Sources(ROOT).knowing(house())
            changed._texts = {k: t for k, t in changed._texts.items() if k.module != key.module}
            changed._digests = {}
            new = prints._File(key.module, file.path)
            package = key.module if file.path.name == "__init__.py" else key.module.rpartition(".")[0]
            for node in ast.parse(ast.unparse(tree)).body:
                prints._bind(new, package, node, node)
            changed._files[key.module] = new
            return changed
    return None


def _told(statement: ast.AST, number: ast.AST) -> bool:
    """Whether a number stands in what doesn't count: texts of errors, and what describes and judges."""
    for node in ast.walk(statement):
        if isinstance(node, ast.Raise) and any(n is number for n in ast.walk(node)):
            return True
        if isinstance(node, (ast.arg, ast.AnnAssign)) and any(n is number for n in ast.walk(node.annotation or ast.Pass())):
            return True
        if isinstance(node, ast.keyword) and node.arg in prints.DESCRIBED | prints.JUDGED | {"text", "reasons"}:
            if any(n is number for n in ast.walk(node)):
                return True
    return False


def drawn(n: int) -> list[Key]:
    """Definitions that parts reach outside of their own declarations, by the hash of their names."""
    every = {key for part in PARTS for key in reach(part) if "/" not in key.name}
    return sorted(every, key=lambda k: hashlib.sha256(f"{k.module}:{k.name}".encode()).hexdigest())[:n]


@pytest.mark.every_part
def test_a_number_changed_anywhere_moves_those_that_reach_it_and_no_other() -> None:
    before = {part.id: fingerprint(part) for part in PARTS}
    tried = 0
    for key in drawn(40):
        changed = edited(key)
        if changed is None:
            continue
        moved = {part.id for part in PARTS if fingerprint(part, changed) != before[part.id]}
        assert moved == {part.id for part in PARTS if key in reach(part)}, key
        tried += 1
    assert tried >= 15


class Traced:
    """What of netwright runs inside: (module, top-level name) of every code object entered."""

    def __enter__(self) -> set[Key]:
        self.found: set[Key] = set()
        self.codes: dict[CodeType, None] = {}
        sys.setprofile(self._look)
        return self.found

    def _look(self, frame: FrameType, event: str, arg: Any) -> None:
        if event == "call" and frame.f_code not in self.codes:
            self.codes[frame.f_code] = None
            module, name = frame.f_globals.get("__name__", ""), frame.f_code.co_qualname.split(".")[0]
            if module.startswith("netwright.") and not name.startswith(("<", "__")):
                self.found.add(Key(module, name))

    def __exit__(self, *gone: Any) -> None:
        sys.setprofile(None)


def use_of(part: Any) -> Callable[[], Any]:
    """Building the part and using it: a pass forward and back, a step of losses, a task's data."""
    if part.kind == "rule":
        toy = part.toy or Toy()
        toy.bind(part.build)  # what the toy itself needs has been entered before
        x, y = toy.batch()
        rule = toy.bind(part.build)
        draws = rule.draw(x, y, torch.Generator().manual_seed(0))

        def step() -> None:
            torch.stack(list(rule.losses(x, y, *draws))).sum().backward()
            rule.after_step()
            rule(x)

        return step
    if part.kind == "net":
        fill = {"activation": lambda channels, dim: torch.nn.ReLU(), "norm": lambda channels, dim: torch.nn.Identity()}
        cases = part.cases()
        return lambda: [part.build(c.problem, c.widths, fill, **c.options)(c.x).sum().backward() for c in cases]
    if part.kind == "task":
        return lambda: part.build().data(0)
    if part.kind == "activation":
        return lambda: part.build(channels=8)(torch.randn(4, 8, requires_grad=True)).sum().backward()
    if part.kind == "measure":
        seen = part.cases()
        return lambda: [part.build()(net, view) for net, view, _ in seen]
    if part.kind == "loss":
        out, y = batch(part)
        return lambda: part.build()(out, y)
    if part.kind == "optimizer":
        if not hasattr(part, "steps"):
            return lambda: part.build(8)(3)
        net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4))
        optimizer = part.build(net)
        net(torch.randn(5, 3)).square().sum().backward()

        def twice() -> None:
            optimizer.step()
            with reading(optimizer):
                optimizer.step()

        return twice
    if part.kind == "experiment":
        setup = part.build("tiny")
        if part.gives:
            return lambda: part.cell(seed=0, **setup.points[0], **setup.options)
        return lambda: [part.question(setup, point) for point in setup.points]
    return lambda: part.build(**part.toy)(torch.randn(5, *part.row())).sum().backward()


@pytest.mark.parametrize("kind", sorted({part.kind for part in PARTS}))
@pytest.mark.every_part
def test_what_runs_is_reached(kind: str) -> None:
    """Traced, which shares nothing with reading the source: whatever a part enters is among what its fingerprint rests on."""
    lookup = {"netwright.core.catalogue", "netwright.core.errors", "netwright"}  # how another part is found; `uses` names which
    traced = 0
    mine = [part for part in PARTS if part.kind == kind]
    mine = sampled(mine) if kind == "optimizer" else mine  # steps of all tensors, one by one
    for part in mine:
        use, known = use_of(part), {key for name in prints.fingerprints(part, {}) for key in reach(catalogue.get(name))}
        with Traced() as found, contextlib.suppress(BadInput):  # a task whose data are not here
            use()
        beside = TOYS if kind == "rule" else set()
        outside = {k for k in found - beside - known if k.module not in lookup and not prints.guarded(k.module)}
        assert not outside, part.id
        traced += bool(found)
    assert traced > 2 or traced == len(mine)


def test_judges_have_a_hash_of_their_own() -> None:
    part = next(p for p in PARTS if p.kind == "activation" and getattr(p, "reference", None) is not None and p.claims)
    sources = house()
    checks = [Key(module, "CHECKS") for module in catalogue.contracts(part.kind)]
    assert all(sources.digest(key) for key in checks)
    key = next(
        k
        for c in checks
        for k in sources.reached(c)
        if k.module.startswith(("netwright.contract", "netwright.activations._contract")) and edited(k)
    )
    changed = edited(key)
    assert changed is not None and judged(part, changed) != judged(part) and fingerprint(part, changed) == fingerprint(part)


@pytest.mark.parametrize("module", sorted({m for kind in catalogue.kinds() for m in catalogue.contracts(kind)}))
def test_judges_reach_every_check_of_a_contract(module: str) -> None:
    """CHECKS names its functions: one that is looked up by a string would judge parts and move no hash."""
    reached = set(house().reached(Key(module, "CHECKS")))
    checks = importlib.import_module(module).CHECKS
    assert [c.name for c in checks if Key(c.fn.__module__, c.fn.__name__) not in reached] == []


def test_a_part_without_a_name_at_the_top_of_its_file_is_refused(tmp_path: Path) -> None:
    import dataclasses

    part = dataclasses.replace(PARTS[0], name="elsewhere")
    with pytest.raises(BadInput, match="write PART"):
        fingerprint(part)


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (lambda s: s.replace("# why", "# because"), True),
        (lambda s: s.replace('"""Mine."""', '"""Yours."""'), True),
        (lambda s: s.replace("0.5", "0.25"), False),
        (lambda s: s.replace("from a import f", "from b import f"), False),
    ],
)
def test_the_hash_of_a_file_of_a_user(change: Callable[[str], str], same: bool) -> None:
    source = '"""Mine."""\nfrom a import f\nRATE = 0.5  # why\ndef data(seed):\n    return f(seed) * RATE\n'
    assert (source_hash(change(source)) == source_hash(source)) is same


@pytest.mark.every_part
def test_parts_that_are_asked_for_are_named_in_uses() -> None:
    """Whatever the code a part reaches asks the catalogue for is among its uses, or named by an option marked so."""
    for part in PARTS:
        named = {*part.uses, *(f"{o.names}/" for o in part.options if o.names)}
        for key in house().reached(prints._computes(part, house())):
            file = house().file(key.module)
            for statement in file.statements.get(key.name, ()) if file else ():
                for call in (
                    n for n in ast.walk(statement) if isinstance(n, ast.Call) and ast.unparse(n.func) == "catalogue.get"
                ):
                    asked = call.args[0]
                    if isinstance(asked, ast.Constant):
                        assert asked.value in named, (part.id, asked.value)
                    else:
                        assert named, (part.id, ast.unparse(call))


def test_how_a_part_is_put_into_a_users_model_counts_too() -> None:
    from netwright.bench.own.model import put_in

    found = house().reached(Key(put_in.__module__, put_in.__name__))
    assert {"netwright.surgery.swap", "netwright.surgery.target"} <= {key.module for key in found}
    changed = next(c for c in map(edited, (k for k in found if k.module.startswith("netwright.surgery"))) if c is not None)
    assert changed.digest(found[0]) != house().digest(found[0])
