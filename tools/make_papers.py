"""Writes netwright/corpus/papers.toml: what a paper is, from the corpus table; where it stands, from confirmed links.

    python tools/make_papers.py papers.tsv [--links links.txt]

papers.tsv has the columns n, slug, form, family, year, title. Links already in papers.toml are kept. A links file adds
or replaces some: a line is `n arxiv [owner/repository]`, with `-` for no arXiv id; `#` starts a comment. Only ids that
somebody looked up belong there. A year the table lacks is the year of the arXiv id's first posting.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import sys
import tomllib
from pathlib import Path

TOML = Path(__file__).resolve().parent.parent / "netwright" / "corpus" / "papers.toml"
HEADER = """\
# Every paper of the corpus. Written by tools/make_papers.py; what serves a paper is derived, never written here.
# arxiv and code stand only where they were looked up; code is the authors' own repository on GitHub.
"""
ARXIV = re.compile(r"\d{4}\.\d{4,5}")
REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def links(path: Path) -> dict[int, tuple[str, str]]:
    """n -> (arXiv id, repository), each empty where unknown."""
    found: dict[int, tuple[str, str]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        n, arxiv, code = (*words, "")[:3]
        arxiv = "" if arxiv == "-" else arxiv
        if (arxiv and not ARXIV.fullmatch(arxiv)) or (code and not REPOSITORY.fullmatch(code)):
            sys.exit(f"{path}:{number}: not an arXiv id and a repository: {line!r}")
        if int(n) in found:
            sys.exit(f"{path}:{number}: paper {n} is given twice")
        found[int(n)] = (arxiv, code)
    return found


def entry(row: dict[str, str], arxiv: str, code: str) -> str:
    """One [[paper]] table. A JSON string is a TOML basic string."""
    year = int(row["year"]) if row["year"] else 2000 + int(arxiv[:2]) if arxiv else None
    fields = {
        "n": int(row["n"]),
        "slug": row["slug"],
        "title": row["title"].strip(),
        "year": year,
        "form": row["form"],
        "family": row["family"],
        "arxiv": arxiv or None,
        "code": code or None,
    }
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in fields.items() if value is not None]
    return "\n".join(["[[paper]]", *lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tsv", type=Path, help="the corpus table")
    parser.add_argument("--links", type=Path, help="confirmed arXiv ids and repositories")
    given = parser.parse_args()

    known: dict[int, tuple[str, str]] = {}
    if TOML.exists():
        for old in tomllib.loads(TOML.read_text(encoding="utf-8"))["paper"]:
            known[old["n"]] = (old.get("arxiv", ""), old.get("code", ""))
    if given.links:
        known |= links(given.links)
    with given.tsv.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    rows.sort(key=lambda row: int(row["n"]))
    text = "\n".join([HEADER, *(entry(row, *known.get(int(row["n"]), ("", ""))) for row in rows)])
    TOML.write_text(text, encoding="utf-8")
    print(f"{TOML}: {len(rows)} papers, {sum(bool(a) for a, _ in known.values())} arXiv ids")


if __name__ == "__main__":
    main()
