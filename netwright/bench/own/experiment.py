"""An experiment of your own, in a file; and settings as they are written on a command line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from netwright.bench.own.source import named_in
from netwright.core import catalogue
from netwright.core.errors import BadInput
from netwright.core.kind import BENCH
from netwright.core.part import Part


def load_part(ref: str) -> Part:
    """The experiment NAME of "path/to/file.py:NAME"; without :NAME the file's only one. Raises BadInput or UnknownName."""

    def is_one(value: Any) -> bool:
        return isinstance(value, Part) and value.kind == catalogue.kind_at(BENCH)

    part: Part
    part, _ = named_in(ref, "an experiment", "experiment(...)", is_one)
    return part


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
