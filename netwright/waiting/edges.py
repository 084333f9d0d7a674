"""Nets whose edges are functions: how large each function is, a penalty on them, pruning, finer grids, pictures.

    penalty = regularisation(net, x)           to be added to a loss
    prune(net, x); narrow(net)                 leave out edges and nodes that carry little
    update_grids(net, x); refine(net, 20)      knots where the inputs are; more of them
    plot(net, x).savefig("net.png")            the functions, layer by layer

They work on any module that holds layers with `edges(x_BI) -> (B, O, I)`: KAN and its relatives. Shape suffixes: B rows,
I inputs, O outputs of one layer.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from netwright.core.errors import BadInput
from netwright.tensor.tap import tapped


def edge_layers(net: nn.Module, having: str = "edges") -> list[tuple[str, Any]]:
    """(path, layer) of every layer with this method, in the order of registration. Raises BadInput where there is none."""
    found = [(path, module) for path, module in net.named_modules() if callable(getattr(module, having, None))]
    if not found:
        raise BadInput(f"{type(net).__name__} holds no layer with {having}(), such as netwright.layers.KAN")
    return found


def inputs_of(net: nn.Module, x: Tensor, having: str = "edges") -> list[tuple[str, Any, Tensor]]:
    """(path, layer, its input as it came) of every layer with this method that net(x) runs, in the order in which they run."""
    seen: list[tuple[str, Any, Tensor]] = []

    def note(path: str, layer: Any, args: Any, kwargs: Any) -> None:
        seen.append((path, layer, args[0]))

    with tapped(edge_layers(net, having), before=note):
        net(x)
    return seen


def rows_of(net: nn.Module, x: Tensor) -> list[tuple[str, Any, Tensor]]:
    """(path, layer, rows (B, I) that it sees) of every layer of functions that net(x) runs, in that order."""
    return [(path, layer, given.reshape(-1, given.shape[-1])) for path, layer, given in inputs_of(net, x)]


def prunable(layer: Any) -> bool:
    """Whether a layer has a mask (O, I) of its edges, with keep(mask) and narrow(inputs, outputs)."""
    return callable(getattr(layer, "narrow", None))


def scales(net: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Path -> mean |phi_oi(x_i)| over the rows of x (O, I), of every layer: the L1 norm of the KAN paper (section 2.5)."""
    return {path: layer.edges(rows).abs().mean(0) for path, layer, rows in rows_of(net, x)}


def regularisation(net: nn.Module, x: Tensor, l1: float = 1.0, entropy: float = 1.0) -> Tensor:
    """sum over layers of l1 |Phi|_1 + entropy S(Phi), a scalar to be weighted and added to the loss.

    |Phi|_1 is the sum of a layer's scales, S the entropy of its scales over their sum: small where few edges carry all
    (Liu et al., 2024, section 2.5). The authors' code normalises rows and columns apart and weighs the entropy by 2.
    """
    total = torch.zeros((), dtype=x.dtype, device=x.device)
    for scale_OI in scales(net, x).values():
        norm = scale_OI.sum()
        share = scale_OI / norm.clamp(min=torch.finfo(norm.dtype).tiny)
        total = total + l1 * norm - entropy * torch.special.xlogy(share, share).sum()
    return total


@torch.no_grad()
def prune(net: nn.Module, x: Tensor, threshold: float = 1e-2, node_threshold: float | None = None) -> dict[str, int]:
    """Leave out edges whose scale on x is below threshold, and hidden nodes that no edge as large enters or leaves.

    node_threshold: threshold by default. Works in place on masks of the layers; `narrow` then makes the layers smaller.
    What an edge added is gone, a constant too: train on afterwards, so that the others take it over.
    Returns the edges each layer keeps. Raises BadInput where a layer would keep none: nothing is changed then.
    """
    if not threshold >= 0:
        raise BadInput(f"threshold={threshold!r}; expected a scale of an edge function, at least 0")
    node = threshold if node_threshold is None else node_threshold
    rows = [(path, layer, layer.edges(given).abs().mean(0)) for path, layer, given in rows_of(net, x)]
    masks = [scale_OI >= threshold for _, _, scale_OI in rows]
    for k, ((_, before, into_JI), (_, after, out_OJ)) in enumerate(zip(rows, rows[1:], strict=False)):
        if before.sizes["d_out"] != after.sizes["d_in"]:
            continue
        alive_J = (into_JI.amax(1) >= node) & (out_OJ.amax(0) >= node)
        masks[k] &= alive_J[:, None]
        masks[k + 1] &= alive_J
    for (path, layer, _), mask in zip(rows, masks, strict=True):
        if not prunable(layer):
            raise BadInput(f"{path or 'the net'} is {type(layer).__name__}, which can't be pruned; nothing was changed")
        if not bool(mask.any()):
            raise BadInput(
                f"threshold={threshold!r} leaves no edge of {path or 'the layer'}; nothing was changed; give a smaller one"
            )
    for (_, layer, _), mask in zip(rows, masks, strict=True):
        layer.keep(mask)
    return {path: int(layer.mask.sum()) for path, layer, _ in rows}


def narrow(net: nn.Sequential) -> list[int]:
    """Take out hidden nodes that no edge leaves; the function stays the same. Returns the widths of the layers' outputs.

    net: an nn.Sequential; nodes go between layers of functions that follow each other directly.
    """
    layers: list[Any] = list(net)
    for before, after in zip(layers, layers[1:], strict=False):
        if prunable(before) and prunable(after):
            alive = after.mask.any(0).nonzero()[:, 0]
            if 0 < len(alive) < after.sizes["d_in"]:
                before.narrow(torch.arange(before.sizes["d_in"]), alive)
                after.narrow(alive, torch.arange(after.sizes["d_out"]))
    return [layer.sizes["d_out"] for _, layer in edge_layers(net)]


def update_grids(net: nn.Module, x: Tensor, grid: int | None = None, eps: float = 0.02) -> dict[str, float]:
    """Move the knots of every layer, of convolutions too, to where its inputs lie when the net sees x; keep the functions.

    For the arguments see KAN.update_grid. Returns path -> the largest change of a function.
    """
    with torch.no_grad():
        given = inputs_of(net, x, "update_grid")
    return {path: layer.update_grid(rows, grid, eps) for path, layer, rows in given}


def refine(net: nn.Module, grid: int) -> dict[str, float]:
    """Extend the grids of all layers to so many intervals, and keep the functions. Returns path -> the largest change.

    The coefficients are new parameters: make a new optimizer.
    """
    return {path: layer.refine(grid) for path, layer in edge_layers(net, "refine")}


# Pictures -------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def curves(layer: Any, x: Tensor | None = None, points: int = 101) -> tuple[Tensor, Tensor]:
    """(inputs (P, I), phi (P, O, I)): every edge function over the grid of its input, or over the range of the rows of x."""
    if not getattr(layer, "separate", True):
        raise BadInput(f"{layer.part.id}: a function on an edge sees the other inputs here; there is no curve to draw")
    like: Tensor = next(iter(layer.parameters()))
    if x is not None:
        lo, hi = x.amin(0), x.amax(0)
    elif isinstance(knots := getattr(layer, "knots", None), Tensor):
        lo, hi = knots[layer.order], knots[-layer.order - 1]
    else:
        lo, hi = like.new_full((layer.sizes["d_in"],), -1.0), like.new_full((layer.sizes["d_in"],), 1.0)
    share = torch.linspace(0, 1, points, dtype=like.dtype, device=like.device)
    rows = lo.to(like) + (hi - lo).to(like) * share[:, None]
    return rows.cpu(), layer.edges(rows).cpu()


def plot(net: nn.Module, x: Tensor | None = None, most: int = 60) -> Any:
    """The edge functions of a layer, or of every layer of a net, as a matplotlib Figure: a row an output, a column an input.

    x: inputs of the net; functions are then drawn where its rows lie, and the larger a function is there, the darker.
    most: of a layer with more edges, those that are largest are drawn, in order of their size.
    """
    try:
        from matplotlib.figure import Figure

        from netwright.show import canvas
    except ImportError:
        raise BadInput("plot needs matplotlib: pip install netwright[bench]") from None

    if x is None:
        given: list[tuple[str, Any, Tensor | None]] = [(path, layer, None) for path, layer in edge_layers(net)]
    else:
        with torch.no_grad():
            given = list(rows_of(net, x))
    drawn = [(path, layer, *curves(layer, rows)) for path, layer, rows in given]
    blocks = [_places(phi, most) for _, _, _, phi in drawn]
    heights = [max(row for row, _, _, _ in block) + 1 for block in blocks]
    columns = max(column for block in blocks for _, column, _, _ in block) + 1
    with canvas.settings():
        figure = Figure(figsize=(1.15 * columns + 0.4, 1.05 * sum(heights) + 0.45 * len(blocks)), dpi=100, layout="constrained")
        figure.set_facecolor(canvas.PAPER)
        parts = figure.subfigures(len(blocks), 1, height_ratios=heights, squeeze=False)[:, 0]
        for part, (path, layer, rows, phi), block in zip(parts, drawn, blocks, strict=True):
            label = f"{path + ': ' if path else ''}{layer.sizes['d_in']} to {layer.sizes['d_out']}"
            part.suptitle(label, fontsize=9, color=canvas.MUTED, x=0.01, ha="left")
            _draw(part, rows, phi, block, columns)
    return figure


def _places(phi_POI: Tensor, most: int) -> list[tuple[int, int, int, int]]:
    """(row, column, output, input) of the panels of a layer: its own table, or the largest functions in rows of ten."""
    outputs, inputs = phi_POI.shape[1:]
    if outputs * inputs <= most:
        return [(o, i, o, i) for o in range(outputs) for i in range(inputs)]
    order = (phi_POI - phi_POI.mean(0)).abs().mean(0).flatten().argsort(descending=True)[:most].tolist()
    return [(n // 10, n % 10, at // inputs, at % inputs) for n, at in enumerate(order)]


def _draw(part: Any, rows: Tensor, phi: Tensor, block: list[tuple[int, int, int, int]], columns: int) -> None:
    from netwright.show import canvas

    size = phi.abs().mean(0)
    largest = float(size.max()) or 1.0
    grid = part.add_gridspec(max(row for row, *_ in block) + 1, columns)
    for row, column, o, i in block:
        axes = part.add_subplot(grid[row, column])
        axes.set_title(f"{i} to {o}", fontsize=7, color=canvas.MUTED, pad=2)
        for side in axes.spines.values():
            side.set(color=canvas.GRID, linewidth=0.8)
        axes.tick_params(labelsize=5, length=2, width=0.5, color=canvas.MUTED, labelcolor=canvas.MUTED, pad=1)
        axes.margins(x=0.02, y=0.1)
        shade = 0.12 + 0.88 * math.sqrt(float(size[o, i]) / largest)
        axes.plot(rows[:, i].tolist(), phi[:, o, i].tolist(), color=canvas.HUES[0], alpha=shade, linewidth=1.6)
