"""The options of a detection: its network, its training, its pictures."""

from dataclasses import dataclass

from ..options import at_least, between, more_than, one_of, option


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
