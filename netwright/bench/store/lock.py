"""Who owns a study: a file lock, which dies with its process, and the owner's data, which a waiting person can read.

The lock decides. Only where locks can't be trusted, on a network file system, does the heartbeat decide instead.
"""

from __future__ import annotations

import os
import re
import socket
import sys
import time
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from netwright.core.errors import BadInput

#: A heartbeat older than this, in seconds, belongs to a dead owner where no lock can tell.
STALE = 120.0

_NETWORK = frozenset(
    "9p afs beegfs ceph cifs coda davfs gfs gfs2 glusterfs gpfs lustre ncpfs nfs nfs4 ocfs2 orangefs panfs pvfs2 "
    "smb smb2 smb3 smbfs".split()
)


@dataclass(frozen=True)
class Owner:
    """The process that writes a study; times are seconds since the epoch."""

    token: str
    pid: int
    host: str
    started: float
    heartbeat: float

    @staticmethod
    def me() -> Owner:
        now = time.time()
        return Owner(os.urandom(8).hex(), os.getpid(), socket.gethostname(), now, now)

    def seems_alive(self) -> bool:
        """What can be told without a lock: the process where it is on this machine, else its heartbeat."""
        if self.host == socket.gethostname() and os.name == "posix":
            try:
                os.kill(self.pid, 0)
            except ProcessLookupError:
                return False
            except OSError:
                pass
        return time.time() - self.heartbeat < STALE

    def __str__(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.started))
        return f"process {self.pid} on {self.host}, since {since} (last sign {time.time() - self.heartbeat:.0f} s ago)"


class Held(BadInput):
    """Another process is writing this study. `owner` is who, or None while it is only just starting."""

    def __init__(self, folder: Path, owner: Owner | None):
        self.owner = owner
        who = str(owner) if owner else "a process that is just starting"
        super().__init__(f"the study in {folder} is being run by {who}; wait for it, or stop it and run this again")


@final
class FileLock:
    """An advisory lock on one file, held until release() or the end of the process. The file itself stays."""

    def __init__(self, path: Path):
        self.path = path
        self._fd: int | None = None

    def acquire(self) -> bool | None:
        """True: it is ours. False: another holds it. None: this file system has no locks. Never waits."""
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        try:
            got = _lock(fd)
        except BaseException:
            os.close(fd)
            raise
        if got:
            self._fd = fd
            _held.add(self)
        else:
            os.close(fd)
        return got

    def release(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)  # which unlocks it


if sys.platform == "win32":
    import msvcrt

    def _lock(fd: int) -> bool | None:
        try:
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _lock(fd: int) -> bool | None:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # ENOLCK, ENOTSUP, ENOSYS: a mount without locks
            return None
        return True


_held: weakref.WeakSet[FileLock] = weakref.WeakSet()


def _let_go_in_child() -> None:
    # A forked child shares the lock; closing its copy lets the lock still die with the parent.
    for lock in list(_held):
        lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go_in_child)


def network(path: Path, mounts: str | None = None) -> str:
    """The type of the network file system that holds `path`, or "" where it is local or can't be told.

    mounts: the text of /proc/mounts, read where it is not given.
    """
    if str(path).startswith(("\\\\", "//")):
        return "unc"
    if mounts is None:
        try:
            mounts = Path("/proc/mounts").read_text(encoding="utf-8", errors="surrogateescape")
        except OSError:
            return ""
    found, depth = "", -1
    for line in mounts.splitlines():
        fields = line.split()
        if len(fields) < 3:
            continue
        point = Path(re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), fields[1]))
        if path.is_relative_to(point) and len(point.parts) >= depth:  # a later mount on the same point covers it
            found, depth = fields[2].lower(), len(point.parts)
    remote = found in _NETWORK or (found.startswith("fuse.") and found != "fuse.fuse-overlayfs")
    return found if remote else ""


def owner_from(row: Any) -> Owner | None:
    """The Owner in a parsed row, or None where it is not one."""
    try:
        times = float(row["started"]), float(row["heartbeat"])
        return Owner(str(row["token"]), int(row["pid"]), str(row["host"]), *times)
    except (TypeError, KeyError, ValueError):
        return None
