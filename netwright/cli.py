"""The command line: thin, over the Python functions. Nothing here is imported before a command asks for it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

app = typer.Typer(
    help="Swappable neural-network parts, and an honest bench: is it better than what you have, at equal cost?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Json = Annotated[bool, typer.Option("--json", help="Machine-readable, and nothing else on stdout.")]


@contextlib.contextmanager
def _errors(apart: bool = False) -> Iterator[TextIO]:
    """Where a command's own output goes. netwright's own errors become one line on stderr and exit code 2; an interruption 130.

    apart: it is a document for a program, so that whatever else anybody prints goes to stderr.
    """
    from netwright.core.errors import NetwrightError

    try:
        with _document() if apart else contextlib.nullcontext(sys.stdout) as out:
            try:
                yield out
            finally:
                out.flush()
    except NetwrightError as error:
        _say(f"error: {error}")
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        _say("interrupted; what was finished is kept, the same command continues")
        raise typer.Exit(130) from None
    except SystemExit as error:  # nothing of ours raises it
        _say(f"error: code of a part, plug-in or task raised {error!r}, and nothing is reported")
        raise typer.Exit(2) from None
    except OSError as error:
        # What is still in the buffer of a closed stdout must not raise again at the end.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        closed = isinstance(error, BrokenPipeError)
        _say(f"error: {'stdout was closed before everything was written' if closed else error}")
        raise typer.Exit(1 if closed else 2) from None


@contextlib.contextmanager
def _continued(folder: Path, command: str) -> Iterator[None]:
    """Work that is kept in a folder: Ctrl-C ends it with the command that continues, and exit code 130."""
    try:
        yield
    except KeyboardInterrupt:
        _say(f"stopped; what was finished is kept in {folder}. To continue: {command}")
        raise typer.Exit(130) from None


@contextlib.contextmanager
def _document() -> Iterator[TextIO]:
    """Stdout for a document alone: inside, what Python or C code writes there goes to stderr; so do exit handlers later."""
    given: Any = sys.stdout
    document = given
    if given is sys.__stdout__:
        given.flush()  # type: ignore[union-attr]
        document = os.fdopen(os.dup(1), "w", encoding="ascii")
        os.dup2(2, 1)
    sys.stdout = sys.stderr
    try:
        yield document
    finally:
        sys.stdout = given


def _say(text: str) -> None:
    from netwright.core.errors import printable

    with contextlib.suppress(OSError, ValueError):  # a closed stderr is no reason to stop
        print("\n".join(map(printable, str(text).splitlines())), file=sys.stderr, flush=True)


def _dump(value: Any, out: TextIO) -> None:
    print(json.dumps(value, indent=1, ensure_ascii=True, allow_nan=False), file=out)


def _broken() -> None:
    from netwright.core import catalogue
    from netwright.core.errors import printable

    for name, what in catalogue.broken().items():
        _say(f"plug-in {printable(name)} could not be loaded: {printable(what)}")


@app.command("list")
def list_parts(
    kind: Annotated[str, typer.Argument(help="activation, rule, task, ...")] = "",
    search: Annotated[str, typer.Option(help="Only parts whose id, summary or paper contains this.")] = "",
    as_json: Json = False,
) -> None:
    """What there is: every part with its status."""
    with _errors(as_json) as out:
        from netwright.core import catalogue
        from netwright.corpus.status import status
        from netwright.show.card import tags_of

        rows = catalogue.parts(kind or None, search)
        _broken()
        if as_json:
            papers = [p.paper.slug or p.paper.title for p in rows]
            found = zip(rows, papers, strict=True)
            _dump(
                [{"id": p.id, "kind": p.kind, "paper": paper, "status": status(p), "tags": tags_of(p)} for p, paper in found],
                out,
            )
            return
        width = max((len(p.id) for p in rows), default=0)
        for p in rows:
            print(f"{p.id:<{width}}  {status(p):<8}  {p.summary}")
        if not rows:
            _say("nothing found")


@app.command()
def papers(as_json: Json = False) -> None:
    """Which papers of the corpus have a part, by family and form."""
    with _errors(as_json) as out:
        from netwright.core import catalogue
        from netwright.corpus import papers as corpus
        from netwright.corpus.status import status

        parts = catalogue.parts()
        if as_json:
            _dump(corpus.rows(parts, status), out)
            return
        _table(corpus.coverage(parts, status))


def _bytes(gib: float) -> int | None:
    from netwright.core.errors import require

    require(0 <= gib < 2**30, f"--memory {gib}: expected GiB, from 0 on")
    return round(gib * 2**30) or None


def _table(rows: list[dict[str, Any]]) -> None:
    """Rows of equal keys as aligned text."""
    names = list(rows[0])
    widths = {n: max(len(n), *(len(str(r[n])) for r in rows)) for n in names}
    for row in [dict(zip(names, names, strict=True)), *rows]:
        print("  ".join(f"{row[n]!s:<{widths[n]}}" for n in names).rstrip())


@app.command()
def card(
    part: str,
    picture: Annotated[Path | None, typer.Option(help="Write the formula and the curve to this .svg or .png file.")] = None,
    as_json: Json = False,
) -> None:
    """One part: formula, curve, paper, tags, costs, status."""
    with _errors(as_json) as out:
        from netwright.core import catalogue
        from netwright.show.card import card as card_of

        made = card_of(catalogue.parse(part)[0].id)
        if picture is not None:
            made.save(picture)
        if as_json:
            _dump(made.to_json(), out)
        else:
            print(made)


@app.command()
def gallery(
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("gallery.html"),
) -> None:
    """All activations on one page: curves, effect on N(0, 1) input, cost, paper; to filter and sort in a browser."""
    with _errors():
        from netwright.show import gallery as page

        print(page.write(out))


@app.command()
def cite(parts: list[str]) -> None:
    """BibTeX of the papers behind parts."""
    with _errors():
        from netwright.corpus.papers import cite as entries

        print(entries(*parts))


@app.command()
def check(
    target: Annotated[str, typer.Argument(help="A part of the catalogue, or module:NAME or path/to/file.py:NAME of your own.")],
    limit: Annotated[float, typer.Option(help="Seconds the checks may take.")] = 120.0,
    everything: Annotated[bool, typer.Option("--all", help="Also the checks that compile.")] = False,
    as_json: Json = False,
) -> None:
    """The contract checks, in a process of their own with a time limit."""
    with _errors(as_json) as out:
        from netwright.contract.child import check as run_checks

        report = run_checks(target, limit=limit, everything=everything)
        if as_json:
            _dump(report.to_json(), out)
        else:
            print(report)
        if not report.ok:
            raise typer.Exit(1)


@app.command()
def compare(
    arms: Annotated[
        list[str], typer.Argument(help="Parts, e.g. relu golu swish:beta=2 golu+mono-forward; the first is the baseline.")
    ],
    task: Annotated[str, typer.Option(help="A task, task:option=value, or path/to/file.py:NAME.")] = "digits",
    size: Annotated[str, typer.Option(help="small or full.")] = "",
    seeds: Annotated[int, typer.Option(help="Replicates; each is a whole procedure of its own.")] = 10,
    tune: Annotated[int, typer.Option(help="Trials a replicate; 1 = the published rate, not tuned.")] = 5,
    match: Annotated[str, typer.Option(help="Equal cost in: params, flops, time or none.")] = "params",
    baseline: Annotated[str, typer.Option(help="An arm other than the first.")] = "",
    all_pairs: Annotated[bool, typer.Option("--all-pairs", help="Also compare the other arms with one another.")] = False,
    control: Annotated[
        bool, typer.Option("--control/--no-control", help="Where rules are compared: add the task's control.")
    ] = True,
    steps: Annotated[int, typer.Option(help="Training steps instead of the task's.")] = 0,
    batch: Annotated[int, typer.Option(help="Batch size instead of the task's.")] = 0,
    engine: Annotated[str, typer.Option(help="auto, loop, stack or stack-compiled.")] = "auto",
    executor: Annotated[str, typer.Option(help="auto, serial, processes or ray.")] = "auto",
    workers: Annotated[int, typer.Option(help="Worker processes; 0 = one a core.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps.")] = "cpu",
    precision: Annotated[str, typer.Option(help="fp32, bf16 or amp.")] = "fp32",
    threads: Annotated[int, typer.Option(help="Compute threads a worker.")] = 1,
    measure: Annotated[str, typer.Option(help="Read off every trained net: measures, joined by +.")] = "",
    judge: Annotated[str, typer.Option(help="A named value to judge arms by, instead of the score.")] = "",
    delta: Annotated[float | None, typer.Option(help="Of --judge: the smallest difference that matters.")] = None,
    higher: Annotated[
        bool | None, typer.Option("--higher-is-better/--lower-is-better", help="Of --judge: which values are better.")
    ] = None,
    limit: Annotated[float, typer.Option(help="Seconds one run may take; 0 = no limit.")] = 0.0,
    memory: Annotated[float, typer.Option(help="GiB one worker may hold; 0 = no limit.")] = 0.0,
    out: Annotated[Path | None, typer.Option(help="The study's folder.")] = None,
    data: Annotated[str, typer.Option(help="A folder with the task's data.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be run, and stop.")] = False,
    extend: Annotated[
        bool, typer.Option("--extend", help="Allow adding seeds to a study already looked at; spends alpha.")
    ] = False,
    confirm: Annotated[bool, typer.Option("--confirm", help="Run the leader and the baseline again on fresh seeds.")] = False,
    retry: Annotated[str, typer.Option(help="Make runs of these states again, e.g. failed,timeout,lost.")] = "",
    wait: Annotated[float, typer.Option(help="Seconds to wait where another process holds the study; 0 = don't.")] = 0.0,
    as_json: Json = False,
) -> None:
    """Is it better than what you have, on this task, at equal cost, or can't we tell? The same command continues."""
    with _errors(as_json) as stdout:
        from netwright.bench.carry import Means
        from netwright.bench.causes import NothingWorks, nothing_worked
        from netwright.bench.outlook import runs_of
        from netwright.bench.result import planned
        from netwright.bench.study import Study
        from netwright.compare import finish
        from netwright.core.errors import BadInput, printable

        command = shlex.join(["netwright", *sys.argv[1:]])
        options = {k: v for k, v in (("size", size), ("data", data)) if v}
        again = tuple(filter(None, retry.replace(" ", "").split(",")))
        means = Means(executor, workers, limit or None, _bytes(memory), wait or None, again)
        if min(seeds, tune) < 1 or min(steps, batch, workers) < 0:
            raise BadInput("--seeds and --tune take whole numbers from 1; --steps, --batch and --workers from 0")
        study = Study(
            task,
            arms,
            task_options=options,
            out=out,
            means=means,
            command=command,
            seeds=seeds,
            trials=tune,
            match=match,
            baseline=baseline or None,
            all_pairs=all_pairs,
            engine=engine,
            device=device,
            precision=precision,
            threads=threads,
            steps=steps or None,
            batch=batch or None,
            control=control,
            measures=tuple(filter(None, measure.split("+"))),
            judge=judge,
            delta=delta,
            higher_is_better=higher,
        )
        lines = study.outlook()
        for line in lines:
            _say(line)
        if dry_run:
            if as_json:
                _dump(planned(study.request, study.task, lines, runs_of(study.request, study.entrants)), stdout)
            return
        try:
            with _continued(study.folder, command):
                result = finish(study, extend, confirm, _say)
        except NothingWorks as error:
            if as_json:
                _dump({"schema": 1, "study": study.request.study_id, "command": command, "cause": str(error)}, stdout)
            _say(f"error: {error}")
            raise typer.Exit(1) from None
        path = study.folder / "report.html"
        if as_json:
            from netwright.show.machine import document

            _dump(document(result, str(path), command), stdout)
        else:
            from netwright.show.terminal import print_study

            print_study(result, stdout)
            print(f"\nreport: {printable(str(path))}")
        if cause := nothing_worked(result.records, result.scores):
            _say(f"error: {cause}")
            raise typer.Exit(1)


@app.command()
def run(
    experiment: Annotated[str, typer.Argument(help="An experiment of the catalogue, or path/to/file.py:PART of your own.")],
    size: Annotated[str, typer.Option(help="tiny, small or full.")] = "small",
    seeds: Annotated[int, typer.Option(help="Seeds instead of the size's; 0 = the size's.")] = 0,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="An option, or an axis as KEY=[1,2,3]; may be repeated."),
    ] = None,
    executor: Annotated[str, typer.Option(help="auto, serial, processes or ray.")] = "auto",
    workers: Annotated[int, typer.Option(help="Worker processes; 0 = one a core.")] = 0,
    limit: Annotated[float, typer.Option(help="Seconds one cell may take; 0 = no limit.")] = 0.0,
    budget: Annotated[float, typer.Option(help="Minutes after which nothing further is begun; 0 = no limit.")] = 0.0,
    out: Annotated[Path | None, typer.Option(help="The experiment's folder.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be run, and stop.")] = False,
    as_json: Json = False,
) -> None:
    """A finding, run again in a form that can fail: reproduced, not reproduced, or can't we tell? The same command continues."""
    with _errors(as_json) as stdout:
        from netwright.bench.carry import Means
        from netwright.bench.experiment import Experiment
        from netwright.bench.own.experiment import load_part, settings_of
        from netwright.compare import finish_experiment
        from netwright.core.errors import printable
        from netwright.show.experiments import plain, told

        means = Means(executor, workers, limit or None)
        part = load_part(experiment) if ".py" in experiment else experiment
        settings = settings_of(set_ or ())
        asked = Experiment(part, size=size, seeds=seeds or None, settings=settings, out=out, means=means, budget=budget or None)
        for line in asked.outlook():
            _say(line)
        if dry_run:
            return
        with _continued(asked.folder, shlex.join(["netwright", *sys.argv[1:]])):
            result = finish_experiment(asked, _say)
        if as_json:
            _dump(plain(result), stdout)
        else:
            print("\n".join(map(printable, told(result))), file=stdout)
            print(f"\nreport: {printable(str(asked.folder / 'report.html'))}", file=stdout)
        if not result.rows:
            raise typer.Exit(1)


@app.command()
def judge(
    scores: Annotated[
        Path, typer.Argument(help="A CSV file: columns arm, seed, score and further values, or seed and then a column an arm.")
    ],
    delta: Annotated[
        float | None, typer.Option(help="The smallest difference that matters, in the metric's units. Has to be given.")
    ] = None,
    higher: Annotated[
        bool | None, typer.Option("--higher-is-better/--lower-is-better", help="Which scores are better. Has to be given.")
    ] = None,
    baseline: Annotated[str, typer.Option(help="An arm other than the file's first.")] = "",
    worst: Annotated[
        float | None, typer.Option(help="What a failed replicate (no number, or none that is finite) scores.")
    ] = None,
    best: Annotated[float | None, typer.Option(help="The score that can't be beaten.")] = None,
    resolution: Annotated[float | None, typer.Option(help="The smallest step a score can take.")] = None,
    column: Annotated[str, typer.Option("--judge", help="Of a long file, the column to judge instead of score.")] = "",
    metric: Annotated[str, typer.Option(help="What the report calls the score; else the name of its column.")] = "",
    out: Annotated[Path | None, typer.Option(help="The folder of the report.")] = None,
    all_pairs: Annotated[bool, typer.Option("--all-pairs", help="Also compare the other arms with one another.")] = False,
    as_json: Json = False,
) -> None:
    """Judge scores that you have already, by the rules of compare. What tuning and cost were is not seen."""
    with _errors(as_json) as stdout:
        from netwright.bench.own.scores import read_scores
        from netwright.bench.store.store import study_folder
        from netwright.bench.study import ROOT
        from netwright.compare import judge as judge_given
        from netwright.compare import write_report
        from netwright.core.errors import BadInput, printable

        needed = {"--delta": delta, "--higher-is-better or --lower-is-better": higher}
        if delta is None or higher is None:
            absent = " and ".join(option for option, value in needed.items() if value is None)
            raise BadInput(f"judge needs {absent}: --delta is the smallest difference that matters, in the metric's units")
        file = read_scores(scores, column or None)
        result = judge_given(
            file.scores,
            delta=delta,
            higher_is_better=higher,
            baseline=baseline or None,
            worst=worst,
            best=best,
            resolution=resolution,
            name=scores.stem,
            metric=metric or file.metric,
            all_pairs=all_pairs,
            values=file.values,
        )
        command = shlex.join(["netwright", *sys.argv[1:]])
        result = dataclasses.replace(result, notes=(*file.notes, *result.notes), command=command)
        path = write_report(out or study_folder(ROOT, f"{scores.stem}-{result.study[:8]}"), result)
        if as_json:
            from netwright.show.machine import document

            _dump(document(result, str(path), command), stdout)
        else:
            from netwright.show.terminal import print_study

            print_study(result, stdout)
            print(f"\nreport: {printable(str(path))}", file=stdout)


def main() -> None:
    """Entry point of the console script."""
    for number in (0, 1, 2):  # a stream that was closed would hand its number to the next file that is opened
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or os.fdopen(1, "w")
    sys.stderr = sys.stderr or os.fdopen(2, "w")
    app()


if __name__ == "__main__":
    main()
