"""The commands of SLURM that submitit uses, for jobs whose machines are process groups of this one.

    python slurm_in_small.py COMMAND FOLDER ARGUMENTS...     (`install(folder)` makes the commands)

A job is started again where `requeue` was asked for, as `scontrol requeue` and the loss of a machine do.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path


def install(folder, job):
    """Makes the commands in the folder, which belongs on PATH; the job that they take gets this number."""
    (folder / "job").write_text(job)
    for command in ("sbatch", "srun", "scontrol", "sacct"):
        path = folder / command
        path.write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} {command} {folder} "$@"\n')
        path.chmod(0o755)


def lose_machine(folder, task):
    """Kills what runs there; SLURM notices, ends the rest of the job, and starts it again."""
    os.kill(pids(folder)[task], signal.SIGKILL)
    (folder / "requeue").touch()


def pids(folder):
    return [int(pid) for pid in (folder / "pids").read_text().split()]


def sbatch(folder, script):
    shutil.copy(script, folder / "script")
    with open(folder / "log", "w") as log:
        command = [sys.executable, __file__, "controller", str(folder)]
        subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    print(f"Submitted batch job {(folder / 'job').read_text()}")


def controller(folder):
    text = (folder / "script").read_text()
    nodes, tasks = (int(re.search(rf"--{key}=(\d+)", text)[1]) for key in ("nodes", "ntasks-per-node"))
    restarts = 0
    while True:
        environment = {
            **os.environ,
            "SLURM_JOB_ID": (folder / "job").read_text(),
            "SLURM_JOB_NUM_NODES": str(nodes),
            "SLURM_NTASKS": str(nodes * tasks),
            "SLURM_JOB_NODELIST": "localhost",
            **({"SLURM_RESTART_COUNT": str(restarts)} if restarts else {}),
        }
        job = subprocess.Popen(["bash", str(folder / "script")], env=environment, start_new_session=True)
        while job.poll() is None and not (folder / "requeue").exists():
            time.sleep(0.05)
        if not (folder / "requeue").exists():
            (folder / "state").write_text("COMPLETED" if job.returncode == 0 else "FAILED")
            return
        time.sleep(1)
        os.killpg(job.pid, signal.SIGKILL)
        job.wait()
        (folder / "requeue").unlink()
        restarts += 1


def srun(folder, *arguments):
    nodes, count = int(os.environ["SLURM_JOB_NUM_NODES"]), int(os.environ["SLURM_NTASKS"])
    output = arguments[arguments.index("--output") + 1].replace("%j", os.environ["SLURM_JOB_ID"])
    command = arguments[arguments.index("--error") + 2 :]
    tasks = []
    for rank in range(count):
        environment = {
            **os.environ,
            "SLURM_STEP_ID": "0",
            "SLURM_STEP_NUM_TASKS": str(count),
            "SLURM_STEP_NODELIST": "localhost",
            "SLURM_PROCID": str(rank),
            "SLURM_LOCALID": str(rank % (count // nodes)),
            "SLURM_NODEID": str(rank // (count // nodes)),
        }
        with open(output.replace("%t", str(rank)), "a") as log:
            tasks.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
    (folder / "pids").write_text(" ".join(str(task.pid) for task in tasks))
    raise SystemExit(max(abs(task.wait()) for task in tasks))


def scontrol(folder, _, job):
    assert job == (folder / "job").read_text()
    (folder / "requeue").touch()


def sacct(folder, *_):
    state = (folder / "state").read_text() if (folder / "state").exists() else "RUNNING"
    print(f"JobID|State|NodeList\n{(folder / 'job').read_text()}|{state}|localhost")


if __name__ == "__main__":
    name, place, *rest = sys.argv[1:]
    {each.__name__: each for each in (sbatch, controller, srun, scontrol, sacct)}[name](Path(place), *rest)
