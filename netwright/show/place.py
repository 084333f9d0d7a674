"""What pages share: their templates, where a part's page lies, a formula as a picture."""

from __future__ import annotations

import functools
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from netwright.core.errors import printable
from netwright.core.part import Part
from netwright.show import figures, words


@functools.cache
def environment() -> Environment:
    """The templates, everything escaped but markup of our own."""
    made = Environment(
        loader=PackageLoader("netwright.show"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printed,
    )
    made.filters["plural"] = words.plural
    return made


def _printed(value: Any) -> Any:
    """Text without control characters, its lines kept; markup of our own as it is."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return "\n".join(map(printable, value.split("\n")))


def place(part: Part) -> str:
    """Where a part's page lies below the site's root; kind and name are slugs."""
    return f"{part.kind}/{part.name}.html"


@functools.cache
def formula(tex: str) -> Markup:
    """A formula as an SVG to stand in a page, or '' where there is none; the gallery shows the same ones."""
    return Markup(figures.formula_svg(printable(tex), name="formula") if tex else "")
