"""What goes wrong, and how it is said: four errors, near names, the one wording of "no such thing", text made safe."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterable


class NetwrightError(Exception):
    """Any error netwright raises on purpose: what was given, what is allowed, what to do."""


class BadInput(NetwrightError, ValueError):
    """An argument, option or file is not what it has to be."""


class UnknownName(NetwrightError, LookupError):
    """No part, task, slot or option has this name; the message suggests near ones."""


class Misfit(NetwrightError, TypeError):
    """Two things that exist don't go together: a part and a slot, a rule and a task."""


def near(name: str, known: Iterable[str], n: int = 3) -> list[str]:
    """Up to n of the known names that look like `name`, best first."""
    known = list(known)
    short = {k.rsplit("/", 1)[-1]: k for k in known}
    hits = difflib.get_close_matches(name, known, n, 0.6)
    hits += [short[s] for s in difflib.get_close_matches(name.rsplit("/", 1)[-1], short, n, 0.6)]
    return list(dict.fromkeys(hits))[:n]


def unknown(what: str, name: str, known: Iterable[str], owner: str = "") -> UnknownName:
    """The error for a name that doesn't exist: what was given, near names, what there is."""
    known = sorted(map(str, known))
    text = f"{owner + ': ' if owner else ''}no {what} is called {name!r}"
    if close := near(name, known):
        text += f"; did you mean {' or '.join(close)}?"
    elif not known:
        text += f"; it takes no {what}{'es' if what.endswith('s') else 's'}"
    elif len(known) <= 12:
        text += f"; there are: {', '.join(known)}"
    return UnknownName(text)


def slug(text: str, limit: int = 60) -> str:
    """A safe file-name part made from any text: lower-case letters, digits and '-'; a hash is added when it was changed."""
    made = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:limit].strip("-") or "x"
    return made if made == text else f"{made}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def printable(text: str) -> str:
    """The text without control characters (terminal escape codes among them)."""
    return "".join(c if c.isprintable() or c == " " else "�" for c in text)


def require(condition: bool, text: str) -> None:
    """Raise BadInput(text) unless the condition holds."""
    if not condition:
        raise BadInput(text)
