"""The suite's own cost: `make test` stays short, and the sample covers every shape of every kind."""

from __future__ import annotations

from pathlib import Path

import plan
import sample

from netwright.core import catalogue

HERE = Path(__file__).parent


def test_the_suite_is_short_now_and_at_four_times_as_many_parts() -> None:
    """Where this fails: make test-plan shows what costs most, make test-plan ARGS=--measure measures anew."""
    now, later = plan.totals()
    assert max(now, later) <= plan.MOST, f"{now / 60:.1f} min of CPU now, {later / 60:.1f} later"


def test_every_test_file_has_its_cost() -> None:
    files = {path.relative_to(HERE).as_posix() for path in HERE.rglob("test_*.py")}
    missing = files - plan.costs().keys()
    assert not missing, f"no cost on record for {sorted(missing)}: make test-plan ARGS=--measure"


def test_the_sample_has_every_shape_and_changes_with_the_source() -> None:
    parts = catalogue.parts()
    draws = [sample.draw(parts, str(i)) for i in range(5)]
    for drawn in draws:
        assert {sample.shape(p) for p in drawn} == {sample.shape(p) for p in parts}
        assert len(drawn) == max(sample.MOST, len({sample.shape(p) for p in parts}))
    assert len({frozenset(p.id for p in drawn) for drawn in draws}) == 5
    few = sample.draw(parts, "0", most=1)
    assert len(few) == len({sample.shape(p) for p in parts})
