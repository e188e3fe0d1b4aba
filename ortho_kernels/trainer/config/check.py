"""Whether every option has a value that it takes, before anything is read or written."""

import math

from omegaconf import DictConfig, ListConfig, OmegaConf

from ..errors import TrainerError
from ..options import option_of


def check(config: DictConfig, prefix: str = "") -> None:
    """Raises TrainerError for the first option whose value is none of those that it declares.

    Dicts that another library reads (backbone.options, sweep.slurm) are that library's to check.
    """
    settings = OmegaConf.get_type(config)
    for name in map(str, config):
        value, key = config[name], f"{prefix}{name}"
        if isinstance(value, DictConfig):
            if OmegaConf.get_type(value) is not dict:
                check(value, f"{key}.")
            continue
        if value == "":
            raise TrainerError(f"{key}= is empty: give a value, or {key}=null where it may have none.")
        accepted = option_of(settings, name).values
        if accepted is None or value is None:
            continue
        for each in value if isinstance(value, ListConfig) else [value]:
            if isinstance(each, float) and not math.isfinite(each):
                raise TrainerError(f"{key} must be a finite number; got {each}.")
            if each not in accepted:
                raise TrainerError(f"{key} must be {accepted}; got {each}.")
