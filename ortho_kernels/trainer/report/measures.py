"""What is measured of a run, what it is called, and how its values are written."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .intervals import Interval
from .record import RunRecord

DIGITS = 4  # of a number that is no share
MISSING = "–"


@dataclass(frozen=True)
class Measure:
    title: str  # in a row of its own
    short: str  # at the head of a column
    value: Callable[[RunRecord], float | None]
    is_share: bool = False  # in percent, its differences in points
    trials: Callable[[RunRecord], int | None] = lambda run: None  # of which the value is the share of hits
    headline: bool = False  # what the penalty is judged by: differences and the terminal show it

    def write(self, value: float) -> str:
        return f"{100 * value:.2f} %" if self.is_share else _number(value, _decimals(value))

    def half_width(self, interval: Interval) -> str:
        """Of the interval, as "± 0.25", to as many decimals as the value; empty where it has none, or no width.

        Without a unit, as all that follow.
        """
        half = interval.half_width
        text = f"{100 * half:.2f}" if self.is_share else _number(half, _decimals(interval.value))
        return f"± {text}" if math.isfinite(half) and text.strip("0.") else ""

    def bounds(self, interval: Interval) -> str:
        """As "81.02 to 82.51"; empty where there is no interval."""
        if not math.isfinite(interval.half_width):
            return ""
        return " to ".join(self.write(value).removesuffix(" %") for value in (interval.low, interval.high))

    def difference(self, interval: Interval) -> str:
        """With its sign."""
        return self._signed(interval.value, interval)

    def difference_bounds(self, interval: Interval) -> str:
        """As "+0.12 to +1.06"; empty where there is no interval, or no difference in any pair."""
        if not math.isfinite(interval.half_width) or interval.value == interval.half_width == 0:
            return ""
        return f"{self._signed(interval.low, interval)} to {self._signed(interval.high, interval)}"

    def difference_text(self, interval: Interval | None, unit: str = "") -> str:
        """As "+0.59 (+0.12 to +1.06)", without bounds where there are none; a dash for None."""
        if interval is None:
            return MISSING
        bounds = self.difference_bounds(interval)
        return f"{self.difference(interval)}{unit}{f' ({bounds})' * bool(bounds)}"

    @property
    def difference_unit(self) -> str:
        return " points" if self.is_share else ""

    def _signed(self, value: float, interval: Interval) -> str:
        """To as many decimals as show three digits of the largest of the interval's values."""
        size = max((abs(v) for v in (interval.value, interval.low, interval.high) if math.isfinite(v)), default=0.0)
        text = f"{abs(100 * value):.2f}" if self.is_share else _number(abs(value), _decimals(size, DIGITS - 1))
        sign = "" if math.isnan(value) or not text.strip("0.") else "+" if value > 0 else "−"
        return sign + text


def _decimals(value: float, digits: int = DIGITS) -> int:
    """That show so many digits."""
    if not math.isfinite(value) or value == 0:
        return 0
    exponent = int(f"{value:.{digits - 1}e}".partition("e")[2])  # after rounding
    return max(0, digits - 1 - exponent)


def _number(value: float, decimals: int) -> str:
    if not math.isfinite(value):
        return str(value)
    if decimals > 2 * DIGITS or abs(value) >= 1e7:
        return f"{value:.{DIGITS}g}"
    return f"{value:,.{decimals}f}"


def result(key: str) -> Callable[[RunRecord], float | None]:
    """Reads it from the results, or else the last value of its curve."""

    def read(run: RunRecord) -> float | None:
        if key in run.results:
            return run.results[key]
        curve = run.metrics.get(key)
        return curve[-1] if curve else None

    return read


def _cost(key: str) -> Callable[[RunRecord], float | None]:
    """A run without a penalty has no cost of one."""
    return lambda run: None if run.results["settings"].get("penalty.gamma") == 0 else result(key)(run)


def _summary(key: str) -> Callable[[RunRecord], float | None]:
    """Of the spectrum of the features, which runs of earlier versions have in later evaluations only."""

    def read(run: RunRecord) -> float | None:
        value = result(f"representation_{key}")(run)
        return run.spectra.get("summary", {}).get(key) if value is None else value

    return read


def _test_images(run: RunRecord) -> int | None:
    return run.results.get("test_images")


def score(key: str, title: str, short: str, headline: bool = False) -> Measure:
    return Measure(title, short, result(key), True, _test_images, headline)


SCORES = (
    score("knn", "kNN on frozen features", "kNN", headline=True),
    score("linear_probe", "Linear probe on frozen features", "linear probe", headline=True),
    score("raw_pixels_knn", "kNN on raw pixels (nothing learned)", "raw pixels, kNN"),
    Measure("Most frequent class", "most frequent class", result("chance"), True),
)
REPRESENTATION = (
    Measure(
        "Effective rank of the feature covariance", "effective rank", result("representation_effective_rank"),
        headline=True,
    ),
    Measure("RankMe of the features", "RankMe", result("representation_rankme")),
    Measure("Stable rank of the features", "stable rank", _summary("stable_rank")),
    Measure("α-ReQ: exponent of the eigenvalue decay", "α-ReQ", _summary("alpha_req")),
    Measure("LiDAR: rank between pictures over that between views", "LiDAR", _summary("lidar")),
    Measure("Largest correlation of two features", "largest correlation", _summary("largest_correlation")),
    Measure("Spread of features (0: collapsed)", "spread of features", result("representation_spread")),
)  # fmt: skip
TRAINING = (
    Measure(
        "Effective rank of the weights (mean share of full rank)", "rank of weights", result("weights_effective_rank"),
        is_share=True,
    ),
    Measure("Penalty before gamma (each run's own), at the end", "penalty before gamma", result("penalty_raw")),
    Measure("Loss of the method at the end", "loss", result("loss")),
    Measure("Spread of projections at the end (0: collapsed)", "spread of projections", result("spread")),
)  # fmt: skip
COST = (
    Measure("Images per second", "images/s", result("images_per_second")),
    Measure("Training step, median (ms)", "step, ms", result("step_ms")),
    Measure("of which penalty, forward and backward (ms)", "penalty, ms", _cost("penalty_ms")),
    Measure("The penalty's share of the step", "penalty's share", _cost("penalty_share"), is_share=True),
    Measure("Time from first step to last result (s)", "whole run, s", result("seconds")),
)
MEASURES = (*SCORES, *REPRESENTATION, *TRAINING, *COST)
HEADLINES = tuple(measure for measure in MEASURES if measure.headline)
SUMMARIZED = (*SCORES[:3], REPRESENTATION[0], COST[3])  # in the terminal
COMPARED = (*SCORES[:2], *REPRESENTATION[:2], REPRESENTATION[3], TRAINING[0])  # what differences are tabulated of


def present(measures: Sequence[Measure], runs: Sequence[RunRecord]) -> list[Measure]:
    """Those of which a run has a value."""
    return [measure for measure in measures if any(measure.value(run) is not None for run in runs)]
