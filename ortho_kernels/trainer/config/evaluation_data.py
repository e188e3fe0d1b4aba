"""The source of the labeled pictures that an encoder is scored on, other than the run's own: its name and its options."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..data import SOURCES
from ..errors import TrainerError, did_you_mean
from .check import check

NONE = "none"  # the run's own pictures, without their labels


class SourceWords(NamedTuple):
    """The options that choose the source, as errors have to name them."""

    data: str
    options: str

    def replace_in(self, error: str, options: Iterable[Any] = ()) -> str:
        """What a source says of `data=NAME` and its options, in these words."""
        error = re.sub(r"(?<![\w./])data=", f"{self.data}=", error)
        names = "|".join(map(str, options))
        return re.sub(rf"(?<![\w./])data\.({names})\b", rf"{self.options}.\1", error) if names else error


OF_A_RUN = SourceWords("evaluation.data", "evaluation.options")
OF_A_COMMAND = SourceWords("data", "data_options")


def one_of_many(data: str) -> SourceWords:
    """Of a command that takes several sources."""
    return SourceWords("data", f"data_options.{data}")


def evaluation_source(config: DictConfig) -> DictConfig | None:
    """The options of the source that a run's `evaluation.data` names; None where its own pictures are to be used.

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
    return source_options(name, given, config.data.size, config.data.get("decode_size") or config.data.size, OF_A_RUN)


def source_options(
    name: str, given: Mapping[Any, Any], size: int, decode_size: int, words: SourceWords = OF_A_COMMAND
) -> DictConfig:
    """The options of a source of pictures, with `given` in the place of defaults and these sides unless they are given.

    Raises TrainerError for a source or options that don't exist.
    """
    try:
        settings: Any = OmegaConf.structured(SOURCES[name])
    except TrainerError as error:
        raise TrainerError(words.replace_in(str(error))) from None
    settings.name = name
    settings.size = size
    if "decode_size" in settings:
        settings.decode_size = decode_size
    if unknown := [key for key in map(str, given) if key not in settings or key == "name"]:
        near = did_you_mean(unknown[0], list(settings))
        raise TrainerError(f"{words.options}: data={name} has no option {unknown[0]}.{near}")
    try:
        merged = OmegaConf.merge(settings, given)
    except OmegaConfBaseException as error:
        key = re.search(r"full_key: (\S+)", str(error))
        raise TrainerError(f"{words.options}{f'.{key[1]}' if key else ''}: {str(error).splitlines()[0]}") from None
    assert isinstance(merged, DictConfig)
    check(merged, f"{words.options}.")
    return merged
