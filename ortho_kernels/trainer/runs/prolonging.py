"""A finished run is prolonged: `resume=FOLDER` with more epochs or steps begins a run of its own where that one ended.

The old run stays as it is. The new one begins with a copy of its last checkpoint and of its rows of metrics, and
`prolongs` makes the old run's name and last step a part of what the new one is.
"""

import json
import shutil
from pathlib import Path

from omegaconf import DictConfig

from ..config import differing, flattened, identity, part_of_a_run
from ..distributed.processes import Ranks
from ..engine.checkpoints import AtomicFiles, checkpoint_files, read_checkpoint, step_of
from ..engine.optimizers import rate_at
from ..errors import TrainerError, writing
from ..report.metrics_file import read_metrics

LENGTHS = {"trainer.max_epochs", "trainer.max_steps"}
GROWING = ("metrics.csv", "evaluations.csv", "broken_pictures.txt")  # what a run adds to; not every run has all of them


def note_prolonged(config: DictConfig, steps: int, ranks: Ranks) -> DictConfig:
    """The configuration of `steps` optimizer steps, whose `prolongs` is filled in where it prolongs a finished run.

    Raises TrainerError for a run that is not finished, or has as many steps already.
    """
    noted = config.copy()
    noted.prolongs = ranks.compute_once(lambda: _prolonged(config, steps))
    return noted


def prolongs(config: DictConfig, folder: Path) -> bool:
    """Whether the configuration goes on in a run of its own where the folder's run ended."""
    return config.prolongs is not None and config.prolongs.startswith(_named(folder, ""))


def begin_prolonged(config: DictConfig, folder: Path) -> Path:
    """Copies the end of the run `config.resume` to a new folder; returns the checkpoint there, which comes last."""
    old = Path(config.resume).expanduser()
    last = checkpoint_files(old / "checkpoints")[0]
    with writing(folder, then="give the same words again"):
        for name in GROWING:
            if (old / name).exists():
                shutil.copyfile(old / name, folder / name)
    checkpoint = read_checkpoint(last)
    checkpoint["configuration"] = identity(config)
    checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["is_last_batch"] = False  # for Lightning: more follow
    copied = folder / "checkpoints" / last.name
    AtomicFiles().save_checkpoint(checkpoint, copied)
    return copied


def format_prolonged(config: DictConfig, folder: Path, step: int, steps: int) -> str | None:
    """What becomes of the schedule; None unless the run in `folder` goes on at the step that it prolongs."""
    if config.prolongs is None or not config.prolongs.endswith(f" {step}"):
        return None
    images = config.trainer.batch_size * config.trainer.accumulate
    now = rate_at(config.optimizer, step, steps, images)
    # Measured: a run that stopped early ended in the middle of its own schedule.
    then = [row["lr"] for row in read_metrics(folder / "metrics.csv") if row["step"] <= step][-1]
    return (
        f"Prolonging {config.prolongs} to step {steps}. From here on learning rate, weight decay and teacher momentum "
        f"follow the schedule of {steps} steps: the rate is {now:.3g} now, and was {then:.3g} in the last step."
    )


def _prolonged(config: DictConfig, steps: int) -> str | None:
    if config.resume in (None, "auto"):
        return config.prolongs
    folder = Path(config.resume).expanduser()
    if not (files := checkpoint_files(folder / "checkpoints")):
        return config.prolongs
    theirs = flattened(part_of_a_run(read_checkpoint(files[0]).get("configuration", {})))
    noted = theirs.pop("prolongs", None)
    ours = flattened(identity(config))
    given = ours.pop("prolongs")
    keys = differing(ours, theirs)
    if not keys or not keys <= LENGTHS:  # the run as it is, or one that is refused
        return noted if given is None or given.startswith(_named(folder, "")) else given
    return _named(folder, _end_of(folder, files[0], steps, config.trainer.max_steps, theirs))


def _end_of(folder: Path, checkpoint: Path, steps: int, max_steps: int | None, theirs: dict) -> str:
    """The last step of a run that `steps` can prolong. They are `max_steps`, or by the epochs where that is None."""
    step, again = step_of(checkpoint), " ".join(f"{key}={theirs[key]}" for key in sorted(LENGTHS) if theirs.get(key))
    old = folder / "results.json"
    if not old.exists():
        raise TrainerError(
            f"{folder} is not finished, and only a finished run is prolonged. First go on with it as it is: {again}."
        )
    planned = json.loads(old.read_text()).get("planned_steps", step)  # more than were taken where it stopped early
    if steps <= planned:
        larger = (
            "trainer.max_epochs or trainer.max_steps" if max_steps is None else "trainer.max_steps, which goes first"
        )
        raise TrainerError(
            f"{folder} has {planned} steps, and these words give {steps}: a run can be prolonged, not shortened. Give a "
            f"larger {larger}, or no resume to start a new run."
        )
    return str(step)


def _named(folder: Path, step: str) -> str:
    return f"{folder.resolve().name} after step {step}"
