"""Layers side by side on MNIST at equal parameters: accuracy against a plain net, with intervals, and what a step costs.

    python evidence/commands/layers.py [--section mlp convnet] [--only NAME ...] [--budget MINUTES] [--workers N]

Needs MNIST (NETWRIGHT_DATA). Every cell is one study, as `netwright compare relu LAYER --task mnist` would run it: widths
solved so that parameters match, the learning rate tuned for every seed, the test set scored once. Resumable: a cell that was
done with the present code is not run again. Each verdict stands for itself: no correction for the number of rows.
Writes evidence/layers.json and evidence/layers.md.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from _studies import Cell, arm_line, ending, fill, heading, study_row

from netwright.bench.study import Study
from netwright.core import catalogue
from netwright.core.errors import slug
from netwright.core.fingerprint import fingerprint

HERE = Path(__file__).resolve().parents[1]
BASE = "relu"
#: section -> (slots whose layers it compares, seeds, trials, other arms, title).
SECTIONS: dict[str, tuple[tuple[str, ...], int, int, tuple[str, ...], str]] = {
    "mlp": (
        ("layer", "head"),
        6,
        3,
        ("silu", "gelu", "b-spline", "kan:base=none", "kan:grid=3", "kan:low=-3,high=3", "kat:init=gelu"),
        "Mlp 784-128-128-10, 800 steps of 64 images, six seeds, three rates each",
    ),
    "convnet": (
        ("conv", "channelwise"),
        6,
        1,
        (),
        "ConvNet of 16 and 32 channels, 800 steps of 64 images, six seeds at the published rate (*not tuned*)",
    ),
}
#: Layers that are compared in another form, the same function: every edge has a basis of its own, which takes an hour unfused.
INSTEAD = {"wavelet-kan": "wavelet-kan:fused=true"}


def specs(section: str) -> list[str]:
    slots, _, _, others, _ = SECTIONS[section]
    names = (part.name for part in catalogue.parts("layer") if set(part.slots()) & set(slots))
    return [*others, *(INSTEAD.get(name, name) for name in names)]


def study(section: str, spec: str) -> Study:
    """The study of a cell."""
    _, seeds, trials, _, _ = SECTIONS[section]
    arms = [BASE, spec if ":" in spec or spec in SECTIONS[section][3] else f"layer/{spec}"]
    out = Path("netwright-studies/layers") / f"{section}-{slug(spec)}-{fingerprint(catalogue.parse(arms[1])[0])[:8]}"
    engine = "loop" if "fused" in spec else "auto"  # one net after another: a stack of nets runs the plain writing
    return Study("mnist", arms, task_options={"host": section}, seeds=seeds, trials=trials, engine=engine, out=out)


def cell(section: str, spec: str) -> dict[str, Any]:
    """Importable by name: worker processes call it."""
    return study_row(study(section, spec))


def cells(sections: list[str], only: list[str]) -> Iterator[tuple[str, Cell]]:
    for section in sections:
        for spec in specs(section):
            if not only or spec.split(":")[0] in only:
                yield f"{section}/{spec}", {"section": section, "spec": spec}


def page(saved: Mapping[str, Any]) -> str:
    out = [
        "# Layers side by side",
        "",
        "Written by `python evidence/commands/layers.py`; do not edit. MNIST, 10 000 training images, every net as many"
        " parameters as the plain one with ReLU. *difference*: to it, over shared seeds, with a 95 % interval. Each verdict"
        " stands for itself, uncorrected for the number of rows. *widths*: of the hidden layers. *step time*, *memory*: of a"
        " training step, time in multiples of the plain net's, uncompiled but where a row says fused. (*): measured before the"
        " part's file last changed.",
    ]
    for section, (*_, title) in SECTIONS.items():
        rows = {key: row for key, row in saved["cells"].items() if row["section"] == section}
        if not rows:
            continue
        out += ["", f"## {title}", "", *heading("test accuracy [95 %]")]
        good = [row for row in rows.values() if "arms" in row]
        if good:
            plain = good[0]["arms"][good[0]["baseline"]]
            out.append(arm_line(BASE, plain, None))
        lines = []
        for key, row in rows.items():
            if "arms" not in row:
                lines.append((2.0, f"| `{row['spec']}` | missing: {row.get('error', '?')} | | | | | | |"))
                continue
            name = next(n for n in row["arms"] if n != row["baseline"])
            mark = " (*)" if key in saved["stale"] else ""
            arm = row["arms"][name]
            lines.append((-(arm["mean"] or 0), arm_line(row["spec"] + mark, arm, row["comparisons"][name])))
        out += [line for _, line in sorted(lines)]
        unmatched = sorted({note for row in good for note in row["notes"] if "nearest to be had" in note})
        out += ["", *(f"- {note}" for note in unmatched)] if unmatched else []
    return "\n".join([*out, *ending(saved)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--section", nargs="+", choices=tuple(SECTIONS), default=list(SECTIONS))
    parser.add_argument("--only", nargs="+", default=[], help="only these layers")
    parser.add_argument("--budget", type=float, default=60.0, help="minutes after which no further cell is begun")
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) // 2))
    given = parser.parse_args()
    every = [key for key, _ in cells(list(SECTIONS), [])]
    fill(cells(given.section, given.only), cell, HERE / "layers.json", page, given.budget, given.workers, every)


if __name__ == "__main__":
    main()
