"""Costs as expressions: what a part declares of its cost, in names of its options, so that a reader and a check read one text."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

from netwright.core.errors import BadInput

_OPERATORS: dict[type, Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}


def _read(cost: float | str) -> ast.expr:
    wrong = f"a cost of {cost!r}; allowed: a number, or + - * / ** of numbers and names"
    try:
        tree = ast.parse(str(cost), mode="eval").body
    except SyntaxError:
        raise BadInput(wrong) from None
    for node in ast.walk(tree):
        fine = isinstance(node, (ast.Name, ast.BinOp, ast.Load, *_OPERATORS))
        if not fine and not (isinstance(node, ast.Constant) and isinstance(node.value, (int, float))):
            raise BadInput(wrong)
    return tree


def names_in(cost: float | str) -> set[str]:
    """The names in a declared cost; raises BadInput where it is not one."""
    return {node.id for node in ast.walk(_read(cost)) if isinstance(node, ast.Name)}


def equivalents(cost: float | str, names: Mapping[str, Any]) -> float:
    """A declared cost where its names have these values: ("2 * steps", {"steps": 5}) gives 10.0."""

    def value(node: ast.expr) -> float:
        if isinstance(node, ast.BinOp):
            return _OPERATORS[type(node.op)](value(node.left), value(node.right))
        return float(names[node.id] if isinstance(node, ast.Name) else node.value)  # type: ignore[attr-defined]

    return value(_read(cost))
