"""How a file is written: under a random name of its own beside its target, then put in its place, whole or not at all.

Nothing is written through a link. A target that is one, or a folder, is refused in one line.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from netwright.core.errors import BadInput


def check_target(path: str | Path) -> Path:
    """The path, where a file may be written there; BadInput where it is a link, a folder, or no name for a file."""
    path = Path(path)
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return path
    except (OSError, ValueError) as error:  # ValueError: a zero byte, or half a character
        raise BadInput(f"{path}: {getattr(error, 'strerror', None) or error}; name another file") from None
    if stat.S_ISLNK(mode):
        raise BadInput(f"{path} is a link, and nothing is written through one; remove it or name another file")
    if stat.S_ISDIR(mode):
        raise BadInput(f"{path} is a folder, where a file of that name is to be written; remove it or name another file")
    return path


@contextmanager
def in_place_of(target: str | Path) -> Iterator[Path]:
    """A new, empty file beside the target, which takes its place at the end; what raises inside leaves the target as it was."""
    path = check_target(target)
    # The name doesn't contain the target's, which may be as long as a name can be.
    draft = path.with_name(f".{secrets.token_hex(8)}.draft")
    try:
        os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o666))
        try:
            yield draft
            os.replace(draft, check_target(path))
        finally:
            with suppress(OSError):
                draft.unlink(missing_ok=True)
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror or error}; check that its folder is there, writable and not full") from error


def write_whole(path: str | Path, content: str | bytes) -> Path:
    """Write a text (as UTF-8) or bytes to a file, whole or not at all; returns the path."""
    path = Path(path)
    with in_place_of(path) as draft:
        draft.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
    return path
