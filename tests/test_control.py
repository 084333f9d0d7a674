"""The control of a task: where rules are compared it stands in every table, and never in the family of comparisons."""

from __future__ import annotations

import pytest

from netwright.bench.study import Study
from netwright.compare import compare
from netwright.core import catalogue
from netwright.show import words
from netwright.show.machine import document
from netwright.show.terminal import lines

SMALL = {"task": "digits", "seeds": 6, "trials": 1, "steps": 60, "match": "none"}


def other_rules(n: int) -> list[str]:
    """Names of rules that are neither the default nor the control of the task, and are stacked."""
    slots = Study("digits", ["default"]).task
    taken = {slots.slots["rule"], slots.control}
    found = [p for p in catalogue.parts("rule") if p.id not in taken and p.tags.stackable and p.tags.local]
    return [p.name for p in found if p.tags_at().forwards_predict == 1.0][:n]


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    return compare(["default", *other_rules(1)], out=tmp_path_factory.mktemp("control"), **SMALL)


def test_it_is_run_and_shown_and_left_out_of_the_family(result):
    control = result.arms[-1].name
    assert result.control == control and result.arms[-1].n == 6
    assert len(result.comparisons) == 1 and control not in {result.comparisons[0].a, result.comparisons[0].b}
    assert {c.b for c in result.against_control} == {control} and len(result.against_control) == 2
    assert any(row.startswith(control) and " control " in row for row in lines(result))
    assert document(result, "", "")["control"] == control


def test_a_rule_that_does_not_clearly_beat_it_says_so(result):
    said = words.against_control(result)
    for c in result.against_control:
        above = any(line.startswith("Clearly above") and c.a in line for line in said)
        below = any(line.startswith(f"{c.a} is not clearly above") for line in said)
        assert (above, below) == ((c.verdict == "better"), (c.verdict != "better"))
    assert all(line in "\n".join(lines(result)) for line in said)


def test_each_arm_is_judged_against_it_for_itself(result):
    """Six seeds suffice, however many rules there are: the smallest p of one comparison is 0.031."""
    assert all(c.p == c.p_raw for c in result.against_control)


def test_an_arm_that_names_it_is_an_ordinary_arm():
    control = Study("digits", ["default"]).task.control
    request = Study("digits", ["default", control], **{k: v for k, v in SMALL.items() if k != "task"}).request
    assert request.control == control and not request.control_added and len(request.judged) == 2


def test_it_can_be_left_out_and_stays_away_where_no_rules_are_compared():
    rule = other_rules(1)[0]
    study = Study("digits", ["default", rule], control=False)
    assert len(study.request.arms) == 2 and study.command.endswith("--no-control")
    activation = next(p.name for p in catalogue.parts("activation") if p.tags.shape == "elementwise")
    assert len(Study("digits", ["default", activation]).request.arms) == 2
    assert len(Study("digits", [rule]).request.arms) == 1
