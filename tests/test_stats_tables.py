"""The committed tables of false calls and power: made by their command, with the verdicts that compare() gives."""

from __future__ import annotations

import importlib.util
import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy")
from scipy import stats as scipy_stats

from netwright.bench.stats import compare

EVIDENCE = Path(__file__).parents[1] / "evidence"


@pytest.fixture(scope="module")
def command():
    spec = importlib.util.spec_from_file_location("stats_tables", EVIDENCE / "commands" / "stats_tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tables():
    return json.loads((EVIDENCE / "stats_tables.json").read_text(encoding="utf-8"))


def test_the_vectorised_engine_equals_compare(command):
    rng = np.random.default_rng(7)
    for kind, m, n, shift in itertools.product(command.DISTRIBUTIONS, (1, 3), (6, 9), (0.0, 2.0)):
        values = command.scores(kind, (15, m + 1, n), rng)
        values[:, 1:] += shift
        found = command.judge(values[:, 1:] - values[:, :1], 1.0)
        for rows, verdicts, ps in zip(values, found["verdict"], found["p"], strict=True):
            scores = {f"arm {i}": dict(enumerate(row.tolist())) for i, row in enumerate(rows)}
            expected = compare(scores, baseline="arm 0", delta=1.0, higher_is_better=True, resamples=0)
            assert [c.verdict for c in expected] == [command.WORDS[v] for v in verdicts]
            assert [c.p for c in expected] == pytest.approx(list(ps))


def test_at_most_five_percent_false_calls(command, tables):
    """The exact bound is below 5 % in every cell; a simulated count may exceed it by chance only."""
    assert tables["studies"] == 20_000
    cells = {(row["scores"], row["m"], row["n"]) for row in tables["null"]}
    assert cells == set(itertools.product(command.DISTRIBUTIONS, (1, 5, 20), (6, 10)))
    for row in tables["null"]:
        assert row["at_most"] < 0.05 and row["verdict"]["share"] <= 0.05, row
        assert row["verdict"]["count"] <= scipy_stats.binom.ppf(0.999, tables["studies"], row["at_most"]), row
        assert row["reachable"] or row["verdict"]["count"] == 0


def test_real_differences_are_found_and_never_called_the_wrong_way(tables):
    for row in tables["power"]:
        assert row["worse"] < 0.001 and row["any_other_called"] <= 0.05
        if row["effect_sd"] == 2 and row["m"] == 1:
            assert row["better"] >= {6: 0.75, 10: 0.95}[row["n"]], row
    assert all(row["true_delta"] <= 0.03 for row in tables["equivalence"])
    assert all(row["declared"]["share"] <= 0.075 for row in tables["looks"])


@pytest.mark.slow
def test_the_tables_are_those_of_the_command(command, tables, tmp_path):
    made = command.main(["--studies", "400", "--out", str(tmp_path / "tables.json")])
    again = json.loads((tmp_path / "tables.json").read_text(encoding="utf-8"))
    assert again["null"] == made["null"] and again["about"] == tables["about"]
    for name in ("null", "power", "equivalence", "looks", "coverage"):
        assert len(again[name]) == len(tables[name])
    for few, many in zip(again["null"], tables["null"], strict=True):
        expected = many["verdict"]["share"]
        assert abs(few["verdict"]["share"] - expected) <= 5 * math.sqrt(max(expected, 1e-3) / 400), few
