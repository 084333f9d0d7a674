"""One text for one value: canonical JSON, its digest, and the way back.

Keys are sorted, there is no white space, everything outside ASCII is escaped. Floats are Python's shortest form that
reads back exactly, so 1 and 1.0 differ. NaN and the infinities, which JSON lacks, are written {"$float": "nan"},
{"$float": "inf"} and {"$float": "-inf"}: not null, which stays "unknown", and not a bare string, which a message
may be.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

from netwright.core.errors import BadInput

FLOAT = "$float"


def _plain(value: Any) -> Any:
    if value is None or type(value) in (str, int, bool) or isinstance(value, str):
        return value
    if type(value) is float and math.isfinite(value):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        number = float(value)
        return number if math.isfinite(number) else {FLOAT: repr(number)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        made = {k if isinstance(k, str) else str(_plain(k)): _plain(v) for k, v in value.items()}
        if len(made) < len(value):
            raise BadInput(f"two keys of a mapping read the same as text: {sorted(map(repr, value))}")
        if FLOAT in made:
            raise BadInput(f"the key {FLOAT!r} is kept for NaN and the infinities; rename it")
        return made
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    raise BadInput(
        f"{type(value).__name__} has no canonical JSON; allowed: None, bool, numbers, str, lists, mappings, dataclasses"
    )


def canonical_json(obj: Any) -> str:
    """The one JSON text of `obj`: None, numbers, text, lists, mappings, dataclasses. BadInput for other types."""
    return json.dumps(_plain(obj), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def parse(text: str) -> Any:
    """The value of a canonical JSON text. Tuples come back as lists; raises ValueError where the text is no JSON."""

    def restore(row: dict[str, Any]) -> Any:
        return float(row[FLOAT]) if len(row) == 1 and FLOAT in row else row

    return json.loads(text, object_hook=restore)


def digest(obj: Any) -> str:
    """sha256 of the canonical JSON of `obj`, 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(obj).encode("ascii")).hexdigest()
