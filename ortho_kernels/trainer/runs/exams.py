"""The exam of an encoder that has been trained: which of its networks, and which labeled pictures."""

from typing import Any

import torch

from ..config.evaluation_data import OF_A_COMMAND, SourceWords, source_options
from ..config.exam_words import ExamSettings
from ..data import Splits
from ..distributed.processes import ALONE
from ..errors import TrainerError
from ..probes.labeled import draw_share
from ..probes.protocols import Exam
from ..randomness import generator_for
from .judged import load_labeled, with_channels
from .trained import Trained


def own_data(trained: Trained) -> str | None:
    """The name of the pictures by which a run was judged; None for a file."""
    return None if trained.config is None else trained.config.evaluation.data or trained.config.data.name


def load_pictures(
    trained: Trained,
    data: str | None = None,
    options: dict[str, Any] | None = None,
    words: SourceWords = OF_A_COMMAND,
) -> Splits:
    """The labeled pictures of a source, with the sides and the channels of the encoder's; by default the run's own.

    Raises TrainerError for pictures without labels, and where there are none.
    """
    options = options or {}
    if data is None and options:
        raise TrainerError("data_options are those of the source that data names: give data too.")
    if options or data not in (None, own_data(trained)):
        assert data is not None
        preprocess = trained.preprocess
        source = source_options(data, options, preprocess.size, preprocess.decode_size, words)
        return with_channels(load_labeled(source, ALONE, words), preprocess.channels, f"data={data}")
    splits = trained.splits()
    if splits.labeled is None:
        raise TrainerError(
            f"{trained.path} was judged without labeled test pictures: name some, such as data=cifar10, or "
            "data=imagefolder data_options.root=FOLDER with train/CLASS and test/CLASS."
        )
    return splits


def build_exam(trained: Trained, splits: Splits, settings: ExamSettings, progress: bool = False) -> Exam:
    """The labeled pictures of `splits` that the settings choose, the same for every network of the same seed.

    Pictures are drawn as for a run's own evaluation. Raises TrainerError for too few labels, and for a device that isn't
    here.
    """
    assert splits.labeled is not None
    train, test = splits.labeled
    seed = exam_seed(trained, settings.seed)
    train = train.subset(settings.train_images or len(train), generator_for("cpu", seed, "evaluation train"))
    test = test.subset(settings.test_images or len(test), generator_for("cpu", seed, "evaluation test"))
    if settings.labels < 1:
        if settings.labels * len(train) < len(present := train.labels.unique()):
            raise TrainerError(
                f"labels={settings.labels:g} of {len(train)} training pictures is less than one for each of "
                f"{len(present)} classes: give labels={len(present) / len(train):.2g} or more."
            )
        drawn = draw_share(train.labels, settings.labels, generator_for("cpu", seed, "evaluation labels"))
        train = train.select(drawn)
    return Exam(
        encoder=trained.encoder.to(find_device(settings.device)),
        preprocess=trained.preprocess,
        train=train,
        test=test,
        classes=splits.classes,
        seed=seed,
        batch_size=settings.batch_size,
        progress=progress,
        origin=splits.origin,
    )


def exam_seed(trained: Trained, given: int | None) -> int:
    """The seed that is given, or the run's, or 0 for a file."""
    if given is not None:
        return given
    return 0 if trained.config is None else int(trained.config.seed)


def find_device(name: str) -> torch.device:
    """Raises TrainerError for one that torch does not see."""
    seen = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(device for device, is_here in seen.items() if is_here)
    name = "cuda" if name == "gpu" else name
    if not seen[name]:
        raise TrainerError(f"device={name}: torch sees none here; take auto or cpu.")
    return torch.device(name)
