"""The corpus: 354 papers, what serves each of them, and how to cite one.

papers.toml says what a paper is. Which parts serve it, and how far they have come, is derived from the catalogue.
"""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from netwright.core import catalogue
from netwright.core.errors import unknown
from netwright.core.kind import BENCH
from netwright.core.part import Paper, Part

#: How far a paper has come, worst first: the best status among the parts that serve it.
STATUSES = ("none", "draft", "checked", "studied")
FORMS = ("part", "finding", "recipe", "tool")


@dataclass(frozen=True)
class PaperRow:
    """One paper of the corpus. `arxiv` and `code` (a GitHub owner/repository) are "" and `year` is 0 where unknown."""

    n: int
    slug: str
    title: str
    form: str
    family: str
    year: int = 0
    arxiv: str = ""
    code: str = ""


@cache
def load() -> tuple[PaperRow, ...]:
    """Every paper, in the order of its number."""
    text = Path(__file__).with_name("papers.toml").read_text(encoding="utf-8")
    return tuple(PaperRow(**row) for row in tomllib.loads(text)["paper"])


@cache
def _by_slug() -> Mapping[str, PaperRow]:
    return {row.slug: row for row in load()}


def get(slug: str) -> PaperRow:
    """The paper with this slug. Raises UnknownName with near slugs."""
    if slug not in _by_slug():
        raise unknown("paper", slug, _by_slug())
    return _by_slug()[slug]


def rows(parts: Iterable[Part], status: Callable[[Part], str]) -> list[dict[str, Any]]:
    """One record a paper: n, slug, title, form, family, served_by (sorted part ids), status. Retired parts don't count.

    `status(part)` is "draft", "checked" or "studied"; a paper that no part serves has the status "none".
    """
    serving: dict[str, list[Part]] = {}
    for part in parts:
        if part.paper.slug and not part.retired and _serves(part, get(part.paper.slug)):
            serving.setdefault(part.paper.slug, []).append(part)
    return [
        {
            "n": row.n,
            "slug": row.slug,
            "title": row.title,
            "form": row.form,
            "family": row.family,
            "served_by": sorted(part.id for part in serving.get(row.slug, ())),
            "status": max(["none", *map(status, serving.get(row.slug, ()))], key=STATUSES.index),
        }
        for row in load()
    ]


def _serves(part: Part, row: PaperRow) -> bool:
    """A part serves a row of form part; one of form finding or recipe is served by an experiment alone."""
    kind = catalogue.kinds().get(part.kind)
    return row.form in ("part", "tool") or kind is not None and kind.place == BENCH


def coverage(parts: Iterable[Part], status: Callable[[Part], str]) -> list[dict[str, Any]]:
    """One record a family and form: family, form, papers, served, and a count for each status; sorted by both."""
    table: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows(parts, status):
        key = (row["family"], row["form"])
        empty = {"family": key[0], "form": key[1], "papers": 0, "served": 0, **dict.fromkeys(STATUSES, 0)}
        line = table.setdefault(key, empty)
        line["papers"] += 1
        line["served"] += bool(row["served_by"])
        line[row["status"]] += 1
    return [table[key] for key in sorted(table, key=lambda key: (key[0], FORMS.index(key[1])))]


def complete(paper: Paper) -> Paper:
    """The paper with what the corpus knows of it filled in: title, year, arXiv id, code. Raises on an unknown slug."""
    if not paper.slug:
        return paper
    row = get(paper.slug)
    return dataclasses.replace(
        paper,
        title=row.title,
        year=row.year or paper.year,
        arxiv=row.arxiv or paper.arxiv,
        code=row.code or paper.code,
    )


def _names(authors: str) -> list[str]:
    """ "A. One, B. Two", "One, A. and Two, B." or "A. One et al." as BibTeX names; "others" is the unnamed rest."""
    names: list[str] = []
    for name in re.split(r"\s*(?:,|;|&|\band\b)\s*", re.sub(r"\bet al\b\.?", ", others", authors)):
        if names and re.fullmatch(r"(?:\w\.[\s-]?)+", name):
            names[-1] += f", {name}"  # initials alone belong to the surname before them
        elif name:
            names.append(name)
    return names


_TEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_TEX |= {c: "\\" + c for c in "&%$#_{}"}


def _tex(text: str) -> str:
    return "".join(_TEX.get(c, c) for c in text)


def bibtex(paper: Paper) -> str:
    """A BibTeX entry (UTF-8, as biber and recent BibTeX read it). What is not known, authors included, is left out."""
    paper = complete(paper)
    names = _names(paper.authors)
    surname = names[0].split(",")[0].split()[-1] if names else "paper"
    stem = paper.slug or re.sub(r"\W", "", surname.lower())
    fields = {
        "title": f"{{{_tex(paper.title)}}}",  # the inner braces keep the capitals
        "author": _tex(" and ".join(names)),
        "year": str(paper.year or ""),
        "eprint": paper.arxiv,
        "archiveprefix": "arXiv" if paper.arxiv else "",
        "howpublished": _tex(paper.venue),
    }
    body = ",\n".join(f"  {key} = {{{value}}}" for key, value in fields.items() if value)
    return f"@misc{{{stem}{paper.year or ''},\n{body}\n}}\n"


def reference_line(paper: Paper) -> str:
    """One line for a person: "Das et al. Gompertz Linear Units (2025). arXiv:2502.03654, equation (2)."""
    paper = complete(paper)
    who = f"{paper.authors.rstrip('.')}. " if paper.authors else ""
    when = f" ({paper.year})" if paper.year else ""
    where = ", ".join(filter(None, (paper.venue, paper.arxiv and f"arXiv:{paper.arxiv}")))
    place = ", ".join(filter(None, (where, paper.equation and f"equation {paper.equation}")))
    return f"{who}{paper.title}{when}." + (f" {place}." if place else "")


def cite(*parts: str | Part) -> str:
    """BibTeX of the papers behind parts, each once: cite("golu", "swish"). Raises UnknownName with near names."""
    named = [part if isinstance(part, Part) else catalogue.parse(part)[0] for part in parts]
    return "\n".join(dict.fromkeys(bibtex(part.paper) for part in named))
