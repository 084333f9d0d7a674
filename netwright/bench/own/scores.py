"""A CSV file of scores, read for a verdict: long (columns arm, seed, score, ...) or wide (seed, then a column an arm).

Every error names the file, and the line where there is one.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from netwright.core.errors import BadInput, require, unknown

ARM, SEED, SCORE = "arm", "seed", "score"
FORMS = f"a long file has the columns {ARM}, {SEED}, {SCORE}; a wide one has {SEED} first and then a column an arm"
#: How tables write that there is no number; an empty cell is how most of them do.
ABSENT = frozenset({"", "nan", "na", "n/a", "none", "null"})

BySeed = dict[int, float | None]
Line = tuple[int, list[str]]  # its number in the file, its cells


@final
@dataclass(frozen=True)
class ScoreFile:
    """What a file holds. None is a failed replicate, and a value that isn't known."""

    metric: str  # the column that is judged
    scores: dict[str, BySeed]
    values: dict[str, dict[str, BySeed]]  # the other columns of numbers: name -> arm -> by seed
    notes: tuple[str, ...] = ()


def read_scores(path: str | os.PathLike[str], column: str | None = None) -> ScoreFile:
    """The scores in a CSV file. column: which one of a long file is judged, else "score".

    Raises BadInput or UnknownName for a file that can't be read as one of the two forms.
    """
    name = Path(path).name
    header, lines = _table(Path(path), name)
    if header[0] == SEED and ARM not in header:
        require(column is None, f"{name}: a wide file has one score an arm, so there is no column {column!r} to judge; {FORMS}")
        return _wide(name, header, lines)
    judged = column or SCORE
    for wanted in (ARM, SEED, judged):
        if wanted not in header:
            raise BadInput(f"{unknown('column', wanted, header, owner=name)} ({FORMS})")
    require(judged not in (ARM, SEED), f"{name}: the column {judged!r} says which score it is; judge one that holds scores")
    return _long(name, header, lines, judged)


def _table(path: Path, name: str) -> tuple[list[str], list[Line]]:
    """The names of the columns, and the lines that aren't empty."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise BadInput(f"{path} can't be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"{name} isn't UTF-8 text (at byte {error.start}); save it as CSV in UTF-8") from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        every = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except csv.Error as error:
        raise BadInput(f"{name}, line {reader.line_num}: {error}") from None
    lines = [(number, cells) for number, cells in every if any(cells)]
    require(bool(lines), f"{name} is empty; {FORMS}")
    header, lines = lines[0][1], lines[1:]
    require(bool(lines), f"{name} has a header and no line below it; {FORMS}")
    for number, cells in lines:
        same = len(cells) == len(header)
        require(
            same, f"{name}, line {number}: {len(cells)} cells, and the header has {len(header)}; cells are separated by commas"
        )
    if not header[0]:  # the index that pandas writes
        header, lines = header[1:], [(number, cells[1:]) for number, cells in lines]
    require(bool(header) and all(header), f"{name}: a column has no name; {FORMS}")
    for twice in (one for one in header if header.count(one) > 1):
        raise BadInput(f"{name}: two columns are called {twice!r}; each needs a name of its own")
    return header, lines


def _wide(name: str, header: Sequence[str], lines: Sequence[Line]) -> ScoreFile:
    arms = header[1:]
    require(
        len(arms) >= 2,
        f"{name} has {len(arms) or 'no'} column{'s' * (not arms)} after {SEED}; expected two arms or more ({FORMS})",
    )
    scores: dict[str, BySeed] = {arm: {} for arm in arms}
    seen: dict[int, int] = {}
    for number, cells in lines:
        seed = _seed(cells[0], name, number)
        require(seed not in seen, f"{name}, line {number}: seed {seed} stands in line {seen.get(seed)} already")
        seen[seed] = number
        for arm, cell in zip(arms, cells[1:], strict=True):
            scores[arm][seed] = _score(cell, name, number, arm)
    return ScoreFile(SCORE, scores, {})


def _long(name: str, header: Sequence[str], lines: Sequence[Line], judged: str) -> ScoreFile:
    place = {column: i for i, column in enumerate(header)}
    keys: dict[tuple[str, int], int] = {}
    scores: dict[str, BySeed] = {}
    for number, cells in lines:
        arm, seed = cells[place[ARM]], _seed(cells[place[SEED]], name, number)
        require(bool(arm), f"{name}, line {number}: the arm has no name")
        require(
            (arm, seed) not in keys, f"{name}, line {number}: {arm} at seed {seed} stands in line {keys.get((arm, seed))} already"
        )
        keys[arm, seed] = number
        scores.setdefault(arm, {})[seed] = _score(cells[place[judged]], name, number, judged)
    require(len(scores) >= 2, f"{name} has the one arm {next(iter(scores))}; a verdict takes two or more")
    values: dict[str, dict[str, BySeed]] = {}
    notes = []
    for column in (one for one in header if one not in (ARM, SEED, judged)):
        found: dict[str, BySeed] = {}
        try:
            for (arm, seed), (number, cells) in zip(keys, lines, strict=True):
                found.setdefault(arm, {})[seed] = _score(cells[place[column]], name, number, column)
        except BadInput:
            notes.append(f"column {column} is left out: {cells[place[column]]!r} in line {number} is no number")
            continue
        if any(value is not None for row in found.values() for value in row.values()):
            values[column] = found
        else:
            notes.append(f"column {column} is left out: it holds no number")
    return ScoreFile(judged, scores, values, tuple(notes))


def _seed(cell: str, name: str, number: int) -> int:
    value = _number(cell)
    if value is None or not value.is_integer():  # neither are NaN and the infinities
        raise BadInput(f"{name}, line {number}: the seed {cell!r} is no whole number")
    return int(value)


def _score(cell: str, name: str, number: int, column: str) -> float | None:
    if cell.casefold() in ABSENT:
        return None
    value = _number(cell)
    if value is None:
        raise BadInput(
            f"{name}, line {number}: {column} is {cell!r}; expected a number with a decimal point, or nothing where it failed"
        )
    return value


def _number(cell: str) -> float | None:
    try:
        return None if "_" in cell else float(cell)
    except ValueError:
        return None
