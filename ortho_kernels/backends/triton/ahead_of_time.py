"""Compiles kernels into triton's cache before they are launched, for any GPU and without one, in several processes.

A launch finds them there where triton, Python and the variables of the environment that triton heeds are the same. Both go
through the same function of triton (`JITFunction.run`), which asks its driver for no more than the target.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import lru_cache
from math import inf
from queue import SimpleQueue
from typing import Any, NamedTuple

import torch

from ...weight_views import WeightViews
from .heuristics import ARCHITECTURES, Configuration
from .launch import KernelCall, collected
from .tables import configured


class WeightShape(NamedTuple):
    """A contiguous weight and the number of matrices that it holds."""

    shape: tuple[int, ...]
    groups: int = 1


class Job(NamedTuple):
    """One kernel by name, for all weights of a list. `precision` as in `ops.py`."""

    kernel: str
    configuration: Configuration
    weights: tuple[WeightShape, ...]
    storage: torch.dtype
    precision: int = 0

    def calls(self) -> list[KernelCall]:
        return [call for call in kernel_calls(*self[1:]) if call.name == self.kernel]

    @property
    def identity(self) -> str:
        """The same for jobs that compile the same; empty where these weights need no such kernel."""
        return "; ".join(dict.fromkeys(call.identity for call in self.calls()))


@lru_cache(maxsize=256)
def kernel_calls(
    configuration: Configuration, weights: tuple[WeightShape, ...], storage: torch.dtype, precision: int = 0
) -> list[KernelCall]:
    """All that training with both penalties launches for these weights, each on its smaller side."""
    from . import operators

    tensors = [torch.empty(weight.shape, dtype=storage, device="meta") for weight in weights]
    groups = [weight.groups for weight in weights]
    into = tensors, [1] * len(tensors), False
    views = WeightViews(tensors, groups)  # not those of `weight_views`, which refuses weights without numbers
    sides = views.sides("small")
    with configured(configuration), collected() as calls:
        start = torch.empty(sum(views.orders("small")), device="meta")
        values, residuals = operators.soft_orthogonality(tensors, groups, sides, 1.0, 1.0, True, views=views)
        operators.soft_orthogonality_backward(values, tensors, groups, sides, residuals, precision, *into, views=views)
        _, vectors = operators.srip(tensors, groups, sides, start, 2, True, True, views=views)
        operators.srip_backward(values, tensors, groups, sides, vectors, 2, *into, views=views)
    return calls


def jobs_of(
    configuration: Configuration, weights: Sequence[WeightShape], storage: torch.dtype, precision: int = 0
) -> list[Job]:
    """A job for each kernel that training with both penalties launches for these weights."""
    of = configuration, tuple(weights), storage, precision
    return [Job(name, *of) for name in dict.fromkeys(call.name for call in kernel_calls(*of))]


def distinct(jobs: Iterable[Job]) -> list[Job]:
    """Returns one of all jobs that compile the same."""
    return list({job.identity: job for job in jobs}.values())


class Compilers:
    """Processes that compile for one architecture, one a core by default, until the block of `with` ends."""

    def __init__(self, architecture: str, processes: int | None = None):
        count = processes or len(os.sched_getaffinity(0))
        self._all = [_Compiler(architecture) for _ in range(count)]
        self._idle: SimpleQueue[_Compiler] = SimpleQueue()
        for compiler in self._all:
            self._idle.put(compiler)

    def __enter__(self) -> Compilers:
        return self

    def __exit__(self, *exception: object) -> None:
        for compiler in self._all:
            compiler.kill()

    def fill_cache(self, jobs: Sequence[Job], until: float = inf) -> Iterator[tuple[Job, str | None]]:
        """Yields each job as it is done, with the reason if it failed.

        Jobs that are not done when `time.monotonic()` says `until` are left, and not yielded. A compiler that gives up may
        end its process: that job has failed, and the others go on.
        """
        with ThreadPoolExecutor(len(self._all)) as threads:  # each waits for a process
            futures = {threads.submit(self._run, job, until): job for job in jobs}
            try:
                for future in as_completed(futures):
                    done, reason = future.result()
                    if done:
                        yield futures[future], reason
            except BaseException:  # Ctrl-C, or nobody wants the rest
                for future in futures:
                    future.cancel()
                for compiler in self._all:
                    compiler.kill()
                raise

    def _run(self, job: Job, until: float) -> tuple[bool, str | None]:
        compiler = self._idle.get()
        try:
            return compiler.compile(job, until)
        finally:
            self._idle.put(compiler)


class _Compiler:
    """A process that compiles one job after the other."""

    def __init__(self, architecture: str):
        self._architecture = architecture
        self._process: Any = None

    def compile(self, job: Job, until: float) -> tuple[bool, str | None]:
        """Whether it was done in time, and the reason if it failed."""
        if time.monotonic() >= until:
            return False, None
        if self._process is None or not self._process.is_alive():
            self._start()
        try:
            self._connection.send(job)
            if self._connection.poll(None if until == inf else until - time.monotonic()):
                return True, self._connection.recv()
        except (EOFError, OSError):
            self.kill()
            return True, "the compiler ended its process"
        self.kill()
        return False, None

    def kill(self) -> None:
        if (process := self._process) is not None:
            process.kill()
            process.join()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")  # a fork of a process that uses a GPU can't go on
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._architecture), daemon=True)
        self._process.start()
        theirs.close()


def _serve(connection: Any, architecture: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that asks decides what ends
    stand_in_for_gpu(architecture)
    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        connection.send(_compile(job))


def _compile(job: Job) -> str | None:
    """The reason if it failed."""
    try:
        for call in job.calls():
            call.compile()
    except Exception as error:  # what triton raises where it can't compile is of many kinds
        return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return None


def stand_in_for_gpu(architecture: str) -> None:
    """From here on this process compiles for that architecture and can launch nothing."""
    from triton.runtime.driver import driver

    driver.set_active(Target(architecture))


class Target:
    """What triton asks of a driver to compile. Each architecture is a device: compiled kernels are kept apart by devices."""

    def __init__(self, architecture: str):
        from triton.backends.compiler import GPUTarget

        capacity = ARCHITECTURES[architecture]
        name = int(architecture.removeprefix("sm_")) if capacity.target == "cuda" else architecture
        self._target = GPUTarget(capacity.target, name, capacity.warp)
        self._device = list(ARCHITECTURES).index(architecture)

    def get_current_target(self) -> Any:
        return self._target

    def get_current_device(self) -> int:
        return self._device

    def get_current_stream(self, device: int) -> int:
        return 0
