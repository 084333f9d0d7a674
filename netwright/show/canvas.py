"""From matplotlib figures to SVG and PNG: our own settings, deterministic bytes, colours that follow the page's theme.

Only matplotlib's object interface is used: no pyplot, and the reader's rcParams are untouched after every call.
One viewBox unit is one CSS pixel at natural size.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from xml.etree import ElementTree

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from netwright.show.words import clean, rate

INK, MUTED, GRID, PAPER, BAND = "#1d2129", "#5f6672", "#e4e6ea", "#ffffff", "#eceef2"
BASELINE = "#4d5563"
#: Colours for all but the baseline. Any two, grey included, are 0.09 or more apart in OKLab to the usual eye and under
#: simulated protanopia, deuteranopia and tritanopia (Machado et al., 2009); contrast with white is 2.9 or more.
HUES = ("#3165bc", "#853303", "#6b7841", "#db6a94", "#b19535", "#3a9ed2")
#: Six hues and seven markers: their pairs repeat only after 42 arms. The numbers make them look equally large.
MARKERS = ("o", "s", "^", "D", "v", "p", ">")
SIZES = {"o": 1.0, "s": 0.92, "^": 1.18, "D": 0.86, "v": 1.18, "p": 1.15, ">": 1.18}
#: The page's CSS variable for each colour; the colour itself stays as the fallback.
VARIABLES = {INK: "ink", MUTED: "muted", GRID: "grid", PAPER: "paper", BAND: "band", BASELINE: "base"} | {
    hue: f"arm{i}" for i, hue in enumerate(HUES)
}

_SETTINGS: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "netwright",
    "font.family": "DejaVu Sans",  # ships with matplotlib, so that layout is the same everywhere
    "font.size": 11.0,
    "text.parse_math": False,  # an arm's name may hold dollar signs
    "axes.unicode_minus": True,
    "path.simplify": False,
    "mathtext.fontset": "cm",
}


@contextmanager
def settings(changes: Mapping[str, Any] | None = None) -> Iterator[None]:
    """matplotlib's defaults plus ours plus `changes`, whatever the reader's matplotlibrc says; restored afterwards.

    A context, and as `@settings()` a decorator for functions that draw.
    """
    wanted: Any = _SETTINGS | dict(changes or {})
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # the browser has more fonts than we
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(wanted)
        yield


def panel(
    width: float, height: float, left: float = 50, right: float = 10, top: float = 10, bottom: float = 40
) -> tuple[Figure, Axes]:
    """A figure of one axes, all lengths in pixels: margins are fixed, so that panels of a grid line up."""
    figure = Figure(figsize=(width / 72, height / 72), dpi=72, facecolor="none")
    axes = figure.add_axes(
        (left / width, bottom / height, (width - left - right) / width, (height - top - bottom) / height),
        facecolor="none",
    )
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set(color=MUTED, linewidth=0.8)
    axes.tick_params(length=3, width=0.8, color=MUTED, labelcolor=MUTED, labelsize=10, pad=3)
    axes.grid(True, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def tick_text(value: float, _position: int | None = None) -> str:
    """'0.95', '1', '−0.02', '1e−5'."""
    return rate(float(f"{value:.6g}")) if value else "0"


def thousands(value: float, _position: int | None = None) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g} {unit}"
    return f"{value:.4g}"


def marks(
    axes: Axes,
    points: Iterable[tuple[float, float]],
    marker: str,
    colour: str,
    size: float,
    style: Mapping[str, Any] | None = None,
) -> None:
    """Points with a thin rim in the page's own colour, so that neighbours stay apart."""
    if points := list(points):
        drawn: dict[str, Any] = {"color": colour, "mec": PAPER, "mew": 0.14 * size, "ls": ""} | dict(style or {})
        axes.plot(*zip(*points, strict=True), marker=marker, ms=size * SIZES[marker], **drawn)


def linear(axes: Axes, which: str, n: int = 4, text: Callable[..., str] | None = None) -> None:
    """At most n + 1 round ticks."""
    axis = getattr(axes, f"{which}axis")
    axis.set_major_locator(MaxNLocator(n, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(text or _even(axis)))


def _even(axis: Any) -> Callable[..., str]:
    """All ticks of an axis with the same number of decimals."""

    def text(value: float, _position: int | None = None) -> str:
        locations = axis.get_majorticklocs()
        step = abs(locations[1] - locations[0]) if len(locations) > 1 else 1.0
        if not 1e-6 < step < 1e6:
            return tick_text(value)
        places = max(0, next((k for k in range(8) if abs(round(step, k) - step) < 1e-9 + 1e-3 * step), 6))
        return f"{value:,.{places}f}".replace("-", "−")

    return text


def logarithmic(axes: Axes, lo: float, hi: float, text: Callable[..., str] = tick_text) -> None:
    """A log x axis from lo to hi: ticks at powers of ten, at 1, 2 and 5 too where the range is short."""
    axes.set_xscale("log")
    axes.set_xlim(lo, hi)
    short = hi / lo < 40
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if short else (1.0,), numticks=6))
    axes.xaxis.set_major_formatter(FuncFormatter(text))
    axes.xaxis.set_minor_locator(NullLocator())


def label(axes: Axes, x: str = "", y: str = "") -> None:
    """The x label below, the y label above the axis, level and to the left, where it is read first."""
    if x:
        axes.set_xlabel(x, color=MUTED, fontsize=10.5, labelpad=4)
    if y:
        corner: Any = ("figure points", "axes fraction")
        axes.annotate(y, (2, 1), (0, 6), corner, "offset points", color=MUTED, fontsize=10.5, va="bottom")


def svg(figure: Figure, name: str, title: str, themed: bool = True) -> str:
    """The figure as an SVG element to stand in a page. `name` prefixes every id; `title` is what a screen reader says.

    themed: colours become CSS variables with the colour as their fallback. Text stays text; the bytes depend on the
    figure alone.
    """
    out = io.StringIO()
    with settings():
        FigureCanvasSVG(figure).print_svg(out, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return element(out.getvalue(), name, title, themed)


def png(figure: Figure, scale: float = 2.0) -> bytes:
    """The figure on white, `scale` device pixels to one of ours."""
    out = io.BytesIO()
    with settings():
        FigureCanvasAgg(figure)
        figure.savefig(out, format="png", dpi=72 * scale, facecolor=PAPER, metadata={"Software": None})
    return out.getvalue()


def element(source: str, name: str, title: str, themed: bool = True) -> str:
    """matplotlib's SVG document as one clean element: unique ids, no style sheet, two decimals, its natural size."""
    root = ElementTree.fromstring(source)
    width, height = (float(v) for v in root.attrib["viewBox"].split()[2:])
    used = set(re.findall(r"(?:#)([\w.-]+)", " ".join(v for node in root.iter() for v in node.attrib.values())))
    for node in list(root.iter()):
        node.tag = node.tag.rpartition("}")[2]
        attributes = dict(node.attrib)
        node.attrib.clear()
        for key, value in attributes.items():
            node.attrib[key.rpartition("}")[2]] = value
        _tidy(node, name, used, themed)
        node[:] = [child for child in node if child.tag.rpartition("}")[2] not in ("metadata", "style")]
    root.attrib.clear()
    size = {"width": f"{width:g}", "height": f"{height:g}", "viewBox": f"0 0 {width:g} {height:g}"}
    root.attrib.update(size | {"role": "img", "aria-label": clean(title)})
    return ElementTree.tostring(root, encoding="unicode")


def document(part: str) -> str:
    """An SVG element made by `svg` as a file of its own."""
    return part.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)


def _tidy(node: ElementTree.Element, name: str, used: set[str], themed: bool) -> None:
    """One node: keeps ids that something points to, prefixed; shortens numbers; hands colours to the theme."""
    values = node.attrib
    identity = values.pop("id", None)
    if identity in used:
        values["id"] = f"{name}-{identity}"
    for key in list(values):
        value = values[key]
        if key in ("d", "transform", "x", "y", "points", "width", "height"):
            value = re.sub(r"-?\d+\.\d+", lambda m: f"{float(m[0]):.2f}".rstrip("0").rstrip("."), " ".join(value.split()))
        elif key == "style":
            value = re.sub(r"'DejaVu Sans'(?:, [^;]*)?", "var(--font, sans-serif)", value)
            if themed:
                value = re.sub(
                    r"#[0-9a-f]{6}", lambda m: f"var(--{VARIABLES[m[0]]}, {m[0]})" if m[0] in VARIABLES else m[0], value
                )
        values[key] = re.sub(r"(^#|url\(#)", rf"\g<1>{name}-", value) if key in ("href", "clip-path", "style") else value
