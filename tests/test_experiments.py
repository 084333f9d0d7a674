"""Experiments: words on predicates, cells that are run once, what goes wrong in a cell, the page, and the contract."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

import netwright
from netwright.bench.carry import Means
from netwright.bench.causes import NothingWorks
from netwright.bench.experiment import Experiment
from netwright.bench.own.experiment import load_part, settings_of
from netwright.bench.table import Table, finding, judged, reach
from netwright.contract import apply, checks
from netwright.core import catalogue
from netwright.core.errors import BadInput, NetwrightError, UnknownName
from netwright.core.kind import BENCH
from netwright.core.part import Option, Paper
from netwright.corpus import papers
from netwright.corpus.status import fresh
from netwright.experiments._kind import (
    Control,
    ExperimentPart,
    Figure,
    GridPart,
    Predicate,
    verdict,
)
from netwright.show.experiments import LOOKS, matrix, page, plain, told

OWN = Paper(title="A toy", authors="Nobody", year=2026)
CALLS: list[tuple[int, int]] = []


def cell(seed: int, *, n: int, noise: float, power: float) -> dict[str, Any]:
    """A power law of n with noise by the seed."""
    CALLS.append((n, seed))
    wobble = math.sin(37.0 * seed + n)
    if noise > 9 and n > 50:
        raise ValueError("too loud")
    return {"y": n**-power * math.exp(noise * wobble), "event": None if power < 0 else 1.0}


SLOPE = Predicate("slope", "falls as one over the root", lambda t: t.slope("n", "y"), (-0.6, -0.4), ("n", "y"), "section 1")


def toy(**changes: Any) -> GridPart:
    given: dict[str, Any] = {
        "name": "toy",
        "paper": OWN,
        "grid": {"n": (10, 100, 1000)},
        "gives": ("y", "event"),
        "options": (Option("noise", 0.05), Option("power", 0.5)),
        "sizes": {"tiny": {"n": (10, 100), "seeds": 3}, "small": {"seeds": 6}, "full": {"seeds": 20}},
        "predicates": (SLOPE,),
        "controls": (Control("another power", {"power": 1.0}, ("slope",)),),
        "figure": Figure("n", "y", "log-log"),
    }
    return GridPart(cell, **{**given, **changes})


TOY = toy()


def predicate(sort: str, inside: tuple[float, float]) -> Predicate:
    return Predicate("p", "it is so", lambda t: t.column("v")[0], inside, ("v",), sort=sort)


def rows(values: list[Any]) -> Table:
    return Table(tuple({"seed": seed, "v": value} for seed, value in enumerate(values)))


# Words ----------------------------------------------------------------------------------------------------------------


def test_a_number_is_told_by_its_interval() -> None:
    near = [1.0, 1.1, 0.9, 1.05, 0.95, 1.0]
    for inside, word in (
        ((0.5, 1.5), "reproduced"),
        ((-math.inf, 1.5), "reproduced"),
        ((2.0, 3.0), "not reproduced"),
        ((1.0, 2.0), "cannot tell"),
    ):
        said = judged(predicate("number", inside), rows(near), 1)
        assert said.word == word, (inside, said)
        assert said.interval is not None and said.interval[0] < 1 < said.interval[1] and said.mean == pytest.approx(1.0)


def test_more_predicates_ask_for_more_and_a_point_estimate_is_not_enough() -> None:
    values = [1.0, 1.4, 0.6, 1.2]
    one, ten = (judged(predicate("number", (0.4, 1.7)), rows(values), of) for of in (1, 10))
    assert one.word == "reproduced" and ten.word == "cannot tell" and ten.seeds_needed is not None and ten.seeds_needed > 4
    assert judged(predicate("number", (0.4, 1.7)), rows([1.0]), 1).word == "cannot tell"


def test_what_did_not_occur_cannot_be_told() -> None:
    said = judged(predicate("number", (0.0, 2.0)), rows([1.0, None, 1.0]), 1)
    assert said.word == "cannot tell" and "1 of 3 seeds" in said.reason


def test_a_share_is_told_by_clopper_and_pearson() -> None:
    for holds, n, word in ((40, 40, "reproduced"), (4, 4, "cannot tell"), (0, 40, "not reproduced")):
        said = judged(predicate("share", (0.8, 1.0)), rows([1.0] * holds + [0.0] * (n - holds)), 1)
        assert said.word == word and said.mean == holds / n
    lower = judged(predicate("share", (0.8, 1.0)), rows([1.0] * 40), 1).interval
    assert lower is not None and lower[0] == pytest.approx(0.025 ** (1 / 40))  # the exact bound where all hold
    assert "never reproduced with 4 seeds" in next(reach([predicate("share", (0.8, 1.0))], 4))


def test_exact_takes_the_worst_seed() -> None:
    assert judged(predicate("exact", (0.0, 1e-6)), rows([0.0, 5e-7]), 3).word == "reproduced"
    assert judged(predicate("exact", (0.0, 1e-6)), rows([0.0, 5e-6]), 3).word == "not reproduced"


def test_a_finding_is_as_good_as_its_worst_predicate() -> None:
    words = {w: judged(predicate("exact", (0, 1)), rows([v]), 1) for w, v in (("reproduced", 0.5), ("not reproduced", 2.0))}
    words["cannot tell"] = judged(predicate("number", (0, 1)), rows([0.5]), 1)
    for pair in itertools.product(words, repeat=2):
        wanted = next(w for w in ("not reproduced", "cannot tell", "reproduced") if w in pair)
        assert finding([words[w] for w in pair]) == wanted


def test_a_slope_is_the_power_of_a_power_law() -> None:
    table = Table(tuple({"seed": 0, "n": n, "y": 3 * n**-1.5} for n in (1, 10, 50)))
    assert table.slope("n", "y") == pytest.approx(-1.5)
    assert Table(({"seed": 0, "n": 1, "y": None}, {"seed": 0, "n": 2, "y": 1.0})).slope("n", "y") is None
    with pytest.raises(UnknownName, match="did you mean y"):
        table.column("yy")


# Declarations ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"gives": ("z",)}, "no column is called 'y'"),
        ({"controls": ()}, "no control breaks slope"),
        ({"controls": (Control("x", {}, ("slop",)),)}, "did you mean slope"),
        ({"figure": Figure("m", "y")}, "no column is called 'm'"),
        ({"grid": {"m": (1,)}}, "its function takes"),
        ({"sizes": {"small": {}}}, "expected tiny, small, full"),
        ({"sizes": {"tiny": {"nn": 3}, "small": {}, "full": {}}}, "size tiny: no axis or option is called 'nn'"),
        ({"predicates": (SLOPE, SLOPE)}, "a name of its own"),
        ({"predicates": ()}, "expected at least one"),
    ],
)
def test_a_wrong_declaration_says_what_is_wrong(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(NetwrightError, match=said):
        toy(**changes)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"size": "smal"}, "did you mean small"),
        ({"settings": {"noize": 1}}, "did you mean noise"),
        ({"settings": {"n": ["a"]}}, "expected int"),
        ({"settings": {"noise": "loud"}}, "expected float"),
        ({"seeds": 0}, "seeds=0"),
    ],
)
def test_a_wrong_request_says_what_is_wrong(given: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(NetwrightError, match=said):
        Experiment(toy(), out=tmp_path, **given)


def test_settings_of_the_command_line() -> None:
    assert settings_of(["depth=3", "width=[64, 128]", "scaling=ntk"]) == {"depth": 3, "width": [64, 128], "scaling": "ntk"}
    for wrong in (["depth"], ["depth=1", "depth=2"], ["width=[1,"]):
        with pytest.raises(BadInput, match="--set"):
            settings_of(wrong)


# Runs -----------------------------------------------------------------------------------------------------------------


def run(out: Path, **given: Any) -> Any:
    return Experiment(toy(), out=out, means=Means(executor="serial"), **given).run(progress=False)


def test_a_cell_is_run_once_and_seeds_extend(tmp_path: Path) -> None:
    CALLS.clear()
    first = run(tmp_path, seeds=3)
    assert first.word == "reproduced" and len(first.rows) == 9 and sorted(CALLS) == sorted(set(CALLS))
    CALLS.clear()
    again = run(tmp_path, seeds=3)
    assert not CALLS and again.rows == first.rows
    more = run(tmp_path, seeds=4)
    assert {seed for _, seed in CALLS} == {3} and more.rows[:9] == first.rows
    assert Experiment(toy(), seeds=3).study_id == Experiment(toy(), seeds=4).study_id
    assert Experiment(toy(), settings={"noise": 0.2}).study_id != Experiment(toy()).study_id


def test_another_cell_is_another_key() -> None:
    keys = {run.key for run in Experiment(toy()).runs()}
    assert len(keys) == 18
    assert not keys & {run.key for run in Experiment(toy(), settings={"noise": 0.06}).runs()}


def test_what_a_cell_raises_is_a_row_with_the_reason(tmp_path: Path) -> None:
    result = run(tmp_path, settings={"noise": 10.0})
    assert result.word == "cannot tell" and len(result.rows) == 6 and len(result.failures) == 12
    assert "ValueError: too loud" in result.failures[0] and "6 of 6 seeds lack cells" in result.notes[0]
    assert "failed: 4 more" in "\n".join(told(result))


@pytest.mark.parametrize(
    ("given", "said"), [({"y": math.nan}, "finite"), ({}, "no number"), (3.0, "mapping"), ({"z": 1.0}, "declared: y, event")]
)
def test_a_cell_that_gives_something_else_is_a_row_with_the_reason(given: Any, said: str, tmp_path: Path) -> None:
    def odd(seed: int, *, n: int, noise: float, power: float) -> Any:
        return given

    globals()["odd"] = odd
    odd.__qualname__ = "odd"
    asked = Experiment(dataclasses.replace(toy(), subject=odd), out=tmp_path, means=Means(executor="serial"))
    try:
        result = asked.run(progress=False)
        assert said in result.failures[0] and result.word == "cannot tell"
    except NothingWorks as error:  # every cell fails alike
        assert said in str(error)


FILE = """
from netwright.core.part import Option, Paper
from netwright.experiments import Control, Figure, Predicate, experiment

def cell(seed, *, n):
    return {"y": 1 / n + 0.001 * seed}

PART = experiment(
    cell, name="mine", paper=Paper(title="Mine", authors="Me", year=2026), summary="One over n.",
    grid={"n": (1, 10)}, gives=("y",),
    predicates=(Predicate("falls", "it falls", lambda t: t.at({"n": 1})["y"] - t.at({"n": 10})["y"], (0.5, 1.5), ("y",)),),
    controls=(Control("none", {}, ("falls",)),), figure=Figure("n", "y"),
    sizes={"tiny": {"seeds": 3}, "small": {"seeds": 3}, "full": {"seeds": 3}},
)
"""


def test_an_experiment_in_a_file_runs_in_processes_and_a_killed_one_continues(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(textwrap.dedent(FILE), encoding="utf-8")
    part = load_part(f"{path}:PART")
    serial = Experiment(part, out=tmp_path / "a", means=Means(executor="serial")).run(progress=False)
    apart = Experiment(part, out=tmp_path / "b", means=Means(executor="processes", workers=2)).run(progress=False)
    assert serial.rows == apart.rows and serial.word == "reproduced"
    words = [sys.executable, "-m", "netwright", "run", f"{path}:PART", "--out", str(tmp_path / "c"), "--json"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["rows"] == [dict(row) for row in serial.rows]
    with pytest.raises(BadInput, match="no file"):
        load_part(str(tmp_path / "none.py"))
    with pytest.raises(UnknownName, match="did you mean PART"):
        load_part(f"{path}:PARTS")


# Pages, status, contract ----------------------------------------------------------------------------------------------


def test_the_page_shows_word_predicates_and_table_and_escapes(tmp_path: Path) -> None:
    result = run(tmp_path, seeds=3)
    hostile = dataclasses.replace(toy(), summary="<script>alert(1)</script>")
    text = page(result, hostile)
    assert "reproduced" in text and "falls as one over the root" in text and "between -0.6 and -0.4" in text
    assert "<script>alert" not in text and "another power" in text
    assert json.loads(json.dumps(plain(result)))["predicates"][0]["inside"] == [-0.6, -0.4]
    (tmp_path / "none").mkdir()
    failed = run(tmp_path / "none", settings={"noise": 10.0})
    assert "too loud" in page(failed, toy()) and "cannot tell" in page(failed, toy())


def outcome(name: str, part: ExperimentPart) -> Any:
    return apply(part, next(check for check in checks(part.kind) if check.name == name))


def test_the_contract_sees_a_control_that_breaks_nothing_and_a_seed_that_does_nothing() -> None:
    assert all(outcome(name, toy()).ok for name in ("columns", "repeats", "holds", "can_fail"))
    assert "holds with the control" in outcome("can_fail", toy(controls=(Control("none", {"power": 0.5}, ("slope",)),))).message
    assert "at the size tiny" in outcome("holds", toy(predicates=(dataclasses.replace(SLOPE, inside=(1.0, 2.0)),))).message
    assert "two seeds give the same" in outcome("repeats", toy(options=(Option("noise", 0.0), Option("power", 0.5)))).message
    assert "numbers of a cell" in outcome("columns", toy(gives=("y", "event", "more"))).message


@pytest.mark.every_part
def test_findings_and_recipes_are_served_by_experiments_alone() -> None:
    row = next(row for row in papers.load() if row.form == "finding")
    other = next(part for part in catalogue.parts() if part.kind != catalogue.kind_at(BENCH))
    citing = dataclasses.replace(other, paper=Paper(row.slug))
    mine = toy(paper=Paper(row.slug))
    served = {r["slug"]: r["served_by"] for r in papers.rows([citing], lambda part: "draft")}
    assert served[row.slug] == []
    assert {r["slug"]: r["served_by"] for r in papers.rows([citing, mine], lambda part: "draft")}[row.slug] == [mine.id]


def test_the_experiments_on_record_are_fresh() -> None:
    folder = Path(__file__).parents[1] / "evidence" / "experiments"
    for path in folder.glob("*.json"):
        record = json.loads(path.read_text(encoding="utf-8"))
        part: Any = catalogue.get(record["part"])
        assert {p["name"] for p in record["predicates"]} == set(part.asked)
        assert fresh(record), f"{path.name}: run python evidence/commands/experiments.py"


def test_the_verb_runs_an_experiment_of_the_catalogue(tmp_path: Path) -> None:
    part = catalogue.parts(catalogue.kind_at(BENCH))[0]
    result = netwright.run(part.name, size="tiny", seeds=2, out=tmp_path)
    assert result.rows and (tmp_path / "report.html").is_file() and (tmp_path / "result.json").is_file()


# Words of the bench, and parts of a grid --------------------------------------------------------------------------------

ARMS = {"plain": "baseline", "gate": "better", "another-gate:option=value": "worse"}
WORDS = verdict("gate", "no worse", "gate", ("better", "equivalent"))


def test_cells_that_are_known_are_not_run_again(tmp_path: Path) -> None:
    name = catalogue.parts(catalogue.kind_at(BENCH))[-1].name
    given: dict[str, Any] = {"size": "tiny", "settings": {}}
    first = Experiment(name, seeds=2, out=tmp_path / "a", **given).run(progress=False)
    record = json.loads(json.dumps(plain(first)))
    again = Experiment(name, seeds=2, out=tmp_path / "b", budget=1e-9, **given).run(progress=False, known=record)
    assert again.rows == first.rows and not again.missing
    other = Experiment(name, seeds=3, out=tmp_path / "c", budget=1e-9, **given).run(progress=False, known=record)
    assert len(other.missing) == len(first.rows) / 2 and "1 of 3 seeds lack cells" in other.notes[0]


@pytest.mark.parametrize(
    ("words", "word"),
    [
        (["better", "equivalent"], "reproduced"),
        (["better", "cannot tell"], "cannot tell"),
        (["better", None], "cannot tell"),
        (["not comparable"], "cannot tell"),
        (["worse", None], "not reproduced"),
        ([], "cannot tell"),
    ],
)
def test_verdicts_say_what_came_of_a_predicate(words: list[str | None], word: str) -> None:
    points = tuple({"n": i} for i in range(len(words)))
    arms = tuple({"n": i, "arm": "gate", "role": "gate", "verdict": said} for i, said in enumerate(words) if said is not None)
    assert judged(WORDS, Table((), arms, points), 1).word == word


def test_a_predicate_reads_its_part_of_the_grid_alone() -> None:
    mine = dataclasses.replace(predicate("number", (0.5, 1.5)), at={"n": 1})
    rows = tuple({"n": n, "seed": seed, "v": 1.0 + 0.01 * seed} for n in (1, 2) for seed in range(3))[:5]  # one cell is missing
    table = Table(rows, points=({"n": 1}, {"n": 2}))
    assert judged(mine, table, 1).word == "reproduced" and len(judged(mine, table, 1).values) == 3
    assert len(judged(predicate("number", (0.5, 1.5)), table, 1).values) == 2  # the third seed lacks a cell
    assert judged(mine, Table((), points=({"n": 1},)), 1).word == "cannot tell"


def test_words_of_a_predicate_are_the_benchs() -> None:
    for inside, said in ((("beter",), "did you mean better"), (("cannot tell",), "tell something"), ((), "tell something")):
        with pytest.raises(NetwrightError, match=said):
            dataclasses.replace(WORDS, inside=inside)


@pytest.mark.parametrize("points", [1, 12])
def test_the_words_on_arms_and_their_key_lie_inside_the_figure(points: int) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    asked = tuple({"n": i} for i in range(points))
    arms = tuple({"n": i, "arm": arm, "role": arm, "verdict": word} for i in range(points) for arm, word in ARMS.items())
    drawn = matrix(Table((), arms, asked))
    renderer = FigureCanvasAgg(drawn).get_renderer()
    (axes,) = drawn.axes
    assert sorted(text.get_text()[0] for text in axes.texts) == sorted(
        "▲▼" * points + "".join(sign for sign, _ in LOOKS.values())
    )
    for text in [*axes.texts, *axes.get_xticklabels(), *axes.get_yticklabels()]:
        box = text.get_window_extent(renderer)
        assert drawn.bbox.x0 <= box.x0 and box.x1 <= drawn.bbox.x1 and drawn.bbox.y0 <= box.y0 and box.y1 <= drawn.bbox.y1, text
