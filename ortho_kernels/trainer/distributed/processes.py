"""One run on several processes of this machine: started together, and stopped together when one of them fails."""

import atexit
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from ..errors import TrainerError, printable

T = TypeVar("T")
GRACE_SECONDS = 10.0  # that the others have to end by themselves after one has failed


@dataclass(frozen=True)
class Ranks:
    """Which of how many processes this is."""

    rank: int = 0
    count: int = 1

    def broadcast(self, value: Any) -> Any:
        """Rank 0's value, on every rank."""
        if self.count == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values)
        return values[0]

    def compute_once(self, make: Callable[[], T]) -> T:
        """What rank 0 makes, on every rank; a TrainerError that stops rank 0 stops all."""
        made: Any = None
        if self.rank == 0:
            try:
                made = make()
            except TrainerError as error:
                made = error
        made = self.broadcast(made)
        if isinstance(made, TrainerError):
            raise made
        return made

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, in their order, on every rank."""
        values = [value] * self.count
        if self.count > 1:
            dist.all_gather_object(values, value)
        return values

    def count_of(self, flag: bool) -> Tensor:
        """On how many ranks the flag is set, as a scalar on the group's device; every rank asks."""
        raised = torch.full((), float(flag), device="cuda" if dist.get_backend() == "nccl" else "cpu")
        dist.all_reduce(raised)
        return raised


ALONE = Ranks()


def is_main_process() -> bool:
    """Whether this is rank 0, which prints what all processes of the run find alike."""
    return not (dist.is_available() and dist.is_initialized() and dist.get_rank() > 0)


def print_once(text: str) -> None:
    if is_main_process():
        print(printable(text), flush=True)


def launch_processes(count: int, backend: str, timeout: float, work: Callable[[Ranks], Path]) -> Path:
    """Runs `work` on `count` new processes; returns what rank 0 does. When one fails, the others are stopped.

    `work` is pickled: a function of a module, or a `functools.partial` of one.
    """
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        processes: list[BaseProcess] = [
            context.Process(target=_rank_main, args=(folder, rank, count, backend, timeout, work))
            for rank in range(count)
        ]
        with _signals_passed_on(processes):
            for process in processes:
                process.start()
            failed = _failures(processes)
        if failed:
            raise TrainerError(_format_failures(folder, failed, processes))
        return Path((folder / "result").read_text())


def _rank_main(
    folder: Path, rank: int, count: int, backend: str, timeout: float, work: Callable[[Ranks], Path]
) -> None:
    os.environ["LOCAL_RANK"] = str(rank)  # shows Lightning that the processes are there already
    threading.Thread(target=_end_with_parent, daemon=True).start()
    code = 1
    try:
        with open_group(backend, timeout, f"file://{folder / 'store'}", rank, count) as ranks:
            result = work(ranks)
        if rank == 0:
            (folder / "result").write_text(str(result))
        atexit._run_exitfuncs()
        code = 0
    except TrainerError as error:
        (folder / f"error-{rank}").write_text(str(error), "utf-8", "backslashreplace")
    except BaseException:
        traceback.print_exc()
    # Python's own shutdown would wait for a group that has lost a member. And gloo's threads, which DTensors keep alive,
    # would abort the process if they freed a tensor meanwhile.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _end_with_parent() -> None:
    """A process whose parent was killed would go on alone, with nobody to stop it."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


@contextmanager
def open_group(backend: str, timeout: float, store: str, rank: int, count: int) -> Iterator[Ranks]:
    """The group of `count` processes that meet at `store`; they wait `timeout` seconds for each other."""
    if backend == "nccl":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group(backend, init_method=store, rank=rank, world_size=count, timeout=timedelta(seconds=timeout))
    yield Ranks(rank, count)
    dist.destroy_process_group()


def _failures(processes: list[BaseProcess]) -> list[int]:
    """Waits for all; the ranks that failed, in the order in which they did. What is left then is stopped."""
    running = dict(enumerate(processes))
    failed: list[int] = []
    deadline: float | None = None
    while running:
        patience = None if deadline is None else max(0.0, deadline - time.monotonic())
        wait([process.sentinel for process in running.values()], timeout=patience)
        for rank, process in list(running.items()):
            if process.exitcode is not None:
                del running[rank]
                if process.exitcode != 0:
                    failed.append(rank)
                    deadline = deadline or time.monotonic() + GRACE_SECONDS
        if deadline is not None and time.monotonic() >= deadline:
            for process in running.values():
                process.kill()
                process.join()
            return failed
    return failed


def _format_failures(folder: Path, failed: list[int], processes: list[BaseProcess]) -> str:
    """The cause: a process's own error, or that it was ended. The others only lost their connection to it."""
    if error := next((folder / f"error-{rank}" for rank in failed if (folder / f"error-{rank}").exists()), None):
        return error.read_text("utf-8")
    codes = {rank: processes[rank].exitcode or 0 for rank in failed}
    rank, code = next(((rank, code) for rank, code in codes.items() if code < 0), (failed[0], codes[failed[0]]))
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"failed with exit code {code}"
    return f"Process {rank} {how}, and the others were stopped. The last checkpoint is kept: continue with resume=auto."


@contextmanager
def _signals_passed_on(processes: list[BaseProcess]) -> Iterator[None]:
    """SIGTERM goes to every process, which saves and ends; Ctrl-C reaches them from the terminal without our help."""
    try:
        previous = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

        def pass_on(number: int, _: Any) -> None:
            for process in processes:
                if process.is_alive():
                    process.terminate()

        signal.signal(signal.SIGTERM, pass_on)
        signal.signal(signal.SIGINT, lambda number, _: None)
    except ValueError:  # not the main thread, which alone handles signals
        yield
        return
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
