"""An experiment of your own, in a file; and settings as they are written on a command line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from netwright.bench.own.source import run_file
from netwright.core import catalogue
from netwright.core.errors import BadInput, require, unknown
from netwright.core.kind import BENCH
from netwright.core.part import Part


def load_part(ref: str) -> Part:
    """The experiment NAME of "path/to/file.py:NAME"; without :NAME the file's only one. Raises BadInput or UnknownName."""
    head, colon, tail = ref.rpartition(":")
    file, name = (head, tail) if colon and not tail.endswith(".py") else (ref, "")
    path = Path(file).expanduser()
    require(path.is_file(), f"no file {file!r}; an experiment's file is named as path/to/file.py:NAME")
    held = vars(run_file(path))
    found = {key: v for key, v in held.items() if isinstance(v, Part) and v.kind == catalogue.kind_at(BENCH)}
    if not name and len(found) == 1:
        return next(iter(found.values()))
    require(bool(name), f"{file} holds {len(found)} experiments ({', '.join(sorted(found)) or 'none'}); name one: {file}:NAME")
    if name not in found:
        raise unknown("experiment", name, found, owner=file)
    return found[name]


def settings_of(words: Sequence[str]) -> dict[str, Any]:
    """["depth=3", "width=[64, 128]"] as settings; each once. Raises BadInput."""
    settings: dict[str, Any] = {}
    for word in words:
        key, eq, value = word.partition("=")
        if not eq or not key.strip():
            raise BadInput(f"--set {word!r}; expected key=value, or key=[value, value]")
        if key.strip() in settings:
            raise BadInput(f"--set {key.strip()} is given twice")
        if value.strip().startswith("["):
            try:
                settings[key.strip()] = json.loads(value)
            except ValueError:
                raise BadInput(f"--set {word!r}: {value!r} is no list, as in [64, 128]") from None
        else:
            settings |= catalogue.parse_options(word)
    return settings
