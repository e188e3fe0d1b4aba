"""The experiments of arXiv 2411.00392, each put together from a data set, a method and a backbone.

What a method needs on a kind of data stands in `files/recipe`, with its source; here is what goes with what. They are
chosen by name, `experiment=paper/cifar100/byol_resnet18`, and regularized with SO at the paper's gamma for the backbone.
`-m` compares both regularizers at that gamma with the baseline, and searches gamma over the paper's grid:

    -m experiment=paper/cifar100/byol_resnet18 penalty=none,so,srip
    -m experiment=paper/cifar100/byol_resnet18 penalty=so penalty.gamma=1e-7,1e-6,1e-5
    -m experiment=paper/cifar100/byol_resnet18 penalty=srip penalty.gamma=1e-5,1e-4,1e-3
"""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

FILES = Path(__file__).parent / "files"
ON_CIFAR = {"cifar10": ("resnet18",), "cifar100": ("resnet18", "resnet50", "wrn28_2")}
TRANSFORMERS = {"dino": ("vit_tiny", "vit_small"), "mocov3": ("vit_small",)}


class Recipe(NamedTuple):
    data: str
    method: str
    backbone: str
    parts: list[str]  # files under files/recipe; those that are there
    options: dict[str, Any]  # of the backbone


@cache
def paper_recipes() -> dict[str, dict[str, Any]]:
    """Hydra's nodes of the experiments, by name."""
    return {f"paper/{recipe.data}/{recipe.method}_{recipe.backbone}": _node(recipe) for recipe in _recipes()}


def recipe_patterns() -> list[str]:
    """The names for people: METHOD stands for those that a data set and a backbone have in common."""
    patterns = []
    for data, method, backbone, *_ in _recipes():
        few = backbone in TRANSFORMERS.get(method, ())
        patterns.append(f"paper/{data}/{method if few else 'METHOD'}_{backbone}")
    return list(dict.fromkeys(patterns))


def _recipes() -> Iterator[Recipe]:
    for method in _methods("cifar"):
        for data, backbones in ON_CIFAR.items():
            for backbone in backbones:
                yield Recipe(data, method, backbone, [f"cifar/{method}"], {})
        for backbone in ("resnet18", "resnet50"):
            parts = [f"cifar/{method}", "imagenet100/base", f"imagenet100/{method}"]
            yield Recipe("imagenet100", method, backbone, parts, {"stem": "imagenet"})
    for method, backbones in TRANSFORMERS.items():
        for backbone in backbones:
            parts = [f"cifar/{method}", "imagenet100/base", f"imagenet100/{method}_vit"]
            yield Recipe("imagenet100", method, backbone, parts, {"patch": 16})
    for method in _methods("imagenet1k"):
        yield Recipe("imagenet1k", method, "resnet50", [f"imagenet1k/{method}"], {"stem": "imagenet"})


def _node(recipe: Recipe) -> dict[str, Any]:
    present = [part for part in recipe.parts if (FILES / "recipe" / f"{part}.yaml").is_file()]
    overrides = [{"override /data": recipe.data}, {"override /backbone": recipe.backbone}]
    return {"defaults": [*(f"/recipe/{part}" for part in present), *overrides, "_self_"], "backbone": recipe.options}


def _methods(kind: str) -> list[str]:
    return sorted(path.stem for path in (FILES / "recipe" / kind).glob("*.yaml") if path.stem != "base")
