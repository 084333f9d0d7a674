"""Judges the claims of parts that need training, each by the study its protocol describes.

    python evidence/commands/claims.py [--task digits] [--part ID ...] [--budget MINUTES] [--out FOLDER]

Resumable: finished studies and fresh records are not run again. Writes one file a claim to evidence/studies/.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from netwright.bench.claims import claim_study, claims, file_name, record
from netwright.core import catalogue
from netwright.core.errors import NetwrightError
from netwright.core.writing import write_whole
from netwright.corpus.status import fresh

STUDIES = Path(__file__).resolve().parents[1] / "studies"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="", help="only protocols on this task")
    parser.add_argument("--part", nargs="+", default=[], help="only claims of these parts")
    parser.add_argument("--budget", type=float, default=60.0, help="minutes after which no further study is begun")
    parser.add_argument("--out", type=Path, default=Path("netwright-studies/claims"))
    given = parser.parse_args()
    only = {catalogue.get(name).id for name in given.part}
    begun = time.monotonic()
    STUDIES.mkdir(parents=True, exist_ok=True)
    for part, claim in claims():
        assert claim.protocol is not None
        path = STUDIES / file_name(part, claim)
        task = claim.protocol.task.removeprefix("task/")
        known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if given.task not in ("", task) or (only and part.id not in only) or fresh(known):
            continue
        if time.monotonic() - begun > 60 * given.budget:
            print(f"budget spent before {part.id} {claim.name}")
            continue
        try:
            study = claim_study(part, claim, out=given.out / path.stem)
            row = record(part, claim, study, study.run(print))
        except NetwrightError as error:
            print(f"{part.id} {claim.name}: {error}")
            continue
        write_whole(path, json.dumps(row, indent=1, sort_keys=True) + "\n")
        print(f"{part.id} {claim.name}: {row['answer']} ({row['reason']})")


if __name__ == "__main__":
    main()
