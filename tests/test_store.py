"""The store: nothing that was stored is lost, nothing is stored twice, and whatever goes wrong is said plainly."""

from __future__ import annotations

import math
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from netwright.part import BadInput
from netwright.study import database, lock, records, salvage, store, tables
from netwright.study.canonical import canonical_json, digest, parse
from netwright.study.records import Cost, Run, RunRecord, Score
from netwright.study.store import Damaged, Held, Store, examine, study_folder

GOLDEN = Path(__file__).parent / "golden" / "store_v1.sqlite"
REPO = Path(__file__).parents[1]


def run(i: int, arm: str = "a", **changes) -> Run:
    return replace(Run(f"key-{arm}-{i}", arm, i // 3, i % 3, {"lr": 0.1 / (i + 1)}), **changes)


def record(of: Run, state: str = "done", **values) -> RunRecord:
    values = {"curve": ((1, 0.5, 0.25),), "best_step": 1, "best_val": 0.25, **values}
    return RunRecord(of.key, of.arm, of.seed, of.trial, of.point, state, **values)


def owned(folder: Path, **options) -> Store:
    return Store.create_or_open(folder, "study-1", '{"task":"toy"}', **options)


def filled(folder: Path, n: int = 30, **options) -> Store:
    """A store with n finished runs and one row or more in every table."""
    made = owned(folder, **options)
    runs = [run(i) for i in range(n)]
    made.set_environment({"torch": "2.0", "cpu": "one"})
    made.add_runs(runs)
    made.lease(r.key for r in runs)
    made.finish([record(r, error="x" * 300) for r in runs], {r.key: bytes([i]) * 9000 for i, r in enumerate(runs[:4])})
    for seed in range(n // 3):
        made.put_score(Score("a", seed, 0, 0.5 + seed))
    made.put_cost(Cost("a", params=7, step_quartiles=(0.1, 0.2), widths=(8, 8)))
    made.put_plan({"engine": "loop", "runs": n})
    made.add_look(range(n // 3))
    made.note("not tuned")
    return made


def child(code: str, *arguments: object, **options) -> subprocess.Popen:
    """A Python process that has this module's helpers; it prints a line when it is where the test wants it."""
    prelude = "import sys, time, os; sys.path[:0] = sys.argv[1:3]; from test_store import *; args = sys.argv[3:]\n"
    command = [sys.executable, "-c", prelude + textwrap.dedent(code), str(REPO), str(REPO / "tests")]
    command += map(str, arguments)
    return subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True, **options)


def said(process: subprocess.Popen) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def write_golden(path: Path) -> None:
    """How tests/golden/store_v1.sqlite was made, by the release that wrote schema 1. It is never made again:

    PYTHONPATH=.:tests python -c "import test_store as t; t.write_golden(t.GOLDEN)"
    """
    folder = path.parent / "golden-study"
    with filled(folder, 3) as made:
        made.drop_weights(["key-a-1", "key-a-2", "key-a-3"])
        made.add_runs([run(9)])
    shutil.move(folder / database.FILE, path)
    shutil.rmtree(folder)


# -- canonical JSON


def test_canonical_json_is_one_text_for_one_value_and_reads_back():
    value = {"b": [1, 2.5, None, True, "é\ud800"], "a": {"nan": math.nan, "x": -math.inf, "y": "nan"}, "c": 1e-300}
    text = canonical_json(value)
    assert text == canonical_json(dict(reversed(value.items()))) and text.isascii() and " " not in text
    assert text.startswith('{"a":{"nan":{"$float":"nan"},"x":{"$float":"-inf"},"y":"nan"}')
    back = parse(text)
    assert math.isnan(back["a"]["nan"]) and back["a"]["x"] == -math.inf and back["a"]["y"] == "nan"
    assert canonical_json(back) == text
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 1.0, "b": 2})
    assert digest((1, 2)) == digest([1, 2])


def test_canonical_json_takes_array_scalars_and_refuses_what_has_no_one_text():
    np = pytest.importorskip("numpy")
    assert canonical_json([np.float64(0.5), np.int64(3), np.float32("nan")]) == '[0.5,3,{"$float":"nan"}]'
    for wrong in ({1, 2}, b"x", object(), {1: "a", "1": "b"}, {"$float": "x"}):
        with pytest.raises(BadInput):
            canonical_json(wrong)


# -- round trips


def test_everything_stored_is_read_back_by_the_owner_by_a_reader_and_after_a_restart(tmp_path):
    made = filled(tmp_path)
    odd = record(run(30), curve=((1, math.nan, math.inf), (2, 0.5, -math.inf)), best_val=None, bad_step=2, error="nan")
    made.add_runs([run(30)])
    assert made.finish([odd]) == ("key-a-30",)

    def check(of: Store) -> None:
        found = {r.key: r for r in of.records()}
        assert len(found) == 31 and found["key-a-7"] == record(run(7), error="x" * 300)
        (s1, l1, v1), (s2, l2, v2) = found["key-a-30"].curve
        assert (s1, s2) == (1, 2) and math.isnan(l1) and v1 == math.inf and l2 == 0.5 and v2 == -math.inf
        assert found["key-a-30"].error == "nan" and found["key-a-30"].best_val is None
        assert of.weights("key-a-3") == b"\x03" * 9000 and of.weights("key-a-4") is None
        assert of.runs()[7] == run(7)
        assert [s.value for s in of.scores() if s.seed < 10] == [0.5 + seed for seed in range(10)]
        assert of.costs() == (Cost("a", params=7, step_quartiles=(0.1, 0.2), widths=(8, 8)),)
        assert of.plan() == {"engine": "loop", "runs": 30} and of.notes() == ("not tuned",)
        assert of.looks() == (tuple(range(10)),) and of.study == "study-1" and of.request == '{"task":"toy"}'
        ((environment, keys),) = of.environments()
        assert environment["cpu"] == "one" and len(keys) == 31

    check(made)
    reader = Store.read(tmp_path)
    check(reader)
    owner = reader.owner()
    assert owner is not None and owner.pid == os.getpid()
    made.close()
    check(Store.read(tmp_path))
    assert Store.read(tmp_path).owner() is None
    with owned(tmp_path) as again:
        check(again)


def test_a_clean_close_leaves_one_file_that_can_be_copied(tmp_path):
    filled(tmp_path / "s").close()
    assert sorted(p.name for p in (tmp_path / "s").iterdir()) == [database.LOCK, database.FILE]
    (tmp_path / "copy").mkdir()
    shutil.copy(tmp_path / "s" / database.FILE, tmp_path / "copy")
    assert len(Store.read(tmp_path / "copy").records()) == 30


def test_export_copies_a_running_study_and_overwrites_nothing(tmp_path):
    with filled(tmp_path / "s") as made:
        (tmp_path / "out").mkdir()
        made.export(tmp_path / "out" / database.FILE)
        assert [p.name for p in (tmp_path / "out").iterdir()] == [database.FILE]
        assert Store.read(tmp_path / "out").records() == made.records() and examine(tmp_path / "out") == []
        with pytest.raises(BadInput, match="exists"):
            made.export(tmp_path / "out" / database.FILE)


def test_looks_count_new_sets_of_seeds_only(tmp_path):
    with owned(tmp_path) as made:
        assert [made.add_look(s) for s in ((1, 2), (2, 1), (1, 2, 3), (1, 2), (1, 2, 3))] == [1, 1, 2, 1, 2]
    with owned(tmp_path) as made:
        assert made.add_look((3, 2, 1)) == 2 and made.add_look((1,)) == 3


def test_mixed_environments_show(tmp_path):
    with filled(tmp_path, 3) as made:
        made.set_environment({"torch": "2.1", "cpu": "one"})
        made.add_runs([run(3), run(4)])
        made.finish([record(run(3))])
        assert [len(keys) for _, keys in made.environments()] == [3, 1]


# -- states


def test_what_each_state_becomes_on_the_next_call(tmp_path):
    made = owned(tmp_path)
    runs = {state: run(i) for i, state in enumerate(records.STATES)}
    made.add_runs(runs.values())
    made.lease(runs[s].key for s in ("leased", "running"))
    made.start([runs["running"].key])
    made.cancel([runs["cancelled"].key])
    made.finish([record(runs[s], s) for s in ("done", "diverged", "oom", "timeout", "failed", "lost")])
    made.supersede([r.key for s, r in runs.items() if s != "superseded"])
    assert made.states() == {r.key: s for s, r in runs.items()}
    made.close()
    with owned(tmp_path) as again:
        kept = {"done", "diverged", "timeout", "failed", "superseded"}
        assert again.states() == {r.key: s if s in kept else "queued" for s, r in runs.items()}
        assert {r.state for r in again.records()} == kept - {"superseded"}


def test_a_run_that_was_lost_three_times_stays_lost_with_a_record_until_redone(tmp_path):
    with owned(tmp_path) as made:
        made.add_runs([run(0)])
        key = run(0).key
        for n in range(1, 4):
            assert made.lease([key]) == (key,)
            assert made.requeue([key], lost=True) == ((key,) if n < 3 else ())
        assert made.states() == {key: "lost"}
        assert [(r.key, r.state) for r in made.records()] == [(key, "lost")] and "3 times" in made.records()[0].error
    with owned(tmp_path) as again:
        assert again.states() == {key: "lost"}
        assert again.requeue([key], redo=True) == (key,) and again.records() == ()


def test_a_key_has_exactly_one_result(tmp_path):
    with owned(tmp_path) as made:
        made.add_runs([run(0), run(1)])
        key = run(0).key
        made.lease([key])
        made.requeue([key], lost=True)
        assert made.lease([key, key, run(1).key]) == (key, run(1).key) and made.lease([key]) == ()
        assert made.finish([record(run(0), best_val=1.0)]) == (key,)
        assert made.finish([record(run(0), best_val=2.0), record(run(1))], {key: b"late"}) == (run(1).key,)
        assert made.finish([record(run(0), "oom")]) == () and made.requeue([key], lost=True) == ()
        assert made.records()[0].best_val == 1.0 and made.weights(key) is None and made.cancel([key]) == ()


def test_a_crash_of_the_machinery_gives_way_to_a_result(tmp_path):
    with owned(tmp_path) as made:
        made.add_runs([run(0)])
        made.finish([record(run(0), "oom")])
        assert made.finish([record(run(0), "diverged")]) and made.records()[0].state == "diverged"


def test_a_stack_is_stored_whole_or_not_at_all(tmp_path):
    with owned(tmp_path) as made:
        made.add_runs([run(0), run(1)])
        with pytest.raises(BadInput, match="no run with the key"):
            made.finish([record(run(0)), record(run(5))], {run(0).key: b"w"})
        assert set(made.states().values()) == {"queued"} and made.weights(run(0).key) is None
        with pytest.raises(BadInput, match="can't end 'running'"):
            made.finish([record(run(0)), record(run(1), "running")])
        assert made.records() == ()


def test_superseded_records_never_mix_and_come_back_when_their_key_does(tmp_path):
    old, new = [run(0), run(1), run(2)], [run(i, key=f"new-{i}") for i in range(3)]
    with owned(tmp_path) as made:
        made.add_runs(old)
        made.finish([record(r) for r in old])
        made.put_score(Score("a", 0, 1, 0.5))
        made.put_cost(Cost("a"))
        assert made.add_runs(new) == tuple(r.key for r in new)
        assert set(made.supersede({r.key for r in new})) == {r.key for r in old}
        assert made.records() == () and made.scores() == () and made.costs() == ()
        assert len(made.records(superseded=True)) == 3 and made.finish([record(old[0])]) == ()
        assert made.add_runs(old) == ()
        made.supersede({r.key for r in old})
        assert made.records() == tuple(record(r) for r in old) and made.scores() == (Score("a", 0, 1, 0.5),)


def test_adding_runs_again_changes_nothing_and_a_key_means_one_run(tmp_path):
    with filled(tmp_path) as made:
        before = made.records()
        assert made.add_runs([run(i) for i in range(33)]) == tuple(run(i).key for i in range(30, 33))
        assert made.records() == before
        with pytest.raises(BadInput, match="names two runs"):
            made.add_runs([run(0, key="key-a-1")])


def test_wrong_arguments_are_named(tmp_path):
    with owned(tmp_path) as made:
        with pytest.raises(BadInput, match="no state is called 'finished'"):
            made.runs("finished")
        with pytest.raises(BadInput, match="can't be stored"):
            made.add_runs([run(0, seed=2**70)])
        with pytest.raises(BadInput, match="can't be stored"):
            made.note("half a character \ud800")
        assert made.runs() == ()


# -- owners


def test_a_second_process_sees_the_owner_and_waits(tmp_path):
    code = "made = filled(Path(args[0])); print('held', flush=True); sys.stdin.readline(); made.close()"
    holder = child(code, tmp_path)
    assert said(holder) == "held"
    with pytest.raises(Held, match=f"process {holder.pid} on") as caught:
        owned(tmp_path)
    assert caught.value.owner is not None and caught.value.owner.pid == holder.pid
    assert isinstance(caught.value, BadInput)
    with pytest.raises(BadInput, match="belongs to the study study-1"):
        Store.create_or_open(tmp_path, "study-2", "{}", wait=60)
    with pytest.raises(Held):
        store.salvage(tmp_path)
    seen = []

    def ask(owner):
        seen.append(owner.pid)
        holder.communicate("stop\n")
        return True

    with owned(tmp_path, wait=ask) as mine:
        assert seen == [holder.pid] and len(mine.records()) == 30
        assert mine.owner().pid == os.getpid()


def test_one_process_is_no_exception_and_a_wait_in_seconds_ends(tmp_path):
    with owned(tmp_path):
        with pytest.raises(Held):
            owned(tmp_path, wait=0.05)
    owned(tmp_path).close()


def test_a_killed_owner_is_taken_over_at_any_moment(tmp_path):
    """Killed while it writes, again and again: every result that was reported stored is there, whole."""
    code = """
        made = owned(Path(args[0]), wait=20)
        print('open', flush=True)
        for i in range(10000):
            made.add_runs([run(i)]); made.lease([run(i).key]); made.start([run(i).key])
            if made.finish([record(run(i), error='x' * 2000)]): print(i, flush=True)
    """
    stored: set[int] = set()
    for delay in (0.0, 0.03, 0.11, 0.2):
        worker = child(code, tmp_path)
        assert said(worker) == "open"
        time.sleep(delay)
        worker.send_signal(signal.SIGKILL)
        out, _ = worker.communicate()
        stored |= {int(line) for line in out.splitlines() if line.isdigit()}
        assert set(Store.read(tmp_path).states().values()) <= {"done", "queued", "leased", "running"}
        with owned(tmp_path) as mine:
            assert mine.salvaged is None and examine(tmp_path) == []
            done = {r.key for r in mine.records() if r.state == "done"}
            assert done >= {run(i).key for i in stored}
            assert not {"leased", "running"} & set(mine.states().values())
    assert stored


def test_runs_of_a_killed_owner_are_queued_until_they_were_lost_three_times(tmp_path):
    key = run(0).key
    for n in range(1, 4):
        code = "made = owned(Path(args[0])); made.add_runs([run(0)]); print(made.lease([run(0).key]), flush=True)"
        worker = child(code + "; time.sleep(60)", tmp_path)
        assert said(worker) == str((key,))
        worker.kill()
        worker.communicate()
        with owned(tmp_path) as mine:
            assert mine.states() == {key: "queued" if n < 3 else "lost"}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_neither_writes_nor_keeps_the_lock(tmp_path):
    code = """
        made = owned(Path(args[0]))
        if os.fork() == 0:
            try: made.note('x')
            except BadInput as error: print('forked' in str(error), flush=True)
            time.sleep(60); os._exit(0)
        time.sleep(60)
    """
    parent = child(code, tmp_path, start_new_session=True)
    try:
        assert said(parent) == "True"
        with pytest.raises(Held):
            owned(tmp_path)
        parent.kill()
        owned(tmp_path, wait=20).close()  # though the child lives
    finally:
        os.killpg(parent.pid, signal.SIGKILL)
        parent.communicate()


def test_an_owner_that_was_taken_over_can_not_write(tmp_path):
    made = filled(tmp_path, 3)
    with closing(sqlite3.connect(tmp_path / database.FILE)) as db:
        other = {"token": "other", "pid": 1, "host": "elsewhere", "started": 0.0, "heartbeat": 0.0}
        tables.put(db, "meta", tables.stamped("meta", "owner", canonical_json(other)))
        db.commit()
    with pytest.raises(BadInput, match="taken over by process 1 on elsewhere"):
        made.note("late")
    with pytest.raises(BadInput, match="taken over"):
        made.close()
    assert Store.read(tmp_path).notes() == ("not tuned",)


def test_heartbeats_are_written_seldom(tmp_path, monkeypatch):
    with owned(tmp_path) as made:
        first = made.owner().heartbeat
        made.heartbeat()
        assert made.owner().heartbeat == first
        monkeypatch.setattr(database, "BEAT", 0.0)
        made.heartbeat()
        assert made.owner().heartbeat > first and made.owner().started <= first


MOUNTS = """\
/dev/sda1 / ext4 rw 0 0
server:/home /home nfs4 rw 0 0
/dev/sdb1 /home/local\\040disk ext4 rw 0 0
user@host: /mnt/far fuse.sshfs rw 0 0
//server/share /mnt/win cifs rw 0 0
10.0.0.1@tcp:/scratch /scratch lustre rw 0 0
/dev/sdc1 /mnt/usb fuseblk rw 0 0
overlay /box fuse.fuse-overlayfs rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/tmp/x", ""), ("/home/me/study", "nfs4"), ("/home/local disk/study", ""), ("/mnt/far/x", "fuse.sshfs"),
        ("/mnt/win", "cifs"), ("/scratch/x", "lustre"), ("/scratchy", ""), ("/mnt/usb", ""), ("/box/x", ""),
        ("\\\\server\\share\\x", "unc"),
    ],
)
def test_network_file_systems_are_told_from_the_mounts(path, found):
    assert lock.network(Path(path), MOUNTS) == found


def test_on_a_network_file_system_there_is_no_log_and_the_heartbeat_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(database, "network", lambda path: "nfs4")
    made = filled(tmp_path)
    assert not (tmp_path / (database.FILE + "-wal")).exists() and "network file system (nfs4)" in made.notes()[0]
    elsewhere = replace(made.owner(), host="elsewhere", token="other")
    with made._transaction():
        made._put("meta", "owner", canonical_json(elsewhere))
    made._abandon()
    with pytest.raises(Held, match="on elsewhere"):  # its lock can't be seen from here, but it lives
        owned(tmp_path)
    monkeypatch.setattr(lock, "STALE", -1.0)
    with owned(tmp_path) as mine:
        assert len(mine.records()) == 30
    monkeypatch.setattr(lock, "_lock", lambda fd: None)  # a mount without locks
    with owned(tmp_path):
        with pytest.raises(Held):
            monkeypatch.setattr(lock, "STALE", 60.0)
            owned(tmp_path)


# -- readers


def test_readers_neither_block_the_owner_nor_change_the_file(tmp_path):
    made = filled(tmp_path)
    with closing(tables.connect(made.path, "ro")) as slow:
        slow.execute("BEGIN")
        assert slow.execute("SELECT count(*) FROM runs").fetchone() == (30,)
        made.add_runs([run(40)])  # while the reader is in the middle of its transaction
        assert slow.execute("SELECT count(*) FROM runs").fetchone() == (30,)
        assert len(Store.read(tmp_path).runs()) == 31
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            slow.execute("DELETE FROM runs")
        made.close()  # not folded into one file now, but nothing lost
    reader = Store.read(tmp_path)
    assert len(reader.runs()) == 31
    for write in (lambda: reader.note("x"), reader.heartbeat, lambda: reader.add_runs([run(41)])):
        with pytest.raises(BadInput, match="opened to be read"):
            write()
    owned(tmp_path).close()
    assert len(list(tmp_path.iterdir())) == 2


def test_a_storm_of_readers_sees_only_whole_stacks(tmp_path):
    code = """
        print('up', flush=True)
        seen = 0
        while not Path(args[0], 'stop').exists():
            try: n = len(Store.read(args[0]).records())
            except BadInput as error: print('error', error, flush=True); break
            assert n % 5 == 0 and n >= seen, (n, seen)
            seen = n
            time.sleep(0.002)
        print('seen', flush=True)
    """
    with owned(tmp_path):
        pass
    readers = [child(code, tmp_path) for _ in range(8)]
    assert [said(r) for r in readers] == ["up"] * 8
    for part in range(3):  # opening and closing switch the journal: readers must not notice that either
        with owned(tmp_path) as made:
            for i in range(part * 50, part * 50 + 50, 5):
                made.add_runs(run(j) for j in range(i, i + 5))
                made.finish([record(run(j)) for j in range(i, i + 5)])
    (tmp_path / "stop").touch()
    assert [(r.communicate()[0].strip(), r.returncode) for r in readers] == [("seen", 0)] * 8
    assert len(Store.read(tmp_path).records()) == 150


def test_threads_of_the_owner_take_turns(tmp_path):
    with owned(tmp_path) as made:
        def work(n):
            for i in range(n * 20, n * 20 + 20):
                made.add_runs([run(i)])
                made.finish([record(run(i))])

        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(made.records()) == 80


# -- refusals


def test_another_study_s_folder_is_refused(tmp_path):
    filled(tmp_path).close()
    before = (tmp_path / database.FILE).read_bytes()
    with pytest.raises(BadInput, match=r"belongs to the study study-1, this is study-2; choose another folder"):
        Store.create_or_open(tmp_path, "study-2", "{}")
    assert (tmp_path / database.FILE).read_bytes() == before


def test_a_newer_schema_is_refused_everywhere_and_left_alone(tmp_path):
    filled(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / database.FILE)) as db:
        tables.put(db, "meta", tables.stamped("meta", "schema", "2"))
        db.execute("PRAGMA user_version=2")
        db.commit()
    before = (tmp_path / database.FILE).read_bytes()
    for attempt in (owned, Store.read, store.salvage, examine):
        with pytest.raises(BadInput, match="written by a newer netwright"):
            attempt(tmp_path)
    assert (tmp_path / database.FILE).read_bytes() == before


def test_no_study_is_said(tmp_path):
    with pytest.raises(BadInput, match="there is no study"):
        Store.read(tmp_path)
    with pytest.raises(BadInput, match="no folder"):
        store.salvage(tmp_path / "none")
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="folder is writable"):
        owned(tmp_path / "file" / "s")


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_folder_that_can_t_be_written_is_said_and_can_be_read(tmp_path):
    filled(tmp_path / "s").close()
    code = """
        if os.getuid() == 0: os.setuid(65534)
        try: owned(Path(args[0]))
        except BadInput as error: print(error)
        print(len(Store.read(args[0]).records()))
    """
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.getuid() and not folder.stat().st_mode & 1:
            folder.chmod(folder.stat().st_mode | 0o055)
    (tmp_path / "s").chmod(0o555)
    for file in (tmp_path / "s").iterdir():
        file.chmod(0o444)
    out, _ = child(code, tmp_path / "s").communicate()
    assert "writable" in out and out.endswith("30\n")


@pytest.mark.parametrize(
    "name",
    ["../../etc", "..", ".", "", "/abs", "a/b\\c", "%2e%2e", "a#b?c", "x\0y", "CON", "nul", "é" * 300, "~", "\u202e"],
)
def test_a_name_never_leads_out_of_its_root(tmp_path, name):
    folder = study_folder(tmp_path, name)
    assert folder.parent == tmp_path.resolve() and len(folder.name) < 100
    assert folder.name not in ("con", "nul", "..", ".", "")
    with Store.create_or_open(folder, name, "{}"):  # nor does an id
        assert folder.is_dir()
    assert [p.name for p in tmp_path.iterdir()] == [folder.name]


def test_links_that_lead_elsewhere_are_refused(tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "inside").symlink_to(tmp_path)
    with pytest.raises(BadInput, match="is a link"):
        study_folder(tmp_path / "root", "inside")
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / database.FILE).symlink_to(tmp_path / "other.sqlite")
    with pytest.raises(BadInput, match="is a link"):
        owned(tmp_path / "s")
    assert not (tmp_path / "other.sqlite").exists()


# -- full disks


def _until_full(made: Store) -> int:
    """Stores results until there is no room; the number stored."""
    for i in range(10_000):
        try:
            made.add_runs([run(i)])
            made.finish([record(run(i), error="x" * 3000)])
        except BadInput as error:
            assert "full or failing; what was stored before is kept" in str(error)
            return i
    raise AssertionError("it never was full")


def _check_full(folder: Path, stored: int) -> None:
    with owned(folder) as again:
        assert stored > 0 and again.salvaged is None and examine(folder) == []
        assert [r.key for r in again.records()] == [run(i).key for i in range(stored)]


def test_a_database_that_may_not_grow_keeps_what_it_has(tmp_path):
    with owned(tmp_path) as made:
        made._db.execute("PRAGMA max_page_count=60")
        stored = _until_full(made)
    _check_full(tmp_path, stored)


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on file sizes")
def test_a_file_that_may_not_grow_keeps_what_it_has(tmp_path):
    code = """
        import resource, test_store
        made = owned(Path(args[0]))
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
        print(test_store._until_full(made), flush=True)
        made.close()
    """
    worker = child(code, tmp_path)
    stored = int(said(worker))
    worker.communicate()
    _check_full(tmp_path, stored)


@pytest.mark.skipif(sys.platform != "linux" or os.getuid() != 0, reason="needs to mount a tmpfs")
def test_a_full_disk_keeps_what_it_has(tmp_path, monkeypatch):
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(tmp_path)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting is not permitted here")
    try:
        with pytest.raises(BadInput, match="MiB are free"):
            owned(tmp_path / "s")
        monkeypatch.setattr(database, "FREE", 0)
        made = owned(tmp_path / "s")
        stored = _until_full(made)
        assert [r.key for r in Store.read(tmp_path / "s").records()] == [run(i).key for i in range(stored)]
        made._abandon()
        (tmp_path / "s").rename(tmp_path / "moved")
        subprocess.run(["mount", "-o", "remount,size=4m", str(tmp_path)], check=True)
        _check_full(tmp_path / "moved", stored)
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


# -- damage


@pytest.fixture(scope="module")
def whole_file(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    filled(folder).close()
    return folder / database.FILE


def _rows(path: Path) -> dict[str, dict]:
    """Every row by table and name, without what an opening changes."""
    with closing(tables.connect(path, "ro")) as db:
        return {
            t: {row[: tables.identity(t)]: row[:-2] for row in db.execute(f"SELECT * FROM {t}")}
            for t in tables.TABLES
            if t != "meta"
        }


def _opened_after(damage: bytes, whole_file: Path, folder: Path) -> Store:
    """Opens the damaged file and checks what holds whatever was damaged."""
    before = _rows(whole_file)
    (folder / database.FILE).write_bytes(damage)
    with owned(folder) as made:
        made.runs(), made.records(), made.scores(), made.costs(), made.environments(), made.looks(), made.plan()
        assert examine(folder) == [] and made.study == "study-1"
    after = _rows(folder / database.FILE)
    lost = {t: len(before[t]) - sum(after[t].get(name) == row for name, row in before[t].items()) for t in before}
    lost = {t: n for t, n in lost.items() if n}
    if made.salvaged is None:
        assert not lost
    else:
        told = {t: n for t, n in made.salvaged.lost.items() if t != "meta"}
        assert told.keys() >= lost.keys() and all(n in (lost.get(t), None) for t, n in told.items())
        assert made.salvaged.broken.read_bytes() == damage
        assert any(str(made.salvaged) == note for note in made.notes())
        for t, rows in after.items():  # nothing was made up
            assert all(before[t].get(name) == row or row[1] == str(made.salvaged) for name, row in rows.items())
    assert not [p for p in folder.iterdir() if p.name.startswith((".salvage", database.FILE + ".fresh"))]
    return made


def made_records(folder: Path) -> tuple[RunRecord, ...]:
    return Store.read(folder).records()


#: Every class of place: header fields, the schema, pages of each table and their middle and end.
OFFSETS = [0, 16, 18, 20, 24, 28, 36, 47, 56, 60, 68, 92, 100, 103, 105, 107, 108, 900, 3900]


@pytest.mark.parametrize("offset", OFFSETS)
def test_a_flipped_bit_in_page_one_loses_nothing(offset, whole_file, tmp_path):
    data = bytearray(whole_file.read_bytes())
    data[offset] ^= 1 << (offset % 8)
    made = _opened_after(bytes(data), whole_file, tmp_path)
    assert len(made_records(tmp_path)) == 30 and (made.salvaged is None or not made.salvaged.lost)


@pytest.mark.parametrize("part", range(25))
def test_flipped_bits_lose_only_the_rows_they_hit(part, whole_file, tmp_path):
    data = bytearray(whole_file.read_bytes())
    pages = len(data) // tables.PAGE
    page = 1 + part * (pages - 2) // 24
    offset = page * tables.PAGE + (0, 3, 5, 8, 9, 2000, 4000)[part % 7]
    data[offset] ^= 1 << (part % 8)
    _opened_after(bytes(data), whole_file, tmp_path)
    assert len(made_records(tmp_path)) >= 30 - 12  # the rows of one page at most


@pytest.mark.parametrize("page", [2, 5, 9, 17, 21, 30])
def test_a_lost_page_loses_only_its_rows(page, whole_file, tmp_path):
    data = bytearray(whole_file.read_bytes())
    data[page * tables.PAGE : (page + 1) * tables.PAGE] = bytes(tables.PAGE)
    _opened_after(bytes(data), whole_file, tmp_path)
    assert len(made_records(tmp_path)) >= 30 - 12


@pytest.mark.parametrize("share", [0.0, 0.0005, 0.02, 0.1, 0.3, 0.5, 0.55, 0.7, 0.8, 0.9, 0.97, 0.999])
def test_a_truncated_file_keeps_what_is_before_the_cut(share, whole_file, tmp_path):
    data = whole_file.read_bytes()
    made = _opened_after(data[: int(len(data) * share)], whole_file, tmp_path)
    assert made.salvaged is not None
    if share >= 0.7:
        assert len(made_records(tmp_path)) > 0


@pytest.mark.parametrize("junk", [b"", b"not a database", b"SQLite format 3\0" + bytes(84), os.urandom(9000)])
def test_a_file_of_junk_is_moved_aside(junk, whole_file, tmp_path):
    made = _opened_after(junk, whole_file, tmp_path)
    assert made.salvaged is not None and sum(made.salvaged.kept.values()) <= 2


def test_lost_runs_are_named_and_run_again(whole_file, tmp_path):
    data = bytearray(whole_file.read_bytes())
    at = data.index(canonical_json(run(17).point).encode()) - 3
    data[at] ^= 4
    made = _opened_after(bytes(data), whole_file, tmp_path)
    assert made.salvaged.lost == {"runs": 1} and made.salvaged.names == {"runs": ("key-a-17",)}
    assert "lost: 1 of runs; runs: key-a-17" in str(made.salvaged)
    with owned(tmp_path) as again:
        assert again.salvaged is None and again.add_runs([run(i) for i in range(30)]) == ("key-a-17",)


def test_a_killed_study_is_salvaged_with_its_log(whole_file, tmp_path):
    shutil.copy(whole_file, tmp_path)
    code = """
        made = owned(Path(args[0])); made.add_runs(run(i) for i in range(30, 40))
        made.finish([record(run(i)) for i in range(30, 40)]); print('up', flush=True); time.sleep(60)
    """
    worker = child(code, tmp_path)
    assert said(worker) == "up"
    worker.kill()
    worker.communicate()
    assert (tmp_path / (database.FILE + "-wal")).stat().st_size > 10_000
    data = bytearray((tmp_path / database.FILE).read_bytes())
    data[:100] = bytes(100)  # the log holds this page, whole
    data[data.index(b"\x02" * 1000) + 500] ^= 1  # and does not hold this one
    (tmp_path / database.FILE).write_bytes(data)
    with owned(tmp_path) as made:
        assert made.salvaged is not None and made.salvaged.lost == {"weights": 1}
        assert len(made.records()) == 40 and made.weights("key-a-2") is None and made.weights("key-a-3")


def test_a_salvage_that_is_interrupted_is_finished_by_the_next_call(whole_file, tmp_path, monkeypatch):
    data = bytearray(whole_file.read_bytes())
    data[:16] = bytes(16)
    (tmp_path / database.FILE).write_bytes(data)
    real = os.replace

    def dies(source, target):
        if str(source).endswith(".fresh"):
            raise OSError("killed here")
        real(source, target)

    monkeypatch.setattr(salvage.os, "replace", dies)
    with pytest.raises(BadInput):
        owned(tmp_path)
    assert not (tmp_path / database.FILE).exists()
    monkeypatch.undo()
    with owned(tmp_path) as made:
        assert made.salvaged is None and len(made.records()) == 30 and "was damaged" in made.notes()[-1]


def test_salvage_by_itself_says_nothing_of_a_whole_file(whole_file, tmp_path):
    shutil.copy(whole_file, tmp_path)
    assert store.salvage(tmp_path) is None
    with open(tmp_path / database.FILE, "r+b") as file:
        file.truncate(60_000)
    assert examine(tmp_path)
    report = store.salvage(tmp_path)
    assert report is not None and report.lost and report.broken.name == f"{database.FILE}.broken-1"
    assert examine(tmp_path) == []


def test_a_reader_of_a_damaged_file_is_told_what_to_do(whole_file, tmp_path):
    data = bytearray(whole_file.read_bytes())
    data[data.index(canonical_json(run(3).point).encode()) - 3] ^= 4
    (tmp_path / database.FILE).write_bytes(data)
    with pytest.raises(Damaged, match="Run the same command again"):
        Store.read(tmp_path).records()
    (tmp_path / database.FILE).write_bytes(b"junk" * 100)
    with pytest.raises(Damaged, match="Run"):
        Store.read(tmp_path)


def test_a_row_changed_by_hand_is_seen(whole_file, tmp_path):
    shutil.copy(whole_file, tmp_path)
    with closing(sqlite3.connect(tmp_path / database.FILE)) as db:
        db.execute("UPDATE scores SET value=replace(value, '0.5', '0.9') WHERE seed=0")
        db.commit()
    assert examine(tmp_path) == ["1 row(s) of scores have a wrong checksum"]
    with owned(tmp_path) as made:
        assert made.salvaged.lost == {"scores": 1} and len(made.scores()) == 9


# -- files of earlier releases


def test_files_of_schema_1_open_in_this_release(tmp_path):
    shutil.copy(GOLDEN, tmp_path / database.FILE)
    assert examine(tmp_path) == []
    for opened in (Store.read(tmp_path), owned(tmp_path)):
        assert [r.key for r in opened.records()] == ["key-a-0", "key-a-1", "key-a-2"]
        assert opened.records()[1] == record(run(1), error="x" * 300)
        assert opened.states()["key-a-9"] == "queued" and opened.runs()[3] == run(9)
        assert opened.weights("key-a-0") == b"\0" * 9000 and opened.scores() == (Score("a", 0, 0, 0.5),)
        assert opened.costs() == (Cost("a", params=7, step_quartiles=(0.1, 0.2), widths=(8, 8)),)
        assert opened.plan() == {"engine": "loop", "runs": 3} and opened.looks() == ((0,),)
        assert opened.notes() == ("not tuned",) and opened.study == "study-1"
    opened.close()
