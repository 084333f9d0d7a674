"""README, docs/ and the generated pages: the examples run, the commands exist, the numbers are those of evidence/."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from sample import sampled
from typer.main import get_command

import netwright
from netwright.bench import stats
from netwright.cli import app
from netwright.contract.child import check
from netwright.core import catalogue
from netwright.core.errors import UnknownName
from netwright.core.fingerprint import fingerprint, judged
from netwright.core.part import Claim, Paper, Part, Protocol
from netwright.show import pages

ROOT = Path(__file__).parents[1]
FILES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {path: path.read_text(encoding="utf-8") for path in FILES}
COMMANDS: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]
EXAMPLES = [path for path in FILES if "```python" in TEXTS[path]]
#: What makes an example small enough for a test: argument -> value.
SMALL = {"seeds": 2, "trials": 2, "steps": 20}


def blocks(path: Path, language: str) -> list[str]:
    """The fenced blocks of one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXTS[path], re.M | re.S)


def named(block: str) -> str:
    """The file a block stands for: "# name.py" on its first line; or ''."""
    match = re.match(r"# ([\w/.-]+\.py)\n", block)
    return match[1] if match else ""


def commands(path: Path) -> Iterator[list[str]]:
    """Every command line of the console blocks, as words."""
    for block in blocks(path, "console"):
        for line in block.splitlines():
            assert line.startswith("$ "), f"{path.name}: console blocks hold commands only, not {line!r}"
            yield shlex.split(line[2:])


def small(code: str) -> str:
    for name, value in SMALL.items():
        code = re.sub(rf"\b{name}=\d+", f"{name}={value}", code)
    return code


# Examples -------------------------------------------------------------------------------------------------------------

RUN_COMMANDS = """
from typer.testing import CliRunner
from netwright.cli import app
for words in {commands!r}:
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, (words, result.output, result.exception)
"""


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_examples_run_in_order_and_so_do_the_commands(path: Path, tmp_path: Path) -> None:
    script = []
    for block in blocks(path, "python"):
        if name := named(block):
            (tmp_path / name).write_text(small(block), encoding="utf-8")
            script.append(f"import runpy; runpy.run_path({name!r}, run_name='__main__')\n")
        else:
            script.append(small(block))
    lines = []
    for program, *words in commands(path):
        if program == "netwright" and words[0] != "check" and not any("path/to/" in word for word in words):
            lines.append([*words, "--dry-run"] if words[0] == "compare" else words)
    script.append(RUN_COMMANDS.format(commands=lines))
    # worker processes import the script again, so it needs the guard
    body = "".join(f"    {line}\n" if line else "\n" for line in "\n".join(script).split("\n"))
    (tmp_path / "examples.py").write_text(f"if __name__ == '__main__':\n{body}", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "examples.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]


PART_FILES = [block for path in EXAMPLES for block in blocks(path, "python") if "\nPART = " in block]


@pytest.mark.parametrize("block", PART_FILES, ids=named)
def test_every_part_shown_passes_its_checks(block: str, tmp_path: Path) -> None:
    file = tmp_path / named(block)
    file.write_text(block, encoding="utf-8")
    report = check(f"{file}:PART", limit=300)
    assert report.ok, str(report)
    with pytest.raises(UnknownName):  # what is shown is new
        catalogue.get(report.part)
    assert block.count("\n") <= 300


def test_there_is_an_example_for_every_kind() -> None:
    (guide,) = (path for path in FILES if path.stem == "adding-a-part")
    shown = "".join(blocks(guide, "python"))
    for kind in catalogue.kinds().values():
        assert f"from netwright.{kind.folder} import" in shown, kind


def test_a_model_of_your_own_takes_under_30_lines() -> None:
    model, loop = (block for block in blocks(ROOT / "README.md", "python") if "netwright.task(" in block)
    for block, most in ((model, 30), (loop, 15)):
        assert "netwright.compare(" in block
        assert len([line for line in block.splitlines() if line and not line.startswith("#")]) < most


# Commands and links ---------------------------------------------------------------------------------------------------


def names(parameter: Any) -> list[str]:
    return [*parameter.opts, *parameter.secondary_opts]


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_command_and_option_named_exists(path: Path) -> None:
    inline = [re.sub(r"[\[\]]", "", text).split() for text in re.findall(r"`((?:netwright|make) [^`]+)`", TEXTS[path])]
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    for words in [*commands(path), *inline]:
        if words[0] == "make":
            assert words[1] in targets, words
        if words[0] == "netwright":
            assert words[1] in COMMANDS, words
            known = {option for parameter in COMMANDS[words[1]].params for option in names(parameter)}
            assert {word for word in words if word.startswith("--")} <= known, words


def test_options_in_the_guides_tables_exist() -> None:
    known = {option for command in COMMANDS.values() for parameter in command.params for option in names(parameter)}
    for path, text in TEXTS.items():
        assert set(re.findall(r"`(--[a-z-]+)", text)) <= known | {"--help"}, path.name


def test_readme_names_every_verb() -> None:
    readme = TEXTS[ROOT / "README.md"]
    for name in netwright.__all__:
        assert name.startswith("__") or f"netwright.{name}(" in readme, name
    for command in COMMANDS:
        assert f"`netwright {command}" in readme, command


def heading_anchors(path: Path) -> set[str]:
    prose = re.sub(r"^```.*?^```$", "", TEXTS[path], flags=re.M | re.S)
    return {re.sub(r"[^\w -]", "", h).strip().lower().replace(" ", "-") for h in re.findall(r"^#+ (.*)$", prose, re.M)}


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", TEXTS[path]):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        assert there.exists(), f"{path.name} links to {target}"
        assert not anchor or anchor in heading_anchors(there), f"{path.name} links to {target}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_prose_is_plain(path: Path) -> None:
    words = r"blazing|seamless|effortless|powerful|cutting-edge|state-of-the-art|revolutionary|lightning|world-class"
    assert not re.search(words, TEXTS[path], re.I)
    assert not re.search(r"(?<![\w.])/(home|root|tmp|work)/", TEXTS[path]), "names a folder of one machine"
    assert all(len(line) <= 120 for block in blocks(path, "python") for line in block.splitlines())


# Numbers --------------------------------------------------------------------------------------------------------------


def test_the_numbers_are_those_of_the_evidence() -> None:
    text = TEXTS[ROOT / "docs" / "how-we-compare.md"]
    tables = json.loads((ROOT / "evidence" / "stats_tables.json").read_text(encoding="utf-8"))
    power = {(r["m"], r["n"], r["effect_sd"]): r["better"] for r in tables["power"] if r["scores"] == "normal"}
    for row in tables["null"]:
        if row["scores"] == "normal":
            m, n, false = row["m"], row["n"], row["verdict"]["share"]
            assert f"| {m} | {n} | {false:.3f} | {power[m, n, 1]:.2f} | {power[m, n, 2]:.2f} |" in text
    (looks,) = (row for row in tables["looks"] if row["scores"] == "normal")
    assert f"| tested at 0.05, 0.0125, 0.00625 | {looks['declared']['share']:.3f} |" in text
    assert f"| tested at 0.05 each time | {looks['always_0.05']['share']:.3f} |" in text
    comparisons = [int(m) for m in re.search(r"\| comparisons m \|(.*)\|", text)[1].split("|")]  # type: ignore[index]
    fewest = [int(n) for n in re.search(r"\| fewest seeds.*?\|(.*)\|", text)[1].split("|")]  # type: ignore[index]
    assert fewest == [stats.attainable(6, m).enough for m in comparisons]


def test_the_table_of_verdicts_is_complete() -> None:
    from netwright.bench.records import STATES
    from netwright.show.words import SENTENCES

    text = TEXTS[ROOT / "docs" / "how-we-compare.md"]
    rows = {name.strip() for row in re.findall(r"^\| ([a-z, ]+) \|", text, re.M) for name in row.split(",")}
    assert set(SENTENCES) <= rows and set(STATES) <= rows


# Pages ----------------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Elements and links of a page; fails where an element is closed that wasn't opened."""

    VOID = frozenset({"meta", "br", "img", "link", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        values = dict(attrs)
        if tag == "a":
            self.links.append(values.get("href") or "")
        self.loads += [f"{tag} {k}" for k in values if k in ("src", "srcset", "data", "action") or k.startswith("on")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open and self.open.pop() == tag, tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()


SHOWN = sampled(catalogue.parts())


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    pages.write(folder, SHOWN)
    return folder


def test_there_is_a_page_for_every_part_shown(site: Path) -> None:
    written = {path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()}
    assert written == {"index.html", *pages.beside(SHOWN)} | {f"{part.id}.html" for part in SHOWN}
    index = (site / "index.html").read_text(encoding="utf-8")
    for name in (*pages.beside(SHOWN), *(f"{part.id}.html" for part in SHOWN)):
        assert f'href="{name}"' in index


def test_pages_are_whole_and_load_nothing(site: Path) -> None:
    for path in site.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        page = Page(text)
        assert "script" not in page.tags or path.name == "gallery.html"  # its filters; tests/test_gallery.py reads them
        assert not page.tags & {"link", "img", "iframe", "object", "embed", "form"}, path
        assert not page.loads, (path, page.loads)
        assert not re.search(r"url\((?!#)|@import", text), path
        for link in page.links:
            if not link.startswith("https://"):
                file, _, anchor = link.partition("#")
                there = (path.parent / file).resolve() if file else path
                assert there.is_file(), (path, link)
                assert not anchor or f'id="{anchor}"' in there.read_text(encoding="utf-8"), (path, link)


def drawn() -> Part:
    """A part with a curve, a formula and a claim."""
    return next(p for p in catalogue.parts("activation") if p.tags.shape == "elementwise" and p.formula and p.claims)


HOSTILE = "</style></title><script>alert(1)</script><img src=x onerror=alert(2)>\x1b[31m\"'&"


def test_everything_a_part_says_is_escaped() -> None:
    part = drawn()
    protocol = Protocol(HOSTILE, HOSTILE, "better")
    claims = (Claim("a", HOSTILE, HOSTILE, check=lambda: True), Claim("b", HOSTILE, HOSTILE, protocol=protocol))
    paper = Paper("", HOSTILE, HOSTILE, 2000, HOSTILE, HOSTILE, HOSTILE)
    options = tuple(dataclasses.replace(o, help=HOSTILE) for o in part.options)
    hostile = dataclasses.replace(
        part,
        summary=HOSTILE,
        formula=HOSTILE,
        deviations=(HOSTILE,),
        claims=claims,
        paper=paper,
        retired=HOSTILE,
        options=options,
        equals_at_init=(HOSTILE,),
        alias_of=HOSTILE,
        origin=HOSTILE,
    )
    entry = {"fingerprint": HOSTILE, "passed": False, "checks": {HOSTILE: HOSTILE}}
    record = {"part": part.id, "claim": "b", "verdict": HOSTILE, "reason": HOSTILE, "fingerprints": {HOSTILE: HOSTILE}}
    known = pages.Evidence({part.id: entry}, {(part.id, "b"): record})
    for text in (pages.page(hostile, known), pages.index([hostile])):
        assert "\x1b" not in text
        page = Page(text)
        assert not page.tags & {"script", "img"} and not page.loads
        assert all(link.startswith(("https://", "../", "#")) or link == f"{part.id}.html" for link in page.links)
        assert "alert(1)" in text  # it is shown, as text


def test_a_page_tells_fresh_results_from_stale_ones(tmp_path: Path) -> None:
    part = drawn()
    claim = Claim("c", "it is so", protocol=Protocol("a task", "another", "better"))
    claimed = dataclasses.replace(part, claims=(claim,))
    for mark, fresh in ((fingerprint(part), True), ("0" * 16, False)):
        (tmp_path / "studies").mkdir(exist_ok=True)
        record: dict[str, Any] = {"part": part.id, "claim": "c", "verdict": "better", "reason": "by far."}
        record["fingerprints"] = {part.id: mark}
        (tmp_path / "studies" / "one.json").write_text(json.dumps(record), encoding="utf-8")
        results = {"x": "pass", "y": "skip: no compiler", "z": "fail: 1"}
        entry = {"fingerprint": mark, "judged": judged(claimed), "passed": False, "checks": results}
        (tmp_path / "checks.json").write_text(json.dumps({"parts": {part.id: entry}}), encoding="utf-8")
        text = pages.page(claimed, pages.Evidence.read(tmp_path))
        assert "1 of 2 checks hold" in text and "better: by far." in text
        assert ("earlier form" in text) is not fresh
    assert "not studied yet" in pages.page(claimed, pages.Evidence())


@pytest.mark.every_part
def test_the_tables_of_the_docs_are_the_catalogues_and_the_benchmarks() -> None:
    from netwright.show import tables

    made = tables.pages()
    assert len(made) > 1
    for path, text in made.items():
        assert text == TEXTS[path], f"{path.name}: run python -m netwright.show.tables"


@pytest.mark.every_part
def test_the_pages_of_experiments_are_written_from_their_records() -> None:
    from netwright.show.experiments import markdown

    for path in (ROOT / "evidence" / "experiments").glob("*.json"):
        record = json.loads(path.read_text(encoding="utf-8"))
        written = path.with_suffix(".md").read_text(encoding="utf-8")
        said = f"{path.name}: run python evidence/commands/experiments.py --budget 0"
        assert markdown(record, catalogue.get(record["part"])) == written, said
