"""The lock on a run's folder: one training at a time writes into it.

A file names who holds it, and its time of change is a sign of life. It appears by one link, so that of two processes,
on whatever hosts that share the folder, one gets it. A holder that died leaves it: on this host that is seen from its
process, from elsewhere once there has been no sign of life for a while. A job that was restarted takes over its own.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import socket
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from sciml.core.errors import ConfigError, DataError
from sciml.core.files import disk_errors, read_json, write_json
from sciml.core.lock import exclusive
from sciml.distributed.launcher import job_name

NAME = ".lock"
HEARTBEAT_S = 10.0
SILENT_S = 60.0
"""How long a holder on another host may give no sign of life; several heartbeats, since a file system may be slow."""


@dataclass(frozen=True)
class Holder:
    """Names a process that may hold a lock.

    Attributes:
        host: name of its machine.
        processes: within which numbers of processes are its own; containers of one machine differ in it.
        pid: number of the process.
        started: when it started, in seconds; numbers are used again.
        job: of its launcher, which is the same after a restart; None without one.
    """

    host: str
    processes: str
    pid: int
    started: float
    job: str | None

    @classmethod
    def here(cls) -> Holder:
        """Returns this process."""
        return cls(socket.gethostname(), _processes(), os.getpid(), psutil.Process().create_time(), job_name())

    @property
    def is_near(self) -> bool:
        """Says whether this process can see whether that one lives."""
        return (self.host, self.processes) == (socket.gethostname(), _processes())

    @property
    def lives(self) -> bool:
        """Says whether a process of this host still lives."""
        try:
            return abs(psutil.Process(self.pid).create_time() - self.started) < 1
        except psutil.Error:
            return False

    @property
    def text(self) -> str:
        return f"process {self.pid} on {self.host}" + (f" (job {self.job})" if self.job else "")


def _processes() -> str:
    with contextlib.suppress(OSError):
        return os.readlink("/proc/self/ns/pid")
    return ""


class RunLock:
    """Holds the lock of a run's folder until it is released, with a thread that gives signs of life.

    Args:
        folder: of the run; it exists.

    Raises:
        ConfigError: where another process holds it; it is named.
        UnwritableError: where the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / NAME
        self.holder = Holder.here()
        self._ended = threading.Event()
        with disk_errors(folder):
            self._acquire()
        atexit.register(self.release)
        threading.Thread(target=self._give_signs, name="run-lock", daemon=True).start()

    def release(self) -> None:
        """Gives the lock back; does nothing the second time, or where another process has taken it over."""
        atexit.unregister(self.release)
        if not self._ended.is_set():
            self._ended.set()
            if os.getpid() == self.holder.pid and self._read() == self.holder:
                self.file.unlink(missing_ok=True)

    def _acquire(self) -> None:
        while not self._appeared():
            other = self._read()
            if other is None:  # it is gone again, or half of a file that never can be one
                if self.file.exists() and self._silent_s() > SILENT_S:
                    self._displace(None)
                time.sleep(0.05)
                continue
            if other == self.holder:
                return
            self._refuse_living(other)
            self._displace(other)

    def _appeared(self) -> bool:
        """Says whether the file was not there, and now is this process's."""
        temporary = self.file.with_name(f"{NAME}-{self.holder.host}-{self.holder.pid}")
        write_json(temporary, asdict(self.holder))
        try:
            _put(temporary, self.file)
        except FileExistsError:
            return False
        finally:
            temporary.unlink(missing_ok=True)
        return True

    def _refuse_living(self, other: Holder) -> None:
        """Refuses a folder whose holder lives; of this job, restarted elsewhere, it is given time to fall silent."""
        if other.is_near and not other.lives:
            return
        patience = SILENT_S + HEARTBEAT_S if self.holder.job is not None and other.job == self.holder.job else 0.0
        deadline = time.monotonic() + patience
        while other.is_near or (silent := self._silent_s()) < SILENT_S:
            if other.is_near or time.monotonic() >= deadline:
                last = "" if other.is_near else f", last sign of life {silent:.0f} s ago"
                when = "" if other.is_near else f", or {SILENT_S - silent:.0f} s if it has died"
                raise ConfigError(
                    f"{self.file.parent} is being trained by {other.text}{last}",
                    key="resume",
                    hint=f"wait until it has ended{when}",
                )
            time.sleep(1)

    def _displace(self, other: Holder | None) -> None:
        """Takes a dead holder's file away; one process at a time, lest it be another's by then."""
        with exclusive(self.file):
            if self._read() == other:
                self.file.unlink(missing_ok=True)

    def _read(self) -> Holder | None:
        return _holder_in(self.file)

    def _silent_s(self) -> float:
        """Returns the seconds since the last sign of life, by the clock of the file system."""
        with tempfile.NamedTemporaryFile(dir=self.file.parent, prefix=f"{NAME}-") as now:
            try:
                return os.fstat(now.fileno()).st_mtime - self.file.stat().st_mtime
            except FileNotFoundError:
                return 0.0

    def _give_signs(self) -> None:
        while not self._ended.wait(HEARTBEAT_S):
            with contextlib.suppress(OSError):  # one that comes late harms less than a training that ends
                if self._read() == self.holder:
                    os.utime(self.file)


def _put(source: Path, target: Path) -> None:
    """Gives a file a second name, at once and whole.

    Raises:
        FileExistsError: where the name is taken.
    """
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        with target.open("x") as file:
            file.write(source.read_text())


def _holder_in(file: Path) -> Holder | None:
    try:
        holder: Holder = read_json(file, Holder)
    except DataError:
        return None
    return holder


def living_holder(folder: Path) -> Holder | None:
    """Returns the process that trains a run now; None where there is none, as far as can be seen from here."""
    file = folder / NAME
    holder = _holder_in(file) if file.is_file() else None
    if holder is None:
        return None
    if holder.is_near:
        return holder if holder.lives else None
    return holder if time.time() - file.stat().st_mtime < SILENT_S else None
