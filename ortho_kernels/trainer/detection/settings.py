"""The options of a detection: its network, its training, its pictures."""

from dataclasses import dataclass

from ..options import at_least, between, more_than, one_of, option
from .voc import VOC_CLASSES

RANDOM = "random"  # the network of a run before its training; among the words, a folder of that name is ./random
LONGEST_SIDE = 1333 / 800  # over the short side
TRAINING_SIDES = [side / 800 for side in range(480, 801, 32)]  # over the short side in the test


@dataclass
class DetectorSettings:
    """The published protocol (docs/detection.md) where nothing else is said; it is that of 16 pictures a step."""

    detector: str = option("c4", "what is built on the encoder", one_of("c4", "fpn"))
    steps: int | None = option(None, "of training; 24,000 for c4 and 18,000 for fpn by default", at_least(1))
    batch_size: int = option(16, "pictures of a step", at_least(1))
    lr: float = option(0.02, "learning rate at 16 pictures a step", more_than(0))
    momentum: float = option(0.9, "momentum of the gradients", between(0, 1))
    weight_decay: float = option(1e-4, "of all weights but those of norms", at_least(0))
    warmup: int = option(100, "steps in which the rate rises from a thousandth", at_least(0))
    milestones: list[float] | None = option(
        None, "shares of the steps after which the rate falls to a tenth; the detector's by default", between(0, 1)
    )
    short_side: int = option(800, "of pictures in pixels; in training from 0.6 of it, in 11 steps", at_least(16))
    regions: int = option(512, "of a picture that the box head learns from", at_least(4))
    anchors: int = option(256, "of a picture that the proposals learn from", at_least(2))
    fpn_channels: int = option(256, "of the maps of a feature pyramid", at_least(1))
    head_width: int = option(1024, "of the two linear layers of the box head on a feature pyramid", at_least(1))
    norm_batches: int = option(
        200, "batches whose statistics the batch norms take before the test; 0 keeps the running ones", at_least(0)
    )
    seed: int | None = option(None, "draws new weights, pictures and regions; by default the run's")

    @property
    def longest_side(self) -> int:
        """The most pixels that the longer side of a picture has."""
        return round(LONGEST_SIDE * self.short_side)

    @property
    def training_sides(self) -> list[int]:
        """The short sides in pixels of which one is drawn for each picture."""
        return [round(share * self.short_side) for share in TRAINING_SIDES]


@dataclass
class DetectSettings(DetectorSettings):
    """And the pictures, and what changes no result."""

    root: str | None = option(None, "folder that holds VOCdevkit; always given")
    train: list[str] = option(["2007/trainval", "2012/trainval"], "sets to train on: YEAR/SET")
    test: list[str] = option(["2007/test"], "sets to score on")
    classes: list[str] = option(list(VOC_CLASSES), "of the objects; VOC's twenty by default")
    network: str | None = option(
        None,
        "of a run: student, teacher or ema; by default the one that the run was judged by",
        one_of("student", "teacher", "ema"),
    )
    device: str = option("auto", "where the detector computes", one_of("auto", "cpu", "gpu", "cuda", "mps"))
    threads: int | None = option(None, "of the processor; torch's own number by default", at_least(1))
    checkpoint_every: int = option(1000, "steps between checkpoints", at_least(1))
    resume: str | None = option(
        None, "auto: take detections that are finished, go on with what was cut off", one_of("auto")
    )
    output: str = option("detection.html", "the page of all encoders")
