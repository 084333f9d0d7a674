"""Status is computed from evidence: fresh, passing, and for every claim that training judges."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from netwright.contract import matrix as command
from netwright.contract.__main__ import main
from netwright.core import catalogue
from netwright.core.contract import Result
from netwright.core.fingerprint import fingerprint, judged
from netwright.core.part import Claim, Part, Protocol
from netwright.corpus import status

PART = catalogue.parts("activation")[0]
CLAIMED = replace(PART, claims=(Claim("better", "is better", protocol=Protocol("task", "other", "better")),))


def of(part: Part, folder: Path, monkeypatch: pytest.MonkeyPatch, entry: dict[str, Any] | None = None, *studies: Any) -> str:
    fresh = {"fingerprint": fingerprint(part), "judged": judged(part), "passed": True, "checks": {}}
    table = {} if entry is None else {part.id: fresh | entry}
    (folder / "studies").mkdir(parents=True)
    (folder / "checks.json").write_text(json.dumps({"schema": 1, "parts": table, "torch": "2"}))
    for i, study in enumerate(studies):
        (folder / "studies" / f"{i}.json").write_text(json.dumps(study))
    monkeypatch.setattr(status, "evidence", lambda: folder)
    return status.status(part)


@pytest.mark.parametrize(
    ("entry", "wanted"),
    [
        (None, "draft"),
        ({}, "checked"),
        ({"passed": False}, "draft"),
        ({"fingerprint": "0" * 16}, "draft"),
        ({"judged": "0" * 16}, "draft"),
    ],
)
def test_checked_is_fresh_and_passing(entry: Any, wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert of(PART, tmp_path / "e", monkeypatch, entry) == wanted


def test_studied_needs_a_fresh_record_of_every_claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = fingerprint(PART)
    record = {"schema": 1, "part": PART.id, "claim": "better", "fingerprints": {PART.id: mark}}
    stale = record | {"fingerprints": {PART.id: "0" * 16}}
    assert of(CLAIMED, tmp_path / "a", monkeypatch, {}, record) == "studied"
    assert of(CLAIMED, tmp_path / "b", monkeypatch, {}, stale) == "checked"
    assert of(CLAIMED, tmp_path / "c", monkeypatch, {}, record | {"claim": "other"}, {"unrelated": 1}) == "checked"
    assert of(CLAIMED, tmp_path / "d", monkeypatch, None, record) == "draft"
    assert of(replace(CLAIMED, claims=()), tmp_path / "f", monkeypatch, {}) == "checked"


def test_retired_is_what_the_part_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert of(replace(PART, retired="superseded"), tmp_path / "e", monkeypatch, {}) == "retired"


def test_the_command_writes_what_status_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good = [Result("a", True), Result("b", True, skipped_reason="no need")]
    monkeypatch.setattr(command, "run", lambda part, sample: good)
    out = tmp_path / "checks.json"
    out.write_text(json.dumps({"schema": 1, "parts": {"activation/no-longer-there": {}}, "torch": "1"}))
    assert main(["--all", "--part", PART.id, "--out", str(out)]) == 0
    written = json.loads(out.read_text())
    assert list(written["parts"]) == [PART.id]
    assert written["parts"][PART.id]["checks"] == {"a": "pass", "b": "skip: no need"}
    monkeypatch.setattr(status, "evidence", lambda: tmp_path)
    assert status.status(PART) == "checked"
    monkeypatch.setattr(command, "run", lambda part, sample: [Result("a", False, "what is wrong")])
    assert main(["--part", PART.id, "--out", str(out)]) == 1
    assert "what is wrong" in capsys.readouterr().out
    assert json.loads(out.read_text()) == written  # without --all nothing is written


@pytest.mark.every_part
def test_the_evidence_of_this_checkout_is_found() -> None:
    """Where no folder is found every part is a draft, and nothing else says so."""
    assert status.evidence() == Path(__file__).parents[1] / "evidence"
    recorded = json.loads((Path(__file__).parents[1] / "evidence" / "checks.json").read_text(encoding="utf-8"))["parts"]
    fresh = [p for p in catalogue.parts() if p.id in recorded and recorded[p.id]["fingerprint"] == fingerprint(p)]
    assert fresh and all(status.status(p) != "draft" for p in fresh if recorded[p.id]["judged"] == judged(p))
