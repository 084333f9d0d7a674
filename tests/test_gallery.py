"""The gallery: numbers against closed forms, a page that is whole, escaped and loads nothing, filters that work."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import math
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from netwright.activations import ActivationPart, Tags, _page, activation
from netwright.cli import app
from netwright.core import catalogue
from netwright.core.kind import Moments, Profile
from netwright.core.part import Learn, Paper
from netwright.show import gallery

PARTS: list[Any] = catalogue.parts("activation")
OTHER: Any = next(part for part in catalogue.parts() if part not in PARTS and part.slots())  # of a kind without profiles
PAPER = Paper(title="Toys", authors="A. Toy", year=2000)


def toy(fn: Callable[..., Tensor], **changes: Any) -> ActivationPart:
    declared: dict[str, Any] = dict(
        cls="Toy", name="toy-shape", summary="A toy.", reference=lambda x: x, paper=PAPER, formula="x", tags=Tags()
    )
    return activation(fn, **(declared | changes))


def half(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 0.0)


def centred(x: Tensor, *, dim: int) -> Tensor:
    return x - x.mean(dim, keepdim=True)


def product(x: Tensor, *, dim: int) -> Tensor:
    a, b = x.chunk(2, dim)
    return a * b


def raising(x: Tensor) -> Tensor:
    raise ValueError("no such thing <b>")


HALF = toy(half, tags=Tags(monotone=True, kinks=(0.0,)))
CENTRED = toy(centred, tags=Tags(shape="rowwise"))
PRODUCT = toy(product, tags=Tags(shape="gated"))


# Numbers --------------------------------------------------------------------------------------------------------------


def test_moments_of_one_number_are_integrals() -> None:
    found = _page.moments(HALF)
    wanted = Moments(1 / math.sqrt(2 * math.pi), 0.5 - 1 / (2 * math.pi), 0.5, 0.5)
    for field in ("mean", "variance", "second", "slope"):
        assert math.isclose(getattr(found, field), getattr(wanted, field), abs_tol=1e-6), field
    sine = _page.moments(toy(torch.sin))
    assert math.isclose(sine.variance, (1 - math.exp(-2)) / 2, abs_tol=1e-9)
    assert math.isclose(sine.slope, (1 + math.exp(-2)) / 2, abs_tol=1e-9)


def test_moments_of_rows_are_a_seeded_sample() -> None:
    found = _page.moments(CENTRED)
    share = 1 - 1 / _page.ENTRIES
    assert found.sample == (_page.ROWS, _page.ENTRIES) and found == _page.moments(CENTRED)
    assert abs(found.mean) < 1e-12 and abs(found.variance - share) < 0.02 and abs(found.slope - share) < 0.02
    assert abs(_page.moments(PRODUCT).variance - 1) < 0.03


def test_nothing_draws_from_the_global_generator() -> None:
    state = torch.get_rng_state()
    gallery.page(PARTS[:6])
    assert torch.equal(state, torch.get_rng_state())


def test_a_derivative_jumps_at_a_kink() -> None:
    (slope, _), caption = _page.lines_of(HALF)
    assert set(slope.y) == {0.0, 1.0} and caption == ""
    assert gallery._path(torch.tensor(slope.x, dtype=torch.float64), torch.tensor(slope.y)).count("M") == 2


@pytest.mark.parametrize("part", [CENTRED, PRODUCT], ids=["rowwise", "gated"])
def test_a_picture_of_a_row_says_what_it_shows(part: ActivationPart) -> None:
    lines, caption = _page.lines_of(part)
    assert lines and "swept" in caption and all(math.isfinite(y) for line in lines for y in line.y)


def test_a_thinned_path_stays_on_the_curve() -> None:
    points = [(float(i), 40 * math.sin(i / 20)) for i in range(300)]
    kept = gallery._thinned(points)
    assert len(kept) < 200 and set(kept) <= set(points)
    at = dict(kept)
    for (x0, y0), (x1, y1) in zip(kept, kept[1:], strict=False):
        for x, y in points[int(x0) : int(x1) + 1]:
            assert abs(y0 + (y1 - y0) * (x - x0) / (x1 - x0) - y) < 0.2
    assert at[0.0] == 0.0


def test_ticks_are_round_and_few() -> None:
    for lo, hi in ((-0.3, 5.3), (-6, 6), (0, 0.012), (-1.1, 1.1)):
        ticks = gallery._ticks(lo, hi)
        assert 2 <= len(ticks) <= 6 and all(lo <= t <= hi for t in ticks)


# The page -------------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Cards, links, and what a page would load; fails where an element is closed that wasn't opened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.cards: list[dict[str, str | None]] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.add(tag)
        assert not {k for k in values if k in ("src", "srcset", "action") or k.startswith("on")}, (tag, values)
        self.ids += [values["id"] or ""] if "id" in values else []
        if tag == "a":
            self.links.append(values.get("href") or "")
        if tag == "article":
            self.cards.append(values)
        if tag not in ("meta", "input", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()


@pytest.fixture(scope="module")
def text() -> str:
    return gallery.page(PARTS)


@pytest.mark.every_part
def test_there_is_a_card_for_every_activation(text: str) -> None:
    page = Page(text)
    assert [card["data-name"] for card in page.cards] == [part.name for part in PARTS]
    assert len(page.ids) == len(set(page.ids))
    for card, part in zip(page.cards, PARTS, strict=True):
        assert card["data-shape"] == part.tags.shape and card["data-learns"] == ("yes" if part.learn else "no")
        assert card["data-smooth"] == ("" if part.tags.shape != "elementwise" else "yes" if part.tags.smooth else "no")
        assert f'role="img" aria-label="curve of {catalogue.cls_name(part)}"' in text
    assert "No picture" not in text


def test_the_page_loads_nothing_and_runs_its_own_script_only(text: str) -> None:
    page = Page(text)
    assert not page.tags & {"link", "img", "iframe", "object", "embed", "form"}
    assert all(link.startswith("https://arxiv.org/abs/") for link in page.links)
    assert not re.search(r"url\((?!#)|@import", text)
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in text
    assert not re.search(r"innerHTML|insertAdjacent|document\.write|fetch\(|XMLHttp|import\(", script)


def test_the_page_stays_small(text: str) -> None:
    assert len(text.encode()) / len(PARTS) < 25_000


def test_cards_link_to_pages_in_the_site_only() -> None:
    part = PARTS[0]
    assert f'href="{part.id}.html"' in gallery.page([part], site=True)
    assert f'href="{part.id}.html"' not in gallery.page([part])


HOSTILE = "</style></title><script>alert(1)</script><img src=x onerror=alert(2)>\x1b[31m\"'&"


def test_everything_a_part_says_is_escaped() -> None:
    paper = Paper("", HOSTILE, HOSTILE, 2000, HOSTILE, HOSTILE, HOSTILE)
    hostile = dataclasses.replace(HALF, summary=HOSTILE, formula=HOSTILE, paper=paper, cls=HOSTILE, retired=HOSTILE)
    measured = {"unit": HOSTILE, "rows": {hostile.name: {"fused": {"fwdbwd_2^20": {"median": 0.5}}}}}
    made = gallery.page([hostile, toy(raising, name="toy-raises", summary=HOSTILE)], site=True, measured=measured)
    page = Page(made)
    assert made.count("<script>") == 1 and "img" not in page.tags and "\x1b" not in made
    assert "alert(1)" in made and "no such thing &lt;b&gt;" in made


def test_a_part_that_raises_gets_a_card_that_says_so() -> None:
    made = gallery.page([toy(raising)])
    assert "No picture and no numbers: ValueError" in made and 'data-variance=""' in made


@pytest.mark.parametrize(
    ("measured", "said"),
    [
        ({"unit": "the plain writing", "rows": {"toy-shape": {"fused": {"fwdbwd_2^20": {"median": 0.614}}}}}, "0.61 times "),
        ({"rows": {"toy-shape": {"fused": {"fwdbwd_2^20": {"median": None}}}}}, ""),
        ({"rows": {"toy-shape": {"fused": {}}}}, ""),
        ({}, ""),
    ],
)
def test_measured_times_are_shown_where_they_are_on_record(measured: dict[str, Any], said: str) -> None:
    made = gallery.page([HALF], measured=measured)
    assert f"; fused {said}" in made if said else "; fused " not in made


def test_learnable_parameters_stand_with_their_initial_values() -> None:
    def bent(x: Tensor, slope: Tensor, a: Tensor) -> Tensor:
        return torch.where(x > 0, x, slope * x) + a.unbind(0)[0]

    part = toy(bent, learn=(Learn("slope", 0.25), Learn("a", (0.0, 1.0, 2.0, 3.0))))
    assert _page.learns(part) == ("slope = 0.25", "a = 0, 1, 2, ... (4 numbers)")
    channels = toy(bent, learn=(Learn("slope", 0.25, per="channel"), Learn("a", (0.0,))))
    assert _page.learns(channels)[0] == "slope = 0.25, one a channel"


def test_parts_of_any_kind_with_a_profile_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    assert gallery.title(PARTS) == "gallery of activations" and gallery.shown([OTHER]) == []
    makers = gallery._makers() | {OTHER.kind: lambda part: Profile("linear", 2.0, traits=("delicate",))}
    monkeypatch.setattr(gallery, "_makers", lambda: makers)
    made = gallery.page([HALF, OTHER])
    assert "Gallery of activations and" in made and "2 parts" in made and 'data-shape="linear"' in made


def test_the_command_writes_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "parts", lambda: [*PARTS[:2], OTHER])
    out = tmp_path / "new" / "all.html"
    result = CliRunner().invoke(app, ["gallery", "--out", str(out)])
    assert result.exit_code == 0 and result.output.strip() == str(out), result.output
    assert [path.name for path in out.parent.iterdir()] == ["all.html"]
    assert out.read_text(encoding="utf-8").count("<article") == 2


# In a browser ---------------------------------------------------------------------------------------------------------

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def shown(text: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[dict[str, str | None]]]:
    """A function from the address's fragment to the cards that are shown, in their order."""
    if BROWSER is None:
        pytest.skip("no Chromium is installed")
    folder = tmp_path_factory.mktemp("gallery")
    (folder / "gallery.html").write_text(text, encoding="utf-8")

    def open_at(fragment: str) -> list[dict[str, str | None]]:
        words = [
            str(BROWSER),
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
            f"--user-data-dir={folder / 'profile'}",
            "--dump-dom",
            f"file://{folder / 'gallery.html'}{fragment}",
        ]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True)
        return [card for card in Page(re.sub(r"<!DOCTYPE.*?>", "", done.stdout, flags=re.I)).cards if "hidden" not in card]

    return open_at


def names(cards: list[dict[str, str | None]]) -> list[str | None]:
    return [card["data-name"] for card in cards]


@pytest.mark.every_part
def test_the_address_filters_and_sorts(shown: Any) -> None:
    assert names(shown("#family=no-such-family&sort=no-such-order")) == sorted(part.name for part in PARTS)
    smooth = shown("#smooth=yes&sort=variance")
    assert set(names(smooth)) == {p.name for p in PARTS if p.tags.shape == "elementwise" and p.tags.smooth}
    variances = [float(card["data-variance"]) for card in smooth]
    assert variances == sorted(variances) and len(set(variances)) > 2
    learning = shown("#learns=yes&monotone=no&sort=cost")
    wanted = {p.name for p in PARTS if p.learn and p.tags.shape == "elementwise" and not p.tags.monotone}
    assert set(names(learning)) == wanted
    costs = [float(card["data-cost"]) for card in learning]
    assert costs == sorted(costs)


@pytest.mark.every_part
def test_the_address_searches(shown: Any) -> None:
    family = gallery.family(PARTS[-1])
    found = shown(f"#q={family.upper()}&family={family}&sort=year")
    assert names(found) and set(names(found)) == {p.name for p in PARTS if gallery.family(p) == family}
    years = [int(card["data-year"] or 0) for card in found]
    assert years == sorted(years, reverse=True)
