"""What the store can't do it says plainly, and nothing stored is lost: folders, releases, names, full disks."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from storing import child, filled, owned, run, said, until_full

from netwright.bench.store import database, schema, store
from netwright.bench.store.database import examine
from netwright.bench.store.store import Store, study_folder
from netwright.core.errors import BadInput

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
        schema.put(db, "meta", schema.stamped("meta", "schema", "2"))
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


def _check_full(folder: Path, stored: int) -> None:
    with owned(folder) as again:
        assert stored > 0 and again.salvaged is None and examine(folder) == []
        assert [r.key for r in again.records()] == [run(i).key for i in range(stored)]


def test_a_database_that_may_not_grow_keeps_what_it_has(tmp_path):
    with owned(tmp_path) as made:
        made._db.execute("PRAGMA max_page_count=60")
        stored = until_full(made)
    _check_full(tmp_path, stored)


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on file sizes")
def test_a_file_that_may_not_grow_keeps_what_it_has(tmp_path):
    code = """
        import resource
        made = owned(Path(args[0]))
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
        print(until_full(made), flush=True)
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
        stored = until_full(made)
        assert [r.key for r in Store.read(tmp_path / "s").records()] == [run(i).key for i in range(stored)]
        made._abandon()
        (tmp_path / "s").rename(tmp_path / "moved")
        subprocess.run(["mount", "-o", "remount,size=4m", str(tmp_path)], check=True)
        _check_full(tmp_path / "moved", stored)
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)
