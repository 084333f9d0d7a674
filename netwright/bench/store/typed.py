"""Rows that are whole by their checksum and yet not what they have to be: a number where a text belongs, half a plan.

A person or another program may have written them. They become one line, never a traceback from deep within.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from netwright.bench.store.schema import Damaged
from netwright.core.errors import NetwrightError

T = TypeVar("T")
Method = TypeVar("Method", bound=Callable[..., Any])
#: What reading a value of another type than expected raises.
MISREAD = (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, RecursionError)


def understood(what: str) -> Callable[[Method], Method]:
    """Marks a method that reads `what` from the file at self.path: what can't be made of it is said as Damaged."""

    def marked(method: Method) -> Method:
        @functools.wraps(method)
        def reading(self: Any, *args: Any, **options: Any) -> Any:
            try:
                return method(self, *args, **options)
            except NetwrightError:
                raise
            except MISREAD as error:
                raise misread(self.path, what, error) from error

        return cast(Method, reading)

    return marked


def misread(path: Any, what: str, error: BaseException | str) -> Damaged:
    """The error for a file that holds something else under a name of ours."""
    said = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
    return Damaged(f"{path}: its {what} can't be understood ({said[:200]}). Move the file away to begin anew")


def made(cls: type[T], row: Any) -> T:
    """The dataclass of a row that was read; TypeError or ValueError where a field is missing or of another type."""
    if not isinstance(row, Mapping):
        raise TypeError(f"{cls.__name__} is {type(row).__name__}")
    value = cls(**row)
    check(value)
    return value


def check(value: Any) -> None:
    """TypeError where a field of a dataclass isn't of the type it declares."""
    cls: Any = type(value)
    for name, hint in _hints(cls).items():
        if not fits(getattr(value, name), hint):
            raise TypeError(f"{cls.__name__}.{name} is {getattr(value, name)!r:.60}")


@functools.cache
def _hints(cls: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a type as annotated; lists pass for tuples, whole numbers for floats, True for no number."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, one) for one in inner)
    if hint in (None, type(None)):
        return value is None
    if hint in (int, float):
        return isinstance(value, (int, hint)) and not isinstance(value, bool)
    if origin is tuple:
        if not isinstance(value, (tuple, list)):
            return False
        if len(inner) == 2 and inner[1] is Ellipsis:
            return all(fits(one, inner[0]) for one in value)
        return len(value) == len(inner) and all(map(fits, value, inner))
    if isinstance(origin or hint, type) and issubclass(origin or hint, Mapping):
        return isinstance(value, Mapping) and all(
            fits(k, inner[0]) and fits(v, inner[1]) for k, v in value.items() if len(inner) == 2
        )
    return isinstance(value, origin or hint)
