"""Who carries out the runs of a sweep: this process one by one, several processes here, or a SLURM cluster."""

import multiprocessing
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from ..errors import TrainerError


class Outcome(NamedTuple):
    """The folder of a run that has finished, or what stopped it."""

    folder: Path | None
    error: str = ""


Attempt = Callable[[DictConfig, int | None], Outcome]  # does one run, with so many threads; None: as it is set


def launch(settings: Any, configs: Sequence[DictConfig], attempt: Attempt) -> list[Outcome]:
    """One outcome a configuration. Other processes find `attempt` by its name: it stands at the top of a module."""
    launchers: dict[str, Callable[..., list[Outcome]]] = {"joblib": _by_joblib, "submitit": _by_submitit}
    if settings.launcher in launchers:
        return launchers[settings.launcher](settings, configs, attempt)
    return [attempt(config, None) for config in configs]


def _by_joblib(settings: Any, configs: Sequence[DictConfig], attempt: Attempt) -> list[Outcome]:
    from joblib import Parallel, delayed

    threads = max(1, (os.cpu_count() or 1) // settings.jobs)
    return Parallel(n_jobs=settings.jobs)(delayed(_in_worker)(attempt, config, threads) for config in configs)


def _in_worker(attempt: Attempt, config: DictConfig, threads: int) -> Outcome:
    if multiprocessing.get_start_method() == "loky":  # joblib's, of which a run's own processes know nothing
        multiprocessing.set_start_method("spawn", force=True)
    return attempt(config, threads)


def _by_submitit(settings: Any, configs: Sequence[DictConfig], attempt: Attempt) -> list[Outcome]:
    try:
        import submitit
    except ModuleNotFoundError:
        raise TrainerError("sweep.launcher=submitit needs the package submitit: pip install submitit.") from None
    folder = Path(configs[0].runs).expanduser() / "submitit"
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=settings.cluster)
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
    jobs = executor.map_array(attempt, list(configs), [None] * len(configs))
    print(f"{len(jobs)} jobs; their output goes to {folder}", flush=True)
    return [_wait_for(job) for job in jobs]


def _wait_for(job: Any) -> Outcome:
    try:
        return job.result()
    except Exception as error:  # submitit has several for jobs that die, and passes on those of the job
        return Outcome(None, f"job {job.job_id}: {str(error).splitlines()[-1] if str(error) else type(error).__name__}")
