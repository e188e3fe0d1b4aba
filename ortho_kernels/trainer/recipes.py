"""The experiments of arXiv 2411.00392, each put together from a data set, a method and a backbone.

What a method needs on a kind of data stands in `configs/recipe`, with its source; here is what goes with what. They are
chosen by name, `experiment=paper/cifar100/byol_resnet18`, and regularized with SO at the paper's 1e-6. The paper's grid
over both regularizers, with the baseline, is one sweep:

    -m experiment=paper/cifar100/byol_resnet18 penalty=none,so_weak,so,so_strong,srip_weak,srip,srip_strong
"""

from functools import cache
from pathlib import Path
from typing import Any

RECIPES = Path(__file__).parent / "configs" / "recipe"
ON_CIFAR = {"cifar10": ("resnet18",), "cifar100": ("resnet18", "resnet50", "wrn28_2")}
TRANSFORMERS = {"dino": ("vit_tiny", "vit_small"), "mocov3": ("vit_small",)}


@cache
def paper_recipes() -> dict[str, dict[str, Any]]:
    """Hydra's nodes of the experiments, by name."""
    nodes = {}
    for method in _methods("cifar"):
        for data, backbones in ON_CIFAR.items():
            for backbone in backbones:
                nodes[f"paper/{data}/{method}_{backbone}"] = _node(data, backbone, [f"cifar/{method}"])
        for backbone in ("resnet18", "resnet50"):
            parts = [f"cifar/{method}", "imagenet100/base", f"imagenet100/{method}"]
            nodes[f"paper/imagenet100/{method}_{backbone}"] = _node("imagenet100", backbone, parts, stem="imagenet")
    for method, backbones in TRANSFORMERS.items():
        for backbone in backbones:
            parts = [f"cifar/{method}", "imagenet100/base", f"imagenet100/{method}_vit"]
            nodes[f"paper/imagenet100/{method}_{backbone}"] = _node("imagenet100", backbone, parts, patch=16)
    for method in _methods("imagenet1k"):
        parts = [f"imagenet1k/{method}"]
        nodes[f"paper/imagenet1k/{method}_resnet50"] = _node("imagenet1k", "resnet50", parts, stem="imagenet")
    return nodes


def _methods(kind: str) -> list[str]:
    return sorted(path.stem for path in (RECIPES / kind).glob("*.yaml") if path.stem != "base")


def _node(data: str, backbone: str, parts: list[str], **options: Any) -> dict[str, Any]:
    present = [part for part in parts if (RECIPES / f"{part}.yaml").is_file()]
    defaults = [f"/recipe/{part}" for part in present]
    overrides = [{"override /data": data}, {"override /backbone": backbone}]
    return {"defaults": [*defaults, *overrides, "_self_"], "backbone": options}
