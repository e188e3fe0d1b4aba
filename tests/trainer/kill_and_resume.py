"""Kills a short run at random moments, half of them while it writes a checkpoint, resumes it, and compares the end with
that of a run that nobody disturbed: weights, optimizer, queue, metrics and scores have to have the same bits.

    python tests/trainer/kill_and_resume.py --kills 20
    python tests/trainer/kill_and_resume.py --kills 20 --prolong

With --prolong the run goes on with a finished one of half its length. That one's files have to stay as they were.

Every run is forked from this process, which has imported everything and computed nothing.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import sklearn.datasets  # noqa: F401 (what a run would import, imported once)
import torch

from ortho_kernels.trainer.config import load_config
from ortho_kernels.trainer.engine.checkpoints import checkpoint_files, read_checkpoint
from ortho_kernels.trainer.report.metrics_file import read_metrics
from ortho_kernels.trainer.runs import pretrain

WORDS = [
    "method=mocov2plus",  # has a teacher and a queue
    "penalty=srip",
    "penalty.warm_start=true",
    "data=digits",
    "backbone.width=4",
    "method.hidden=16",
    "method.projection=8",
    "method.queue=256",
    "trainer.batch_size=64",
    "trainer.max_steps=24",
    "trainer.checkpoint_every=1",
    "trainer.log_every=1",
    "trainer.threads=1",
    "evaluation.train_images=200",
    "evaluation.test_images=100",
]
TIMINGS = ("images_per_second", "penalty_share")
SCORES = ("knn", "linear_probe", "representation_effective_rank", "penalty_raw")
PARTS = ("state_dict", "optimizer_states", "lr_schedulers", "loops", "global_step")


def started(runs: Path, *words: str) -> int:
    """The process id of a run in that folder."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        pretrain.write_report = lambda path, runs: None  # takes longer than the run, and comes after it
        pretrain.pretrain(load_config([*WORDS, f"runs={runs}", *words]))
        status = 0
    finally:
        sys.stderr.flush()
        os._exit(status)


def finished(runs: Path, *words: str) -> None:
    _, status = os.waitpid(started(runs, *words), 0)
    if status != 0:
        raise SystemExit(f"the run in {runs} ended with status {status}")


def wait_for(pattern: str, runs: Path, seconds: float) -> None:
    """Until there is such a file, at most so long."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not any(runs.glob(pattern)):
        time.sleep(0.0002)


def killed(runs: Path, word: str, after: float, while_writing: bool) -> bool:
    """Kills a run so long after its first step began; whether there was still something to kill."""
    child = started(runs, word)
    wait_for("*/metrics.csv", runs, seconds=60)
    time.sleep(after)
    if while_writing:
        wait_for("*/checkpoints/*.partial", runs, seconds=5)
    gone, _ = os.waitpid(child, os.WNOHANG)
    if not gone:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return not gone


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def outcome(runs: Path) -> dict:
    [folder] = [path.parent for path in runs.glob("*/results.json")]
    checkpoint = read_checkpoint(checkpoint_files(folder / "checkpoints")[0])
    results = json.loads((folder / "results.json").read_text())
    return {
        **{part: checkpoint[part] for part in PARTS},
        "metrics": [{k: v for k, v in row.items() if k not in TIMINGS} for row in read_metrics(folder / "metrics.csv")],
        "scores": {name: results[name] for name in SCORES},
    }


def differences(ours: object, theirs: object, path: str = "") -> list[str]:
    if isinstance(ours, torch.Tensor):
        return [] if torch.equal(ours, theirs) else [path]
    if isinstance(ours, dict):
        if ours.keys() != theirs.keys():
            return [path]
        return [found for key in ours for found in differences(ours[key], theirs[key], f"{path}/{key}")]
    if isinstance(ours, (list, tuple)):
        if len(ours) != len(theirs):
            return [path]
        pairs = enumerate(zip(ours, theirs, strict=True))
        return [found for i, (a, b) in pairs for found in differences(a, b, f"{path}/{i}")]
    return [] if ours == theirs else [path]


def main(kills: int, seed: int, prolong: bool) -> int:
    torch.set_num_threads(1)
    moments = random.Random(seed)
    wrong = 0
    with tempfile.TemporaryDirectory() as name:
        root, word, before = Path(name), "resume=auto", {}
        if prolong:
            finished(root / "short", "trainer.max_steps=12")
            [short] = (root / "short").iterdir()
            word, before = f"resume={short}", contents(short)
        undisturbed = started(root / "whole", word)
        wait_for("*/metrics.csv", root / "whole", seconds=60)
        start = time.monotonic()
        wait_for("*/checkpoints/step-000000024.ckpt", root / "whole", seconds=60)
        seconds = time.monotonic() - start
        os.waitpid(undisturbed, 0)
        whole = outcome(root / "whole")
        print(f"undisturbed: {seconds:.1f} s, {len(whole['metrics'])} steps, {len(whole['state_dict'])} tensors")
        for number in range(kills):
            runs = root / f"killed-{number}"
            after, while_writing = moments.uniform(0.0, seconds), number % 2 == 1
            alive = killed(runs, word, after, while_writing)
            partial = any(runs.rglob("*.partial"))
            steps = max([int(path.stem[5:]) for path in runs.rglob("step-*.ckpt")], default=0)
            finished(runs, word)
            found = differences(whole, outcome(runs))
            if prolong and contents(short) != before:
                found.append("the short run")
            wrong += bool(found)
            print(
                f"kill {number + 1}: after {after:.2f} s, {'at' if alive else 'it had ended, at'} checkpoint {steps}"
                f"{', half a checkpoint written' if partial else ''}: "
                f"{'same bits' if not found else 'DIFFERS in ' + ', '.join(found[:5])}",
                flush=True,
            )
    print(f"{kills - wrong} of {kills} ended with the same bits")
    return wrong


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--prolong", action="store_true")
    arguments = parser.parse_args()
    raise SystemExit(main(arguments.kills, arguments.seed, arguments.prolong))
