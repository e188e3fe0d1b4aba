"""A run as a job of submitit: on one task or several, and submitted again when the cluster takes its machines away."""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig

from ..distributed.joining import LOST, port_of_job
from ..errors import TrainerError

END_SECONDS = 600.0  # that SLURM takes to end a job: it misses a lost machine after five minutes, by default


class Outcome(NamedTuple):
    """The folder of a run that has finished, or what stopped it."""

    folder: Path | None
    error: str = ""


Attempt = Callable[[DictConfig, int | None], Outcome]  # does one run, with so many threads; None: as it is set


class ClusterJob:
    """What every task of a job does: `attempt`, on one process of the run.

    Some time before the end submitit's signal comes to all tasks. Then the run saves after the step at hand, and task 0
    submits the job again. That one goes on with `resume=auto`, as does a job that SLURM has started again by itself.
    """

    def __init__(self, attempt: Attempt) -> None:
        self.attempt = attempt
        self.warned = False

    def __call__(self, config: DictConfig, threads: int | None) -> Outcome:
        import submitit

        job = submitit.JobEnvironment()
        if job.cluster == "local" and job.num_tasks > 1:  # SLURM's variables are read where processes join
            os.environ |= {
                "RANK": str(job.global_rank),
                "WORLD_SIZE": str(job.num_tasks),
                "LOCAL_RANK": str(job.local_rank),
                "MASTER_ADDR": "localhost",
                "MASTER_PORT": port_of_job(job.job_id),
            }
        if int(os.environ.get("SLURM_RESTART_COUNT", "0")) > 0:
            config = resumed(config)
        warning = getattr(signal, f"SIG{job.USR_SIG}")
        submit_again = signal.getsignal(warning)
        if not callable(submit_again):  # submitit's debug cluster sends none
            return self.attempt(config, threads)
        signal.signal(signal.SIGTERM, stop)
        signal.signal(warning, self._warn)
        try:
            outcome = self.attempt(config, threads)
            if LOST in outcome.error and job.cluster == "slurm" and job.global_rank == 0:
                self._wait_for_slurm()
            return outcome
        except TrainerError:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            if job.global_rank > 0:
                sys.exit(0)  # task 0 decides; a code of failure might end it first
            if job.cluster == "slurm":
                self._wait_for_slurm()
            if self.warned:
                submit_again(warning, None)
            raise

    def checkpoint(self, config: DictConfig, threads: int | None) -> Any:
        """What submitit submits in the place of this job."""
        import submitit

        return submitit.helpers.DelayedSubmission(ClusterJob(self.attempt), resumed(config), threads)

    def _warn(self, number: int, _: Any) -> None:
        self.warned = True
        signal.raise_signal(signal.SIGTERM)

    def _wait_for_slurm(self) -> None:
        """After SIGTERM alone, or the loss of a machine, SLURM ends the job and starts it again. If the job ended by itself
        it would count as done, or failed."""
        deadline = time.monotonic() + END_SECONDS
        while not self.warned and time.monotonic() < deadline:
            time.sleep(1)


def stop(number: int, _: Any) -> None:
    """While the run trains, another handler stands in the place of this one, which saves first."""
    raise TrainerError("Stopped by SIGTERM: continue with resume=auto.")


def resumed(config: DictConfig) -> DictConfig:
    config = config.copy()
    config.resume = config.resume or "auto"
    return config
