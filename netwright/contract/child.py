"""`netwright.check`: the contract checks of your own part, in a process of their own, with a time limit."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from netwright.contract import run
from netwright.core import catalogue
from netwright.core.contract import Result
from netwright.core.errors import BadInput, printable, unknown
from netwright.core.guard import foreign
from netwright.core.part import Part


@final
@dataclass(frozen=True)
class Checked:
    """What became of every check of one part."""

    part: str
    results: tuple[Result, ...]
    unfinished: str = ""  # why not every check ended, or ''

    @property
    def ok(self) -> bool:
        return not self.unfinished and all(r.ok for r in self.results)

    @property
    def failures(self) -> tuple[Result, ...]:
        return tuple(r for r in self.results if not r.ok)

    def __str__(self) -> str:
        made = [r for r in self.results if not r.skipped_reason]
        lines = [f"{self.part}: {sum(r.ok for r in made)} of {len(made)} checks hold, {len(self.results) - len(made)} not made"]
        lines += [f"  FAIL  {r.check}\n        {r.message}" for r in self.failures]
        lines += [f"  skip  {r.check}: {r.skipped_reason}" for r in self.results if r.skipped_reason]
        if self.unfinished:
            lines.append(f"  stopped: {self.unfinished}")
        return "\n".join(printable(line) for text in lines for line in text.split("\n"))

    def to_json(self) -> dict[str, Any]:
        """Plain data, "schema": 1."""
        rows = [{"check": r.check, "ok": r.ok, "message": r.message, "skipped": r.skipped_reason} for r in self.results]
        return {"schema": 1, "part": self.part, "ok": self.ok, "unfinished": self.unfinished, "checks": rows}


def find(target: str) -> Part:
    """A part of the catalogue, or one declared under "module:NAME" or "path/to/file.py:NAME" (NAME defaults to PART)."""
    head, _, name = target.partition(":")
    name = name or "PART"
    if head.endswith(".py"):
        path = Path(head)
        if not path.is_file():
            raise BadInput(f"there is no file {head!r} to take {name} from")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module  # so that a fingerprint and pickle find it
        with foreign(path.name, importing=True):
            spec.loader.exec_module(module)
    elif ":" in target and "=" not in name:
        try:
            with foreign(head, importing=True):
                module = importlib.import_module(head)
        except ModuleNotFoundError as error:
            raise BadInput(f"{target!r}: {error}; give a module that can be imported, or path/to/file.py:NAME") from None
    else:
        return catalogue.parse(target)[0]
    value = getattr(module, name, None)
    if value is None:
        known = [k for k, v in vars(module).items() if isinstance(v, Part)]
        raise unknown("part", name, known, owner=head)
    if not isinstance(value, Part):
        raise BadInput(f"{target} is a {type(value).__name__}, not a part; declare one as docs/adding-a-part.md says")
    return value


def check(target: str | Part, *, limit: float = 120.0, everything: bool = False) -> Checked:
    """Run the contract checks of a part.

    target: "golu", "module:NAME", "path/to/file.py:NAME": checked in a child process that may take `limit` seconds, so that
    a part which hangs or dies takes nothing with it. A Part object is checked in this process, without a limit.
    everything: also the checks that compile. Raises BadInput or UnknownName where there is no such part.
    """
    if isinstance(target, Part):
        return Checked(target.id, tuple(run(target, sample=not everything)))
    if not limit > 0:
        raise BadInput(f"limit={limit!r}; expected seconds above 0")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "results.json"
        words = [sys.executable, "-m", "netwright.contract.child", str(out), target, *(["--all"] if everything else [])]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([os.getcwd(), *sys.path])}
        stopped, text = "", ""
        try:
            done = subprocess.run(words, timeout=limit, capture_output=True, text=True, env=environment, check=False)
            text = done.stderr
            if done.returncode:
                stopped = f"the process ended with code {done.returncode}"
        except subprocess.TimeoutExpired:
            stopped = f"took longer than the limit of {limit:g} s"
        rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()] if out.exists() else []
    if not rows:
        last = (text.strip().splitlines() or [stopped])[-1]
        if stopped and not text:
            return Checked(target, (), stopped)
        raise BadInput(f"{target}: {last}")
    head, *body = rows
    running = head["checks"][len(body)] if len(body) < len(head["checks"]) else ""
    if running:
        stopped = f"{stopped or 'the process ended'} during the check {running}"
    return Checked(head["part"], tuple(Result(**row) for row in body), stopped)


def _main(out: str, target: str, everything: bool) -> None:
    """The child: one line a result, written as it comes."""
    from netwright.contract import apply, checks, in_sample

    part = find(target)
    chosen = [c for c in checks(part.kind)]
    with open(out, "w", encoding="utf-8") as file:
        print(json.dumps({"part": part.id, "checks": [c.name for c in chosen]}), file=file, flush=True)
        for c in chosen:
            left_out = not everything and c.needs_compile and not in_sample(part, c)
            result = Result(c.name, True, skipped_reason="not in the sample; --all makes it") if left_out else apply(part, c)
            row = {"check": result.check, "ok": result.ok, "message": result.message, "skipped_reason": result.skipped_reason}
            print(json.dumps(row), file=file, flush=True)


if __name__ == "__main__":
    try:
        _main(sys.argv[1], sys.argv[2], "--all" in sys.argv[3:])
    except Exception as problem:  # the parent prints it
        print(f"{type(problem).__name__}: {problem}", file=sys.stderr)
        sys.exit(3)
