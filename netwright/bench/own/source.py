"""Code of the user's own: what identifies it, where any process finds it, and files that are run by their paths."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
import types
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

from netwright.bench.own.data import shape_of
from netwright.core.errors import BadInput, NetwrightError, require, unknown
from netwright.core.fingerprint import source_hash
from netwright.core.guard import Escape, foreign
from netwright.tensor.streams import global_draws

#: How the names of modules begin that are files run by their paths.
FILE = "netwright_file_"


def digest_of(*texts: str) -> str:
    return hashlib.sha256("|".join(texts).encode()).hexdigest()[:16]


def origin_of(function: Any) -> str:
    """What changes with a function: its file's syntax tree; the name of installed code; byte code, without a file.

    A partial adds those of its arguments that are plain values.
    """
    if isinstance(function, partial):
        bound = [*enumerate(function.args), *sorted(function.keywords.items())]
        plain = [(key, value) for key, value in bound if isinstance(value, (str, int, float, type(None)))]
        return origin_of(function.func) + repr(plain)
    function = inspect.unwrap(function)
    held = function if hasattr(function, "__qualname__") else type(function)
    name = f"{held.__module__}.{held.__qualname__}"
    try:
        path = Path(inspect.getsourcefile(held) or "")
        text = path.read_text(encoding="utf-8")
    except (TypeError, OSError):
        return name + _bytecode(getattr(held, "__code__", None))
    installed = "site-packages" in path.parts or path.is_relative_to(Path(torch.__file__).parent)
    return name if installed else held.__qualname__ + source_hash(text)  # a file run as a script has another module name


def _bytecode(code: types.CodeType | None) -> str:
    if code is None:
        return ""
    inner = [_bytecode(c) if isinstance(c, types.CodeType) else repr(c) for c in code.co_consts]
    return digest_of(code.co_code.hex(), repr(code.co_names), *inner)


def run_file(path: Path) -> types.ModuleType:
    """A file of the user's as a module, run once a process and text."""
    return _run(path.resolve(), digest_of(path.read_text(encoding="utf-8")))


@cache
def _run(path: Path, text_hash: str) -> types.ModuleType:
    """The file as a module, run with its own folder importable."""
    name = f"{FILE}{digest_of(str(path), text_hash)}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # the path ends in .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.parent))
    try:
        with foreign(path.name, importing=True), global_draws(0, "import"):  # what it draws is the same in every process
            spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        if isinstance(error, NetwrightError):
            raise
        raised = error.__cause__ or error if isinstance(error, Escape) else error
        trace = raised.__traceback__
        frames = [f.lineno for f in inspect.getinnerframes(trace) if f.filename == str(path)] if trace else []
        line = f", line {frames[-1]}" if frames else ""
        raise BadInput(f"{path}{line} raised {type(raised).__name__}: {raised}") from error
    finally:
        with suppress(ValueError):  # the file may have taken it out itself
            sys.path.remove(str(path.parent))
    return module


def named_in(ref: str, what: str, how: str, is_one: Callable[[Any], bool]) -> tuple[Any, Path]:
    """(the object NAME of "path/to/file.py:NAME", the file); without :NAME the only one of its sort in it.

    what: its sort, with an article; how: how one is made; is_one: whether an object is one. Raises BadInput where there is no
    such file, it raises, or NAME is something else; UnknownName where it holds no NAME.
    """
    noun = what.split()[-1]
    head, colon, tail = ref.rpartition(":")
    file, name = (head, tail) if colon and not tail.endswith(".py") else (ref, "")
    path = Path(file).expanduser()
    require(path.is_file(), f"no file {file!r}; {what} file is named as path/to/file.py:NAME")
    held = vars(run_file(path))
    known = {key: value for key, value in held.items() if is_one(value)}
    if not name and len(known) == 1:
        name = next(iter(known))
    require(bool(name), f"{file} holds {len(known)} {noun}s ({', '.join(sorted(known)) or 'none'}); name one: {file}:NAME")
    if name not in held:
        raise unknown(noun, name, known, owner=file)
    require(name in known, f"{file}:{name} is {shape_of(held[name])}; expected {what}: {name} = {how}")
    return known[name], path


_held: dict[str, Callable[..., Any]] = {}  # functions of this process that a file would have to be run again for


def hold(name: str, function: Callable[..., Any]) -> None:
    """Makes a function known by its "module:name" or "path/to/file.py:name" in this process, where it exists already."""
    _held[name] = function


def address_of(function: Callable[..., Any]) -> str:
    """The name by which called() finds a function in any process: by its file where that was run by its path, or as a script."""
    module = function.__module__
    by_path = module == "__main__" or module.startswith(FILE)
    return f"{inspect.getsourcefile(function) if by_path else module}:{function.__qualname__}"


def called(name: str) -> Callable[..., Any]:
    """The function that "module:name" or "path/to/file.py:name" is. Raises BadInput where there is none."""
    if name in _held:
        return _held[name]
    module, _, attribute = name.rpartition(":")
    try:
        if module.endswith(".py"):
            return getattr(run_file(Path(module)), attribute)
        beside = Path(*module.split(".")).with_suffix(".py")  # of the working folder, which a console script doesn't look in
        if beside.is_file() and importlib.util.find_spec(module.split(".")[0]) is None:
            return getattr(run_file(beside), attribute)
        with global_draws(0, "import"):
            return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise BadInput(f"no function {name!r}: {error}; expected module:name") from error
