"""python -m netwright.bench.restamp [--since REF] [--study FOLDER]: keep records across changes that move no number.

A record in evidence/ rests on fingerprints, and so does a run in a study's store, by its key. Where definitions were
written anew without another result (a file split, a helper taken out), what was measured still holds and only its
fingerprints are old. This command shows that first: it runs ten studies and the checks of ten parts drawn at random, and
one of each for every definition that changed and that one of them reaches, once with the source as it was at REF and once
as it is now. Studies are run with two seeds and two trials: equal to the last bit, or not, few runs say as well as many.Only
where all are identical in every field but time are the records that were fresh at REF written with their present
fingerprints, and the runs of the stores named by --study with their present keys; the others stay as they are.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

from netwright.bench.request import open_task
from netwright.bench.store.lending import SWITCH
from netwright.bench.store.store import Store
from netwright.core import catalogue
from netwright.core.errors import BadInput, NetwrightError
from netwright.core.fingerprint import Key, Sources, reach
from netwright.core.writing import check_target, write_whole
from netwright.engine.build import chosen as defaults_of

ROOT = Path(__file__).parents[2]
DRAWN = 10
LONG = 4.0  # minutes from which a study is not run again where there is a choice
FEW = {"--seeds": 2, "--tune": 2}  # what a study is cut to
#: Asks a tree for its own fingerprints, whatever release it is of: {part id: [fingerprint, hash of its judges or null]}.
ASK = """
import json
from netwright import catalogue
try:
    from netwright.core.fingerprint import fingerprint, judged
except ImportError:
    from netwright.catalogue import fingerprint
    judged = lambda part: None
try:
    from netwright.core import catalogue
except ImportError:
    pass
print(json.dumps({part.id: [fingerprint(part), judged(part)] for part in catalogue.parts()}))
"""
#: Asks a tree for the keys that the runs of a store have in it.
KEYS = """
import json, sys
try:
    from netwright.bench import plan as planning
    from netwright.bench.request import ArmSpec, Request, open_task
    from netwright.bench.store.store import Store
    from netwright.core import catalogue
    from netwright.core.canonical import canonical_json, digest, parse
except ImportError:
    from netwright import catalogue
    from netwright.study import plan as planning
    from netwright.study.canonical import canonical_json, digest, parse
    from netwright.study.spec import ArmSpec, Request, open_task, slots_key
    from netwright.study.store import Store
    enter_all = None
else:
    try:
        from netwright.bench.entrant import enter_all
    except ImportError:
        from netwright.bench.request import slots_key
        enter_all = None
with Store.read(sys.argv[1]) as store:
    row, plan, seeds = parse(store.request), store.plan(), sorted({run.seed for run in store.runs()})
arms = [(a["name"], {slot: (catalogue.get(i).id, o) for slot, (i, o) in a["parts"].items()}, a["rekey"]) for a in row.pop("arms")]
request = Request(**{**row, "seeds": tuple(seeds), "arms": tuple(ArmSpec(*arm) for arm in arms)})
task = open_task(request.task, request.task_options, request.budget)
if enter_all is None:
    given, slots = task, {arm.name: slots_key(arm, task) for arm in request.arms}
else:
    given = enter_all(task, request)
    slots = {entrant.name: entrant.slots for entrant in given}
runs = planning.runs_of(request, given, planning.Plan.from_json(plan))
print(json.dumps({
    "study": request.study_id, "request": canonical_json(request),
    "parts": {name: digest(row)[:16] for name, row in slots.items()},
    "keys": {f"{r.arm} {r.seed} {r.trial} {r.stage}": r.key for r in runs},
}))
"""
STUDY = "import sys; from netwright.cli import main; sys.argv[0] = 'netwright'; main()"
CHECKS = """
import sys
try:
    from netwright.contract.__main__ import main
except ImportError:
    from netwright.testing.__main__ import main
main(sys.argv[1:])
"""
#: part id -> (fingerprint, hash of its judges or None).
Marks = Mapping[str, Sequence[Any]]
TIMES = ("step_time", "step_quartiles", "step_ratio", "infer_time")
LATER = ("repeats",)  # what a tree before may not look at yet


@final
@dataclass(frozen=True)
class Trial:
    """Something that can be run on both trees: the checks of a part, or a study by its command."""

    what: str  # "checks" or "study"
    name: str  # part id, or command
    parts: tuple[str, ...]
    minutes: float = 1.0


def ask(tree: Path) -> Marks:
    """A tree's own fingerprints."""
    return json.loads(_run(tree, ["-c", ASK], tree).splitlines()[-1])


def changed(before: Path) -> dict[str, list[Key]]:
    """part id -> definitions it reaches, guarded ones too, that no definition of the tree before equals in name and text."""
    old, new = Sources(before, guard=False), Sources(ROOT, guard=False)
    known = {(key.name, old.own(key)) for key in old.every()}
    found = {}
    for part in catalogue.parts():
        own = [key for key in reach(part, new) if not key.name.startswith(f"{part.id} ")]
        found[part.id] = [key for key in own if (key.name.split(" ")[0], new.own(key)) not in known and "/" not in key.name]
    return found


def trials(evidence: Path) -> list[Trial]:
    """Everything recorded that can be run again by this command."""
    known = {part.id for part in catalogue.parts()}
    checked = json.loads((evidence / "checks.json").read_text(encoding="utf-8"))["parts"]
    found = [Trial("checks", name, (name,)) for name in checked if name in known]
    commands: dict[str, Trial] = {}
    for path in sorted(evidence.rglob("*.json")):
        for row in _records(json.loads(path.read_text(encoding="utf-8"))):
            command, prints = row.get("command"), row.get("fingerprints")
            if isinstance(command, str) and command.startswith("netwright compare ") and isinstance(prints, dict):
                parts = tuple(dict.fromkeys((*(catalogue.get(name).id for name in prints), _task(row))))
                commands.setdefault(command, Trial("study", command, parts, float(row.get("minutes") or 1.0)))
    return found + list(commands.values())


def repeats(trial: Trial) -> bool:
    """Whether a trial gives the same twice: widths that were matched by time follow the clock."""
    words = shlex.split(trial.name)
    return "time" not in words[words.index("--match") + 1 : words.index("--match") + 2] if "--match" in words else True


def chosen(every: Sequence[Trial], definitions: Mapping[str, Sequence[Key]], salt: str) -> list[Trial]:
    """Ten of each sort by the hash of their names with `salt`, and the shortest that reaches each changed definition."""
    out: list[Trial] = []
    for what in ("checks", "study"):
        mine = [t for t in every if t.what == what]
        lot = sorted(mine, key=lambda t: hashlib.sha256(f"{salt}|{t.name}".encode()).hexdigest())
        out += [t for t in lot if t.minutes <= LONG][:DRAWN]
        for key in {key for keys in definitions.values() for key in keys}:
            fits = [t for t in mine if any(key in definitions.get(part, ()) for part in t.parts)]
            if fits and not any(t in out for t in fits):
                out.append(min(fits, key=lambda t: (t.minutes, lot.index(t))))
    return out


def outcome(trial: Trial, tree: Path, folder: Path, name: str = "") -> str:
    """What a trial gives on a tree, all fields but time, as one text: so that NaN equals NaN.

    Of checks their verdicts: why one is skipped is said in words, which may change. Of the test rows the scores speak; what is
    sealed in records stays so, and a tree from before they were sealed can be compared. name: what the tree calls the part.
    """
    folder.mkdir(parents=True)
    if trial.what == "checks":
        _run(tree, ["-c", CHECKS, "--all", "--part", name or trial.name, "--out", str(folder / "checks.json")], folder)
        rows = json.loads((folder / "checks.json").read_text(encoding="utf-8"))["parts"].values()
        verdicts = [(check, said.partition(":")[0]) for row in rows for check, said in row["checks"].items()]
        return json.dumps(sorted(verdicts))
    words = [*few(shlex.split(trial.name)[1:]), "--out", str(folder / "study"), "--executor", "serial"]
    _run(tree, ["-c", STUDY, *words], folder)
    with Store.read(folder / "study") as store:
        runs = [{k: v for k, v in r.machine_free().items() if k != "key"} for r in store.records()]
        scores = [{k: v for k, v in asdict(s).items() if k != "key"} for s in store.scores()]
        costs = [{k: v for k, v in asdict(c).items() if k not in TIMES + LATER} for c in store.costs()]
    order = lambda row: json.dumps(row, sort_keys=True, default=str)  # noqa: E731
    return "\n".join(order(row) for rows in (runs, scores, costs) for row in sorted(rows, key=order))


def few(words: Sequence[str]) -> list[str]:
    """The words of a command with at most FEW seeds and trials."""
    out = list(words)
    for name, most in FEW.items():
        if name in out:
            at = out.index(name) + 1
            out[at] = str(min(most, int(out[at])))
    return out


def stamped(value: Any, old: Marks, new: Marks) -> tuple[Any, int, int]:
    """(a document with the records that were fresh marked anew, how many were, how many were stale and stay so)."""
    if isinstance(value, list):
        each = [stamped(v, old, new) for v in value]
        return [v for v, _, _ in each], sum(n for _, n, _ in each), sum(m for _, _, m in each)
    if not isinstance(value, dict):
        return value, 0, 0
    row = _remarked(value, old, new) if value.get("fingerprints") else None
    counted = (int(row is not None), int(row is None)) if value.get("fingerprints") else (0, 0)
    inner = {k: (v, 0, 0) if k == "fingerprints" else stamped(v, old, new) for k, v in (row or value).items()}
    fresh, stale = (counted[i] + sum(found[1 + i] for found in inner.values()) for i in (0, 1))
    return {k: v for k, (v, _, _) in inner.items()}, fresh, stale


def _remarked(row: Mapping[str, Any], old: Marks, new: Marks) -> dict[str, Any] | None:
    """A record with its present fingerprints; None where one of those it has was not that of its part before."""
    given = row["fingerprints"]
    if any(old.get(name, (None, None))[0] != mark for name, mark in given.items()):
        return None
    marks = {_renamed(name): new[_renamed(name)][0] for name in given}
    if task := _task(row):
        marks[task] = new[task][0]
        marks |= {name: new[name][0] for name in _defaults(row) if name not in old}  # a default that was no part before
    return {**row, "fingerprints": dict(sorted(marks.items()))}


def _task(row: Mapping[str, Any]) -> str:
    """The task a record rests on, by the command that makes it."""
    spec = _task_spec(row)
    return open_task(spec, {}).id if spec else ""


def _defaults(row: Mapping[str, Any]) -> list[str]:
    """Parts that fill the slots of a record's task by default."""
    return [one.part.id for one in defaults_of(open_task(_task_spec(row), {})).values()]


def _task_spec(row: Mapping[str, Any]) -> str:
    words = shlex.split(str(row.get("command") or ""))
    return words[words.index("--task") + 1] if "--task" in words else ""


def _renamed(name: str) -> str:
    return catalogue.get(name).id


def _records(value: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _records(inner)


def _run(tree: Path, words: Iterable[str], folder: Path) -> str:
    environment = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", SWITCH: "0"}
    done = subprocess.run([sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode and "Traceback" in done.stderr:
        raise BadInput(f"{tree}: {shlex.join(words)[:200]}: {done.stderr.strip().splitlines()[-1]}")
    return done.stdout


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, say what was found, and write the evidence where nothing differs; 0 where it was written."""
    parser = argparse.ArgumentParser(prog="python -m netwright.bench.restamp", description=(__doc__ or "").split("\n\n")[1])
    parser.add_argument("--since", default="HEAD", metavar="REF", help="where the records were fresh (default: the last commit)")
    parser.add_argument("--evidence", type=Path, default=ROOT / "evidence", help="the folder of records (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="trials at a time, one thread each (default: %(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="say what changed and what would be run")
    parser.add_argument(
        "--study", type=Path, action="append", default=[], metavar="FOLDER", help="a study whose store is kept too"
    )
    parser.add_argument("--report", type=Path, help="where to write what was run and kept, as JSON")
    given = parser.parse_args(arguments)
    if given.report:
        check_target(given.report)  # before the work that would be lost with it
    with tempfile.TemporaryDirectory() as scratch:
        before = _checkout(given.since, Path(scratch) / "before")
        old, new = ask(before), ask(ROOT)
        definitions = changed(before)
        names = sorted({f"{key.module}:{key.name}" for keys in definitions.values() for key in keys})
        moved = sorted(name for name, marks in new.items() if marks[0] != old.get(_old(name, old), [None])[0])
        there = [t for t in trials(given.evidence) if all(_old(name, old) in old for name in t.parts) and repeats(t)]
        picked = chosen(there, definitions, given.since)
        print(f"{len(moved)} of {len(new)} fingerprints moved; {len(names)} definitions were written anew:")
        print("".join(f"  {name}\n" for name in names), end="")
        print(f"{len(picked)} trials on both trees:")
        if given.dry_run:
            print("".join(f"  {t.what} {t.name}\n" for t in picked), end="")
            return 0
        different = [t.name for t, same in tried(picked, before, old, Path(scratch), given.workers) if not same]
        kept = {} if different else write(given.evidence, old, new)
        kept |= {} if different else {str(folder): rekeyed(folder, before) for folder in given.study}
    if given.report:
        row = {"since": given.since, "moved": moved, "written anew": names, "run again": [f"{t.what} {t.name}" for t in picked]}
        text = json.dumps({**row, "different": different, "records": kept}, indent=1)
        write_whole(given.report, text + "\n")
    print("nothing was written: the numbers differ" if different else json.dumps(kept, indent=1))
    return int(bool(different))


def _checkout(ref: str, folder: Path) -> Path:
    """The package as it was at a commit, in a folder of its own."""
    folder.mkdir()
    packed = subprocess.run(["git", "-C", str(ROOT), "archive", ref, "netwright"], capture_output=True, check=False)
    if packed.returncode:
        raise BadInput(f"--since {ref!r}: {packed.stderr.decode().strip().splitlines()[-1]}")
    subprocess.run(["tar", "-x", "-C", str(folder)], input=packed.stdout, check=True)
    return folder


def tried(picked: Sequence[Trial], before: Path, old: Marks, scratch: Path, workers: int) -> Iterator[tuple[Trial, bool]]:
    """Each trial, and whether it gives the same on both trees."""

    def same(i: int) -> bool:
        was = outcome(picked[i], before, scratch / f"{i}-before", _old(picked[i].name, old))
        return was == outcome(picked[i], ROOT, scratch / f"{i}-now")

    with ThreadPoolExecutor(workers) as pool:
        for trial, equal in zip(picked, pool.map(same, range(len(picked))), strict=True):
            print(f"  {'identical' if equal else 'DIFFERENT':<10}{trial.what} {trial.name}", flush=True)
            yield trial, equal


def write(evidence: Path, old: Marks, new: Marks) -> dict[str, dict[str, int]]:
    """Mark the records that were fresh with their present fingerprints; file -> how many were, and how many were stale."""
    kept = {}
    for path in sorted(evidence.rglob("*.json")):
        document = json.loads(path.read_text(encoding="utf-8"))
        matrix = path.name == "checks.json"
        document, fresh, stale = _checks(document, old, new) if matrix else stamped(document, old, new)
        if fresh or stale:
            kept[str(path.relative_to(evidence))] = {"kept": fresh, "stale before": stale}
            text = json.dumps(document, indent=1, sort_keys=matrix or "studies" in path.parts)
            write_whole(path, text + "\n")
    return kept


def rekeyed(folder: Path, before: Path) -> dict[str, int]:
    """Give the runs of a store that were fresh before their present keys; how many were, and how many were stale."""
    words = ["-P", "-c", KEYS, str(folder.resolve())]  # from here, where a task's file may lie, but with the tree's netwright
    was, now = (json.loads(_run(tree, words, Path.cwd()).splitlines()[-1]) for tree in (before, ROOT))
    keys = {was["keys"][run]: key for run, key in now["keys"].items() if run in was["keys"]}
    with Store.create_or_open(folder, now["study"], now["request"]) as store:
        fresh = store.rekey(keys, now["parts"])
        return {"kept": fresh, "stale before": len([1 for state in store.states().values() if state == "superseded"])}


def _old(name: str, old: Mapping[str, Any]) -> str:
    """The id a part had before, where its kind was called otherwise."""
    return name if name in old else next((n for n in old if n.partition("/")[2] == name.partition("/")[2]), name)


def _checks(document: dict[str, Any], old: Marks, new: Marks) -> tuple[dict[str, Any], int, int]:
    """checks.json: an entry rests on the part's fingerprint and, where the tree before had it, on the hash of its judges."""
    parts, fresh, stale = {}, 0, 0
    for name, row in document["parts"].items():
        try:
            now = _renamed(name)
        except NetwrightError:
            continue
        mark, judges = old.get(name, (None, None))
        if row["fingerprint"] == mark and (judges is None or row.get("judged") == judges):
            row, fresh = {**row, "fingerprint": new[now][0], "judged": new[now][1]}, fresh + 1
        else:
            stale += 1
        parts[now] = row
    return {**document, "parts": parts}, fresh, stale


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except NetwrightError as error:
        raise SystemExit(str(error)) from None
