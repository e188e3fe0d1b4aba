"""The cells of a map: what one method makes of one backbone without a penalty, with it, and with what is to be beaten."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from .groups import Group, alike_but, varied
from .plots.drawing import spelled

WEIGHT_DECAY = "optimizer.weight_decay"
MOST_NAMED = 3  # settings in the name of a cell
BASELINE = "gamma 0"


@dataclass(frozen=True)
class Series:
    """Groups of a cell that differ in one number alone, from the least up: a penalty's gammas, or those of a control."""

    name: str  # of the penalty with its options, decay, or weight decay
    groups: tuple[Group, ...]  # their labels are those of no other group of the cell
    numbers: tuple[float, ...]  # gammas, or factors of the cell's own weight decay (where that is 0, weight decays)
    values: tuple[str, ...]  # the numbers as one writes them
    is_control: bool


@dataclass(frozen=True)
class Cell:
    """Groups that differ in the penalty and the weight decay alone."""

    name: str
    weight_decay: float  # that the penalties come on top of
    baseline: Group | None
    series: tuple[Series, ...]

    @property
    def penalties(self) -> list[Series]:
        return [one for one in self.series if not one.is_control]

    @property
    def controls(self) -> list[Series]:
        return [one for one in self.series if one.is_control]

    @property
    def groups(self) -> list[Group]:
        return [*([self.baseline] if self.baseline else []), *(group for one in self.series for group in one.groups)]


def cells_of(groups: Sequence[Group]) -> list[Cell]:
    """In the order of their first groups.

    A cell has one weight decay, that of its penalties. Without a penalty, other weight decays are its controls.
    """
    found = []
    for family in alike_but([group for group in groups if group.gamma is not None], "penalty.", WEIGHT_DECAY):
        penalized = [group for group in family if not group.is_baseline]
        for decay in dict.fromkeys(map(_weight_decay, penalized or family[:1])):
            found.append((decay, family))
    names = _names(found)
    return [_cell(name, decay, family) for name, (decay, family) in zip(names, found, strict=True)]


def written(gamma: float) -> str:
    """As one types it: 3.3e-4."""
    if gamma == 0 or 0.1 <= gamma < 1e3:
        return f"{gamma:.3g}"
    digits, exponent = f"{gamma:.2e}".split("e")
    return f"{float(digits):g}e{int(exponent)}"


def _cell(name: str, decay: float, family: Sequence[Group]) -> Cell:
    baselines = _one_each([group for group in family if group.is_baseline], _weight_decay)
    baseline = baselines.pop(decay, None)
    own = [group for group in family if not group.is_baseline and _weight_decay(group) == decay]
    kinds = alike_but(own, "penalty.gamma")
    series = [_gammas(kind, [other[0] for other in kinds]) for kind in kinds]
    series.sort(key=lambda one: one.is_control)
    if baselines:
        factors = tuple(other / decay if decay else other for other in baselines)
        values = tuple(f"×{factor:.3g}" if decay else written(factor) for factor in factors)
        controls = _relabeled("weight decay", values, baselines)
        series.append(Series("weight decay", controls, factors, values, is_control=True))
    return Cell(name, decay, baseline and replace(baseline, label=BASELINE), tuple(series))


def _gammas(kind: Sequence[Group], kinds: Sequence[Group]) -> Series:
    ordered = _one_each(kind, lambda group: group.gamma or 0.0)
    alike = [group for group in kinds if _penalty(group) == _penalty(kind[0])]
    options = [key for key in varied(alike) if key.startswith("penalty.") and key != "penalty.gamma"]
    own = (f"{key.removeprefix('penalty.')} {kind[0].settings.get(key)}" for key in options)
    name = ", ".join([spelled(_penalty(kind[0]), [group.label for group in kind]), *own])
    values = tuple(map(written, ordered))
    return Series(name, _relabeled(name, values, ordered), tuple(ordered), values, kind[0].is_control)


def _relabeled(name: str, values: Sequence[str], groups: Mapping[float, Group]) -> tuple[Group, ...]:
    return tuple(replace(group, label=f"{name} {value}") for value, group in zip(values, groups.values(), strict=True))


def _one_each(groups: Sequence[Group], number: Callable[[Group], float]) -> dict[float, Group]:
    """By a number of theirs, from the least up. Of several that share it the one with the most seeds is taken: gamma 0
    makes the same of every penalty."""
    found: dict[float, Group] = {}
    for group in sorted(groups, key=number):
        if number(group) not in found or len(group.runs) > len(found[number(group)].runs):
            found[number(group)] = group
    return found


def _names(found: Sequence[tuple[float, Sequence[Group]]]) -> list[str]:
    """Method and backbone, and where these are not enough the settings that tell their namesakes apart."""
    names = [_method_and_backbone(family) for _, family in found]
    result = []
    for i, (decay, family) in enumerate(found):
        namesakes = [other for name, (_, other) in zip(names, found, strict=True) if name == names[i]]
        differing = varied([other[0] for other in namesakes])
        settings = {key: family[0].settings.get(key) for key in differing if not key.startswith("penalty.")}
        if len({other for other, one in found if one is family}) > 1:
            settings[WEIGHT_DECAY] = decay
        own = [f"{key}={value}" for key, value in settings.items()]
        more = [f"{len(own) - MOST_NAMED} more"] if len(own) > MOST_NAMED else []
        result.append(", ".join([names[i], *own[:MOST_NAMED], *more]) if len(namesakes) > 1 else names[i])
    return result


def _method_and_backbone(family: Sequence[Group]) -> str:
    settings, labels = family[0].settings, [group.label for group in family]
    parts = [settings.get("method.name"), settings.get("backbone.name")]
    return ", ".join(spelled(str(part), labels) for part in parts if part) or family[0].label


def _penalty(group: Group) -> str:
    return str(group.settings.get("penalty.name"))


def _weight_decay(group: Group) -> float:
    return group.settings.get(WEIGHT_DECAY) or 0.0
