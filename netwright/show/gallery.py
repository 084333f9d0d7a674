"""The gallery: every activation on one page, its curve, what it does to N(0, 1) input, where it comes from.

One self-contained file. Curves and numbers are computed here from the parts themselves; the page's own script filters and
sorts the cards, and nothing is loaded when it is viewed. The state of the filters stands in the address:
gallery.html#q=periodic&sort=variance.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any, final

import torch
from markupsafe import Markup
from torch import Tensor, nn

from netwright.activations._kind import ActivationPart
from netwright.core import __version__, catalogue
from netwright.core.errors import printable
from netwright.corpus import papers as corpus
from netwright.corpus.status import evidence, status
from netwright.show import place, words
from netwright.show.card import tags_of

REACH = 5.0  # curves are drawn on [-REACH, REACH]
MOST = 6.0  # and cut off above and below this
#: Entries of the row in which one is swept, for parts that act along a row.
ROW = 16
#: The sample for parts that aren't elementwise: rows of entries.
ROWS, ENTRIES = 2048, 64
#: The benchmark whose median is shown: fused, forward and backward, 2^20 elements.
MEASURED = ("fused", "fwdbwd_2^20", "median")
#: (value of the `sort` key, what the reader sees)
SORTS = (("name", "name"), ("variance", "least variance"), ("cost", "fewest operations"), ("year", "newest paper"))


@final
@dataclass(frozen=True)
class Moments:
    """What a part makes of N(0, 1) input. `slope`: the mean square of its derivative; for parts that aren't elementwise,
    of an N(0, 1) gradient handed back through it."""

    mean: float
    variance: float
    second: float
    slope: float
    exact: bool  # by quadrature, not from a sample


@final
@dataclass(frozen=True)
class Curve:
    """One line of a picture. look: "f", "g", "h" for functions and "d" for a derivative."""

    look: str
    x: Tensor
    y: Tensor


def write(out: str | Path, parts: Sequence[ActivationPart] | None = None, *, site: bool = False) -> Path:
    """Write the gallery to a file, whole or not at all, making its folder; returns the file.

    parts: all activations by default. site: link each card to the part's own page, as `make docs` lays them out.
    """
    path = Path(out)
    chosen: Any = catalogue.parts("activation") if parts is None else parts
    text = page(chosen, site=site)
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(path.name + ".half")
    half.write_text(text, encoding="utf-8")
    os.replace(half, path)
    return path


def page(parts: Sequence[ActivationPart], *, site: bool = False, measured: Mapping[str, Any] | None = None) -> str:
    """The gallery of these parts as one HTML document. measured: by default evidence/benchmarks/activations.json."""
    known = _benchmark(evidence()) if measured is None else measured
    cards = [_card(part, known) for part in parts]
    environment = place.environment()
    script = environment.get_template("gallery.js").render()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("gallery.html").render(
        version=__version__, cards=cards, script=Markup(script), digest=digest, site=site, sorts=SORTS, reach=REACH,
        families=sorted({c["family"] for c in cards}), shapes=sorted({c["shape"] for c in cards}),
        tags=sorted({tag for c in cards for tag in c["tags"]} - {"smooth", "monotone"}), rows=ROWS, entries=ENTRIES,
        sampled=any(c["moments"] and not c["moments"]["exact"] for c in cards),
    )  # fmt: skip


def _benchmark(folder: Path | None) -> Mapping[str, Any]:
    path = folder / "benchmarks" / "activations.json" if folder is not None else None
    return json.loads(path.read_text(encoding="utf-8")) if path is not None and path.is_file() else {}


# One card -------------------------------------------------------------------------------------------------------------


def _card(part: ActivationPart, measured: Mapping[str, Any]) -> dict[str, Any]:
    """What the template shows of one part, as text, numbers and markup of our own."""
    paper = corpus.complete(part.paper)
    tags = [name.replace("_", " ") for name, value in tags_of(part).items() if value is True]
    tags += [] if part.tags.exact_gradient else ["gradient of its own"]
    known = part.tags.shape == "elementwise"  # smooth and monotone are checked of these only
    try:
        learnt, effect, (picture, caption), trouble = learns(part), moments(part), _picture(part), ""
    except Exception as error:  # a part's own code: whatever it raises mustn't take the page down
        learnt, effect, picture, caption, trouble = [], None, Markup(""), "", f"{type(error).__name__}: {error}"
    title = catalogue.cls_name(part) or part.name
    ratio = _ratio(part, measured)
    return {
        "id": part.id.replace("/", "-"), "name": part.name, "title": title, "href": place.place(part), "summary": part.summary,
        "status": status(part), "family": family(part), "shape": part.tags.shape, "tags": tags,
        "smooth": _yes(part.tags.smooth) if known else "", "monotone": _yes(part.tags.monotone) if known else "",
        "kinks": words.join([_signed(f"{kink:g}") for kink in part.tags.kinks]), "learnt": learnt, "learns": _yes(bool(learnt)),
        **_formula(part),
        "picture": picture, "caption": caption, "trouble": trouble, "moments": _shown(effect),
        "variance": f"{effect.variance:.9g}" if effect is not None else "", "flops": f"{part.flops:g}",
        "ratio": ratio, "paper": _reference(part, paper.arxiv), "year": paper.year or "",
        "text": " ".join([title, part.name, part.summary, family(part), part.tags.shape, *tags, paper.title, paper.slug,
                          paper.authors]).lower(),
    }  # fmt: skip


def _signed(text: str) -> str:
    return text.replace("-", "−")


def _yes(holds: bool) -> str:
    return "yes" if holds else "no"


def _formula(part: ActivationPart) -> dict[str, Any]:
    """The formula, its width on a card and the least it may be shrunk to (pixels); what is wider yet is scrolled."""
    made = place.formula(part.formula)
    found = re.match(r'<svg [^>]*?width="([\d.]+)"', made)
    width = float(found[1]) if found else 0.0
    return {"formula": made, "width": f"{0.78 * width:.0f}", "least": f"{0.56 * width:.0f}"}


def _reference(part: ActivationPart, arxiv: str) -> Markup:
    """The reference line, its arXiv number an anchor (which loads nothing by itself)."""
    number = f"arXiv:{printable(arxiv)}"
    head, found, tail = printable(corpus.reference_line(part.paper)).partition(number)
    anchor = Markup('<a rel="noreferrer" href="https://arxiv.org/abs/{0}">{1}</a>').format(printable(arxiv), number)
    return Markup("{0}{1}{2}").format(head, anchor if found and arxiv else found, tail)


def family(part: ActivationPart) -> str:
    """The folder a part stands in; "elsewhere" for parts of plug-ins and your own."""
    pieces = part.module.split(".")
    return pieces[2] if pieces[:2] == ["netwright", "activations"] and len(pieces) == 4 else "elsewhere"


def learns(part: ActivationPart) -> list[str]:
    """Each learnable parameter with its initial value: "beta = 1", "a = 0.02, 0.5, ... (6 numbers), one a channel"."""
    built = _build(part, 2)
    declared = {item.name: item for item in part.learn}
    said = []
    for name, p in built.named_parameters():
        values = p.detach().reshape(p.shape[0], -1)[:, 0].tolist() if p.dim() else [p.item()]
        item = declared.get(name)
        vector = item is None or isinstance(getattr(built, "_inits", {}).get(name), tuple)
        shown = [f"{v:.3g}" for v in (values if vector else values[:1])]
        text = ", ".join(shown[:3]) + (f", ... ({len(shown)} numbers)" if len(shown) > 3 else "")
        channel = item is not None and getattr(built, "per", None) == "channel"
        said.append(f"{name} = {text}{', one a channel' if channel else ''}")
    return said


def _shown(m: Moments | None) -> dict[str, Any]:
    if m is None:
        return {}
    form = "#.4g" if m.exact else "#.2g"
    values = {name: getattr(m, name) for name in ("mean", "variance", "second", "slope")}
    row = {name: _signed(format(v, form).rstrip(".")) if abs(v) > 1e-9 else "0" for name, v in values.items()}
    return row | {"exact": m.exact}


def _ratio(part: ActivationPart, measured: Mapping[str, Any]) -> str:
    """ "0.62 times NAME", where a benchmark is on record; else ''."""
    row = measured.get("rows", {}).get(part.name, measured.get("rows", {}).get(part.id, {}))
    value: Any = row
    for key in MEASURED:
        value = value.get(key) if isinstance(value, Mapping) else None
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        return ""
    peer = measured.get("unit") or "the benchmark's peer"
    return f"{value:.2f} times {peer}"


# What it does to N(0, 1) ----------------------------------------------------------------------------------------------


def _build(part: ActivationPart, channels: int) -> nn.Module:
    return part.build(channels=channels, channel_dim=-1).double().eval()


def moments(part: ActivationPart) -> Moments:
    """Mean, variance, second moment and mean square slope of a part for N(0, 1) input, at its default setting.

    Elementwise: by the trapezoid rule on [-12, 12] in steps of 1/2000, on either side of each kink. Others: over ROWS
    seeded rows of ENTRIES entries. Stateful parts are taken in evaluation mode.
    """
    if part.tags.shape == "elementwise":
        x = _grid(part, 12.0, 48_001).requires_grad_()
        y = _build(part, 1)(x[:, None])[:, 0]
        (slope,) = torch.autograd.grad(y.sum(), x)
        weight = torch.exp(-x.detach().square() / 2) / math.sqrt(2 * math.pi)

        def expected(v: Tensor) -> float:
            return float(torch.trapezoid(v.detach() * weight, x.detach()))

        mean = expected(y)
        return Moments(mean, expected((y - mean).square()), expected(y.square()), expected(slope.square()), True)
    g = torch.Generator().manual_seed(0)
    x = torch.randn(ROWS, ENTRIES, generator=g, dtype=torch.float64).requires_grad_()
    y = _build(part, ENTRIES)(x)
    (back,) = torch.autograd.grad(y, x, torch.randn(y.shape, generator=g, dtype=torch.float64))
    y = y.detach()
    return Moments(float(y.mean()), float(y.var()), float(y.square().mean()), float(back.square().mean()), False)


# The picture ----------------------------------------------------------------------------------------------------------


def _picture(part: ActivationPart) -> tuple[Markup, str]:
    curves, caption = curves_of(part)
    return _svg(curves, f"curve of {catalogue.cls_name(part) or part.name}"), caption


def _grid(part: ActivationPart, reach: float = REACH, count: int = 401) -> Tensor:
    """Points of [-reach, reach] and both sides of every kink, so that a derivative jumps instead of leaning."""
    kinks = torch.tensor(part.tags.kinks, dtype=torch.float64)
    kinks = kinks[kinks.abs() < reach]
    even = torch.linspace(-reach, reach, count, dtype=torch.float64)
    return torch.cat((even[~torch.isin(even, kinks)], kinks - 1e-9, kinks + 1e-9)).sort().values


def curves_of(part: ActivationPart) -> tuple[list[Curve], str]:
    """The lines of a part's picture, and what they are where that isn't f and its derivative."""
    x, shape = _grid(part), part.tags.shape
    if shape == "gated":
        built = _build(part, 2)
        one = torch.ones_like(x)
        first, second = built(torch.stack((x, one), -1)), built(torch.stack((one, x), -1))
        caption = "the first half swept with the second at 1 (solid), the second with the first at 1 (dotted)"
        return [Curve("f", x, first[:, 0].detach()), Curve("g", x, second[:, 0].detach())], caption
    if shape == "elementwise":
        y, slope = _swept(_build(part, 1), x, 1)
        return [Curve("d", x, slope), Curve("f", x, y[:, 0])], ""
    if shape == "channels":
        width = next((n for n in (1, 2, 3, 4) if float(n * part.ratio).is_integer() and n * part.ratio >= 1), 4)
        y, _ = _swept(_build(part, width), x, width)
        caption = f"{words.plural(y.shape[-1], 'output channel')} of {words.plural(width, 'input channel')}"
        caption += f"; the first swept, {_fixed(width)}" if width > 1 else ""
        return [Curve(look, x, y[:, i]) for i, look in enumerate("fgh"[: y.shape[-1]])], caption
    y, slope = _swept(_build(part, ROW), x, ROW)
    caption = f"the first output as the first of {ROW} entries is swept, {_fixed(ROW)}"
    caption += "; in evaluation mode" if shape == "stateful" else ""
    return [Curve("d", x, slope), Curve("f", x, y[:, 0])], caption


def _others(width: int) -> list[float]:
    """What the entries beside the swept one hold: the quantiles of N(0, 1), the middle ones first."""
    return sorted((NormalDist().inv_cdf(i / width) for i in range(1, width)), key=lambda v: (abs(v), v))


def _fixed(width: int) -> str:
    return f"the other {width - 1} at the quantiles of N(0, 1)" if width > 2 else "the other at 0"


def _swept(built: nn.Module, x: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Outputs, and the first one's derivative, as the first entry of a row runs through x and the others stay."""
    x = x.clone().requires_grad_()
    others = torch.tensor(_others(width), dtype=x.dtype).expand(len(x), width - 1)
    y = built(torch.cat((x[:, None], others), -1))
    (slope,) = torch.autograd.grad(y[:, 0].sum(), x)
    return y.detach(), slope


WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 316, 176, 34, 6, 8, 20


def _svg(curves: Sequence[Curve], title: str) -> Markup:
    """The curves over axes with a few numbers, in the page's colours; one unit is one pixel at natural size."""
    lo, hi = _limits(curves)
    across, up = (WIDTH - LEFT - RIGHT) / (2 * REACH), (HEIGHT - TOP - BOTTOM) / (hi - lo)
    base = HEIGHT - BOTTOM
    drawn = [f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{{0}}">']
    for value in _ticks(lo, hi):
        y = base - (value - lo) * up
        look = "zero" if value == 0 else "grid"
        drawn.append(f'<path class="{look}" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        drawn.append(f'<text x="{LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{_signed(f"{value:g}")}</text>')
    for value in (-4, -2, 0, 2, 4):
        x = LEFT + (value + REACH) * across
        drawn.append(f'<path class="{"grid" if value else "zero"}" d="M{x:.1f} {TOP}V{base}"/>')
        drawn.append(f'<text x="{x:.1f}" y="{HEIGHT - 5}" text-anchor="middle">{_signed(str(value))}</text>')
    inside = f'x="{LEFT}" y="{TOP}" width="{WIDTH - LEFT - RIGHT}" height="{HEIGHT - TOP - BOTTOM}"'
    drawn.append(f"<svg {inside}>")  # cuts off what leaves the frame
    for curve in curves:
        seen = curve.y.clamp(lo - 3 * (hi - lo), hi + 3 * (hi - lo))
        drawn.append(f'<path class="{curve.look}" d="{_path((curve.x + REACH) * across, (hi - seen) * up)}"/>')
    return Markup("".join([*drawn, "</svg></svg>"])).format(printable(title))


def _limits(curves: Sequence[Curve]) -> tuple[float, float]:
    """What the picture shows of the y axis: all of it where that lies within [-MOST, MOST], and always 0."""
    finite = torch.cat([curve.y[curve.y.isfinite()] for curve in curves] + [torch.zeros(1, dtype=torch.float64)])
    lo, hi = max(float(finite.min()), -MOST), min(float(finite.max()), MOST)
    if hi - lo < 1e-3:
        lo, hi = lo - 0.5, hi + 0.5
    return lo - 0.06 * (hi - lo), hi + 0.06 * (hi - lo)


def _ticks(lo: float, hi: float) -> list[float]:
    """Round numbers between lo and hi, five at most."""
    power = 10.0 ** math.floor(math.log10((hi - lo) / 5))
    step = next(m * power for m in (1, 2, 5, 10, 20) if (hi - lo) / (m * power) <= 5)
    return [round(k * step, 10) for k in range(math.ceil(lo / step), math.floor(hi / step) + 1)]


def _path(x: Tensor, y: Tensor) -> str:
    """An SVG path through the finite points, broken where there is none or x hardly moves, without points on a line."""
    runs: list[list[tuple[float, float]]] = [[]]
    for point in zip(x.tolist(), y.tolist(), strict=True):
        if not math.isfinite(point[1]):
            runs.append([])
            continue
        if runs[-1] and point[0] - runs[-1][-1][0] < 1e-6 and abs(point[1] - runs[-1][-1][1]) > 1e-3:
            runs.append([])
        runs[-1].append(point)
    return "".join("M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in _thinned(run)) for run in runs if len(run) > 1)


def _thinned(points: list[tuple[float, float]], slack: float = 0.05) -> list[tuple[float, float]]:
    """The points without those within `slack` pixels of the line through their neighbours (Douglas and Peucker)."""
    (x0, y0), (x1, y1) = points[0], points[-1]
    length = math.hypot(x1 - x0, y1 - y0) or 1.0
    gaps = [abs((x1 - x0) * (y0 - y) - (x0 - x) * (y1 - y0)) / length for x, y in points[1:-1]]
    if not gaps or max(gaps) <= slack:
        return [points[0], points[-1]]
    at = gaps.index(max(gaps)) + 1
    return _thinned(points[: at + 1], slack)[:-1] + _thinned(points[at:], slack)
