"""What versions stand for: numbers of every shape of every kind, as committed in golden/kinds.json."""

from __future__ import annotations

import json
import math

import pytest
from golden import kinds

from netwright.core import catalogue
from netwright.core.fingerprint import ENGINE_VERSION, fingerprint

GOLDEN = json.loads(kinds.FILE.read_text(encoding="utf-8"))
ROWS = kinds.rows()


def test_every_row_and_every_kind_is_there() -> None:
    assert GOLDEN.keys() == ROWS.keys(), "run tests/golden/kinds.py"
    assert {kind for kind, _, _ in ROWS.values()} == catalogue.kinds().keys()


@pytest.mark.parametrize("name", ROWS)
def test_numbers_move_only_with_a_version(name: str) -> None:
    kind, uses, numbers = ROWS[name]
    kept, now = GOLDEN[name], numbers()
    raised = kept["engine_version"] != ENGINE_VERSION or kept["kind_version"] != kinds.version(kind)
    assert not raised, f"a version was raised: run tests/golden/kinds.py {name!r}"
    same = len(now) == len(kept["numbers"]) and all(
        math.isclose(a, b, rel_tol=1e-5, abs_tol=1e-9) for a, b in zip(now, kept["numbers"], strict=True)
    )
    if not same:
        moved = [part for part in uses if fingerprint(catalogue.get(part)) != kept["fingerprints"][part]]
        what = f"because {moved} moved: run tests/golden/kinds.py {name!r}" if moved else "and no part of it did: raise a version"
        pytest.fail(f"the numbers of {name} moved, {what}")
