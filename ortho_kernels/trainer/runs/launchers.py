"""Who carries out the runs of a sweep: this process one by one, several processes here, or a SLURM cluster."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf

from ..distributed.joining import Place
from ..engine.settings import require_processes
from ..errors import TrainerError
from .cluster_job import Attempt, ClusterJob, Outcome, stop

Result = TypeVar("Result")
WATCH_SECONDS = 0.5  # between two looks at whether a process that works for another one still has it
IDLE_SECONDS = 300.0  # after which a worker process without work ends: what it has imported serves the next run
END_SECONDS = 60.0  # that runs have to save what they are at
working = threading.Lock()  # held by a worker process during a run


def launch(settings: Any, configs: Sequence[DictConfig], attempt: Attempt) -> list[Outcome]:
    """One outcome a configuration. Other processes find `attempt` by its name: it stands at the top of a module."""
    launchers: dict[str, Callable[..., list[Outcome]]] = {"joblib": _by_joblib, "submitit": _by_submitit}
    if settings.launcher in launchers:
        return launchers[settings.launcher](settings, configs, attempt)
    return [attempt(config, None) for config in configs]


def _by_joblib(settings: Any, configs: Sequence[DictConfig], attempt: Attempt) -> list[Outcome]:
    waiting = iter(configs)
    outcomes = {
        id(config): outcome for config, outcome in launch_one_by_one(settings, lambda: next(waiting, None), attempt)
    }
    return [outcomes[id(config)] for config in configs]


def launch_one_by_one(
    settings: Any,
    next_config: Callable[[], DictConfig | None],
    attempt: Callable[[DictConfig, int | None], Result],
) -> Iterator[tuple[DictConfig, Result]]:
    """As `launch`, of configurations that are chosen one at a time, whenever a process is free; each as it ends.

    `next_config` is called in this thread. Where it returns None, it is asked again once another run has ended. A worker
    process that loses this one saves what its run is at, and ends; so do all of them at Ctrl-C.
    """
    if settings.launcher != "joblib":
        while (config := next_config()) is not None:
            yield config, attempt(config, None)
        return
    from joblib.externals.loky import get_reusable_executor

    threads = max(1, (os.cpu_count() or 1) // settings.jobs)
    executor = get_reusable_executor(
        max_workers=settings.jobs, timeout=IDLE_SECONDS, initializer=_prepare_worker, initargs=(os.getpid(),)
    )
    running: dict[Future[Result], DictConfig] = {}
    try:
        while True:
            while len(running) < settings.jobs and (config := next_config()) is not None:
                running[executor.submit(_work, attempt, config, threads)] = config
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), future.result()
    finally:
        if running:
            for process in list(executor._processes.values()):
                process.terminate()
            wait(running, END_SECONDS)
            executor.shutdown(kill_workers=True)


def _prepare_worker(parent: int) -> None:
    """A worker process gets no Ctrl-C of its own, saves at SIGTERM, and does not outlive the process that it works for."""
    multiprocessing.set_start_method("spawn", force=True)  # not joblib's, of which a run's own processes know nothing
    if hasattr(os, "setpgrp"):
        os.setpgrp()
    signal.signal(signal.SIGTERM, _stop_work)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _work(attempt: Callable[[DictConfig, int | None], Result], config: DictConfig, threads: int) -> Result:
    with working:
        return attempt(config, threads)


def _stop_work(number: int, frame: Any) -> None:
    """While a run trains, its own handler stands in the place of this one. A process without a run stays: joblib would
    kill the others, which save theirs, if one of them ended."""
    if working.locked():
        stop(number, frame)


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(WATCH_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
    working.acquire(timeout=END_SECONDS)
    os._exit(1)


def _by_submitit(settings: Any, configs: Sequence[DictConfig], attempt: Attempt) -> list[Outcome]:
    try:
        import submitit
    except ModuleNotFoundError:
        raise TrainerError("sweep.launcher=submitit needs the package submitit: pip install submitit.") from None
    folder = Path(configs[0].runs).expanduser() / "submitit"
    try:
        limit = {f"{cluster}_max_num_timeout": settings.requeues for cluster in ("slurm", "local")}
        executor = submitit.AutoExecutor(folder=folder, cluster=settings.cluster, **limit)
    except (ValueError, RuntimeError) as error:  # another name; no SLURM here
        raise TrainerError(
            f"sweep.cluster={settings.cluster}: {error} Give sweep.cluster=local to try it out here."
        ) from None
    given: Any = settings.slurm
    if OmegaConf.is_config(given):
        given = OmegaConf.to_container(given)
    try:
        executor.update_parameters(**given)
    except (NameError, TypeError, ValueError, AssertionError) as error:
        raise TrainerError(f"submitit does not take sweep.slurm={given}: {error}") from None
    for config in configs:
        _require_tasks(config.trainer, executor.parameters)
    jobs = executor.map_array(ClusterJob(attempt), list(configs), [None] * len(configs))
    print(f"{len(jobs)} jobs; their output goes to {folder}", flush=True)
    return [_wait_for(job) for job in jobs]


def _require_tasks(settings: Any, parameters: dict[str, Any]) -> None:
    """Raises TrainerError now, not after hours in the queue, where a job's tasks are not the processes of its run."""
    tasks = parameters.get("nodes", 1) * parameters.get("ntasks_per_node", parameters.get("tasks_per_node", 1))
    if tasks > 1:
        if settings.strategy != "single" and settings.devices is None:
            raise TrainerError(
                f"sweep.slurm gives a job {tasks} tasks: say how many a machine has, by trainer.devices."
            )
        require_processes(settings, Place("sweep.slurm", 0, tasks, 0, None, None))


def _wait_for(job: Any) -> Outcome:
    try:
        return job.task(0).result()
    except Exception as error:  # submitit has several for jobs that die, and passes on those of the job
        return Outcome(None, f"job {job.job_id}: {str(error).splitlines()[-1] if str(error) else type(error).__name__}")
