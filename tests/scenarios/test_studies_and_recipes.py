"""Experiments in the shapes study and recipe: what is asked, what is missing, what is known, and the task of a recipe."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from netwright.bench.carry import Means
from netwright.bench.experiment import Experiment
from netwright.bench.request import open_task
from netwright.contract import apply, checks
from netwright.core import catalogue
from netwright.core.errors import NetwrightError, UnknownName
from netwright.core.part import Option, Paper
from netwright.experiments._kind import Control, Question, RecipePart, StudyPart, verdict
from netwright.show.experiments import markdown, page, plain, told

OWN = Paper(title="A toy", authors="Nobody", year=2026)


def ask(*, task: str, gate: str, steps: int) -> Question | None:
    """Two arms under names of their own; nothing is asked of digits with "silu"."""
    if (task, gate) == ("digits", "silu"):
        return None
    return Question(task, {"plain": "relu", "gate": gate}, terms={"trials": 1, "steps": steps, "match": "none"})


WORSE = verdict("gate", "it is no worse", "gate", ("better", "equivalent"))


def asking(**changes: Any) -> StudyPart:
    given: dict[str, Any] = {
        "name": "asking",
        "paper": OWN,
        "grid": {"task": ("moons", "digits"), "gate": ("relu6", "silu")},
        "options": (Option("steps", 30),),
        "sizes": {"tiny": {"task": "moons", "gate": "silu", "seeds": 3}, "small": {"seeds": 3}, "full": {"seeds": 20}},
        "predicates": (WORSE,),
        "controls": (Control("one step", {"steps": 1}, ("gate",)),),
    }
    return StudyPart(ask, **{**given, **changes})


ASKING = asking()


def answered(part: Any, out: Path, **given: Any) -> Any:
    known = given.pop("known", None)
    asked = Experiment(part, out=out, means=Means(executor="serial"), **given)
    return asked.run(progress=False, known=known)


def test_every_question_is_a_study_and_nothing_is_asked_twice(tmp_path: Path) -> None:
    result = answered(asking(), tmp_path / "a", settings={"gate": ["silu", "elu"]})
    assert [tuple(point.values()) for point in result.table.points] == [("moons", "silu"), ("moons", "elu"), ("digits", "elu")]
    assert len(result.rows) == 3 * 2 * 3 and not result.failures and not result.missing
    entry = result.table.arm("gate", {"task": "moons", "gate": "elu"})
    assert entry["arm"] == "elu" and entry["verdict"] == "cannot tell" and entry["params"] > 0  # three seeds can't tell
    assert result.table.arm("plain", {"task": "moons", "gate": "elu"})["verdict"] == "baseline"
    assert result.word == "cannot tell" and "cannot tell on 3 of 3" in result.words[0].reason
    again = answered(asking(), tmp_path / "a", settings={"gate": ["silu", "elu"]})
    assert again.rows == result.rows
    assert all(point["command"].startswith("netwright compare relu") for point in result.studies)


def test_a_question_that_cannot_be_asked_is_a_row_with_the_reason(tmp_path: Path) -> None:
    result = answered(asking(), tmp_path, settings={"task": "moons", "gate": ["silu", "no-such-gate"]})
    assert len(result.failures) == 1 and "no-such-gate" in result.failures[0] and len(result.studies) == 1
    assert result.words[0].values == {"moons/silu": "cannot tell", "moons/no-such-gate": None}


def test_when_the_time_is_over_what_is_left_is_missing_and_what_is_known_is_kept(tmp_path: Path) -> None:
    first = answered(asking(), tmp_path / "a", settings={"task": "moons", "gate": ["silu"]})
    record = json.loads(json.dumps(plain(first)))
    more = answered(asking(), tmp_path / "b", settings={"task": "moons"}, budget=1e-9, known=record)
    assert more.missing == ("task=moons,gate=relu6",) and [dict(row) for row in more.rows] == record["rows"]
    assert more.words[0].values == {"moons/relu6": None, "moons/silu": "cannot tell"} and "not run on 1 of 2" in told(more)[1]
    record["studies"][0]["fingerprints"]["activation/silu"] = "0" * 16
    assert not answered(asking(), tmp_path / "c", settings={"task": "moons"}, budget=1e-9, known=record).rows
    for text in (page(more, asking()), markdown(json.loads(json.dumps(plain(more))), asking())):
        assert "task=moons,gate=relu6" in text and "silu" in text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"predicates": (dataclasses.replace(WORSE, reads=("verdicts",)),)}, "did you mean verdict"),
        ({"controls": (Control("x", {}, makes=("gate",)),)}, "no control breaks gate"),
        ({"controls": (Control("x", {}, ("gate",), makes=("gates",)),)}, "did you mean gate"),
        ({"grid": {"task": ("moons",)}}, "its function takes"),
    ],
)
def test_a_wrong_declaration_of_a_study_says_what_is_wrong(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(NetwrightError, match=said):
        asking(**changes)


def make_task(size: str, *, width: int) -> Any:
    task: Any = catalogue.get("task/moons")
    return dataclasses.replace(task.build(), id="experiment/own-recipe", steps=20, evals=(20,), widths=(width, width))


def recipe_of_ones_own(**changes: Any) -> RecipePart:
    given: dict[str, Any] = {
        "name": "own-recipe",
        "paper": OWN,
        "arms": ("relu", "elu"),
        "terms": {"trials": 1},
        "options": (Option("width", 8),),
        "sizes": {"tiny": {"seeds": 2, "width": 4}, "small": {"seeds": 3, "arms": ("relu", "silu")}, "full": {}},
        "predicates": (verdict("gate", "it is no worse", "elu", ("better", "equivalent")),),
        "controls": (Control("wide", {"width": 9}, ("gate",)),),
    }
    return RecipePart(make_task, **{**given, **changes})


RECIPE = recipe_of_ones_own()


def test_a_recipe_compares_its_arms_on_a_task_of_its_own(tmp_path: Path) -> None:
    part = recipe_of_ones_own()
    assert part.task("tiny").widths == (4, 4) and part.task(width=5).widths == (5, 5)
    result = answered(part, tmp_path / "a", size="tiny")
    assert {arm["arm"] for arm in result.table.arms} == {"relu", "elu"} and len(result.rows) == 4 and not result.failures
    assert result.words[0].values == {"elu": "cannot tell"}
    assert {arm["arm"] for arm in answered(part, tmp_path / "b").table.arms} == {"relu", "silu"}
    with pytest.raises(UnknownName, match="did you mean width"):
        Experiment(part, settings={"widht": 3})


def test_the_task_of_a_recipe_is_found_by_name() -> None:
    with pytest.raises(NetwrightError, match="brings no task"):
        open_task("recipe/ntk", {})
    with pytest.raises(UnknownName):
        open_task("recipe/no-such-recipe", {})


def test_the_contract_sees_a_control_that_makes_nothing_hold() -> None:
    part = asking(controls=(Control("x", {"steps": 1}, ("gate",), makes=("gate",)),))
    (holds,) = (check for check in checks(part.kind) if check.name == "holds")
    assert "with the control" in apply(part, holds).message


def test_a_question_on_a_task_that_is_made_here_is_told_by_a_command_that_exists(tmp_path: Path) -> None:
    result = answered(RECIPE, tmp_path, size="tiny", settings={"width": 5})
    (study,) = result.studies
    assert study["command"] == "netwright run own-recipe --size tiny --seeds 2 --set width=5"
    (other,) = answered(ASKING, tmp_path / "b", settings={"task": "moons", "gate": "silu"}).studies
    assert other["command"].startswith("netwright compare relu silu --task moons")
