"""Draws the rooms of the package and who imports from whom, read off the source.

    python tools/rooms.py docs/images/rooms.svg          # or .png

Floors stand as tests/test_house.py holds them, the lowest at the bottom. Black: what no chain of other arrows implies.
Grey: the rest. Dashed: inside functions only. Red: an arrow that doesn't run downward. The wider, the more imports.
"""

from __future__ import annotations

import math
import pathlib
import sys
from collections.abc import Mapping, Set
from typing import Any, NamedTuple

import house
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch, Patch, PathPatch, Polygon
from matplotlib.path import Path

Arrow = tuple[str, str]  # from, to

WIDTH, STOREY, BOX, HEIGHT = 900, 76, 136, 40  # pixels: the picture, a floor, the two sides of a room
MARGIN, KEY = 84, 44  # beside the rooms, and below them
INK, GREY, RED = "#1a1a1a", "#bcc3ce", "#d1242f"
BANDS = ("#ffffff", "#f8f9fa")
FILL = {"machinery": "#e6effb", "wing": "#e5f4e3", "verb": "#fdf0d5"}
VERBS = {"": "netwright", "cli": "cli", "compare": "compare", "__main__": "__main__"}


class Rooms(NamedTuple):
    """What is drawn: room -> lines of code, and of those the ones in waiting/; arrow -> imports, and those outside functions."""

    lines: Mapping[str, int]
    waiting: Mapping[str, int]
    imports: Mapping[Arrow, int]
    outside: Set[Arrow]


def read() -> Rooms:
    """The rooms of the package. An import is a file that asks for another one."""
    lines: dict[str, int] = {}
    waiting: dict[str, int] = {}
    imports: dict[Arrow, int] = {}
    outside: set[Arrow] = set()
    for module, path in house.MODULES.items():
        room = house.room_of(module)
        text = path.read_text(encoding="utf-8").splitlines()
        count = sum(not line.strip().startswith("#") for line in text if line.strip())
        lines[room] = lines.get(room, 0) + count
        if module.startswith("waiting."):
            waiting[room] = waiting.get(room, 0) + count
        for other in {other for other, _ in house.arrows(path)}:
            if (arrow := (room, house.room_of(other)))[1] != room:
                imports[arrow] = imports.get(arrow, 0) + 1
        outside |= {(room, house.room_of(other)) for other, _ in house.arrows(path, inside=False)}
    return Rooms(lines, waiting, imports, outside & imports.keys())


def reduced(arrows: Set[Arrow]) -> set[Arrow]:
    """The arrows that no chain of others implies: the transitive reduction. There must be no circle."""
    after: dict[str, set[str]] = {}
    for a, b in arrows:
        after.setdefault(a, set()).add(b)

    def reached(room: str) -> set[str]:
        return after.get(room, set()).union(*map(reached, after.get(room, ())))

    return {(a, b) for a, b in arrows if not any(b in reached(c) for c in after[a])}


def upward(arrows: Set[Arrow]) -> set[Arrow]:
    """The arrows that don't run downward."""
    return {(a, b) for a, b in arrows if house.FLOOR_OF[b] >= house.FLOOR_OF[a]}


def curves(x: Mapping[str, float], y: Mapping[str, float], arrows: list[Arrow]) -> np.ndarray:
    """The four control points of each arrow, (arrows, 4, 2): it leaves and comes in vertically, beside the others."""
    ports: dict[tuple[Arrow, str], float] = {}
    for room in x:
        for end in (0, 1):
            mine = sorted((a for a in arrows if a[end] == room), key=lambda a: (x[a[1 - end]], -y[a[1 - end]], a))
            for i, arrow in enumerate(mine):
                ports[arrow, room] = x[room] + BOX * 0.8 * ((i + 1) / (len(mine) + 1) - 0.5)
    points = []
    for a, b in arrows:
        way = math.copysign(1, y[a] - y[b])
        top, foot = y[a] - way * HEIGHT / 2, y[b] + way * HEIGHT / 2
        bend = max(STOREY * 0.4, abs(top - foot) * 0.4) * way
        points.append(
            [(ports[(a, b), a], top), (ports[(a, b), a], top - bend), (ports[(a, b), b], foot + bend), (ports[(a, b), b], foot)]
        )
    return np.array(points, dtype=float).reshape(-1, 4, 2)


def along(points: np.ndarray, n: int = 24) -> np.ndarray:
    """Points on the curves, (arrows, n, 2)."""
    t = np.linspace(0, 1, n)[:, None]
    weights = np.concatenate([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3], 1)
    return np.einsum("nk,akc->anc", weights, points)


def clutter(x: Mapping[str, float], y: Mapping[str, float], bold: list[Arrow], faint: list[Arrow]) -> float:
    """How hard a picture is to read: arrows behind rooms, arrows across arrows, long ways."""
    arrows = bold + faint
    weight = np.array([8.0] * len(bold) + [1.0] * len(faint))
    way = along(curves(x, y, arrows))
    rooms = np.array([(x[r], y[r]) for r in x])
    off = np.abs(way[:, :, None] - rooms)
    behind = (off[..., 0] < BOX / 2 + 6) & (off[..., 1] < HEIGHT / 2 - 2)
    thick = way[: len(bold)]
    ends = np.array([(x[a], y[a], x[b], y[b]) for a, b in bold]).reshape(-1, 2, 2)
    p, q, r, s = ends[:, None, 0], ends[:, None, 1], ends[None, :, 0], ends[None, :, 1]

    def side(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
        return np.sign((b - a)[..., 0] * (c - a)[..., 1] - (b - a)[..., 1] * (c - a)[..., 0])

    crossed = (side(p, q, r) * side(p, q, s) < 0) & (side(r, s, p) * side(r, s, q) < 0)
    length = np.abs(np.diff(thick[..., 0], axis=1)).sum()
    return float((behind.sum((1, 2)) * weight).sum() + 20 * crossed.sum() / 2 + length / 60)


def placed(floors: list[list[str]], bold: list[Arrow], faint: list[Arrow]) -> tuple[dict[str, float], dict[str, float]]:
    """Where each room stands: every room is moved along its floor as long as that makes the picture clearer."""
    y = {room: STOREY * (floor + 0.5) for floor, rooms in enumerate(floors) for room in rooms}
    x = {room: WIDTH * (i + 1) / (len(rooms) + 1) for rooms in floors for i, room in enumerate(rooms)}
    slots = np.linspace(MARGIN, WIDTH - MARGIN, 19)
    least = math.inf
    while (now := clutter(x, y, bold, faint)) < least:
        least = now
        for rooms in floors:
            for room in rooms:
                others = [x[r] for r in rooms if r != room]
                free = [slot for slot in [x[room], *slots] if all(abs(slot - o) > BOX + 14 for o in others)]
                x[room] = min(free, key=lambda slot, room=room: clutter(x | {room: slot}, y, bold, faint))
    return x, y


def draw(rooms: Rooms) -> Figure:
    """The picture."""
    wrong = upward(rooms.imports.keys())
    strong = reduced(rooms.imports.keys() - wrong) | wrong
    bold, faint = sorted(strong), sorted(rooms.imports.keys() - strong)
    floors = [there for floor in house.FLOORS if (there := [room for room in floor if room in rooms.lines])]
    x, y = placed(floors, bold, faint)
    height = STOREY * len(floors) + KEY
    figure = Figure(figsize=(WIDTH / 100, height / 100), dpi=100, facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(-KEY, height - KEY))
    axes.axis("off")
    for floor in range(len(floors)):
        axes.axhspan(STOREY * floor, STOREY * (floor + 1), color=BANDS[floor % 2], linewidth=0, zorder=0)
    arrows = faint + bold
    for order, (arrow, curve) in enumerate(zip(arrows, curves(x, y, arrows), strict=True), 1):
        colour = RED if arrow in wrong else INK if arrow in strong else GREY
        line(axes, curve, arrow, rooms, colour, order)
    for room in x:
        box(axes, room, x[room], y[room], rooms)
    key(axes)
    return figure


def line(axes: Axes, curve: np.ndarray, arrow: Arrow, rooms: Rooms, colour: str, order: float) -> None:
    """One arrow."""
    style = "solid" if arrow in rooms.outside else (0, (4, 2))
    width = (0.6 if colour == GREY else 1.0) * (0.8 + 0.35 * math.log2(rooms.imports[arrow]))
    path = Path([*curve], [Path.MOVETO, *[Path.CURVE4] * 3])
    axes.add_patch(PathPatch(path, facecolor="none", edgecolor=colour, linewidth=width, linestyle=style, zorder=order))
    head, (tip, before) = 3.5 + width, (curve[3], curve[2])
    back = math.copysign(2 * head, before[1] - tip[1])
    corners = [tip, (tip[0] - head, tip[1] + back), (tip[0] + head, tip[1] + back)]
    axes.add_patch(Polygon(corners, facecolor=colour, linewidth=0, zorder=order))


def box(axes: Axes, room: str, x: float, y: float, rooms: Rooms) -> None:
    """One room, with its name and its lines of code."""
    waits = rooms.waiting.get(room, 0)
    style: dict[str, Any] = {"linestyle": (0, (2, 2))} if waits == rooms.lines[room] else {}
    kind = "verb" if room in VERBS else "wing" if room in house.WINGS else "machinery"
    corner = (x - BOX / 2, y - HEIGHT / 2)
    axes.add_patch(
        FancyBboxPatch(
            corner, BOX, HEIGHT, "round,pad=0,rounding_size=6", facecolor=FILL[kind], edgecolor=INK, zorder=900, **style
        )
    )
    said = f"{rooms.lines[room]:,} lines" + (f", {waits:,} waiting" if 0 < waits < rooms.lines[room] else "")
    axes.text(x, y + 8, VERBS.get(room, room), ha="center", va="center", fontsize=9.5, weight="bold", color=INK, zorder=901)
    axes.text(x, y - 9, said, ha="center", va="center", fontsize=7, color=INK, zorder=901)


def key(axes: Axes) -> None:
    """What the signs mean, below the picture."""
    signs: list[Any] = [Patch(facecolor=fill, edgecolor=INK, label=what) for what, fill in FILL.items()]
    signs += [
        Patch(facecolor="white", edgecolor=INK, linestyle=(0, (2, 2)), label="waits for its kind"),
        Line2D([], [], color=INK, label="imports, and no chain of arrows implies it"),
        Line2D([], [], color=GREY, label="imports, as a chain already does"),
        Line2D([], [], color=INK, linestyle=(0, (4, 2)), label="inside functions only"),
    ]
    axes.legend(handles=signs, loc="lower center", ncols=4, frameon=False, fontsize=7.5, borderaxespad=0.4)


def save(figure: Figure, path: pathlib.Path) -> None:
    """Write the picture, the same bytes for the same rooms."""
    dated = {"Date": None} if path.suffix == ".svg" else {}
    with matplotlib.rc_context({"svg.hashsalt": "rooms", "svg.fonttype": "none"}):
        figure.savefig(path, metadata=dated)


if __name__ == "__main__":
    if len(sys.argv) != 2 or pathlib.Path(sys.argv[1]).suffix not in (".svg", ".png"):
        sys.exit(__doc__)
    save(draw(read()), pathlib.Path(sys.argv[1]))
