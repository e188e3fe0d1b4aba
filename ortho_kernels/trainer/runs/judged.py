"""The pictures that a run's encoder is judged by."""

from typing import cast

from omegaconf import DictConfig, OmegaConf

from ..config import evaluation_source, in_evaluation_words
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
    try:
        judged = load_splits(cast(Source, OmegaConf.to_object(source)), ranks)
    except TrainerError as error:
        raise TrainerError(in_evaluation_words(str(error), source)) from None
    if judged.labeled is None:
        raise TrainerError(
            f"evaluation.data={chosen}: these pictures give no scores. Those need pictures with labels to fit on and to "
            "test on, as in train/CLASS/ and test/CLASS/."
        )
    theirs, ours = judged.channels, splits.channels
    if theirs == ours:
        return judged
    if not {1, 3}.issuperset((theirs, ours)):
        raise TrainerError(
            f"evaluation.data={chosen} has pictures of {theirs} channels, and the run's have {ours}. Only gray and color "
            "pictures become each other."
        )
    train, test = (Recolored(images, ours) for images in judged.labeled)
    return Splits(train, test, judged.classes, broken=judged.broken, left_out=judged.left_out)
