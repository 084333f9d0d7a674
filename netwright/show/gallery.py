"""The gallery: every part that has a profile on one page, its curve, what it does to N(0, 1) input, where it comes from.

One self-contained file. Curves and numbers come from the profiles (netwright.core.kind); the page's own script filters and sorts
the cards, and nothing is loaded when it is viewed. The state of the filters stands in the address:
gallery.html#q=periodic&sort=variance.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from markupsafe import Markup
from torch import Tensor

from netwright.core import __version__, catalogue
from netwright.core.errors import printable
from netwright.core.kind import Kind, Line, Moments, Profile
from netwright.core.part import Part
from netwright.core.writing import write_whole
from netwright.corpus import papers as corpus
from netwright.corpus.status import evidence, status
from netwright.show import place, words

MOST = 6.0  # curves are cut off above and below this
#: The benchmark whose median is shown: fused, forward and backward, 2^20 elements.
MEASURED = ("fused", "fwdbwd_2^20", "median")
#: (value of the `sort` key, what the reader sees)
SORTS = (("name", "name"), ("variance", "least variance"), ("cost", "fewest operations"), ("year", "newest paper"))


def _makers() -> dict[str, Callable[[Any], Profile]]:
    """Kind -> what makes the profiles of its parts, of those that have them."""
    return {kind.name: make for kind in catalogue.kinds().values() if (make := kind.profile()) is not None}


def shown(parts: Iterable[Part]) -> list[Part]:
    """Those of the parts that have a profile."""
    makers = _makers()
    return [part for part in parts if part.kind in makers]


def title(parts: Iterable[Part]) -> str:
    """ "gallery of activations", of the kinds that these parts are of."""
    kinds = catalogue.kinds()
    folders = dict.fromkeys(kinds[part.kind].folder for part in shown(parts))
    return f"gallery of {words.join(list(folders)) or 'parts'}"


def write(out: str | Path, parts: Sequence[Part] | None = None, *, site: bool = False) -> Path:
    """Write the gallery to a file, whole or not at all, making its folder; returns the file.

    parts: all that have a profile by default. site: link each card to the part's own page, as `make docs` lays them out.
    """
    path = Path(out)
    text = page(shown(catalogue.parts()) if parts is None else parts, site=site)
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_whole(path, text)


def page(parts: Sequence[Part], *, site: bool = False, measured: Mapping[str, Any] | None = None) -> str:
    """The gallery of these parts as one HTML document. measured: by default evidence/benchmarks/<folder of the kind>.json."""
    kinds = {kind.name: kind for kind in catalogue.kinds().values() if any(part.kind == kind.name for part in parts)}
    known = {name: _benchmark(kind) if measured is None else measured for name, kind in kinds.items()}
    makers = _makers()
    profiles = [makers[part.kind](part) for part in parts]
    cards = [_card(part, profile, known[part.kind]) for part, profile in zip(parts, profiles, strict=True)]
    samples = [p.moments.sample for p in profiles if p.moments is not None and p.moments.sample is not None]
    environment = place.environment()
    script = environment.get_template("gallery.js").render()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("gallery.html").render(
        title=_capital(title(parts)),
        one=next(iter(kinds)) if len(kinds) == 1 else "part",
        version=__version__,
        cards=cards,
        script=Markup(script),
        digest=digest,
        site=site,
        sorts=SORTS,
        reach=max((p.reach for p in profiles), default=0.0),
        sample=samples[0] if samples else None,
        families=sorted({c["family"] for c in cards}),
        shapes=sorted({c["shape"] for c in cards}),
        tags=sorted({tag for c in cards for tag in c["tags"]} - {"smooth", "monotone"}),
    )


def _benchmark(kind: Kind) -> Mapping[str, Any]:
    folder = evidence()
    path = folder / "benchmarks" / f"{kind.folder}.json" if folder is not None else None
    return json.loads(path.read_text(encoding="utf-8")) if path is not None and path.is_file() else {}


# One card -------------------------------------------------------------------------------------------------------------


def _card(part: Part, profile: Profile, measured: Mapping[str, Any]) -> dict[str, Any]:
    """What the template shows of one part, as text, numbers and markup of our own."""
    paper = corpus.complete(part.paper)
    name = catalogue.cls_name(part) or part.name
    effect, where = profile.moments, family(part)
    return {
        "id": part.id.replace("/", "-"),
        "name": part.name,
        "title": name,
        "href": place.place(part),
        "summary": part.summary,
        "status": status(part),
        "family": where,
        "shape": profile.shape,
        "tags": [*profile.traits],
        "smooth": _known(profile.smooth),
        "monotone": _known(profile.monotone),
        "kinks": words.join([_signed(f"{kink:g}") for kink in profile.kinks]),
        "learnt": profile.learns,
        "learns": _known(bool(profile.learns)),
        **_formula(part),
        "picture": Markup("") if profile.trouble else _svg(profile.lines, profile.reach, f"curve of {name}"),
        "caption": profile.caption,
        "trouble": profile.trouble,
        "moments": _shown(effect),
        "variance": f"{effect.variance:.9g}" if effect is not None else "",
        "flops": f"{profile.operations:g}",
        "ratio": _ratio(part, measured),
        "paper": _reference(part, paper.arxiv),
        "year": paper.year or "",
        "text": " ".join(
            [name, part.name, part.summary, where, profile.shape, *profile.traits, paper.title, paper.slug, paper.authors]
        ).lower(),
    }


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _signed(text: str) -> str:
    return text.replace("-", "−")


def _known(holds: bool | None) -> str:
    return "" if holds is None else "yes" if holds else "no"


def _formula(part: Part) -> dict[str, Any]:
    """The formula, its width on a card and the least it may be shrunk to (pixels); what is wider yet is scrolled."""
    made = place.formula(part.formula)
    found = re.match(r'<svg [^>]*?width="([\d.]+)"', made)
    width = float(found[1]) if found else 0.0
    return {"formula": made, "width": f"{0.78 * width:.0f}", "least": f"{0.56 * width:.0f}"}


def _reference(part: Part, arxiv: str) -> Markup:
    """The reference line, its arXiv number an anchor (which loads nothing by itself)."""
    number = f"arXiv:{printable(arxiv)}"
    head, found, tail = printable(corpus.reference_line(part.paper)).partition(number)
    anchor = Markup('<a rel="noreferrer" href="https://arxiv.org/abs/{0}">{1}</a>').format(printable(arxiv), number)
    return Markup("{0}{1}{2}").format(head, anchor if found and arxiv else found, tail)


def family(part: Part) -> str:
    """The folder a part stands in; "elsewhere" for parts of plug-ins and your own."""
    pieces = part.module.split(".")
    own = ["netwright", catalogue.kinds()[part.kind].folder]
    return pieces[2] if pieces[:2] == own and len(pieces) == 4 else "elsewhere"


def _shown(m: Moments | None) -> dict[str, Any]:
    if m is None:
        return {}
    form = "#.4g" if m.sample is None else "#.2g"
    values = {name: getattr(m, name) for name in ("mean", "variance", "second", "slope")}
    row = {name: _signed(format(v, form).rstrip(".")) if abs(v) > 1e-9 else "0" for name, v in values.items()}
    return row | {"exact": m.sample is None}


def _ratio(part: Part, measured: Mapping[str, Any]) -> str:
    """ "0.62 times NAME", where a benchmark is on record; else ''."""
    row = measured.get("rows", {}).get(part.name, measured.get("rows", {}).get(part.id, {}))
    value: Any = row
    for key in MEASURED:
        value = value.get(key) if isinstance(value, Mapping) else None
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        return ""
    peer = measured.get("unit") or "the benchmark's peer"
    return f"{value:.2f} times {peer}"


# The picture ----------------------------------------------------------------------------------------------------------

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 316, 176, 34, 6, 8, 20


def _svg(lines: Sequence[Line], reach: float, title: str) -> Markup:
    """The curves over axes with a few numbers, in the page's colours; one unit is one pixel at natural size."""
    curves = [torch.tensor((line.x, line.y), dtype=torch.float64) for line in lines]
    lo, hi = _limits([y for _, y in curves])
    across, up = (WIDTH - LEFT - RIGHT) / (2 * reach), (HEIGHT - TOP - BOTTOM) / (hi - lo)
    base = HEIGHT - BOTTOM
    drawn = [f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{{0}}">']
    for value in _ticks(lo, hi):
        y = base - (value - lo) * up
        look = "zero" if value == 0 else "grid"
        drawn.append(f'<path class="{look}" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        drawn.append(f'<text x="{LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{_signed(f"{value:g}")}</text>')
    for value in (-4, -2, 0, 2, 4):
        x = LEFT + (value + reach) * across
        drawn.append(f'<path class="{"grid" if value else "zero"}" d="M{x:.1f} {TOP}V{base}"/>')
        drawn.append(f'<text x="{x:.1f}" y="{HEIGHT - 5}" text-anchor="middle">{_signed(str(value))}</text>')
    inside = f'x="{LEFT}" y="{TOP}" width="{WIDTH - LEFT - RIGHT}" height="{HEIGHT - TOP - BOTTOM}"'
    drawn.append(f"<svg {inside}>")  # cuts off what leaves the frame
    for line, (x_P, y_P) in zip(lines, curves, strict=True):
        seen = y_P.clamp(lo - 3 * (hi - lo), hi + 3 * (hi - lo))
        drawn.append(f'<path class="{line.look}" d="{_path((x_P + reach) * across, (hi - seen) * up)}"/>')
    return Markup("".join([*drawn, "</svg></svg>"])).format(printable(title))


def _limits(curves: Sequence[Tensor]) -> tuple[float, float]:
    """What the picture shows of the y axis: all of it where that lies within [-MOST, MOST], and always 0."""
    finite = torch.cat([y[y.isfinite()] for y in curves] + [torch.zeros(1, dtype=torch.float64)])
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
