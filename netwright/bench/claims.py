"""Claims that training has to judge: a protocol becomes a Study, its verdict a record in evidence/studies/."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from netwright.bench.entrant import rests_on
from netwright.bench.records import Comparison, StudyResult
from netwright.bench.study import Study
from netwright.core import catalogue
from netwright.core.errors import BadInput, slug
from netwright.core.part import Claim, Part

#: expect -> verdicts that bear the claim out, and verdicts that contradict it; the others leave it open.
ANSWERS: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    "better": (frozenset({"better"}), frozenset({"worse", "equivalent"})),
    "worse": (frozenset({"worse"}), frozenset({"better", "equivalent"})),
    "not better": (frozenset({"worse", "equivalent"}), frozenset({"better"})),
    "not worse": (frozenset({"better", "equivalent"}), frozenset({"worse"})),
    "equivalent": (frozenset({"equivalent"}), frozenset({"better", "worse"})),
}


def claims(kind: str | None = None) -> Iterator[tuple[Part, Claim]]:
    """Every claim of the catalogue that has a protocol."""
    for part in catalogue.parts(kind):
        yield from ((part, claim) for claim in part.claims if claim.protocol is not None)


def claim_study(part: Part, claim: Claim, out: str | Path | None = None) -> Study:
    """The study a claim's protocol asks for: the part against the other, under the clean protocol.

    Raises BadInput for a claim without a protocol.
    """
    protocol = claim.protocol
    if protocol is None:
        raise BadInput(f"claim {claim.name!r} of {part.id} has no protocol; its check runs with the contract checks")
    options = {"size": protocol.size, **protocol.options}
    arms = [protocol.against, part.id]
    return Study(
        protocol.task, arms, task_options=options, out=out, seeds=protocol.seeds, trials=protocol.trials, match=protocol.match
    )


def answer(claim: Claim, comparison: Comparison) -> str:
    """ "reproduced", "contradicted" or "cannot tell"."""
    assert claim.protocol is not None
    yes, no = ANSWERS[claim.protocol.expect]
    return "reproduced" if comparison.verdict in yes else "contradicted" if comparison.verdict in no else "cannot tell"


def record(part: Part, claim: Claim, study: Study, result: StudyResult) -> dict[str, Any]:
    """The verdict as plain data, with the fingerprints that keep it fresh."""
    comparison = result.comparisons[0]
    return {
        "schema": 1,
        "part": part.id,
        "claim": claim.name,
        "text": claim.text,
        "where": claim.where,
        "expect": claim.protocol.expect if claim.protocol else "",
        "answer": answer(claim, comparison),
        "fingerprints": rests_on(study.entrants),
        "task": result.task,
        "metric": result.metric,
        "delta": result.delta,
        "verdict": comparison.verdict,
        "reason": comparison.reason,
        "difference": comparison.difference,
        "interval": comparison.interval,
        "p": comparison.p,
        "seeds": len(result.seeds),
        "trials": result.trials,
        "match": result.match,
        "study": result.study,
        "command": study.command,
        "notes": list(result.notes),
        "environment": dict(result.environment),
    }


def file_name(part: Part, claim: Claim) -> str:
    """Where the record of a claim lies in evidence/studies/."""
    return f"{slug(part.kind)}-{slug(part.name)}--{slug(claim.name)}.json"
