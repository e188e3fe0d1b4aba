"""What values options may take, beyond their types: checked all together before anything is read or written."""

import math
from typing import Any

from ..backbones.resnet import STEMS
from ..backbones.vit import INITIALIZATIONS, POSITIONS
from ..data.broken import CORRUPT
from ..data.views import KINDS
from ..engine.optimizers import SCALINGS
from ..engine.settings import STRATEGIES
from ..errors import TrainerError
from ..probes.evaluation import NETWORKS
from .identity import flattened, plain

POSITIVE_INT = (1, math.inf)
SHARE = (0.0, 1.0)
NOT_NEGATIVE = (0.0, math.inf)
TINY = 1e-12  # stands for "above 0"

# The least and the most of an option, by its key or by the last part of its key.
RANGES: dict[str, tuple[float, float]] = {
    "accumulate": POSITIVE_INT,
    "asymmetric.blur": SHARE,
    "asymmetric.solarize": SHARE,
    "batch_size": POSITIVE_INT,
    "blur_sigma": (0.1, 100.0),
    "brightness": SHARE,
    "center_momentum": SHARE,
    "checkpoint_every": POSITIVE_INT,
    "contrast": SHARE,
    "covariance": NOT_NEGATIVE,
    "decode_size": POSITIVE_INT,
    "depth": POSITIVE_INT,
    "devices": POSITIVE_INT,
    "epsilon": (TINY, math.inf),
    "evaluation.test_images": (2, math.inf),  # the spread and rank of one picture say nothing
    "evaluation.train_images": (2, math.inf),
    "factor": POSITIVE_INT,
    "final_lr": SHARE,
    "final_momentum": SHARE,
    "final_teacher_temperature": (TINY, math.inf),
    "final_weight_decay": NOT_NEGATIVE,
    "freeze": SHARE,
    "gamma": NOT_NEGATIVE,
    "heads": POSITIVE_INT,
    "hidden": POSITIVE_INT,
    "hue": (0.0, 0.5),
    "invariance": NOT_NEGATIVE,
    "iterations": POSITIVE_INT,
    "keep_checkpoints": POSITIVE_INT,
    "layers": (2, 10),
    "local.blur": SHARE,
    "local.count": (0, 100),
    "local.solarize": SHARE,
    "log_every": POSITIVE_INT,
    "lr": NOT_NEGATIVE,
    "max_area": (TINY, 1.0),
    "max_epochs": POSITIVE_INT,
    "max_ratio": (1.0, 100.0),
    "max_steps": POSITIVE_INT,
    "memory_gib": NOT_NEGATIVE,
    "method.momentum": SHARE,
    "min_area": (TINY, 1.0),
    "neighbours": POSITIVE_INT,
    "nodes": POSITIVE_INT,
    "norm_lr": NOT_NEGATIVE,
    "off_diagonal": NOT_NEGATIVE,
    "optimizer.momentum": SHARE,
    "patch": POSITIVE_INT,
    "prediction_hidden": POSITIVE_INT,
    "probe_decay": NOT_NEGATIVE,
    "projection": POSITIVE_INT,
    "prototypes": POSITIVE_INT,
    "queue": (0, math.inf),
    "queue_start": SHARE,
    "saturation": SHARE,
    "scale": (TINY, math.inf),
    "sigma": (TINY, math.inf),
    "size": POSITIVE_INT,
    "student_temperature": (TINY, math.inf),
    "teacher_temperature": (TINY, math.inf),
    "temperature": (TINY, math.inf),
    "temperature_warmup": SHARE,
    "threads": POSITIVE_INT,
    "timeout": (TINY, math.inf),
    "train_images": POSITIVE_INT,
    "trainer.clip": (TINY, math.inf),
    "trust": (TINY, math.inf),
    "variance": NOT_NEGATIVE,
    "trainer.batch_size": (2, math.inf),  # batch statistics of one image say nothing
    "views.blur": SHARE,
    "views.flip": SHARE,
    "views.grey": SHARE,
    "views.jitter": SHARE,
    "views.solarize": SHARE,
    "warmup": SHARE,
    "weight_decay": NOT_NEGATIVE,
    "width": POSITIVE_INT,
    "workers": (0, 1000),
}
# Options that another library reads and checks.
OF_OTHERS = ("backbone.options.", "sweep.slurm.")
CHOICES = {
    "backbone.initialization": INITIALIZATIONS,
    "backbone.positions": POSITIONS,
    "backbone.stem": STEMS,
    "data.corrupt": CORRUPT,
    "evaluation.network": NETWORKS,
    "method.views": KINDS,
    "optimizer.scaling": SCALINGS,
    "trainer.strategy": STRATEGIES,
    "trainer.accelerator": ("auto", "cpu", "gpu", "cuda", "mps", "tpu"),
    "trainer.precision": ("32-true", "64-true", "bf16-mixed", "16-mixed"),
}


def check_limits(config: Any) -> None:
    """Raises for the first option whose value makes no sense."""
    for key, value in flattened(plain(config)).items():
        if key.startswith(OF_OTHERS):
            continue
        if key in CHOICES and value not in CHOICES[key]:
            raise TrainerError(f"{key} must be one of {', '.join(CHOICES[key])}; got {value}.")
        limits = _range(key)
        if limits is None or value is None or isinstance(value, (str, bool)):
            continue
        least, most = limits
        for number in value if isinstance(value, list) else [value]:
            if not (least <= number <= most and math.isfinite(number)):
                raise TrainerError(f"{key} must be {_said(least, most)}; got {number}.")


def _range(key: str) -> tuple[float, float] | None:
    """The most specific entry that the key ends in."""
    parts = key.split(".")
    found = (RANGES.get(".".join(parts[start:])) for start in range(len(parts)))
    return next((limits for limits in found if limits is not None), None)


def _said(least: float, most: float) -> str:
    if most == math.inf:
        return "a number above 0" if least == TINY else f"a number of {least:g} or more"
    return f"above 0 and at most {most:g}" if least == TINY else f"between {least:g} and {most:g}"
