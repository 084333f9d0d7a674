"""The store: one SQLite file a study, written by one process, read by any.

What the next call makes of a run, by its state:

    queued                           queued
    leased, running                  queued; where the owner died this is a loss: see lost
    done, diverged, timeout, failed  kept: a result is stored once and never overwritten
    oom, cancelled                   queued again
    lost                             queued again, until LOSSES losses; then kept, with a record that says so
    superseded                       kept; revived with its result where add_runs() asks for the same key again

A transaction is on the disk before its method returns. Everything raised is a BadInput: Held (another process is the
owner), Damaged (the file is broken), or a plain one (full disk, folder that can't be written, another study's folder).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

from netwright.bench.records import FINAL, STATES, Cost, Run, RunRecord, Score, run_record, to_json
from netwright.bench.store.database import Database, Wait, examine, salvage
from netwright.bench.store.lock import Held, Owner
from netwright.bench.store.salvage import Salvage
from netwright.bench.store.schema import SCHEMA, Damaged
from netwright.bench.store.typed import check, fits, made, understood
from netwright.core.canonical import canonical_json, digest, parse
from netwright.core.errors import BadInput, printable, slug

__all__ = ["KEPT", "LOSSES", "SCHEMA", "Damaged", "Held", "Owner", "Salvage", "Store", "Wait", "examine", "salvage"]
__all__ += ["study_folder"]

LOSSES = 3
LAST = 253402300800.0  # seconds since the epoch at the end of the year 9999, after which no date can be written
#: What add_runs, finish and requeue never overwrite.
KEPT = frozenset({"done", "diverged", "timeout", "failed", "superseded"})
_DEVICES = {"con", "prn", "aux", "nul"} | {f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10)}


def study_folder(root: str | Path, name: str) -> Path:
    """The folder of the study called `name`, always right below `root`; BadInput where a link there leads elsewhere."""
    base = Path(root).resolve()
    made = slug(name)
    folder = base / (f"study-{made}" if made in _DEVICES else made)
    if folder.resolve() != folder:
        raise BadInput(f"{folder} is a link that leads out of {base}; remove it or choose another folder")
    return folder


@final
@dataclass(frozen=True)
class Result:
    """All that a store holds of a finished run: the record with what is sealed in it, what it was made with, its arrays."""

    record: RunRecord
    environment: Mapping[str, Any]
    arrays: bytes | None


@final
class Store(Database):
    """One study's records: plan, looks, notes, runs, weights, scores, costs and environments.

    create_or_open() makes the owner's store, which writes; read() one for anybody. Methods may be called from several
    threads of the process that opened it.
    """

    @understood("runs")
    def _resume(self) -> None:
        for run in self._select("runs"):
            # A clean close puts these back: their owner died.
            now = _lose(run) if run["state"] in ("leased", "running") else run
            if now["state"] in ("oom", "cancelled") or (now["state"] == "lost" and now["tries"] < LOSSES):
                now = {**now, "state": "queued", "record": None}
            if now is not run:
                self._put_run(now)

    def _put_back(self) -> None:
        self.requeue([key for key, state in self.states().items() if state in ("leased", "running")])

    def _runs(self, keys: Iterable[str]) -> list[dict[str, Any]]:
        found = []
        for key in keys:
            if not (rows := self._select("runs", "WHERE key=?", key)):
                raise BadInput(f"{self.path} has no run with the key {printable(str(key))!r}; add_runs() adds it")
            found += rows
        return found

    def _put_run(self, run: Mapping[str, Any]) -> None:
        values = (value for name, value in run.items() if name not in ("updated", "checksum"))
        self._put("runs", *values)

    # -- the study

    @property
    def study(self) -> str:
        """The study's id."""
        return str(self._meta("study"))

    @property
    def request(self) -> str:
        """The latest request, as given."""
        return str(self._meta("request"))

    @property
    @understood("time of creation")
    def created(self) -> float:
        """When the study was first opened, in seconds since the epoch."""
        found = self._meta("created")
        if not fits(found, float) or not 0 <= found < LAST:
            raise TypeError(f"{found!r:.60}")
        return float(found)

    def put_plan(self, plan: Any) -> None:
        """Stores the plan (any plain data) in place of the one before."""
        with self._transaction():
            self._put("meta", "plan", canonical_json(plan))

    def plan(self) -> Any:
        """The stored plan as plain data, or None."""
        return self._meta("plan")

    @understood("looks")
    def looks(self) -> tuple[tuple[int, ...], ...]:
        """The seeds of every look so far, in order."""
        looks = tuple(tuple(parse(row["seeds"])) for row in self._select("looks"))
        if not fits(looks, tuple[tuple[int, ...], ...]):
            raise TypeError(f"{looks!r:.60}")
        return looks

    def add_look(self, seeds: Iterable[int]) -> int:
        """Counts a look at the results of these seeds and returns its number, from 1.

        Seeds looked at before, in any order, are that same look again; any other set of seeds is a new one.
        """
        wanted = sorted({int(seed) for seed in seeds})
        with self._transaction():
            looks = [list(look) for look in self.looks()]
            if wanted in looks:
                return looks.index(wanted) + 1
            self._put("looks", len(looks) + 1, canonical_json(wanted))
        return len(looks) + 1

    # -- runs

    @understood("runs")
    def add_runs(self, runs: Iterable[Run]) -> tuple[str, ...]:
        """Adds the runs that are not there yet, queued, and revives superseded ones. Returns the keys it queued."""
        queued = []
        with self._transaction():
            there = {row["key"]: row for row in self._select("runs")}
            for run in runs:
                old = there.get(run.key)
                if old is None:
                    row = {"key": run.key, "arm": run.arm, "seed": int(run.seed), "trial": int(run.trial)}
                    row |= {"point": canonical_json(run.point), "stage": run.stage, "state": "queued", "tries": 0}
                    row |= {"environment": "", "record": None}
                elif (old["arm"], old["seed"], old["trial"]) != (run.arm, run.seed, run.trial):
                    raise BadInput(
                        f"the key {run.key} names two runs: {old['arm']} seed {old['seed']} trial {old['trial']}, and "
                        f"{run.arm} seed {run.seed} trial {run.trial}; a key has to differ where these do"
                    )
                elif old["state"] != "superseded":
                    continue
                else:
                    state = parse(old["record"])["state"] if old["record"] else "queued"
                    row = {**old, "state": state if state in KEPT else "queued"}
                there[run.key] = row
                self._put_run(row)
                queued += [run.key] if row["state"] == "queued" else []
        return tuple(queued)

    @understood("runs")
    def runs(self, *states: str) -> tuple[Run, ...]:
        """The runs in these states (none given: all), in the order they were added."""
        _known(states)
        rows = [row for row in self._select("runs") if not states or row["state"] in states]
        names = ("key", "arm", "seed", "trial", "point", "stage")
        return tuple(made(Run, {n: parse(r[n]) if n == "point" else r[n] for n in names}) for r in rows)

    def states(self) -> dict[str, str]:
        """The state of every run by key, superseded ones among them."""
        return dict(self._query("SELECT key, state FROM runs ORDER BY rowid"))

    def _move(self, keys: Iterable[str], sources: Collection[str], target: str) -> tuple[str, ...]:
        with self._transaction():
            moved = [row for row in self._runs(dict.fromkeys(keys)) if row["state"] in sources]
            for row in moved:
                self._put_run({**row, "state": target})
        return tuple(row["key"] for row in moved)

    def lease(self, keys: Iterable[str]) -> tuple[str, ...]:
        """queued -> leased. Returns the keys it leased; the others are taken or finished."""
        return self._move(keys, {"queued"}, "leased")

    def start(self, keys: Iterable[str]) -> tuple[str, ...]:
        """leased -> running. Returns the keys it moved."""
        return self._move(keys, {"leased"}, "running")

    def cancel(self, keys: Iterable[str]) -> tuple[str, ...]:
        """queued, leased, running -> cancelled. Returns the keys it moved."""
        return self._move(keys, {"queued", "leased", "running"}, "cancelled")

    @understood("runs")
    def requeue(self, keys: Iterable[str], lost: bool = False, redo: bool = False) -> tuple[str, ...]:
        """Puts runs without a stored result back into the queue and returns their keys.

        lost: their worker died; at the loss number LOSSES the run stays lost. redo: results are dropped and run again,
        and losses are forgiven.
        """
        queued = []
        with self._transaction() as db:
            for row in self._runs(dict.fromkeys(keys)):
                if row["state"] == "superseded" or (row["state"] in KEPT and not redo):
                    continue
                row = _lose(row) if lost else row
                if redo or not lost or row["tries"] < LOSSES:
                    row = {**row, "state": "queued", "record": None, "tries": 0 if redo else row["tries"]}
                    queued.append(row["key"])
                    db.execute("DELETE FROM weights WHERE key=?", (row["key"],))
                self._put_run(row)
        return tuple(queued)

    def supersede(self, keys_not_in: Collection[str]) -> tuple[str, ...]:
        """Marks every run whose key is not among these superseded; its record stays. Returns the keys it marked.

        What their arms cost is forgotten, for the part may be another now.
        """
        with self._transaction() as db:
            old = [r for r in self._select("runs") if r["state"] != "superseded" and r["key"] not in set(keys_not_in)]
            for row in old:
                self._put_run({**row, "state": "superseded"})
                db.execute("DELETE FROM costs WHERE arm=?", (row["arm"],))
        return tuple(row["key"] for row in old)

    def rekey(self, keys: Mapping[str, str], parts: Mapping[str, str]) -> int:
        """Give runs other keys (old -> new) with all that hangs on them, and the plan other digests of its arms' parts.

        Returns how many runs it renamed; superseded ones keep theirs.
        """
        with self._transaction() as db:
            rows = [r for r in self._select("runs") if r["state"] != "superseded" and r["key"] in keys]
            scores, before = self.scores(), self._bases()
            of: dict[tuple[str, int], list[str]] = {}
            for row in rows:
                of.setdefault((row["arm"], row["seed"]), []).append(row["key"])
                db.execute("DELETE FROM runs WHERE key=?", (row["key"],))
                record = None if row["record"] is None else {**parse(row["record"]), "key": keys[row["key"]]}
                self._put_run({**row, "key": keys[row["key"]], "record": None if record is None else canonical_json(record)})
                if (blob := self.weights(row["key"])) is not None:
                    db.execute("DELETE FROM weights WHERE key=?", (row["key"],))
                    self._put("weights", keys[row["key"]], blob)
            after = self._bases()
            for score in scores:
                mine = of.get((score.arm, score.seed), [])
                all_failed = score.key == digest(sorted(mine))[:32]
                key = digest(sorted(keys[k] for k in mine))[:32] if all_failed else keys.get(score.key, score.key)
                if before.get((score.arm, score.seed)) == digest(sorted(mine)):
                    place = (score.arm, score.seed)
                    self._put("scores", *place, after[place], canonical_json(replace(score, key=key)))
            plan = self.plan()
            if plan is not None:
                self._put("meta", "plan", canonical_json({**plan, "parts": {**plan["parts"], **parts}}))
        return len(rows)

    def finish(self, records: Iterable[RunRecord], arrays: Mapping[str, bytes] | None = None) -> tuple[str, ...]:
        """Stores the results of a whole stack, all or none, with the arrays (safetensors bytes) that calls left.

        A key keeps its first result: one that comes late, or is superseded, is left out. Returns the keys it stored.
        """
        left = arrays or {}
        with self._transaction():
            return tuple(r.key for r in records if self._finish(r, self._environment, left.get(r.key)))

    def take(self, results: Iterable[Result]) -> tuple[str, ...]:
        """Stores what another store had of runs that are queued here, as finish() does, each with where it comes from."""
        with self._transaction():
            return tuple(r.record.key for r in results if self._finish(r.record, self._put_environment(r.environment), r.arrays))

    def _finish(self, record: RunRecord, environment: str, arrays: bytes | None) -> bool:
        _known((record.state,))
        if record.state not in FINAL | {"cancelled"}:
            raise BadInput(f"a run can't end {record.state!r}; allowed: {', '.join(sorted(FINAL))}, cancelled")
        (row,) = self._runs([record.key])
        if row["state"] in KEPT:
            return False
        row |= {"state": record.state, "record": canonical_json(record), "environment": environment}
        self._put_run({**row, "tries": row["tries"] + (record.state == "lost")})
        if arrays is not None:
            self._put("weights", record.key, bytes(arrays))
        return True

    @understood("records")
    def records(self, superseded: bool = False) -> tuple[RunRecord, ...]:
        """The records of all finished runs, sealed, in the order these were added; superseded ones only where asked for."""
        states = FINAL | {"superseded"} if superseded else FINAL
        return tuple(_record(row).closed() for row in self._select("runs") if row["record"] and row["state"] in states)

    @understood("records")
    def opened(self, key: str) -> RunRecord:
        """The record of one finished run with what is sealed in it: for whoever scores the run that validation selected."""
        (row,) = self._runs([key])
        return _record(row)

    @understood("records")
    def results(self, keys: Collection[str]) -> tuple[Result, ...]:
        """What is stored of the runs with these keys, for another store to take; superseded or not, a key says what was run."""
        these = "key IN (SELECT value FROM json_each(?))"  # one question to the index, however many keys
        asked = canonical_json(sorted(keys))
        if not (rows := self._select("runs", f"WHERE record IS NOT NULL AND {these}", asked)):
            return ()
        environments = {row["id"]: parse(row["value"]) for row in self._select("environments")}
        arrays = {row["key"]: row["blob"] for row in self._select("weights", f"WHERE {these}", asked)}
        known = (row for row in rows if row["environment"] in environments)
        return tuple(Result(_record(row), environments[row["environment"]], arrays.get(row["key"])) for row in known)

    # -- arrays, scores, costs, environments

    def weights(self, key: str) -> bytes | None:
        """The arrays (safetensors) that a call left, or None."""
        rows = self._select("weights", "WHERE key=?", key)
        return rows[0]["blob"] if rows else None

    def _bases(self, where: str = "", *values: Any) -> dict[tuple[str, int], str]:
        """By arm and seed: the digest of the keys of all runs that count there, which its score was selected from."""
        keys: dict[tuple[str, int], list[str]] = {}
        for arm, seed, key in self._query(f"SELECT arm, seed, key FROM runs WHERE state!='superseded'{where}", *values):
            keys.setdefault((arm, seed), []).append(key)
        return {place: digest(sorted(found)) for place, found in keys.items()}

    def put_score(self, score: Score) -> None:
        """Stores a replicate's score. It counts while exactly the present runs of its arm and seed do."""
        place = (score.arm, int(score.seed))
        with self._transaction():
            basis = self._bases(" AND arm=? AND seed=?", *place).get(place, "")
            self._put("scores", *place, basis, canonical_json(score))

    @understood("scores")
    def scores(self) -> tuple[Score, ...]:
        """The scores that count, in the order they were first stored; none where a replicate's runs have changed."""
        bases = self._bases()
        rows = [row for row in self._select("scores") if row["basis"] == bases.get((row["arm"], row["seed"]), "")]
        return tuple(made(Score, parse(row["value"])) for row in rows)

    def put_cost(self, cost: Cost) -> None:
        """Stores what an arm costs in place of what was stored before."""
        with self._transaction():
            self._put("costs", cost.arm, canonical_json(cost))

    @understood("costs")
    def costs(self) -> tuple[Cost, ...]:
        """All costs, in the order they were first stored."""
        found = []
        for row in self._select("costs"):
            given = parse(row["value"])
            values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
            found.append(made(Cost, values))
        return tuple(found)

    def set_environment(self, environment: Mapping[str, Any]) -> None:
        """Says where the results that finish() stores from now on come from: torch version, processor, ..."""
        with self._transaction():
            self._environment = self._put_environment(environment)

    def _put_environment(self, environment: Mapping[str, Any]) -> str:
        name = digest(environment)[:16]
        self._put("environments", name, canonical_json(environment))
        return name

    @understood("environments")
    def environments(self) -> tuple[tuple[dict[str, Any], tuple[str, ...]], ...]:
        """Every environment that has results which count, with their keys. More than one: the study mixes them."""
        covered: dict[str, list[str]] = {}
        counting = "WHERE record IS NOT NULL AND state!='superseded' ORDER BY rowid"
        for name, key in self._query(f"SELECT environment, key FROM runs {counting}"):
            covered.setdefault(name, []).append(key)
        rows = [(parse(row["value"]), tuple(covered.get(row["id"], ()))) for row in self._select("environments")]
        if not fits([value for value, _ in rows], tuple[Mapping[str, Any], ...]):
            raise TypeError(f"{rows!r:.60}")
        return tuple(row for row in rows if row[1])


def _record(row: Mapping[str, Any]) -> RunRecord:
    """The record in a row of runs; TypeError or ValueError where it isn't one of that run."""
    record = run_record(parse(row["record"]))
    check(record)
    if record.key != row["key"]:
        raise ValueError(f"the record of {row['key']} is of {record.key}")
    return record


def _known(states: Iterable[str]) -> None:
    for state in states:
        if state not in STATES:
            raise BadInput(f"no state is called {state!r}; there are: {', '.join(STATES)}")


def _lose(run: Mapping[str, Any]) -> dict[str, Any]:
    """The run after one more loss; at the last one it gets a record, which drops its seed from the comparison."""
    tries = run["tries"] + 1
    record = None
    if tries >= LOSSES:
        text = f"its process was lost {tries} times"
        point = parse(run["point"])
        made = RunRecord(run["key"], run["arm"], run["seed"], run["trial"], point, "lost", error=text)
        record = canonical_json({**to_json(made), "stage": run["stage"]})
    return {**run, "state": "lost", "tries": tries, "record": record}
