"""How each view of a batch is drawn, as each data set's papers say: options, and the plan that they make."""

from dataclasses import dataclass, field, replace

from ..errors import TrainerError
from ..options import at_least, between, more_than, option


@dataclass
class PairSettings:
    """Where the two large views are drawn differently (BYOL, Grill et al. 2020, table 6): [first, second]."""

    blur: list[float] = option([1.0, 0.1], "probabilities of a blur", between(0, 1))
    solarize: list[float] = option([0.0, 0.2], "probabilities of a solarization", between(0, 1))


@dataclass
class LocalSettings:
    """The small views of multi-crop (SwAV, Caron et al. 2020; DINO, Caron et al. 2021)."""

    count: int = option(6, "number of small views", between(0, 100))
    size: int | None = option(None, "their side in pixels; by default 3/7 of the large views'", at_least(1))
    min_area: float = option(0.05, "least share of the picture that a small view covers", more_than(0, at_most=1))
    max_area: float = option(0.14, "largest share of the picture that a small view covers", more_than(0, at_most=1))
    blur: float = option(0.5, "probability of a blur", between(0, 1))
    solarize: float = option(0.0, "probability of a solarization", between(0, 1))


@dataclass
class ViewSettings:
    """How a view is drawn. Probabilities, and strengths as torchvision's ColorJitter takes them."""

    min_area: float = option(0.2, "least share of the picture that a crop covers", more_than(0, at_most=1))
    max_area: float = option(1.0, "largest share of the picture that a crop covers", more_than(0, at_most=1))
    max_ratio: float = option(4 / 3, "largest ratio of a crop's longer to its shorter side", between(1, 100))
    flip: float = option(0.5, "probability of a horizontal flip", between(0, 1))
    jitter: float = option(0.8, "probability of color jitter", between(0, 1))
    gray: float = option(0.2, "probability of a gray view", between(0, 1))
    blur: float = option(0.5, "probability of a blur", between(0, 1))
    solarize: float = option(0.0, "probability of a solarization", between(0, 1))
    brightness: float = option(0.4, "strength x of the jitter: a factor from 1 - x to 1 + x", between(0, 1))
    contrast: float = option(0.4, "x of the contrast's factor, 1 - x to 1 + x", between(0, 1))
    saturation: float = option(0.2, "x of the saturation's factor, 1 - x to 1 + x", between(0, 1))
    hue: float = option(0.1, "largest shift of the hue either way, in turns of the color wheel", between(0, 0.5))
    blur_sigma: float = option(2.0, "largest standard deviation of the blur in pixels", between(0.1, 100))
    transform: str | None = option(None, "MODULE:NAME of a transform of your own, in the place of all of these")
    asymmetric: PairSettings = field(default_factory=PairSettings)  # for method.views=asymmetric and multicrop
    local: LocalSettings = field(default_factory=LocalSettings)  # for method.views=multicrop


@dataclass(frozen=True)
class View:
    """One view of a batch: its side in pixels, and how it is drawn."""

    size: int
    settings: ViewSettings


def plan_views(kind: str, settings: ViewSettings, size: int) -> list[View]:
    """The views of a kind: `one`, `two` alike, `asymmetric` (the second drawn otherwise), `multicrop` (and several
    small)."""
    for name, areas in (("data.views", settings), ("data.views.local", settings.local)):
        if areas.min_area > areas.max_area:
            raise TrainerError(f"{name}: min_area={areas.min_area:g} is more than max_area={areas.max_area:g}.")
    if kind == "one":
        return [View(size, settings)]
    if kind == "two":
        return [View(size, settings)] * 2
    pair = settings.asymmetric
    if len(pair.blur) != 2 or len(pair.solarize) != 2:
        raise TrainerError("data.views.asymmetric: blur and solarize take two numbers, [first, second].")
    large = [
        View(size, replace(settings, blur=blur, solarize=solarize))
        for blur, solarize in zip(pair.blur, pair.solarize, strict=True)
    ]
    if kind == "asymmetric":
        return large
    local = settings.local
    small = replace(
        settings, min_area=local.min_area, max_area=local.max_area, blur=local.blur, solarize=local.solarize
    )
    return large + [View(local.size or round(size * 3 / 7), small)] * local.count
