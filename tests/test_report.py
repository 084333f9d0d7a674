"""The report: all is said, all is escaped, nothing is loaded, and the bytes depend on the result alone."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path

import matplotlib
import pytest
import synthetic
from rich.console import Console

from netwright.show import canvas, derive, figures, words
from netwright.show.html import page
from netwright.show.machine import document
from netwright.show.terminal import print_study, table

GOLDEN = Path(__file__).parent / "golden"
VARIANTS = {
    "study": synthetic.study(4, 6, 3),
    "nasty": synthetic.nasty(),
    "empty_handed": synthetic.empty_handed(),
    "all_failed": synthetic.all_failed(),
    "single": synthetic.single(),
}
SECTIONS = ["verdict", "ranking", "paired", "learning", "tuning", "costs", "failures", "runs", "conditions", "repeat"]


class Reader(HTMLParser):
    """What a browser would find: tags with their attributes, ids, and the text outside style sheets."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    handle_startendtag = handle_starttag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def sections(self) -> list[str | None]:
        return [attributes.get("id") for tag, attributes in self.tags if tag == "section"]


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return {name: page(result) for name, result in VARIANTS.items()}


@pytest.mark.parametrize("name", VARIANTS)
def test_a_page_runs_and_loads_nothing(pages, name):
    read = Reader(pages[name])
    assert not {tag for tag, _ in read.tags} & {
        "script",
        "img",
        "image",
        "iframe",
        "object",
        "embed",
        "link",
        "form",
        "base",
        "b",
    }
    for tag, attributes in read.tags:
        assert not [key for key in attributes if key.startswith("on") or key in ("src", "srcset", "action")]
        href = attributes.get("href") or ""
        assert href.startswith("#") or (tag == "a" and href.startswith("https://arxiv.org/abs/")) or not href
        assert "http" not in (attributes.get("style") or "")
    policy = [a["content"] for tag, a in read.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert len(policy) == 1 and "default-src 'none'" in policy[0] and "script-src" not in policy[0]
    sheets = re.findall(r"<style>(.*?)</style>", pages[name], re.S)
    assert len(sheets) == 1 and "@import" not in sheets[0] and "url(" not in sheets[0]


@pytest.mark.parametrize("name", VARIANTS)
def test_ids_are_unique_and_every_pointer_has_its_target(pages, name):
    read = Reader(pages[name])
    ids = Counter(a["id"] for _, a in read.tags if "id" in a)
    assert not {i for i, k in ids.items() if k > 1}
    pointers = re.findall(r"(?:href=\"|url\()#([^\")]+)", pages[name])
    assert pointers and set(pointers) <= set(ids)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_section_is_there_in_order(pages, name):
    found = [s for s in Reader(pages[name]).sections() if s in SECTIONS]
    assert found == SECTIONS


def test_hostile_names_stand_as_text(pages):
    text = " ".join(Reader(pages["nasty"]).text)
    assert synthetic.NASTY[0] in text
    assert "\x1b" not in pages["nasty"] and "\x00" not in pages["nasty"] and "\u202e" not in pages["nasty"]
    assert "{{7*7}}" in text and "$x^2$" in text  # neither a template nor a formula


def test_a_page_says_what_was_found(pages):
    result = VARIANTS["study"]
    text = " ".join(" ".join(Reader(pages["study"]).text).split())
    for comparison in result.comparisons:
        assert comparison.reason in text and words.sentence(comparison).casefold() in text.casefold()
    for needed in (
        result.command,
        result.notes[0],
        result.environment["machine"],
        "first look",
        words.question(result),
    ):
        assert needed in text
    bad = sum(r.state == "diverged" for r in result.records)
    assert f"{bad} of {len(result.records)} runs did not finish" in text


def test_a_seed_dropped_by_a_crash_is_named():
    result = VARIANTS["study"]
    scores = (replace(result.scores[0], dropped="out of memory"), *result.scores[1:])
    assert "seed 0: out of memory" in page(replace(result, scores=scores))


def test_rendering_is_deterministic_and_leaves_the_settings_alone(pages):
    with matplotlib.rc_context({"font.size": 31.0, "axes.grid": True, "text.usetex": True, "svg.fonttype": "path"}):
        before = dict(matplotlib.rcParams)
        assert page(VARIANTS["study"]) == pages["study"]
        assert dict(matplotlib.rcParams) == before


def test_the_style_sheet_knows_the_colours_of_the_figures(pages):
    for colour, name in canvas.VARIABLES.items():
        assert f"--{name}: {colour};" in pages["study"], name


def test_letters_of_figures_stay_text(pages):
    drawn = re.findall(r"<svg.*?</svg>", pages["study"], re.S)
    assert any("learning rate</text>" in svg for svg in drawn)
    assert not any("<style" in svg or "<metadata" in svg for svg in drawn)


def rounded(value):
    """Numbers to nine digits: the last bits of exp and sin depend on the platform."""
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    if isinstance(value, list):
        return [rounded(v) for v in value]
    return float(f"{value:.9g}") if isinstance(value, float) else value


@pytest.mark.parametrize("name", ["study", "empty_handed", "all_failed"])
def test_the_document_for_programs(name):
    made = document(VARIANTS[name], "report.html", "netwright compare a b")
    text = json.dumps(rounded(made), indent=1, allow_nan=False)  # raises on NaN and infinity
    assert json.loads(text) == json.loads((GOLDEN / f"report_{name}.json").read_text(encoding="utf-8"))


def written(result, encoding: str = "utf-8") -> str:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding)
    print_study(result, file)
    file.flush()
    return raw.getvalue().decode(encoding)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "cp1252"])
def test_plain_lines_hold_no_escape_codes(name, encoding):
    text = written(VARIANTS[name], encoding)
    assert not [c for c in text if ord(c) < 32 and c != "\n"]
    assert all(
        words.plain(words.clean(arm.name)).encode(encoding, "replace").decode(encoding) in text for arm in VARIANTS[name].arms
    )


def test_intervals_are_never_without_n():
    text = written(VARIANTS["study"])
    assert text.count(", ") > 0 and len(re.findall(r"\[\S+, \S+\]", text)) == len(re.findall(r"\[\S+, \S+\] n=\d+", text)) > 0


@pytest.mark.parametrize("width", [40, 80, 100, 200])
def test_a_terminal_shows_names_as_they_are(width):
    result = VARIANTS["nasty"]
    out = io.StringIO()
    Console(file=out, width=width, force_terminal=True, color_system="truecolor").print(table(result, width))
    text = re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue())
    assert "\x1b" not in text
    assert "[boldred]markup[/]" in re.sub(r"\s", "", text)


def test_terminals_get_colour_and_files_do_not():
    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Screen()
    print_study(VARIANTS["study"], screen)
    assert words.headline(VARIANTS["study"]).split(",")[0] in screen.getvalue().replace("\n", " ")
    assert "\x1b" not in written(VARIANTS["study"])


def test_arms_rank_by_the_direction_of_the_metric():
    result = VARIANTS["study"]
    up = [arm.mean for arm in derive.ranked(result)]
    down = [arm.mean for arm in derive.ranked(replace(result, higher_is_better=False))]
    assert up == sorted(up, reverse=True) and down == sorted(down)
    lost = replace(result, arms=(replace(result.arms[0], mean=None), *result.arms[1:]))
    assert derive.ranked(lost)[-1].name == result.arms[0].name


@pytest.mark.parametrize("higher", [True, False])
def test_expected_best_is_the_mean_over_all_subsets(higher):
    values = [0.3, 0.9, 0.1, 0.9, 0.5]
    pick = max if higher else min
    for k, expected in enumerate(derive.expected_best(values, higher), 1):
        subsets = [pick(s) for s in combinations(values, k)]
        assert expected == pytest.approx(sum(subsets) / len(subsets))


def test_one_wild_interval_does_not_flatten_the_rest():
    arms = VARIANTS["study"].arms
    wild = (*arms[:-1], replace(arms[-1], interval=(-1e3, 1e3)))
    lo, hi = derive.score_span(wild)
    assert hi - lo < 1 and all(lo < arm.mean < hi for arm in wild)


def test_paired_axes_are_shared_unless_that_flattens_most():
    comparison = VARIANTS["study"].comparisons[0]
    lo, hi = derive.paired_span(comparison, 0.5)
    assert lo < -0.5 and hi > 0.5
    far = replace(comparison, differences={0: 100.0})
    assert derive.shared_span([comparison, comparison], 0.005) == derive.paired_span(comparison, 0.005)
    assert derive.shared_span([comparison, comparison, far], 0.005) is None
    assert derive.shared_span([], 0.005) is None


def test_looks_are_one_per_arm():
    names = [f"n{i}" for i in range(42)]
    look = figures.looks(["base", *names], "base")
    assert len(set(look.values())) == 43
    assert look["base"][0] == canvas.BASELINE


@pytest.mark.parametrize(
    "tex",
    [r"x\,e^{-e^{-x}}", r"\frac{1}{2}x(1+\mathrm{erf}(x/\sqrt{2}))", r"\max(0, \lvert x\rvert), \text{for } x \ge 0"],
)
def test_formulas_are_drawn(tex):
    svg = figures.formula_svg(tex)
    assert (
        svg.startswith("<svg xmlns=")
        and "height=" in svg
        and 'role="img"' in svg
        and "<text" not in svg
        and svg.count("fill: var(--ink") == 1
    )
    assert figures.formula_svg(tex) == svg


@pytest.mark.parametrize("tex", [r"\frac{1}{", r"\nosuchmacro<b>", "a $ b", "", r"\;"])
def test_formulas_that_cannot_be_drawn_are_text(tex):
    made = figures.formula_svg(tex)
    assert made.startswith("<code") and "<b>" not in made


def test_shapes_as_files():
    curves = VARIANTS["study"].curves
    assert figures.shapes_png(curves).startswith(b"\x89PNG\r\n")
    svg = figures.shapes_svg(curves)
    assert svg.startswith('<svg xmlns="http://www.w3.org/2000/svg"') and "var(" not in svg.replace("var(--font", "")
    broken = {"odd": ((0.0, float("nan"), float("inf")), (1.0, float("nan"), 2.0)), "none": ()}
    assert figures.shapes_svg(broken).startswith("<svg")


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (words.number(-0.00001, 3), "0.000"),
        (words.number(-0.25, 2), "−0.25"),
        (words.number(0.25, 2, sign=True), "+0.25"),
        (words.number(None), "unknown"),
        (words.interval((0.1, float("nan"))), "no interval"),
        (words.seconds(0.00061), "610 µs"),
        (words.seconds(None), "unknown"),
        (words.memory(0), "0 B"),
        (words.memory(1 << 20), "1 MiB"),
        (words.count(12810), "12,810"),
        (words.rate(3e-5), "3e−5"),
        (words.shorten("a" * 40 + "z", 9), "aaaa…aaaz"),
        (words.join(["a", "b", "c"]), "a, b and c"),
        (str(words.decimals(0.005)), "4"),
    ],
)
def test_numbers_in_words(made, said):
    assert made == said
