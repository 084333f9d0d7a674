"""Fingerprints: a hash of every definition that a part reaches by name, wherever it stands.

    fingerprint(part)   moves when what the part computes can have moved
    judged(part)        moves when what judges the part can have moved: its references, values, claims, the kind's checks

A definition is what a name of a module is bound to. It is hashed by its syntax tree, in which every name of a module is
replaced by the hash of what it is bound to, never by a path or an alias: so moving a definition, splitting a file or
renaming an import moves nothing, and a constant moves everything that reaches it. Left out are docstrings, annotations,
the texts of errors and options, claims and references. A file that a definition names beside itself counts by its bytes.

The rooms of GUARDED and the wings' `_kind.py` are not followed: ENGINE_VERSION and each KIND_VERSION stand for them,
raised by hand and held by golden numbers.
"""

from __future__ import annotations

import ast
import builtins
import hashlib
import importlib
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, final

from netwright.core import catalogue
from netwright.core.errors import BadInput
from netwright.core.part import Part

#: Raised by hand when numbers of core, tensor or engine move; tests/golden fails when they move and this did not.
ENGINE_VERSION = 1
GUARDED = ("core", "tensor", "engine")

#: Keywords of a declaration that say what a part is, and those that say how it is judged. All others say what it computes.
DESCRIBED = frozenset({"paper", "formula", "summary", "deviations", "retired", "usual"})
JUDGED = frozenset(
    {
        "reference",
        "reference_eval",
        "backward",
        "values",
        "examples",
        "limits",
        "identities",
        "claims",
        "properties",
        "alias_of",
        "equals_at_init",
        "toy",
        "settings",
        "changes",
        "space",
        "kept",
        "cases",
    }
)
#: Calls of which only the first so many arguments count, and keywords of calls that never do: texts for a reader.
TEXTS = {"require": 1, "warn": 0, "Option": 2}
TEXT_WORDS = {"Option": ("help",), "Tags": ("reasons",), "Claim": ("text", "where"), "Property": ("text",)}


@final
@dataclass(frozen=True)
class Key:
    """A definition: module and name, or an expression of a declaration ("PARTS[2] reference")."""

    module: str
    name: str


@final
@dataclass(frozen=True)
class _Import:
    """A name bound by an import: a module, or an attribute of one."""

    module: str
    attribute: str = ""


@final
@dataclass
class _File:
    """One parsed file: what its names are bound to, by import or by statements."""

    module: str
    path: Path
    imports: dict[str, list[_Import]] = field(default_factory=dict)  # several where a try or an if chooses
    stars: list[str] = field(default_factory=list)  # modules all of whose names are imported
    statements: dict[str, list[ast.stmt]] = field(default_factory=dict)


@final
class Sources:
    """The definitions of the package `netwright` that lies in the folder `root`.

    modules: modules outside of it (plug-ins, a user's files) by name, with their paths: what they import of their own
    package, or of their own folder where they are in none, is followed too. guard: whether versions stand for the rooms of
    GUARDED and `_kind.py`; without it they are followed like any other.
    """

    def __init__(self, root: Path, modules: Mapping[str, Path] | None = None, guard: bool = True) -> None:
        self.root, self.guard = root, guard
        self._roots = {"netwright": root}  # first name of a module -> the folder it is looked for in
        self._folders: list[Path] = []  # any module there
        self._files: dict[str, _File | None] = {}
        self._bound: dict[tuple[str, str], list[str | Key]] = {}
        self._texts: dict[Key, tuple[str | Key, ...]] = {}
        self._digests: dict[Key, str] = {}
        self._expressions: dict[Key, tuple[ast.AST, frozenset[str]]] = {}
        for name, path in (modules or {}).items():
            self._files[name] = _read(name, path)
            if "." in name or path.name == "__init__.py":
                self._roots[name.split(".")[0]] = path.parents[name.count(".") + (path.name == "__init__.py")]
            elif path.parent.name not in ("site-packages", "dist-packages"):
                self._folders.append(path.parent)

    def knowing(self, other: Sources) -> Sources:
        """This one, with what another has read and hashed of the same package already."""
        self._files, self._texts, self._digests = other._files | self._files, dict(other._texts), dict(other._digests)
        return self

    # -- names

    def file(self, module: str) -> _File | None:
        """The parsed file of a module of ours; None where it is another's."""
        if module not in self._files:
            stem = Path(*module.split("."))
            first = module.split(".")[0]
            roots = [self._roots[first]] if first in self._roots else self._folders
            places = [r / p for r in roots for p in (stem.parent / f"{stem.name}.py", stem / "__init__.py")]
            path = next((p for p in places if p.is_file()), None)
            self._files[module] = None if path is None else _read(module, path)
        return self._files[module]

    def bound(self, module: str, name: str) -> str | Key:
        """What a name of a module of ours is bound to: a definition, or a text for what lies outside or is guarded."""
        if (module, name) not in self._bound:
            self._bound[module, name] = self.choices(module, name)
        return self._bound[module, name][0]

    def choices(self, module: str, name: str, seen: frozenset[tuple[str, str]] = frozenset()) -> list[str | Key]:
        """Everything a name may be bound to: more than one where a try or an if chooses between imports."""
        file = self.file(module)
        if file is None or (module, name) in seen:
            return [f"unknown {name}"]
        seen |= {(module, name)}
        if name in file.statements:
            return [f"guarded {name}" if self.guard and guarded(module) else Key(module, name)]
        found = [choice for one in file.imports.get(name, ()) for choice in self.imported(one, seen)]
        for star in file.stars if not found else ():
            found += [c for c in self.choices(star, name, seen) if not str(c).startswith(("unknown ", "builtin "))]
        if found:
            return found
        if self.file(f"{module}.{name}") is not None:
            return [f"module {module}.{name}"]
        if "__getattr__" in file.statements:
            return [f"looked up {name}"]
        return [f"builtin {name}" if hasattr(builtins, name) else f"unknown {name}"]

    def imported(self, one: _Import, seen: frozenset[tuple[str, str]] = frozenset()) -> list[str | Key]:
        """What an import binds; what is another's is a module or what it holds, read alike."""
        if not one.attribute:
            return [f"module {one.module}"]
        if self.file(one.module) is None:
            return [f"module {one.module}.{one.attribute}"]
        return self.choices(one.module, one.attribute, seen)

    def attribute(self, value: str, name: str) -> str | Key | None:
        """What `value.name` is, where value is a module; None where it is not."""
        if not value.startswith("module "):
            return None
        module = value.removeprefix("module ")
        return self.bound(module, name) if self.file(module) is not None else f"{value}.{name}"

    # -- hashes

    def expression(self, module: str, node: ast.AST, name: str, without: frozenset[str] = frozenset()) -> Key:
        """An expression of a module as a definition; without: keywords of a call that are left out."""
        key = Key(module, name)
        self._expressions[key] = (node, without)
        return key

    def text(self, key: Key) -> tuple[str | Key, ...]:
        """The tree of one definition as text, with the definitions that it reaches itself as keys."""
        if key not in self._texts:
            file = self.file(key.module)
            assert file is not None
            writer = _Writer(self, file, key.name)
            if key in self._expressions:
                writer.write(*self._expressions[key])
            else:
                for statement in file.statements[key.name]:
                    writer.write(statement)
            self._texts[key] = tuple(writer.out) + _contents(file.path, writer.strings)
        return self._texts[key]

    def every(self) -> Iterator[Key]:
        """Every definition of netwright."""
        for path in sorted((self.root / "netwright").rglob("*.py")):
            module = ".".join(path.relative_to(self.root).with_suffix("").parts).removesuffix(".__init__")
            file = self.file(module)
            yield from (Key(module, name) for name in (file.statements if file else ()))

    def reached(self, key: Key) -> list[Key]:
        """The definition and all that it reaches, each once."""
        found, left = {key: None}, [key]
        while left:
            for other in self.text(left.pop()):
                if isinstance(other, Key) and other not in found:
                    found[other] = None
                    left.append(other)
        return list(found)

    def own(self, key: Key) -> str:
        """Hash of one definition by itself; what it reaches counts by name."""
        return _sha(*(piece.name if isinstance(piece, Key) else piece for piece in self.text(key)))

    def digest(self, key: Key) -> str:
        """Hash of a definition and of all that it reaches. Definitions that call each other are hashed together."""
        if key not in self._digests:
            for together in _components(self, key):
                now = dict.fromkeys(together, "in a circle")
                for _ in together if len(together) > 1 or together[0] in self.text(together[0]) else [0]:
                    now = {k: _sha(*(self._known(p, now) for p in self.text(k))) for k in together}
                self._digests |= now
        return self._digests[key]

    def _known(self, piece: str | Key, now: Mapping[Key, str]) -> str:
        return piece if isinstance(piece, str) else now[piece] if piece in now else self._digests[piece]

    def constant(self, module: str, name: str) -> Any:
        """The literal a name of a module is bound to, as a KIND_VERSION is; None where there is none."""
        file = self.file(module)
        for statement in file.statements.get(name, ()) if file else ():
            if isinstance(statement, (ast.Assign, ast.AnnAssign)) and isinstance(statement.value, ast.Constant):
                return statement.value.value
        return None


# Of parts -------------------------------------------------------------------------------------------------------------


def fingerprint(part: Part, sources: Sources | None = None) -> str:
    """Hash of every definition the part reaches, of the parts it uses, and of the versions that stand for the rest.

    sources: another tree than netwright's own, such as an edited copy. A plug-in adds its distribution's version.
    Raises BadInput for a part without source: see `version=` of netwright.task.
    """
    sources = sources or sources_of(part)
    folder = catalogue.kinds()[part.kind].folder
    return _sha(
        sources.digest(_computes(part, sources)),
        "" if part.origin == "netwright" else part.origin,
        f"engine {sources.constant(__name__, 'ENGINE_VERSION')}",
        f"kind {sources.constant(f'netwright.{folder}._kind', 'KIND_VERSION')}",
        *(fingerprint(catalogue.get(used), sources) for used in part.uses),
    )


def fingerprints(part: Part, options: Mapping[str, Any]) -> dict[str, str]:
    """The part's fingerprint, and those of the parts that its options name, by part id."""
    resolved = part.resolve(options)
    named = [catalogue.parse(str(resolved[o.name]), kind=o.names)[0] for o in part.options if o.names]
    return {p.id: fingerprint(p) for p in (part, *named)}


def of(function: Callable[..., Any]) -> str:
    """Hash of a function of netwright and of all that it reaches, for what no part reaches: how a part is put into a model."""
    return _sha(house().digest(Key(function.__module__, function.__name__)), f"engine {ENGINE_VERSION}")


def judged(part: Part, sources: Sources | None = None) -> str:
    """Hash of what judges the part: its references, values, claims, and the checks of its kind with all they reach."""
    sources = sources or sources_of(part)
    node = _declaration(part, sources)
    words = [w for w in node.keywords if w.arg in JUDGED] if isinstance(node, ast.Call) else []
    own = {w.arg: sources.digest(sources.expression(part.module, w.value, f"{part.id} {w.arg}")) for w in words}
    checks = [sources.digest(Key(module, "CHECKS")) for module in catalogue.contracts(part.kind)]
    return _sha(*(f"{word}={own[word]}" for word in sorted(own, key=str)), *checks)


def reach(part: Part, sources: Sources | None = None) -> list[Key]:
    """The definitions a fingerprint rests on, its declaration first, those of the parts it uses last."""
    sources = sources or sources_of(part)
    own = sources.reached(_computes(part, sources))
    return list(dict.fromkeys([*own, *(key for used in part.uses for key in reach(catalogue.get(used), sources))]))


@cache
def house() -> Sources:
    """The sources of netwright itself."""
    return Sources(Path(__file__).parents[2])


def source_hash(source: str) -> str:
    """Hash of what a file of a user does: its syntax tree without docstrings, comments and declared descriptions."""
    tree = ast.parse(source)
    sources = Sources(Path(__file__).parents[2])
    sources._files[""] = file = _File("", Path())
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            _import(file, node, "")
    writer = _Writer(sources, file, "")
    writer.scopes.append(("function", {}))
    writer.write(tree.body[_documented(tree) :])
    return _sha(*(piece if isinstance(piece, str) else piece.name for piece in writer.out))


def sources_of(part: Part) -> Sources:
    """The sources a part's definitions are looked for in: netwright's own, or a plug-in's too."""
    if part.module.startswith("netwright."):
        return house()
    path = inspect.getsourcefile(importlib.import_module(part.module))
    if path is None or not Path(path).is_file():
        raise BadInput(f"{part.id} has no source file to take a fingerprint of; put it in a file")
    own = Sources(Path(__file__).parents[2], {part.module: Path(path)})  # read anew each time: its files may change
    return own.knowing(house())


def _computes(part: Part, sources: Sources) -> Key:
    """The declaration without what describes and judges."""
    return sources.expression(part.module, _declaration(part, sources), f"{part.id} computes", DESCRIBED | JUDGED)


def _declaration(part: Part, sources: Sources) -> ast.AST:
    """The expression that declares a part: what PART is bound to, or its place in PARTS."""
    held, file = vars(importlib.import_module(part.module)), sources.file(part.module)

    def same(value: Any) -> bool:  # by id, so that a part with another claim put in is found too
        return value is part or isinstance(value, Part) and value.id == part.id

    alone = next((name for name, value in held.items() if same(value)), "")
    several = next((name for name, value in held.items() if isinstance(value, tuple) and any(map(same, value))), "")
    name = alone or several
    if file is None or name not in file.statements:
        raise BadInput(f"{part.id} is bound to no name at the top of {part.module}; write PART = ... there")
    node = _value(file, name)
    if not alone and isinstance(node, ast.Tuple) and not any(isinstance(e, ast.Starred) for e in node.elts):
        node = node.elts[next(i for i, p in enumerate(held[several]) if same(p))]
    return node


def _value(file: _File, name: str) -> ast.AST:
    last = file.statements[name][-1]
    one = isinstance(last, ast.AnnAssign) or isinstance(last, ast.Assign) and isinstance(last.targets[0], ast.Name)
    return last.value if one and last.value is not None else last  # type: ignore[attr-defined]


def guarded(module: str) -> bool:
    """Whether a version stands for what a module holds."""
    package, _, rest = module.partition(".")
    return package == "netwright" and (rest.split(".")[0] in GUARDED or rest.endswith("._kind"))


def _sha(*pieces: str) -> str:
    return hashlib.sha256("\x1f".join(pieces).encode()).hexdigest()[:16]


def _components(sources: Sources, start: Key) -> Iterator[list[Key]]:
    """Definitions that reach each other, a list of one where there is no circle; what is reached comes first (Tarjan)."""
    order: dict[Key, int] = {}
    low: dict[Key, int] = {}
    stack: list[Key] = []
    calls: list[tuple[Key, Iterator[Key]]] = []

    def enter(key: Key) -> None:
        order[key] = low[key] = len(order)
        stack.append(key)
        calls.append((key, iter([p for p in sources.text(key) if isinstance(p, Key) and p not in sources._digests])))

    enter(start)
    while calls:
        key, others = calls[-1]
        for other in others:
            if other not in order:
                enter(other)
                break
            if other in stack:
                low[key] = min(low[key], order[other])
        else:
            calls.pop()
            if calls:
                low[calls[-1][0]] = min(low[calls[-1][0]], low[key])
            if low[key] == order[key]:
                at = stack.index(key)
                yield stack[at:]
                del stack[at:]


# Reading a file -------------------------------------------------------------------------------------------------------


def _read(module: str, path: Path) -> _File:
    file = _File(module, path)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for statement in ast.parse(path.read_text(encoding="utf-8")).body:
        _bind(file, package, statement, statement)
    return file


def _bind(file: _File, package: str, node: ast.stmt, whole: ast.stmt) -> None:
    """Note what a statement at the top of a module binds. whole: the outermost statement that it stands in."""
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        _import(file, node, package)
    elif isinstance(node, (ast.If, ast.Try, ast.With, ast.For, ast.While)):
        for name in _assigned([node]):
            _note(file, name, whole)
        for inner in ast.walk(node):
            if isinstance(inner, (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)):
                _bind(file, package, inner, whole)
    elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        _note(file, node.name, whole)
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):  # register(f), f.register(g): part of f
        for inner in ast.walk(node):
            if isinstance(inner, ast.Name) and inner.id in file.statements:
                _note(file, inner.id, whole)
    else:
        for name in _assigned([node]):
            _note(file, name, whole)
        for target in getattr(node, "targets", [getattr(node, "target", None)]):  # TABLE["x"] = f, f.a = 1: part of both
            while isinstance(target, (ast.Subscript, ast.Attribute)):
                target = target.value
            if isinstance(target, ast.Name) and target.id in file.statements:
                _note(file, target.id, whole)


def _import(file: _File, node: ast.Import | ast.ImportFrom, package: str) -> None:
    for name, one in _imported(node, package).items():
        known = file.imports.setdefault(name, [])
        if name == "*":
            file.stars.append(one.module)
        elif one not in known:
            known.append(one)


def _note(file: _File, name: str, statement: ast.stmt) -> None:
    known = file.statements.setdefault(name, [])
    if statement not in known:
        known.append(statement)


def _imported(node: ast.Import | ast.ImportFrom, package: str) -> dict[str, _Import]:
    if isinstance(node, ast.Import):
        return {a.asname or a.name.split(".")[0]: _Import(a.name if a.asname else a.name.split(".")[0]) for a in node.names}
    base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
    module = ".".join([*base, *([node.module] if node.module else [])])
    return {a.asname or a.name: _Import(module, a.name) for a in node.names}


def _assigned(nodes: list[Any]) -> set[str]:
    """Names bound in statements, without those of functions and classes inside them."""
    found: set[str] = set()
    left = list(nodes)
    while left:
        node = left.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(node.name)
            continue
        if isinstance(node, (ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)):
            found |= {n.target.id for n in ast.walk(node) if isinstance(n, ast.NamedExpr) and isinstance(n.target, ast.Name)}
            continue
        if isinstance(node, ast.Name) and isinstance(node.ctx, (ast.Store, ast.Del)):
            found.add(node.id)
        if isinstance(node, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)) and node.name:
            found.add(node.name)
        if isinstance(node, ast.MatchMapping) and node.rest:
            found.add(node.rest)
        left += ast.iter_child_nodes(node)
    return found


#: A string that may name a file beside the one it stands in: data, C++ to compile.
_FILE = re.compile(r"[\w./-]{1,200}\.(?!py$)\w{1,8}|[\w-]{1,60}")


def _contents(path: Path, strings: list[str]) -> tuple[str, ...]:
    """Hashes of the files that a definition names: beside its own, in the folder above, or one string after the other."""
    names = [*strings, *("/".join(strings[i:j]) for i in range(len(strings)) for j in range(i + 2, min(len(strings), i + 4) + 1))]
    found = [folder / name for folder in (path.parent, path.parent.parent) for name in names if "." in name]
    return tuple(_sha(f"{p.name} {hashlib.sha256(p.read_bytes()).hexdigest()}") for p in dict.fromkeys(found) if p.is_file())


# Writing a definition -------------------------------------------------------------------------------------------------


@final
class _Writer:
    """The tree of a definition as text. Names are written by what they are bound to; local names as they are."""

    def __init__(self, sources: Sources, file: _File, name: str) -> None:
        self.sources, self.file, self.name = sources, file, name
        self.package = file.module if file.path.name == "__init__.py" else file.module.rpartition(".")[0]
        self.out: list[str | Key] = []
        self.scopes: list[tuple[str, dict[str, _Import | None]]] = []  # (what opened it, its names)
        self.strings: list[str] = []

    def write(self, node: Any, without: frozenset[str] = frozenset()) -> None:
        """One node; without: keywords that are left out where it is a call."""
        special = getattr(self, f"_{type(node).__name__}", None)
        if special is not None:
            special(node)
        elif isinstance(node, ast.Call):
            self._call(node, without)
        elif isinstance(node, ast.AST):
            self._plain(node)
        elif isinstance(node, list):
            for item in node:
                self.write(item)
            self.out.append("]")
        else:
            self.out.append(repr(node))

    def _plain(self, node: ast.AST, *skip: str) -> None:
        """The node's type, then its fields; what is absent leaves no trace, so that versions of Python agree."""
        self.out.append(type(node).__name__)
        for name, value in ast.iter_fields(node):
            if value is not None and value != [] and name not in (*skip, "ctx", "kind", "type_comment", "annotation", "returns"):
                self.out.append(name)
                self.write(value)
        self.out.append(")")

    def resolved(self, node: ast.AST) -> str | Key | None:
        """What an expression of names and attributes is bound to; None where it is something else, or is local."""
        if isinstance(node, ast.Attribute):
            value = self.resolved(node.value)
            return self.sources.attribute(value, node.attr) if isinstance(value, str) else None
        if not isinstance(node, ast.Name):
            return None
        for i, (what, names) in enumerate(reversed(self.scopes)):
            if node.id in names and (what != "class" or i == 0):
                found = names[node.id]
                if what == "class" and isinstance(self.sources.bound(self.file.module, node.id), Key):
                    break  # `basis = staticmethod(basis)`: before a class binds a name, the module's is meant
                if found is None:
                    return None
                return self.sources.imported(found)[0]
        return self.sources.bound(self.file.module, node.id)

    def _Name(self, node: ast.Name) -> None:
        bound = self.resolved(node)
        if bound == Key(self.file.module, self.name) and isinstance(node.ctx, ast.Store):
            self.out.append("itself")
        elif isinstance(bound, Key) and isinstance(node.ctx, ast.Store):
            self.out.append("another")
        else:
            self.out.append(f"local {node.id}" if bound is None else bound)
            if isinstance(bound, Key) or str(bound).startswith(("module ", "guarded ")):
                every = self.sources.choices(self.file.module, node.id)
                self.out += [c for c in every[1:] if bound == every[0] and c != bound]

    def _Attribute(self, node: ast.Attribute) -> None:
        bound = self.resolved(node)
        if bound is None:
            self._plain(node)
        else:
            self.out.append(bound)

    def _Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str) and _FILE.fullmatch(node.value):
            self.strings.append(node.value)
        self.out.append(repr(node.value))

    def _Import(self, node: ast.Import) -> None:
        """Leaves no trace: what is imported counts where it is used."""

    def _ImportFrom(self, node: ast.ImportFrom) -> None:
        """Likewise."""

    def _Raise(self, node: ast.Raise) -> None:
        """The type of an error counts, its text doesn't."""
        self.out.append("raise")
        if node.exc is not None:
            self.write(node.exc.func if isinstance(node.exc, ast.Call) else node.exc)

    def _call(self, node: ast.Call, without: frozenset[str]) -> None:
        bound = self.resolved(node.func)
        name = bound.name if isinstance(bound, Key) else (bound or "").rpartition(" ")[2].rpartition(".")[2]
        if any(word.arg == "paper" for word in node.keywords):  # a declaration inside a function, or of another part
            without = without or DESCRIBED | JUDGED
        args = node.args[: TEXTS.get(name, len(node.args))]
        if name == "Claim":
            args = args[:1]
        words = [w for w in node.keywords if w.arg not in without and w.arg not in TEXT_WORDS.get(name, ())]
        self.out.append("call")
        self.write(node.func)
        self.write(args)
        for word in sorted(words, key=lambda w: w.arg or ""):
            self.out.append(f"{word.arg}=")
            self.write(word.value)
        self.out.append(")")

    def _AnnAssign(self, node: ast.AnnAssign) -> None:
        self._plain(node, "annotation", "simple")

    def _FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self.out.append(type(node).__name__ if self.scopes else "definition")
        if self.scopes:
            self.out.append(node.name)
        self.write(node.decorator_list)
        self._function(node.args, node.body[_documented(node) :])

    _AsyncFunctionDef = _FunctionDef

    def _Lambda(self, node: ast.Lambda) -> None:
        self._function(node.args, [node.body])

    def _function(self, args: ast.arguments, body: list[Any]) -> None:
        for default in (*args.defaults, *(d for d in args.kw_defaults if d is not None)):
            self.write(default)
        every = [*args.posonlyargs, *args.args, *args.kwonlyargs, *(a for a in (args.vararg, args.kwarg) if a)]
        special = _inside(body, (ast.Global, ast.Nonlocal, ast.Import, ast.ImportFrom))
        shared = {name for n in special if isinstance(n, (ast.Global, ast.Nonlocal)) for name in n.names}
        names: dict[str, _Import | None] = dict.fromkeys(({a.arg for a in every} | _assigned(body)) - shared)
        for statement in special:
            if isinstance(statement, (ast.Import, ast.ImportFrom)):
                names.update(_imported(statement, self.package))
        said = _only_said(body)
        self.scopes.append(("function", names))
        self._plain(args, "defaults", "kw_defaults")
        self.write([node for node in body if node not in said])
        self.scopes.pop()

    def _ClassDef(self, node: ast.ClassDef) -> None:
        self.out.append("class" if self.scopes else "definition")
        if self.scopes:
            self.out.append(node.name)
        for part in (node.decorator_list, node.bases, node.keywords):
            self.write(part)
        body = node.body[_documented(node) :]
        self.scopes.append(("class", dict.fromkeys(_assigned(body))))
        self.write(body)
        self.scopes.pop()

    def _scoped(self, node: Any) -> None:
        targets = _assigned([generator.target for generator in node.generators])
        self.scopes.append(("comprehension", dict.fromkeys(targets)))
        self._plain(node)
        self.scopes.pop()

    _ListComp = _SetComp = _DictComp = _GeneratorExp = _scoped


def _only_said(body: list[Any]) -> list[Any]:
    """Statements of a function that make a text which nothing but an error says."""
    texts = [n for n in body if isinstance(n, ast.Assign) and isinstance(n.value, (ast.JoinedStr, ast.Constant))]
    if not texts:
        return []
    heard: set[str] = set()
    left = list(body)
    while left:
        node = left.pop()
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            heard.add(node.id)
        left += [] if isinstance(node, ast.Raise) else ast.iter_child_nodes(node)
    return [n for n in texts if isinstance(n.targets[0], ast.Name) and n.targets[0].id not in heard]


def _documented(node: Any) -> int:
    """1 where a body begins with a docstring."""
    first = node.body[0] if node.body else None
    return int(isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str))


def _inside(body: list[Any], types: Any) -> list[Any]:
    """Statements of these types in a function's body, without those of functions and classes inside it."""
    found, left = [], list(body)
    while left:
        node = left.pop()
        if isinstance(node, types):
            found.append(node)
        for part in ("body", "orelse", "finalbody", "handlers", "cases"):
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.IfExp)):
                left += getattr(node, part, ())
    return found
