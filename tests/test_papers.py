"""The corpus and what is derived from it: accuracy of the table, coverage, citations."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter

import pytest

from netwright.core.errors import UnknownName
from netwright.core.part import Paper, Part
from netwright.corpus import papers

FAMILIES = """
    KAN layer, activation, application, attention, continual learning, data selection and weighting, diagnostic,
    explanation, federated, generative, graph, implicit neural representation, in-context learning, infinite width
    and kernels, initialisation, layer, learning dynamics, learning rule, loss, memory-saving training, merging and
    weight arithmetic, mixture of experts, normalisation, operator learning and solvers, optimiser / schedule /
    training technique, parameter-efficient fine-tuning, polynomial layer, quantisation, reinforcement learning,
    robustness, self-supervised and few-shot, simplex map, sparsity and dynamic computation, statistical learning,
    tool, weight parameterisation
"""
OWN = Paper(title="50% of {A_B} & C^2: $x$ #1 ~ \\ done", authors="Ada One, B. Two and C. Three et al.", year=2001)


@dataclasses.dataclass(frozen=True)
class Toy(Part):
    """A part that builds nothing."""

    @property
    def kind(self) -> str:
        return "toy"

    def build(self, **options: object) -> None:
        return None

    def slots(self) -> tuple[str, ...]:
        return ()


def balanced(text: str) -> bool:
    """Whether unescaped braces nest and close."""
    depth = 0
    for brace in re.findall(r"(?<!\\)[{}]", text.replace(r"\textbackslash{}", "")):
        depth += 1 if brace == "{" else -1
        if depth < 0:
            return False
    return depth == 0


def test_corpus_is_whole():
    rows = papers.load()
    assert [row.n for row in rows] == list(range(1, 355))
    assert len({row.slug for row in rows}) == len({row.title for row in rows}) == 354
    assert {row.form for row in rows} == set(papers.FORMS)
    assert {row.family for row in rows} == set(" ".join(FAMILIES.split()).split(", "))


def test_rows_are_well_formed():
    for row in papers.load():
        assert Paper(row.slug).slug == row.slug  # a slug that Paper accepts
        assert row.title == row.title.strip() and "  " not in row.title and row.family
        assert row.year == 0 or 1980 <= row.year <= 2026
        assert re.fullmatch(r"(?:\d{4}\.\d{4,5})?", row.arxiv), row
        assert re.fullmatch(r"(?:[\w.-]+/[\w.-]+)?", row.code), row


def test_arxiv_ids_are_unique_and_agree_with_the_year():
    dated = [row for row in papers.load() if row.arxiv]
    assert len(dated) >= 200
    assert not [a for a, count in Counter(row.arxiv for row in dated).items() if count > 1]
    assert not [row for row in dated if row.year != 2000 + int(row.arxiv[:2]) or not 1 <= int(row.arxiv[2:4]) <= 12]
    # five digits from 2015 on, four before
    assert all(len(row.arxiv) == (10 if row.year >= 2015 else 9) for row in dated)


def test_get_finds_and_suggests():
    for row in papers.load():
        assert papers.get(row.slug) is row
    slug = next(row.slug for row in papers.load() if len(row.slug) > 12)
    with pytest.raises(UnknownName, match=f"did you mean.*{re.escape(slug)}"):
        papers.get(slug[:-1])


def test_rows_and_coverage_follow_the_parts():
    one, two, three = papers.load()[:3]
    status = {"a": "draft", "b": "studied", "c": "checked"}
    parts = [
        Toy(print, name="b", paper=Paper(one.slug)),
        Toy(print, name="a", paper=Paper(one.slug)),
        Toy(print, name="c", paper=Paper(two.slug)),
        Toy(print, name="d", paper=Paper(three.slug), retired="withdrawn"),
        Toy(print, name="e", paper=OWN),
    ]
    rows = papers.rows(parts, lambda part: status[part.name])
    assert [list(row) for row in rows[:1]] == [["n", "slug", "title", "form", "family", "served_by", "status"]]
    assert [(row["served_by"], row["status"]) for row in rows[:4]] == [
        (["toy/a", "toy/b"], "studied"),
        (["toy/c"], "checked"),
        ([], "none"),
        ([], "none"),
    ]
    table = papers.coverage(parts, lambda part: status[part.name])
    assert sum(line["papers"] for line in table) == 354 and sum(line["served"] for line in table) == 2
    assert all(line["papers"] == sum(line[s] for s in papers.STATUSES) for line in table)
    line = next(line for line in table if (line["family"], line["form"]) == (one.family, one.form))
    assert (line["studied"], line["checked"]) == (1, 1 if (two.family, two.form) == (one.family, one.form) else 0)


def test_a_part_with_an_unknown_slug_is_an_error():
    with pytest.raises(UnknownName, match="no paper is called 'no-such-paper'"):
        papers.rows([Toy(print, name="x", paper=Paper("no-such-paper"))], lambda part: "draft")


def test_every_catalogued_paper_is_known():
    from netwright.core import catalogue

    found = catalogue.parts()
    assert found
    for part in found:
        whole = papers.complete(part.paper)
        assert whole.title and balanced(papers.bibtex(part.paper)), part.id


def test_bibtex_of_the_corpus_parses_and_guesses_no_author():
    keys = set()
    for row in papers.load():
        text = papers.bibtex(Paper(row.slug))
        head, *fields, last, end = text.split("\n")
        keys.add(re.fullmatch(r"@misc\{([a-z0-9.-]+),", head).group(1))
        assert (last, end) == ("}", "") and balanced(text)
        assert all(re.fullmatch(r"  [a-z]+ = \{.+\},?", field) for field in fields), text
        assert "author" not in text and ("eprint" in text) == bool(row.arxiv)
    assert len(keys) == 354


def test_bibtex_escapes_and_splits_names():
    text = papers.bibtex(OWN)
    assert text.startswith("@misc{one2001,") and balanced(text)
    assert r"50\% of \{A\_B\} \& C\textasciicircum{}2: \$x\$ \#1 \textasciitilde{} \textbackslash{} done" in text
    assert "author = {Ada One and B. Two and C. Three and others}" in text
    reversed_names = dataclasses.replace(OWN, authors="Öne, A. B. and Two-Band, C.")
    assert "author = {Öne, A. B. and Two-Band, C.}" in papers.bibtex(reversed_names)
    assert papers.bibtex(reversed_names).startswith("@misc{öne2001,")


def test_reference_line_says_what_is_known():
    row = next(row for row in papers.load() if row.arxiv)
    line = papers.reference_line(Paper(row.slug, equation="(2)"))
    assert line == f"{row.title} ({row.year}). arXiv:{row.arxiv}, equation (2)."
    own = dataclasses.replace(OWN, authors="A. One", title="T", venue="V")
    assert papers.reference_line(own) == "A. One. T (2001). V."
    unknown_year = next((row for row in papers.load() if not row.year), None)
    if unknown_year is not None:
        assert papers.reference_line(Paper(unknown_year.slug)) == f"{unknown_year.title}."
