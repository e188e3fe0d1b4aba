"""The source of the labeled pictures that an encoder is scored on: `evaluation.data`, with `evaluation.options`."""

import re
from collections.abc import Iterable
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..data import SOURCES
from ..errors import TrainerError, did_you_mean
from .check import check

NONE = "none"  # the run's own pictures, without their labels


def evaluation_source(config: DictConfig) -> DictConfig | None:
    """The options of that source; None where the run's own pictures are to be used.

    Its pictures have the sides of the run's, unless the options say otherwise.

    Raises TrainerError for a source or options that don't exist.
    """
    name, given = config.evaluation.data, config.evaluation.options
    if name in (None, NONE):
        if given:
            raise TrainerError(
                "evaluation.options are those of the source that evaluation.data names: give evaluation.data too."
            )
        return None
    try:
        settings: Any = OmegaConf.structured(SOURCES[name])
    except TrainerError as error:
        raise TrainerError(in_evaluation_words(str(error))) from None
    settings.name = name
    settings.size = config.data.size
    if "decode_size" in settings:
        settings.decode_size = config.data.get("decode_size") or config.data.size
    if unknown := [key for key in map(str, given) if key not in settings or key == "name"]:
        raise TrainerError(
            f"evaluation.options: data={name} has no option {unknown[0]}.{did_you_mean(unknown[0], list(settings))}"
        )
    try:
        merged = OmegaConf.merge(settings, given)
    except OmegaConfBaseException as error:
        key = re.search(r"full_key: (\S+)", str(error))
        raise TrainerError(f"evaluation.options{f'.{key[1]}' if key else ''}: {str(error).splitlines()[0]}") from None
    assert isinstance(merged, DictConfig)
    check(merged, "evaluation.options.")
    return merged


def in_evaluation_words(error: str, options: Iterable[Any] = ()) -> str:
    """What a source says of `data=NAME` and its options, in the words that choose it for evaluation."""
    error = re.sub(r"(?<![\w./])data=", "evaluation.data=", error)
    names = "|".join(map(str, options))
    return re.sub(rf"(?<![\w./])data\.({names})\b", r"evaluation.options.\1", error) if names else error
