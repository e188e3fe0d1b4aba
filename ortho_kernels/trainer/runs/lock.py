"""One process at a time works on a run: a file in its folder names it, and goes with it."""

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from ..errors import TrainerError

NAME = "lock"
RENEWAL_SECONDS = 60.0
STALE_SECONDS = 300.0  # without renewal; for holders that can't be looked up from here
POLL_SECONDS = 5.0
GO_ON = "give resume=auto again; without resume a new run starts beside it"


class Holder(NamedTuple):
    """A process that works on a run."""

    host: str
    pid: int
    machine: str  # where the pid has this meaning
    born: str | None  # when the process started, as its machine counts: pids come again
    since: float  # seconds of the epoch
    token: str  # of this one lock


@contextmanager
def acquire_lock(folder: Path, then: str = GO_ON) -> Iterator[None]:
    """Holds the run within the block. `then` is what an error says to do once the folder is free.

    Raises:
        TrainerError: another process holds it, or the folder is not writable.
    """
    path, ours = folder / NAME, _this_process()
    try:
        holder = _take(path, ours)
    except IsADirectoryError:
        raise TrainerError(f"{path} is a folder, where the lock of the run belongs. Remove it.") from None
    except OSError as error:
        raise TrainerError(f"Cannot write in {folder}: {error.strerror}. Choose another folder: runs=FOLDER.") from None
    if holder is not None:
        raise TrainerError(_refusal(folder, holder, then))
    done = threading.Event()
    renewal = threading.Thread(target=_renew, args=(path, ours, done), daemon=True)
    renewal.start()
    try:
        yield
    finally:
        done.set()
        renewal.join()
        if _holder_of(path) == ours:
            path.unlink(missing_ok=True)


def refuse_if_held(folder: Path) -> None:
    """Raises TrainerError if a process works on the run."""
    if (holder := _living_holder(folder)) is not None:
        raise TrainerError(_refusal(folder, holder))


def is_held(folder: Path) -> bool:
    """Whether a process works on the run."""
    return _living_holder(folder) is not None


def _living_holder(folder: Path) -> Holder | None:
    path = folder / NAME
    holder = None if path.is_dir() else _holder_of(path)
    return None if holder is None or _is_stale(path, holder) else holder


def wait_for_lapse(folder: Path, waiting: Callable[[], object]) -> None:
    """Waits while a process of another machine may be gone: until its lock lapses, is released, or is renewed, which
    shows that it lives. Calls `waiting` again and again meanwhile."""
    path, before, said = folder / NAME, None, False
    while (holder := None if path.is_dir() else _holder_of(path)) is not None:
        with suppress(FileNotFoundError):
            seen = path.stat().st_mtime_ns
            if holder.machine == _machine() or _is_stale(path, holder) or before not in (None, seen):
                return
            before = seen
            if not said:
                print(
                    f"{folder} is held from {holder.host or 'another machine'}: waiting whether that is gone.",
                    flush=True,
                )
            said = True
            waiting()
            time.sleep(POLL_SECONDS)


def _refusal(folder: Path, holder: Holder, then: str = GO_ON) -> str:
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(holder.since))
    who = f"process {holder.pid} on {holder.host}" if holder.machine else "an unknown process"
    lapse = "its lock lapses five minutes after its last sign of life, then"
    cure = "stop it and" if holder.machine == _machine() else f"if it is gone, {lapse}"
    return f"{folder} is held by {who} since {since}. Let it end, or {cure} {then}."


def _take(path: Path, ours: Holder) -> Holder | None:
    """Makes the lock ours, or returns who holds it.

    A stale lock is replaced by the one process that holds a second lock, named by the stale one's token.
    """
    while True:
        if _create(path, ours):
            return None
        theirs = _holder_of(path)
        if theirs is None:  # released meanwhile
            continue
        if not _is_stale(path, theirs):
            return theirs
        claim = path.with_name(f"{NAME}-{theirs.token}")
        if (other := _take(claim, ours)) is not None:
            return other
        if _holder_of(path) == theirs:
            os.replace(claim, path)
            return None
        claim.unlink()  # somebody was faster


def _create(path: Path, ours: Holder) -> bool:
    """Whether there was no such file yet."""
    try:
        file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    with os.fdopen(file, "w") as stream:
        json.dump(ours._asdict(), stream)
    return True


def _holder_of(path: Path) -> Holder | None:
    """Of a file without content, which is about to be written or never will be, no more than its age is known."""
    try:
        holder = Holder(**json.loads(path.read_text()))
        if isinstance(holder.pid, int) and isinstance(holder.since, float) and isinstance(holder.token, str):
            return holder
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        pass
    with suppress(FileNotFoundError):
        status = path.stat()
        return Holder("", 0, "", None, status.st_mtime, f"{status.st_ino}-{status.st_mtime_ns}")
    return None


def _is_stale(path: Path, holder: Holder) -> bool:
    if holder.machine == _machine():
        if not _is_alive(holder.pid):
            return True
        if holder.born is not None:
            return _born(holder.pid) != holder.born
    with suppress(FileNotFoundError):
        return time.time() - path.stat().st_mtime > STALE_SECONDS
    return True  # released meanwhile


def _renew(path: Path, ours: Holder, done: threading.Event) -> None:
    """The file's time of change is what is renewed. A disk that fails for a moment does not stop the training."""
    while not done.wait(RENEWAL_SECONDS):
        with suppress(OSError):
            if _holder_of(path) == ours:
                os.utime(path)


def _this_process() -> Holder:
    pid = os.getpid()
    return Holder(socket.gethostname(), pid, _machine(), _born(pid), time.time(), uuid.uuid4().hex)


def _machine() -> str:
    """The host, where there is /proc with its start and its process numbers: containers may share their host's name."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts += [Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/pid")]
    return " ".join(parts)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return _stat(pid)[:1] != ["Z"]  # ended, and its parent has not noticed yet


def _born(pid: int) -> str | None:
    fields = _stat(pid)
    return fields[19] if fields else None


def _stat(pid: int) -> list[str]:
    """What /proc holds about a process, from its state on; empty where there is no /proc."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
