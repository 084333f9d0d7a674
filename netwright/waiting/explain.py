"""What a bilinear layer has learnt, read off its weights: eigenvectors of its quadratic forms, as pictures.

    figure = explain(layer, shape=(8, 8))                                  # inputs are images of 8 x 8 pixels
    figure = explain(net[1], shape=(8, 8), embed=net[0].weight, readout=net[2].weight)
    figure.savefig("eigenvectors.png")

Works on layers with `eigen(o) -> (values, vectors)`, such as netwright.layers.BilinearMLP.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from netwright.core.errors import BadInput, Misfit


@torch.no_grad()
def eigenvectors(
    layer: Any, *, embed: Tensor | None = None, readout: Tensor | None = None, most: int = 4
) -> list[tuple[Tensor, Tensor]]:
    """(values (K,), vectors (K, inputs)) of every output, K = most: the directions that move it most, largest first.

    embed (d_in, inputs): the weight of a linear map without bias before the layer; vectors are then directions of its
    inputs, v^T E. readout (outputs, d_out): the weight of a linear map after it, whose outputs are then explained.
    Raises Misfit for a layer without eigenvectors, BadInput where shapes don't fit.
    """
    if not callable(getattr(layer, "eigen", None)):
        raise Misfit(f"{type(layer).__name__} has no eigenvectors; explain is for bilinear layers such as BilinearMLP")
    d_in, d_out = layer.sizes["d_in"], layer.sizes["d_out"]
    for name, weight, at, size in (("embed", embed, 0, d_in), ("readout", readout, 1, d_out)):
        if weight is not None and (weight.dim() != 2 or weight.shape[at] != size):
            raise BadInput(f"{name} has shape {tuple(weight.shape)}; expected {size} in dimension {at}")
    if isinstance(most, bool) or not isinstance(most, int) or most < 1:
        raise BadInput(f"most={most!r}; expected a whole number of at least 1")
    found = []
    for o in range(d_out if readout is None else len(readout)):
        values, vectors = layer.eigen(o if readout is None else readout[o].detach())
        rows = vectors[:d_in, :most].T  # a 1 appended for a bias is no direction of the input
        found.append((values[:most], rows if embed is None else rows @ embed.detach().to(rows)))
    return found


def explain(
    layer: nn.Module,
    *,
    shape: tuple[int, int],
    embed: Tensor | None = None,
    readout: Tensor | None = None,
    outputs: Sequence[int] | None = None,
    most: int = 4,
    labels: Sequence[str] | None = None,
) -> Any:
    """The eigenvectors that move each output most, as images of this shape, in a matplotlib Figure: a row an output.

    Above each stands its eigenvalue lambda: the output gains lambda (v . x)^2, so that the sign of a picture means nothing
    and that of lambda whether its pattern speaks for or against. outputs: those shown, all by default; labels: their names.
    embed, readout, most, and what raises: see `eigenvectors`.
    """
    try:
        from matplotlib.figure import Figure

        from netwright.show import canvas
    except ImportError:
        raise BadInput("explain needs matplotlib: pip install netwright[bench]") from None

    every = eigenvectors(layer, embed=embed, readout=readout, most=most)
    shown = list(range(len(every))) if outputs is None else list(outputs)
    if wrong := [o for o in shown if not 0 <= o < len(every)]:
        raise BadInput(f"outputs={wrong}; expected numbers from 0 to {len(every) - 1}")
    names = [f"output {o}" for o in shown] if labels is None else list(labels)
    if len(names) != len(shown):
        raise BadInput(f"{len(names)} labels for {len(shown)} outputs")
    width = every[0][1].shape[1]
    if shape[0] * shape[1] != width:
        raise BadInput(f"shape={shape!r} holds {shape[0] * shape[1]} values; the inputs are {width}")
    columns = len(every[0][0])
    with canvas.settings():
        figure = Figure(figsize=(0.95 * columns + 0.9, 1.12 * len(shown) + 0.1), dpi=100, layout="constrained")
        figure.set_facecolor(canvas.PAPER)
        grid = figure.subplots(len(shown), columns, squeeze=False)
        for row, o, name in zip(grid, shown, names, strict=True):
            for axes, value, vector in zip(row, *every[o], strict=True):
                reach = float(vector.abs().max()) or 1.0
                axes.imshow(vector.reshape(shape).tolist(), cmap="RdBu", vmin=-reach, vmax=reach)
                axes.set_title(f"{float(value):+.2g}", fontsize=7, color=canvas.MUTED, pad=2)
                axes.set_xticks([])
                axes.set_yticks([])
                for side in axes.spines.values():
                    side.set(color=canvas.GRID, linewidth=0.8)
            row[0].set_ylabel(name, fontsize=8, color=canvas.INK)
    return figure
