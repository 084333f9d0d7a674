"""The command line as a person uses it, and its machine-readable output as a script does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from torch import nn
from typer.testing import CliRunner

import netwright
from netwright.cli import app

GOLDEN = Path(__file__).parents[1] / "golden"
QUICK = ["--task", "moons", "--seeds", "2", "--tune", "2", "--steps", "20"]


def netwright_(*words: str, ok: bool = True) -> Any:
    result = CliRunner().invoke(app, list(words))
    if ok:
        assert result.exit_code == 0, result.output + repr(result.exception)
    return result


def shape(value: Any) -> Any:
    """A document with its values replaced by their types: what has to stay stable."""
    if isinstance(value, dict):
        return {k: shape(v) for k, v in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return type(value).__name__ if value is not None else "null"


def test_compare_prints_only_its_document_on_stdout(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "netwright.cli", "compare", "relu", "golu", *QUICK, "--json", "--out", str(tmp_path / "s")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    document = json.loads(done.stdout)
    assert document["schema"] == 1
    assert [a["name"] for a in document["arms"]] == ["relu", "golu"]
    assert [(c["a"], c["b"]) for c in document["comparisons"]] == [("golu", "relu")]
    assert document["comparisons"][0]["verdict"] == "cannot tell"
    assert Path(document["report"]).read_text(encoding="utf-8").startswith("<!doctype html")
    assert "cannot tell" in done.stderr and "runs of 20 steps" in done.stderr
    golden = json.loads((GOLDEN / "compare_shape.json").read_text())
    assert shape(document) == golden


def test_the_same_command_continues_and_runs_nothing_again(tmp_path: Path) -> None:
    words = ("compare", "relu", "silu", *QUICK, "--json", "--out", str(tmp_path / "s"))
    first, second = netwright_(*words), netwright_(*words)
    assert json.loads(first.stdout)["arms"] == json.loads(second.stdout)["arms"]


def test_dry_run_says_what_would_happen_and_writes_nothing(tmp_path: Path) -> None:
    result = netwright_("compare", "relu", "golu", *QUICK, "--dry-run", "--json", "--out", str(tmp_path / "s"))
    plan = json.loads(result.stdout)
    assert plan["runs"] == 8 and not (tmp_path / "s").exists()
    assert "cannot tell" in plan["notes"][0]


def test_list_is_stable() -> None:
    rows = json.loads(netwright_("list", "activation", "--json").stdout)
    assert all(set(row) == {"id", "kind", "paper", "status", "tags"} for row in rows)
    golu = next(row for row in rows if row["id"] == "activation/golu")
    assert golu["paper"] == "golu" and golu["kind"] == "activation" and golu["tags"]["shape"] == "elementwise"
    assert "activation/golu" in netwright_("list", "--search", "gompertz").stdout


def test_papers_covers_the_corpus() -> None:
    rows = json.loads(netwright_("papers", "--json").stdout)
    assert len(rows) == 354
    assert all(set(row) == {"n", "slug", "title", "form", "family", "served_by", "status"} for row in rows)
    assert next(row for row in rows if row["slug"] == "golu")["served_by"] == ["activation/golu"]
    assert "family" in netwright_("papers").stdout


def test_card_shows_formula_curve_and_paper(tmp_path: Path) -> None:
    text = netwright_("card", "golu", "--picture", str(tmp_path / "golu.svg")).stdout
    assert "activation/golu" in text and "Gompertz" in text and "●" in text
    assert "<svg" in (tmp_path / "golu.svg").read_text(encoding="utf-8")
    assert json.loads(netwright_("card", "mono-forward", "--json").stdout)["kind"] == "rule"


def test_cite_gives_an_entry_a_part() -> None:
    text = netwright_("cite", "golu", "crelu").stdout
    assert text.count("@") == 2 and "Gompertz" in text


def test_check_of_a_part_of_the_catalogue() -> None:
    text = netwright_("check", "relu").stdout
    assert "activation/relu" in text and "FAIL" not in text


OWN = '''"""Half of x, said to be something else."""
import torch
from netwright.activations import Tags, activation
from netwright.core.part import Claim, Paper

def half(x):
    return torch.where(x > 3, x, 0.5 * x)

def reference(x: float) -> float:
    return 0.5 * x

PART = activation(half, cls="Half", reference=reference, formula="x/2", tags=Tags(smooth=True, monotone=True),
                  paper=Paper(title="Half", authors="A. Uthor", year=2026),
                  claims=(Claim("c", "one is halved", check=lambda: reference(1.0) == 0.5),))
'''


def test_check_of_your_own_part_names_the_smallest_failing_input(tmp_path: Path) -> None:
    path = tmp_path / "half.py"
    path.write_text(OWN)
    result = netwright_("check", f"{path}:PART", ok=False)
    assert result.exit_code == 1
    assert "FAIL  reference" in result.stdout and "3." in result.stdout


def test_check_stops_a_part_that_hangs(tmp_path: Path) -> None:
    path = tmp_path / "slow.py"
    path.write_text(OWN.replace("def half(x):\n", "def half(x):\n    import time\n    time.sleep(60)\n"))
    report = netwright.check(f"{path}:PART", limit=15)
    assert not report.ok and "limit of 15 s" in report.unfinished


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["compare", "relu", "gollu"], "did you mean activation/golu"),
        (["compare", "relu", "golu", "--task", "digitz"], "did you mean task/digits"),
        (["compare", "relu", "swish:betta=2"], "did you mean beta"),
        (["compare", "relu", "golu", "--task", "digits:sice=full"], "did you mean size"),
        (["compare", "relu", "snake:a"], "is not key=value"),
        (["compare", "relu", "golu+relu"], "both fill the slot"),
        (["compare", "relu", "digits"], "no slot admits it"),
        (["compare", "relu", "relu"], "given twice"),
        (["compare", "relu", "golu", "--match", "flop"], "did you mean flops"),
        (["compare", "relu", "golu", "--seeds", "0"], "whole numbers from 1"),
        (["compare", "relu", "golu", "--device", "cuda"], "no CUDA device"),
        (["compare", "relu+forward-forward", "golu", "--task", "sine"], "needs labels"),
        (["compare", "relu", "golu", "--limit", "5", "--executor", "serial"], "worker processes"),
        (["compare", "relu", "golu", "--task", "nowhere.py:TASK"], "nowhere.py"),
        (["compare", "relu", "golu", "--task", "mnist", "--data", "/no/such/folder"], "/no/such/folder"),
        (["card", "gollu"], "did you mean activation/golu"),
        (["check", "no.such.module:PART"], "no.such"),
        (["list", "activations"], "did you mean activation"),
    ],
)
def test_bad_input_says_what_and_what_instead(
    words: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = netwright_(*words, ok=False)
    assert result.exit_code == 2, result.output
    assert says in result.stderr
    assert "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == []


def test_names_cannot_escape_into_paths_pages_or_terminals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("../x", "</script><img src=x onerror=alert(1)>", "\x1b[31mred"):
        result = netwright_("compare", "relu", name, ok=False)
        assert result.exit_code == 2 and "\x1b" not in result.output
    assert list(tmp_path.iterdir()) == []
    task = netwright.task(
        "../</script><img src=x onerror=alert(1)>\x1b[31m",
        model=_model,
        train=_data(40),
        val=_data(20),
        test=_data(20),
        loss=_loss,
        metric=_accuracy,
        metric_name="accuracy",
        higher_is_better=True,
        worst=0.0,
        delta=0.01,
        steps=4,
        batch=8,
        lr=(1e-3, 1e-2),
        slot=nn.GELU,
    )
    netwright.compare(["relu", "golu"], task, seeds=2, trials=1)
    page = next(tmp_path.rglob("report.html"))
    assert tmp_path / "netwright-studies" in page.parents
    text = page.read_text(encoding="utf-8")
    assert "<img" not in text and "\x1b" not in text


def _model() -> Any:
    return nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 2))


def _data(n: int) -> Any:
    import torch

    g = torch.Generator().manual_seed(n)
    x = torch.randn(n, 4, generator=g)
    return x, (x[:, 0] > 0).long()


def _loss(out: Any, y: Any) -> Any:
    from torch.nn.functional import cross_entropy

    return cross_entropy(out, y)


def _accuracy(out: Any, y: Any) -> float:
    return float((out.argmax(1) == y).float().mean())


def test_own_model_on_own_data(tmp_path: Path) -> None:
    """The README's example, in under 30 lines."""
    import torch

    def model() -> nn.Module:
        return nn.Sequential(nn.Linear(4, 16), nn.GELU(), nn.Linear(16, 2))

    x = torch.randn(300, 4, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] * x[:, 1] > 0).long()
    task = netwright.task(
        "products",
        model=model,
        train=(x[:200], y[:200]),
        val=(x[200:250], y[200:250]),
        test=(x[250:], y[250:]),
        loss=nn.functional.cross_entropy,
        metric=lambda out, y: (out.argmax(1) == y).float().mean().item(),
        higher_is_better=True,
        worst=0.0,
        delta=0.02,
        steps=60,
        batch=32,
        lr=(1e-3, 1e-1),
        slot=nn.GELU,
    )
    result = netwright.compare(["default", "golu", "snake"], task, seeds=6, trials=2, out=tmp_path / "study")
    assert [arm.name for arm in result.arms] == ["default", "golu", "snake"]
    assert all(arm.n == 6 and not arm.failed for arm in result.arms)
    assert max(arm.mean or 0.0 for arm in result.arms) > 0.7
    assert all(c.verdict in ("better", "worse", "equivalent", "cannot tell") for c in result.comparisons)
    assert (tmp_path / "study" / "report.html").exists()
