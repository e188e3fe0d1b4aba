"""The pictures that a run's encoder is judged by."""

from dataclasses import replace
from typing import cast

from omegaconf import DictConfig, OmegaConf

from ..config import evaluation_source
from ..config.evaluation_data import OF_A_RUN, SourceWords
from ..data import Source, Splits, load_splits
from ..data.recolored import Recolored
from ..distributed.processes import Ranks
from ..errors import TrainerError


def load_judged(config: DictConfig, splits: Splits, ranks: Ranks) -> Splits:
    """The run's own pictures, or, with `evaluation.data`, other labeled ones or its own without their labels.

    Raises TrainerError for pictures that give no scores, or that the run's encoder can't take.
    """
    chosen, source = config.evaluation.data, evaluation_source(config)
    if chosen is None:
        return splits
    if source is None:
        return Splits(unlabeled=splits.pretraining, broken=splits.broken)
    return with_channels(load_labeled(source, ranks, OF_A_RUN), splits.channels, f"{OF_A_RUN.data}={chosen}")


def load_labeled(source: DictConfig, ranks: Ranks, words: SourceWords) -> Splits:
    """The pictures of a source's options. Raises TrainerError, in these words, for pictures that give no scores."""
    try:
        judged = load_splits(cast(Source, OmegaConf.to_object(source)), ranks)
    except TrainerError as error:
        raise TrainerError(words.replace_in(str(error), source)) from None
    if judged.labeled is None:
        raise TrainerError(
            f"{words.data}={source.name}: these pictures give no scores. Those need pictures with labels to fit on and to "
            "test on, as in train/CLASS/ and test/CLASS/."
        )
    return judged


def with_channels(judged: Splits, ours: int, chosen: str) -> Splits:
    """Labeled pictures in gray for one channel and in color for three. Raises TrainerError for other numbers."""
    theirs = judged.channels
    if theirs == ours or judged.labeled is None:
        return judged
    if not {1, 3}.issuperset((theirs, ours)):
        raise TrainerError(
            f"{chosen} has pictures of {theirs} channels, and the run's have {ours}. Only gray and color pictures become "
            "each other."
        )
    train, test = (Recolored(images, ours) for images in judged.labeled)
    return replace(judged, train=train, test=test, unlabeled=None)
