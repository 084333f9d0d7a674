"""Scores that exist already: the verdicts of a study on the same numbers, and an error for whatever can't be read as scores."""

from __future__ import annotations

import json
import math
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic
from typer.testing import CliRunner

import netwright
from netwright.bench import stats
from netwright.bench.own.scores import read_scores
from netwright.cli import app
from netwright.core import catalogue
from netwright.core.errors import BadInput, NetwrightError, UnknownName
from netwright.show import words
from netwright.show.html import page
from netwright.show.machine import document
from netwright.show.terminal import lines

TERMS: dict[str, Any] = {"delta": 0.005, "higher_is_better": True}
RED = [0.901, 0.911, 0.905, 0.899, 0.913, 0.908, 0.902]
BLUE = [0.921, 0.930, 0.927, 0.918, 0.931, 0.929, 0.921]
TEAL = [0.902, 0.910, 0.906, 0.898, 0.914, 0.907, 0.903]
GIVEN = {"red": RED, "blue": BLUE, "teal": TEAL}


class Text(HTMLParser):
    """The text of a page, as one line."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: set[str] = set()
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.found.append(data)

    def __str__(self) -> str:
        return " ".join(" ".join(self.found).split())


def found(result: Any) -> dict[tuple[str, str], Any]:
    return {(c.a, c.b): c for c in result.comparisons}


# The same verdicts ----------------------------------------------------------------------------------------------------


def test_a_study_judged_again_from_its_scores_has_the_same_comparisons(tmp_path: Path) -> None:
    rows = catalogue.parts("activation")
    arms = [p.id for p in rows if p.tags.shape == "elementwise" and not p.learn and not any(o.search for o in p.options)][:3]
    small = {"task": "moons", "trials": 1, "steps": 10, "match": "none", "engine": "loop"}
    study = netwright.compare(arms, seeds=6, all_pairs=True, out=tmp_path / "s", **small)
    worst = None if math.isnan(study.worst) else study.worst
    scores = {arm.name: arm.scores for arm in study.arms}
    terms = {"delta": study.delta, "higher_is_better": study.higher_is_better, "worst": worst}
    again = netwright.judge(scores, all_pairs=True, metric=study.metric, **terms)
    assert again.comparisons == study.comparisons
    assert [(a.mean, a.interval, a.n, a.failed) for a in again.arms] == [(a.mean, a.interval, a.n, a.failed) for a in study.arms]


def test_verdicts_are_those_of_the_statistics_with_failures_and_gaps() -> None:
    made = synthetic.study(6, 10, 2)
    lost = {(s.arm, s.seed) for s in made.scores if s.failed}
    assert lost
    first, *others = (arm.name for arm in made.arms)
    scores = {a.name: {s: None if (a.name, s) in lost else v for s, v in a.scores.items()} for a in made.arms}
    del scores[others[0]][4]
    judged = netwright.judge(scores, worst=made.worst, baseline=others[1], **TERMS)
    filled = {arm: {s: made.worst if v is None else v for s, v in row.items()} for arm, row in scores.items()}
    failed = {arm: {s for a, s in lost if a == arm} for arm in filled}
    expected = stats.compare(filled, baseline=others[1], failed=failed, **TERMS)
    assert found(judged) == {(c.a, c.b): c for c in expected}
    assert {c.verdict for c in expected} > {"cannot tell"}
    assert f"{others[0]} has no score at seed 4: left out of its pairs" in judged.notes
    assert found(judged)[others[0], others[1]].n == 9
    assert judged.baseline == judged.arms[0].name == others[1] and first in {a.name for a in judged.arms}


def test_lists_arrays_and_mappings_are_the_same_scores() -> None:
    terms = {"worst": 0.1, **TERMS}
    plain = netwright.judge(GIVEN, **terms)
    arrays = netwright.judge({arm: np.array(row) for arm, row in GIVEN.items()}, **terms)
    by_seed = netwright.judge({arm: dict(reversed(list(enumerate(row)))) for arm, row in GIVEN.items()}, **terms)
    assert plain == arrays == by_seed
    assert plain.comparisons[0].verdict == "better" and plain.comparisons[1].verdict == "equivalent"
    numbered = netwright.judge(GIVEN, seeds=range(10, 17), **terms)
    assert numbered.seeds == tuple(range(10, 17)) and list(numbered.comparisons[0].differences) == list(range(10, 17))
    assert [c.p for c in numbered.comparisons] == [c.p for c in plain.comparisons] and numbered.study != plain.study


def test_lower_is_better_turns_better_into_worse() -> None:
    turned = netwright.judge(GIVEN, delta=0.005, higher_is_better=False)
    assert [c.verdict for c in turned.comparisons] == ["worse", "equivalent"]


@pytest.mark.parametrize("absent", [None, math.nan, math.inf, np.float64("nan")])
def test_a_failed_replicate_scores_worst(absent: Any) -> None:
    scores = {"red": RED, "blue": [*BLUE[:-1], absent]}
    with pytest.raises(BadInput, match=r"blue at seed 6\) need worst="):
        netwright.judge(scores, **TERMS)
    judged = netwright.judge(scores, worst=0.1, **TERMS)
    assert judged.arms[1].failed == 1 and judged.arms[1].scores[6] == 0.1
    assert judged.comparisons[0].failures == (1, 0) and judged.comparisons[0].verdict == "cannot tell"
    assert "1 replicate of blue (seed 6)" in str(Text(page(judged)))
    with pytest.raises(BadInput, match=r"worst=0.9 is better than 0.899, the score of red at seed 3 \(higher is better\)"):
        netwright.judge(scores, worst=0.9, **TERMS)


def test_coarse_scores_and_scores_at_the_top_are_not_equivalent() -> None:
    fine = netwright.judge(GIVEN, resolution=0.001, best=1.0, **TERMS)
    assert [c.verdict for c in fine.comparisons] == ["better", "equivalent"]
    coarse = netwright.judge(GIVEN, resolution=0.01, **TERMS)
    assert [c.verdict for c in coarse.comparisons] == ["better", "cannot tell"]
    assert "steps of 0.01, coarser than the 0.005 that matters" in coarse.comparisons[1].reason
    easy = {"red": [1.0, 1.0, 1.0, 0.999, 1.0, 1.0], "blue": [1.0, 0.999, 1.0, 1.0, 1.0, 1.0]}
    assert netwright.judge(easy, **TERMS).comparisons[0].verdict == "equivalent"
    assert "the task is too easy" in netwright.judge(easy, best=1.0, **TERMS).comparisons[0].reason


def test_values_have_paired_differences_and_no_verdict() -> None:
    seconds = {"red": [2.0] * 7, "blue": [3.0, 3.2, 2.9, 3.1, 3.0, 2.8, None]}
    judged = netwright.judge(GIVEN, values={"seconds": seconds}, **TERMS)
    assert found(judged) == found(netwright.judge(GIVEN, **TERMS))
    red, blue, teal = judged.values
    assert (red.mean, red.n, red.difference, red.pairs) == (2.0, 7, None, 0)
    assert blue.n == blue.pairs == 6 and blue.difference == pytest.approx(1.0)
    assert blue.difference_interval == pytest.approx(stats.t_interval([1.0, 1.2, 0.9, 1.1, 1.0, 0.8], 1 - 0.05 / 2))
    assert (teal.mean, teal.n, teal.difference) == (None, 0, None)
    text = str(Text(page(judged)))
    assert "Further values" in text and "seconds" in text
    assert document(judged, "", "")["values"][1]["pairs"] == 6


# What is shown --------------------------------------------------------------------------------------------------------


def test_page_and_table_say_what_was_not_seen(tmp_path: Path) -> None:
    judged = netwright.judge(GIVEN, metric="accuracy", name="my runs", out=tmp_path / "new" / "folder", **TERMS)
    written = (tmp_path / "new" / "folder" / "report.html").read_text(encoding="utf-8")
    assert written == page(judged)
    text = str(Text(written))
    assert -1 < text.lower().index(words.UNSEEN) < text.index("Verdict")
    for c in judged.comparisons:
        assert words.sentence(c) in text and c.reason.split(" (")[0] in text
    for unknown in (
        "unknown",
        "nan",
        "not a number",
        "not tuned",
        "None",
        "test data",
        "test accuracy",
        "tuning trial",
        "0 runs",
    ):
        assert unknown not in text, unknown
    said = lines(judged)
    assert words.UNSEEN in said[1].lower() and "unknown" not in "\n".join(said)
    assert document(judged, "", "")["not_seen"] == ["tuning", "cost"]
    assert "not_seen" not in document(synthetic.study(2, 6, 1), "", "")
    assert words.UNSEEN not in page(synthetic.study(2, 6, 1)).lower()


def test_hostile_names_stand_as_text() -> None:
    scores = {name: [0.1 * i + 0.01 * s for s in range(6)] for i, name in enumerate(synthetic.NASTY)}
    values = {synthetic.NASTY[0]: scores}
    scores[synthetic.NASTY[1]][2] = None
    judged = netwright.judge(scores, name=synthetic.NASTY[0], metric="<b>acc</b>", worst=-1, values=values, **TERMS)
    made = page(judged)
    read = Text(made)
    assert not read.tags & {"script", "img", "b"} and synthetic.NASTY[0] in str(read)
    assert "\x1b" not in made and "\x00" not in made
    assert not [c for c in "\n".join(lines(judged)) if ord(c) < 32 and c != "\n"]


# What is refused ------------------------------------------------------------------------------------------------------

BY_SEED = {arm: dict(enumerate(row)) for arm, row in GIVEN.items()}


@pytest.mark.parametrize(
    ("scores", "changes", "said"),
    [
        ([RED, BLUE], {}, r"scores is \[\[0.901.*expected arms by name"),
        ({"red": RED}, {}, "scores has the one arm red; expected two or more"),
        ({}, {}, "scores has no arm; expected two or more"),
        ({"red": RED, 3: BLUE}, {}, "the name of an arm in scores is 3; expected a text"),
        ({"red": RED, " ": BLUE}, {}, "the name of an arm"),
        ({"red": RED, "blue": 0.9}, {}, r"scores\['blue'\] is 0.9; expected a list"),
        ({"red": RED, "blue": "0.9"}, {}, r"scores\['blue'\] is '0.9'"),
        ({"red": RED, "blue": set(BLUE)}, {}, "expected a list of numbers"),
        ({"red": RED, "blue": []}, {}, r"scores\['blue'\] is empty"),
        ({"red": RED, "blue": BLUE[:-1]}, {}, r"scores\['red'\] has 7 numbers and scores\['blue'\] 6.*put None"),
        ({"red": RED, "blue": BY_SEED["blue"]}, {}, "is a list and .* a mapping by seed"),
        ({"red": RED, "blue": [*BLUE[:-1], "0.9"]}, {}, r"scores\['blue'\] has '0.9' at seed 6; expected a number"),
        ({"red": RED, "blue": [*BLUE[:-1], [1, 2]]}, {}, r"has \[1, 2\] at seed 6"),
        ({"red": RED, "blue": {"a": 1.0}}, {}, "is a list and"),
        ({"red": {0: 1.0}, "blue": {"a": 1.0}}, {}, "has the seed 'a'; expected whole numbers"),
        (GIVEN, {"delta": 0}, "delta=0; expected a number above 0"),
        (GIVEN, {"delta": None}, "delta=None"),
        (GIVEN, {"delta": "0.1"}, "delta='0.1'"),
        (GIVEN, {"delta": math.inf}, "delta=inf"),
        (GIVEN, {"higher_is_better": "yes"}, "higher_is_better='yes'; expected True or False"),
        (GIVEN, {"baseline": "blu"}, "baseline: no arm is called 'blu'; did you mean blue"),
        (GIVEN, {"worst": "low"}, "worst='low'; expected a score"),
        (GIVEN, {"worst": 1, "best": 0.5}, "best=0.5 isn't better than worst=1"),
        (GIVEN, {"best": 0.93}, "blue scores 0.931 at seed 4, better than best=0.93"),
        (GIVEN, {"resolution": -1}, "resolution=-1; expected a number above 0"),
        (GIVEN, {"name": ""}, "name is ''; expected a text"),
        (GIVEN, {"metric": 1}, "metric is 1; expected a text"),
        (GIVEN, {"seeds": 7}, "seeds=7; expected different whole numbers"),
        (GIVEN, {"seeds": [1, 1, 2, 3, 4, 5, 6]}, "expected different whole numbers"),
        (GIVEN, {"seeds": [1, 2]}, r"seeds has 2 numbers and scores\['red'\] 7"),
        (BY_SEED, {"seeds": range(7)}, "by seed already, so leave it out"),
        (GIVEN, {"all_pairs": 1}, "all_pairs=1; expected True or False"),
        (GIVEN, {"values": [1]}, r"values=\[1\]; expected name"),
        (GIVEN, {"values": {"seconds": {"rad": RED}}}, r"values\['seconds'\]: no arm is called 'rad'; did you mean red"),
        (GIVEN, {"values": {"seconds": {"red": RED[1:]}}}, r"values\['seconds'\]\['red'\] 6"),
        (GIVEN, {"out": 3}, "out=3; expected a folder"),
    ],
)
def test_a_bad_argument_is_named(scores: Any, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(NetwrightError, match=said) as raised:
        netwright.judge(scores, **{**TERMS, **changes})
    assert "\n" not in str(raised.value)


def test_what_has_to_be_given_has_no_default(tmp_path: Path) -> None:
    for name in TERMS:
        with pytest.raises(TypeError, match=name):
            netwright.judge(GIVEN, **{key: value for key, value in TERMS.items() if key != name})
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="is a file"):
        netwright.judge(GIVEN, out=tmp_path / "file", **TERMS)


def test_arms_that_share_no_seed_cannot_be_told() -> None:
    (c,) = netwright.judge({"red": {0: 1.0}, "blue": {1: 1.0}}, **TERMS).comparisons
    assert (c.verdict, c.n) == ("cannot tell", 0)


# Files ----------------------------------------------------------------------------------------------------------------

LONG = [("arm", "seed", "score", "seconds", "host")]
LONG += [(arm, str(s), str(v), str(2 + len(arm) + s / 10), "one") for arm, row in GIVEN.items() for s, v in enumerate(row)]
WIDE = [("seed", *GIVEN)] + [(str(s), *(str(row[s]) for row in GIVEN.values())) for s in range(7)]


def written(path: Path, rows: Any) -> Path:
    path.write_text("".join(",".join(row) + "\n" for row in rows), encoding="utf-8")
    return path


def judge(*arguments: Any) -> Any:
    return CliRunner().invoke(app, ["judge", *map(str, arguments)])


def test_both_forms_give_what_python_gives(tmp_path: Path) -> None:
    expected = found(netwright.judge(GIVEN, **TERMS))
    for name, rows in (("long", LONG), ("wide", WIDE)):
        file = read_scores(written(tmp_path / f"{name}.csv", rows))
        assert found(netwright.judge(file.scores, **TERMS)) == expected
    told = ["--delta", 0.005, "--higher-is-better", "--out", tmp_path / "out"]
    done = judge(tmp_path / "wide.csv", *told, "--json", "--metric", "accuracy", "--all-pairs")
    made = json.loads(done.stdout)
    assert done.exit_code == 0 and made["not_seen"] == ["tuning", "cost"] and len(made["comparisons"]) == 3
    assert "accuracy" in Path(made["report"]).read_text(encoding="utf-8")
    done = judge(tmp_path / "long.csv", *told)
    assert done.exit_code == 0 and words.UNSEEN in done.stdout.lower() and "blue is better than red" in done.stdout
    assert "column host is left out" in done.stdout and "report: " in done.stdout
    assert "Further values" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_another_column_can_be_judged(tmp_path: Path) -> None:
    path = written(tmp_path / "long.csv", LONG)
    told = ["--delta", 0.005, "--lower-is-better", "--judge", "seconds", "--baseline", "teal", "--json", "--out", tmp_path]
    made = json.loads(judge(path, *told).stdout)
    assert [(c["a"], c["b"], c["verdict"]) for c in made["comparisons"]] == [
        ("red", "teal", "better"),
        ("blue", "teal", "equivalent"),
    ]
    assert {row["value"] for row in made["values"]} == {"score"}
    assert "judged by seconds" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_order_of_columns_and_rows_changes_nothing(tmp_path: Path) -> None:
    def of(rows: Any) -> Any:
        file = read_scores(written(tmp_path / "scores.csv", rows))
        result = netwright.judge(file.scores, baseline="teal", values=file.values, **TERMS)
        return result.study, found(result), {(row.value, row.arm): row for row in result.values}

    shuffled = [LONG[0], *LONG[:0:-1]]
    assert of(LONG) == of(shuffled) == of([(row[3], row[2], row[4], row[1], row[0]) for row in shuffled])
    turned = [WIDE[0], *WIDE[:0:-1]]
    assert of(WIDE) == of(turned) == of([(row[0], *row[:0:-1]) for row in turned])


def test_what_spreadsheets_and_pandas_write_is_read(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_bytes('\ufeff,arm,seed,score\r\n0,red,0.0, 1e-1 \r\n\r\n1,"bl,ue",0,\r\n,,,\r\n'.encode())
    file = read_scores(path)
    assert file.scores == {"red": {0: 0.1}, "bl,ue": {0: None}} and file.values == {} and file.notes == ()
    path.write_text("arm,seed,score,empty,some\nred,0,1,,5\nblue,0,NaN,,\n")
    file = read_scores(path)
    assert file.scores["blue"] == {0: None} and file.values == {"some": {"red": {0: 5.0}, "blue": {0: None}}}
    assert file.notes == ("column empty is left out: it holds no number",)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "scores.csv is empty; a long file has the columns arm, seed, score"),
        (" \n,,\n", "is empty"),
        ("arm,seed,score\n", "has a header and no line below it"),
        ("arm,seed,scor\nred,0,1\n", "no column is called 'score'; did you mean scor"),
        ("Arm,sed,score\nred,0,1\n", "no column is called 'arm'"),
        ("arm;seed;score\nred;0;1\n", "no column is called 'arm'"),
        ("arm,seed,score\nred,0,1\nblue,0,good\n", "line 3: score is 'good'; expected a number"),
        ('arm,seed,score\nred,0,1\nblue,0,"0,9"\n', "line 3: score is '0,9'; expected a number with a decimal point"),
        ("arm,seed,score\nred,0,1_0\n", "line 2: score is '1_0'"),
        ("seed,red,blue\n0,1,2\n\n1,x,2\n", "line 4: red is 'x'"),
        ("arm,seed,score\nred,0,1\nblue,0,1\nred,0,2\n", "line 4: red at seed 0 stands in line 2 already"),
        ("seed,red,blue\n0,1,2\n0,1,2\n", "line 3: seed 0 stands in line 2 already"),
        ("arm,seed,score\nred,first,1\n", "line 2: the seed 'first' is no whole number"),
        ("arm,seed,score\nred,inf,1\n", "line 2: the seed 'inf'"),
        ("arm,seed,score\nred,0.5,1\n", "line 2: the seed '0.5'"),
        ("arm,seed,score\n,0,1\n", "line 2: the arm has no name"),
        ("arm,seed,score\nred,0,1\nred,1,1\n", "has the one arm red; a verdict takes two or more"),
        ("seed,red\n0,1\n", "has 1 column after seed; expected two arms or more"),
        ("arm,seed,score\nred,0\n", "line 2: 2 cells, and the header has 3"),
        ("arm,seed,,score\nred,0,1,1\n", "a column has no name"),
        ("seed,red,red\n0,1,1\n", "two columns are called 'red'"),
        ('arm,seed,score\n"red,0,1\n', "line 2: unexpected end of data"),
    ],
)
def test_a_bad_file_gives_one_clear_line(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "scores.csv"
    path.write_text(content, encoding="utf-8")
    done = judge(path, "--delta", 1, "--higher-is-better", "--out", tmp_path / "out")
    assert done.exit_code == 2 and said in done.stderr, done.stderr
    assert done.stderr.startswith("error: scores.csv") and done.stderr.count("\n") == 1 and not (tmp_path / "out").exists()


def test_files_that_are_no_text_and_options_that_are_missing(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_bytes("arm,seed,score\nnaïve,0,1\n".encode("latin-1"))
    for encoded in (path.read_bytes(), "arm,seed".encode("utf-16")):
        path.write_bytes(encoded)
        with pytest.raises(BadInput, match=r"scores.csv isn't UTF-8 text \(at byte \d+\); save it as CSV in UTF-8"):
            read_scores(path)
    for lost in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(BadInput, match="can't be read: "):
            read_scores(lost)
    written(path, WIDE)
    with pytest.raises(BadInput, match="there is no column 'seconds' to judge"):
        read_scores(path, "seconds")
    written(path, LONG)
    with pytest.raises(BadInput, match="no column is called 'second'; did you mean seconds"):
        read_scores(path, "second")
    with pytest.raises(BadInput, match="judge one that holds scores"):
        read_scores(path, "seed")
    assert "judge needs --delta:" in judge(path, "--lower-is-better").stderr
    assert "judge needs --delta and --higher-is-better or --lower-is-better:" in judge(path).stderr
    with pytest.raises(UnknownName, match="did you mean teal"):
        netwright.judge(read_scores(path).scores, baseline="tea", **TERMS)
