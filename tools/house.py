"""The house as its own source draws it: the rooms of netwright, the floors they stand on, and who imports whom.

Read off the syntax trees, so that nothing of the package is run. tests/test_house.py holds the laws on it, tools/rooms.py
draws it, tools/trip.py asks which files are parts.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "netwright"
SOURCES = sorted(PACKAGE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}
#: Folders of the kinds.
WINGS = {path.parent.name for path in PACKAGE.glob("*/_kind.py")}

#: The floors from the bottom: a room imports from floors below its own, and rooms of one floor not from each other.
FLOORS = (
    ("core",),
    ("corpus",),
    ("tensor",),
    ("losses", "optimizers"),
    ("engine",),
    ("activations", "layers", "weights", "nets"),
    ("rules", "methods", "selections", "federations", "transforms", "measures", "solvers"),
    ("tasks",),
    ("contract",),
    ("surgery",),
    ("bench",),
    ("experiments",),
    ("show",),
    ("compare",),
    ("cli", ""),
    ("__main__",),
)
#: What waits for its kind, and the room on whose floor it stands until then. A new kind takes its own out of here.
WAITING = {
    "sparsity": "losses",
    "alignment": "surgery",
    "edges": "show",
    "explain": "show",
    "symbolic": "show",
}
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def is_part_file(path: Path) -> bool:
    place = path.relative_to(PACKAGE).parts
    return len(place) == 3 and place[0] in WINGS and not path.name.startswith("_")


def module_of(path: Path) -> str:
    """The dotted name of a file below netwright."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").removesuffix(".")


MODULES = {module_of(path): path for path in SOURCES}


def room_of(module: str) -> str:
    first, _, rest = module.partition(".")
    return WAITING[rest.split(".")[0]] if first == "waiting" and rest else "core" if first == "waiting" else first


def nodes(tree: ast.AST, inside: bool = True) -> Iterator[ast.AST]:
    """Every node below one; inside: those in functions too."""
    for node in ast.iter_child_nodes(tree):
        if inside or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield node
            yield from nodes(node, inside)


def arrows(path: Path, inside: bool = True) -> set[tuple[str, str]]:
    """(module, name) of every import from netwright in a file; name is "" where a module is imported.

    inside: those in functions too.
    """
    found = set()
    for node in nodes(TREES[path], inside):
        if isinstance(node, ast.Import):
            ours = [a.name for a in node.names if a.name.split(".")[0] == "netwright"]
            found |= {(name.removeprefix("netwright").removeprefix("."), "") for name in ours}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "netwright":
            base = str(node.module).removeprefix("netwright").removeprefix(".")
            for alias in node.names:
                inner = f"{base}.{alias.name}".removeprefix(".")
                found.add((inner, "") if inner in MODULES else (base, alias.name))
    return found
