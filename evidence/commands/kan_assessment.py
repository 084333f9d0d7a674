"""Is a KAN better than an MLP? At equal parameters, equal operations and equal time; on formulas and on classification.

    python evidence/commands/kan_assessment.py [--task formulas:formula=toy ...] [--match params flops time]
                                               [--budget MINUTES] [--workers N]

The comparison that "KANs: A critical assessment" asks for, with its ablation: an MLP whose activations are learnt B-splines
(`b-spline`), which moves the splines from edges to nodes. Every cell is one study, and one command that anyone can run:

    netwright compare kan relu silu b-spline fast-kan chebyshev-kan kat --task formulas --match params --seeds 10 --tune 3

The widths of the others are solved so that they cost what the KAN costs. Resumable. MNIST needs its data (NETWRIGHT_DATA).
Writes evidence/kan_assessment.json and evidence/kan_assessment.md.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from _studies import Cell, arm_line, ending, fill, heading, study_row

from netwright.bench.study import Study
from netwright.core import catalogue
from netwright.core.errors import slug
from netwright.core.fingerprint import fingerprint

HERE = Path(__file__).resolve().parents[1]
ARMS = ("kan", "relu", "silu", "b-spline", "fast-kan", "chebyshev-kan", "kat")
MLPS = {"MLP with ReLU or SiLU": ("relu", "silu"), "MLP with splines": ("b-spline",)}
#: task -> title.
TASKS = {
    "formulas:formula=toy": "exp(sin(pi x) + y^2)",
    "formulas:formula=product": "x y",
    "formulas:formula=four": "exp((sin(pi (a^2 + b^2)) + sin(pi (c^2 + d^2))) / 2)",
    "formulas:formula=I.6.20": "Feynman I.6.20, a Gaussian with its width",
    "formulas:formula=I.16.6": "Feynman I.16.6, the sum of velocities",
    "formulas:formula=I.29.16": "Feynman I.29.16, the sum of two waves",
    "moons": "two moons",
    "digits": "digits, 8 x 8 pixels",
    "mnist": "MNIST, 10 000 training images",
}
MATCHES = {"params": "equal parameters", "flops": "equal operations", "time": "equal time of a step"}
SEEDS, TRIALS = 10, 3  # six comparisons need ten seeds: with fewer nothing could be called better or worse


def study(task: str, match: str) -> Study:
    """The ready study: KAN, its relatives and MLPs, on one task at one kind of equal cost."""
    used = "-".join(sorted(fingerprint(catalogue.parse(arm)[0])[:4] for arm in ARMS))
    out = Path("netwright-studies/kan-assessment") / f"{slug(task)}-{match}-{used}"
    return Study(task, ARMS, seeds=SEEDS, trials=TRIALS, match=match, out=out)


def cell(task: str, match: str) -> dict[str, Any]:
    """Importable by name: worker processes call it."""
    return study_row(study(task, match))


def cells(tasks: list[str], matches: list[str]) -> Iterator[tuple[str, Cell]]:
    for match in matches:
        for task in tasks:
            yield f"{task}/{match}", {"task": task, "match": match}


def page(saved: Mapping[str, Any]) -> str:
    rows: dict[str, Any] = saved["cells"]
    out = [
        "# Is a KAN better than an MLP?",
        "",
        "Written by `python evidence/commands/kan_assessment.py`; do not edit. Each table is one study of ten seeds: the KAN of"
        " grid 5 and order 3 in the task's net, and others as wide as makes them cost the same. *difference*: to the KAN, with an"
        " interval at the study's corrected level. *widths*: of the hidden layers. Formulas: log10 of the root mean square error"
        " on 1 000 test points in standard deviations, lower is better. Classification: test accuracy. *step time*, *memory*: of"
        " a training step, uncompiled. (*): measured before a part's file last changed.",
        "",
        "## In short",
        "",
        *short(rows),
    ]
    for task, title in TASKS.items():
        found = {match: rows[f"{task}/{match}"] for match in MATCHES if f"{task}/{match}" in rows}
        if not found:
            continue
        out += ["", f"## {title}", "", f"`--task {task}`"]
        for match, row in found.items():
            mark = " (*)" if f"{task}/{match}" in saved["stale"] else ""
            out += ["", f"### {MATCHES[match]}{mark}", ""]
            if "arms" not in row:
                out.append(f"missing: {row.get('error', '?')}")
                continue
            form = ".3f" if "formulas" in task else ".4f"
            sign = 1 if not row["higher_is_better"] else -1
            order = sorted(row["arms"], key=lambda name, r=row, s=sign: s * (r["arms"][name]["mean"] or 0))
            out += heading(row["metric"])
            out += [arm_line(name, row["arms"][name], row["comparisons"].get(name), form) for name in order]
            if off := unmatched(row):
                out += ["", *(f"- {note}" for note in off.values())]
    return "\n".join([*out, *ending(saved)])


def unmatched(row: Mapping[str, Any]) -> dict[str, str]:
    """Arm -> the note that says how far from equal its cost is, where no width made it so."""
    return {note.split(":")[0]: note for note in row["notes"] if "nearest to be had" in note}


def short(rows: Mapping[str, Any]) -> list[str]:
    """A line a kind of cost and of MLP: the tasks on which it was better than the KAN, worse, or neither."""
    lines = ["| equal | against the KAN | MLP better | KAN better | equivalent | can't tell | not made equal |", "|" + "---|" * 7]
    for (match, title), (kind, mlps) in product(MATCHES.items(), MLPS.items()):
        fate: dict[str, list[str]] = {"better": [], "worse": [], "equivalent": [], "cannot tell": [], "not made equal": []}
        for task in TASKS:
            row = rows.get(f"{task}/{match}", {})
            if "arms" not in row:
                continue
            sign = 1 if row["higher_is_better"] else -1
            best = max(mlps, key=lambda name, r=row, s=sign: s * r["arms"][name]["mean"])
            verdict = row["comparisons"][best]["verdict"]
            if verdict == "not comparable" or best in unmatched(row):
                verdict = "not made equal"
            fate[verdict].append(task.removeprefix("formulas:formula="))
        if any(fate.values()):
            columns = (", ".join(tasks) or "-" for tasks in fate.values())
            lines.append(f"| {title.removeprefix('equal ')} | {kind} | " + " | ".join(columns) + " |")
    return [
        *lines,
        "",
        "Of ReLU and SiLU the one with the better mean, which favours it a little. *not made equal*: no width brings its cost"
        " near enough to the KAN's; the table below says how far it is.",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", nargs="+", choices=tuple(TASKS), default=list(TASKS))
    parser.add_argument("--match", nargs="+", choices=tuple(MATCHES), default=list(MATCHES))
    parser.add_argument("--budget", type=float, default=60.0, help="minutes after which no further cell is begun")
    parser.add_argument("--workers", type=int, default=1, help="more disturb the solving for equal time")
    given = parser.parse_args()
    every = [key for key, _ in cells(list(TASKS), list(MATCHES))]
    fill(cells(given.task, given.match), cell, HERE / "kan_assessment.json", page, given.budget, given.workers, every)


if __name__ == "__main__":
    main()
