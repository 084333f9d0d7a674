"""One process writes a study and any number read it, whoever is killed when."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from storing import child, filled, owned, record, run, said

from netwright.bench.store import database, lock, schema, store
from netwright.bench.store.database import examine
from netwright.bench.store.lock import Held
from netwright.bench.store.store import Store
from netwright.core.canonical import canonical_json
from netwright.core.errors import BadInput

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
        schema.put(db, "meta", schema.stamped("meta", "owner", canonical_json(other)))
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
        ("/tmp/x", ""),
        ("/home/me/study", "nfs4"),
        ("/home/local disk/study", ""),
        ("/mnt/far/x", "fuse.sshfs"),
        ("/mnt/win", "cifs"),
        ("/scratch/x", "lustre"),
        ("/scratchy", ""),
        ("/mnt/usb", ""),
        ("/box/x", ""),
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
    with closing(schema.connect(made.path, "ro")) as slow:
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
            time.sleep(0.01)
        print('seen', flush=True)
    """
    with owned(tmp_path):
        pass
    readers = [child(code, tmp_path) for _ in range(8)]
    assert [said(r) for r in readers] == ["up"] * 8
    for part in range(2):  # opening and closing switch the journal: readers must not notice that either
        with owned(tmp_path) as made:
            for i in range(part * 50, part * 50 + 50, 5):
                made.add_runs(run(j) for j in range(i, i + 5))
                made.finish([record(run(j)) for j in range(i, i + 5)])
    (tmp_path / "stop").touch()
    assert [(r.communicate()[0].strip(), r.returncode) for r in readers] == [("seen", 0)] * 8
    assert len(Store.read(tmp_path).records()) == 100


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
