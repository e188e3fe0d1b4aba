"""The encoders in a run's checkpoint: how each is built, its weights, and how they were trained."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import TrainerError
from .training import describe_training

PREFIXES = {"student": "method.encoder.", "teacher": "method.teacher.0.", "ema": "method.ema."}  # by evaluation.network


def newest_checkpoint(run: Path) -> Path:
    """Raises TrainerError where there is none."""
    from ..engine.checkpoints import checkpoint_files  # here, with Lightning: a wrong word is answered at once

    checkpoints = checkpoint_files(run / "checkpoints")
    if not checkpoints:
        raise TrainerError(f"{run} has no checkpoint to export: give the folder of a run that has trained.")
    return checkpoints[0]


def read_encoder(checkpoint: Path, network: str | None = None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """How to build the student, teacher or ema, by default what the run was judged by, and its weights by its names.

    Raises TrainerError for a network that the run does not have.
    """
    from ..engine.checkpoints import read_checkpoint, step_of

    content = read_checkpoint(checkpoint)
    try:
        configuration, weights, preprocess = (content[key] for key in ("configuration", "state_dict", "preprocess"))
    except KeyError as error:
        raise TrainerError(f"{checkpoint} is no checkpoint of a run: it holds no {error}.") from None
    network = network or configuration["evaluation"]["network"]
    prefix = PREFIXES[network]
    if not any(name.startswith(prefix) for name in weights):
        whose = "a run without trainer.ema" if network == "ema" else f"method={configuration['method']['name']}"
        raise TrainerError(f"{checkpoint}: {whose} has no {network} to judge here.")
    prefix += wrapping(name.removeprefix(prefix) for name in weights if name.startswith(prefix))
    weights = {
        name.removeprefix(prefix): value.contiguous() for name, value in weights.items() if name.startswith(prefix)
    }
    training = describe_training(configuration, network, step_of(checkpoint))
    return {"backbone": configuration["backbone"], "preprocess": preprocess, "training": training}, weights


def wrapping(names: Iterable[str]) -> str:
    """What the names of an encoder's weights begin with beyond its network's own: that of `Wrapped`, or nothing."""
    return "network." if all(name.startswith("network.") for name in names) else ""
