"""How long the way of a small comparison is: which files it enters, in what order, and how often it works out the same thing.

    python tools/trip.py [--json]

Runs one `netwright compare` of 24 runs in this process, under a profiler. A file is entered where a function of it is called;
running its top at import doesn't count. Machinery is every file of netwright that isn't a part's.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import json
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import house

COMPARE = "compare relu golu --task digits --seeds 4 --tune 3 --steps 60 --executor serial --out"
#: Functions whose calls are counted. One that is no longer there is reported as gone.
WATCHED = (
    "netwright.engine.build.chosen",
    "netwright.engine.build.build",
    "netwright.rules._kind.RulePart.build",
    "netwright.core.catalogue.parse",
)


class Trip:
    """What is called while `with trip.recorded():` lasts."""

    def __init__(self) -> None:
        self.calls: Counter[CodeType] = Counter()  # in the order of first calls

    def _note(self, frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            self.calls[frame.f_code] += 1

    @contextlib.contextmanager
    def recorded(self) -> Iterator[None]:
        threading.setprofile(self._note)
        sys.setprofile(self._note)
        try:
            yield
        finally:
            sys.setprofile(None)
            threading.setprofile(None)

    def entered(self) -> dict[Path, str]:
        """Source files of netwright in the order they were entered -> the function that was called first."""
        files: dict[Path, str] = {}
        for code in self.calls:
            path = Path(code.co_filename)
            if is_function(code) and path.suffix == ".py" and path.is_relative_to(house.PACKAGE):
                files.setdefault(path, code.co_qualname)
        return files

    def counted(self, names: tuple[str, ...]) -> dict[str, int | str]:
        """How often each of these functions was called, or "gone"."""
        codes = {name: code_of(name) for name in names}
        return {name: "gone" if code is None else self.calls[code] for name, code in codes.items()}


def is_function(code: CodeType) -> bool:
    """Whether this is the code of a function: not of a module, of a class, or of a comprehension, which may stand in either."""
    named = not code.co_name.startswith("<") or code.co_name == "<lambda>"
    return named and bool(code.co_flags & inspect.CO_OPTIMIZED)


def code_of(name: str) -> CodeType | None:
    """The code of a function by its dotted name; None where there is none."""
    words = name.split(".")
    for cut in range(len(words) - 1, 0, -1):
        try:
            found: Any = importlib.import_module(".".join(words[:cut]))
        except ModuleNotFoundError:
            continue
        for word in words[cut:]:
            found = vars(found).get(word)
            if found is None:
                return None
        return getattr(inspect.unwrap(found), "__code__", None)
    return None


def measured() -> dict[str, Any]:
    """The trip of COMPARE as plain data."""
    from netwright.cli import app
    from netwright.core import catalogue

    loading, trip = Trip(), Trip()
    with loading.recorded():
        catalogue.parts()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        words = [*COMPARE.split(), str(Path(folder) / "study")]
        with trip.recorded():
            code = app(words, standalone_mode=False)
    if code:
        sys.exit(f"netwright {COMPARE} ended with code {code}")
    entered = trip.entered()
    run = {Path(code.co_filename) for code in loading.calls}  # tops too
    machinery = {path: first for path, first in entered.items() if not house.is_part_file(path)}
    return {
        "command": f"netwright {COMPARE} FOLDER",
        "machinery": len(machinery),
        "machinery_with_loading": len({path for path in loading.entered() if not house.is_part_file(path)} | machinery.keys()),
        "parts": len(entered) - len(machinery),
        "parts_loaded": len([path for path in house.SOURCES if house.is_part_file(path) and path in run]),
        "calls": trip.counted(WATCHED),
        "order": {str(path.relative_to(house.PACKAGE)): first for path, first in machinery.items()},
    }


def table(result: dict[str, Any]) -> str:
    """The same for a reader."""
    lines = [
        result["command"],
        "",
        f"{result['machinery']:>6}  machinery files entered",
        f"{result['machinery_with_loading']:>6}  with the loading of the catalogue",
        f"{result['parts']:>6}  files of parts entered",
        f"{result['parts_loaded']:>6}  files of parts read by that loading",
        *(f"{count:>6}  calls of {name}" for name, count in result["calls"].items()),
        "",
        "Machinery in the order it is entered, and by which function:",
        *(f"{i:>6}  {path:<32}{first}" for i, (path, first) in enumerate(result["order"].items(), 1)),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    found = measured()
    if "--json" not in sys.argv[1:]:
        print(table(found), end="\n\n")
    print(json.dumps(found, indent=1))
