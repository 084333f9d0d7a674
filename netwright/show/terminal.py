"""A study on the terminal: verdicts in words, then one table (two on a narrow screen)."""

from __future__ import annotations

from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from netwright.bench.records import ArmResult, Comparison, StudyResult
from netwright.show import words
from netwright.show.derive import against_baseline, ranked

COLOURS = {
    "better": "green",
    "worse": "red",
    "equivalent": "cyan",
    "cannot tell": "yellow",
    "not comparable": "magenta",
}
WIDE = 150  # columns that all of the table needs; below that costs get a table of their own

SCORE_COLUMNS = ("arm", "score [95 %]", "difference", "verdict")
COST_COLUMNS = ("parameters", "step time", "memory", "inference", "failed")


def table(result: StudyResult, width: int = 100) -> RenderableType:
    """What `print_study` shows on a terminal `width` columns wide, as a rich renderable. Names are never markup."""
    parts: list[RenderableType] = [
        Text(words.headline(result), style="bold"),
        *(Text(line, style="yellow") for line in _caveats(result)),
        Text(_terms(result), style="dim"),
        Text(),
    ]
    parts += [Text.assemble(("  " + line, COLOURS.get(verdict, ""))) for verdict, line in _verdicts(result)]
    parts += [Text("  " + line) for line in words.against_control(result)]
    parts.append(Text())
    rows = _rows(result)
    if width >= WIDE or words.given(result):
        parts.append(_grid(_columns(result), rows))
    else:
        parts.append(_grid(SCORE_COLUMNS, [row[:4] for row in rows]))
        parts.append(Text())
        parts.append(_grid(("arm", *COST_COLUMNS), [[row[0], *row[4:]] for row in rows]))
    parts.append(Text())
    parts += [Text(f"note: {words.clean(note)}", style="dim") for note in result.notes]
    return Group(*parts)


def print_study(result: StudyResult, file: TextIO) -> None:
    """Writes the study to `file`: coloured on a terminal, else plain ASCII-punctuated lines without escape codes."""
    if getattr(file, "isatty", lambda: False)():
        console = Console(file=file, highlight=False, emoji=False, markup=False)
        console.print(table(result, console.width))
        return
    text = words.plain("\n".join(lines(result))) + "\n"
    encoding = getattr(file, "encoding", None) or "utf-8"
    file.write(text.encode(encoding, "replace").decode(encoding))


def lines(result: StudyResult) -> list[str]:
    """The study as plain lines: verdicts, then columns padded with spaces."""
    said = [words.headline(result), *_caveats(result), _terms(result), ""]
    said += [line for _, line in _verdicts(result)] + words.against_control(result)
    cells = [list(_columns(result)), *_rows(result)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    said += ["", *("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in cells)]
    if result.notes:
        said += ["", *(f"note: {words.clean(note)}" for note in result.notes)]
    return said


def _caveats(result: StudyResult) -> list[str]:
    return [caveat] if (caveat := words.caveat(result)) else []


def _columns(result: StudyResult) -> tuple[str, ...]:
    """Of given scores no cost is known, so there is no column for one."""
    return SCORE_COLUMNS + (COST_COLUMNS[-1:] if words.given(result) else COST_COLUMNS)


def _terms(result: StudyResult) -> str:
    judged = f"{words.clean(result.task)}, {words.clean(result.metric)} ({words.direction(result)})"
    return "; ".join([judged, *words.terms(result), words.look(result)])


def _verdicts(result: StudyResult) -> list[tuple[str, str]]:
    """(verdict, its line) for every comparison: the sentence, the reason, what it would take to tell."""
    said = []
    for c in result.comparisons:
        told = (f"{words.sentence(c)}.", words.clean(c.reason), words.to_tell(c, result), words.remark(c.hint))
        said.append((c.verdict, " ".join(filter(None, told))))
    return said


def _rows(result: StudyResult) -> list[list[str]]:
    judged = against_baseline(result)
    return [_row(arm, judged.get(arm.name), result) for arm in ranked(result)]


def _row(arm: ArmResult, comparison: Comparison | None, result: StudyResult) -> list[str]:
    places = words.decimals(result.delta)
    score = f"{words.number(arm.mean, places)} {words.interval(arm.interval, places)} n={arm.n}"
    difference, verdict = "–", words.role(result, arm.name)
    if comparison is not None:
        mean, pair = (
            words.number(comparison.difference, places, sign=True),
            words.interval(comparison.interval, places, sign=True),
        )
        difference, verdict = f"{mean} {pair} n={comparison.n}", words.clean(comparison.verdict)
    cost = arm.cost
    if words.given(result):
        costs = []
    elif cost is None:
        costs = [words.UNKNOWN] * 4
    else:
        time = words.seconds(cost.step_time)
        if cost.step_ratio is not None:
            time = f"{words.ratio(cost.step_ratio)} ({time})"
        costs = [words.count(cost.params), time, words.memory(cost.peak_memory), words.seconds(cost.infer_time)]
    return [words.clean(arm.name), score, difference, verdict, *costs, f"{arm.failed} of {arm.n}"]


def _grid(columns: tuple[str, ...], rows: list[list[str]]) -> Table:
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in columns:
        grid.add_column(
            Text(name),
            overflow="fold",
            no_wrap=name != "arm",
            justify="right" if name in ("parameters", "memory", "inference", "failed") else "left",
        )
    for row in rows:
        styles = [COLOURS.get(cell, "") if name == "verdict" else "" for name, cell in zip(columns, row, strict=True)]
        grid.add_row(*(Text(cell, style=style) for cell, style in zip(row, styles, strict=True)))
    return grid
