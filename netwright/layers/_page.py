"""What is told of a layer: what it costs, how it is used and what with, and the tables of docs/layers.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from netwright.core.kind import Facts, Table
from netwright.layers._kind import LayerPart

COSTS = {
    "parameters": "parameters",
    "products": "operations in products, a row",
    "elementwise": "elementwise operations, a row",
}
#: Shape class -> the module of torch that such a part takes the place of; parts of others are put in by hand.
OLD = {"linear": "nn.Linear", "conv": "nn.Conv2d", "norm": "nn.LayerNorm"}
#: What a layer may be used with -> the check that decides it.
SUPPORT = {
    "autocast": "autocast",
    "torch.compile, full graph": "compiled",
    "fused=True": "fused",
    "torch.export": "exports",
    "vmap": "vmap",
    "meta device": "initialised",
    "data-parallel": "ddp",
    "float16 and bfloat16": "dtype",
    "saved and copied": "copies",
}


def facts(part: LayerPart, options: Mapping[str, Any]) -> Facts:
    costs = ((text, str(value)) for name, text in COSTS.items() if (value := getattr(part, name)))
    return Facts(costs=tuple(costs), use=use(part), signature=signature(part), support=SUPPORT)


def use(part: LayerPart) -> str:
    """How it is made, and put into a model that exists."""
    sizes = ", ".join(str(value) for name, value in part.toy.items() if name in part.size_names)
    old = OLD.get("norm" if part.slots() == ("norm",) else part.tags.shape, "")
    return f'netwright.make("{part.name}", {sizes})' + (f'\nnetwright.swap(model, {old}, "{part.name}")' if old else "")


def signature(part: LayerPart) -> str:
    """Its sizes, then its options by name."""
    sizes = ", ".join(f"{name}: Any{'' if value is None else ' = ...'}" for name, value in part.size_names.items())
    options = "".join(f", {o.name}: {type(o.default).__name__} = ..." for o in part.options)
    return sizes + (f", *{options}" if options else "")


# The tables of the docs -----------------------------------------------------------------------------------------------

DOCS = "layers.md"
#: Shape class -> what goes in and comes out, in the order of the table.
TAKES = {
    "linear": "(..., d_in) to (..., d_out)",
    "sequence": "(..., length, d_in) to (..., length, d_out)",
    "conv": "(..., c_in, *space) to (..., c_out, *space)",
    "channelwise": "(..., channels, *space) to the same",
    "norm": "any input, along its channels",
}


def tables(parts: Sequence[LayerPart], measured: Mapping[str, Any]) -> dict[str, Table]:
    return {"layers": listed(parts), "speed": speed(measured)}


def listed(parts: Sequence[LayerPart]) -> Table:
    """One row a layer: what it takes, how many parameters it has, what it is."""
    order = list(TAKES)
    found = sorted(parts, key=lambda part: (order.index(part.tags.shape), part.module, part.name))
    rows = ((part.name, TAKES[part.tags.shape], count(part), part.summary.rstrip(".")) for part in found)
    return Table(("part", "takes", "parameters", "in one line"), tuple(rows))


def count(part: LayerPart) -> str:
    """Its parameters as an expression of its sizes and options, where that is short."""
    if part.parameters == 0:
        return "none"
    return f"`{part.parameters}`" if len(str(part.parameters)) < 48 else "see its page"


def speed(measured: Mapping[str, Any]) -> Table:
    """Time of forward and backward, and what is held between them, at each of the measured shapes."""
    shapes = measured["edges"]
    head = (name for shape in shapes for name in (f"{shape}: time", "held"))
    rows = []
    for name in next(iter(shapes.values())):
        cells = ((f"{row['time']['median']:.2f}", f"{row['held']:.0f}") for row in (shape[name] for shape in shapes.values()))
        rows.append((name, *(cell for pair in cells for cell in pair)))
    return Table(("layer", *head), tuple(rows))
