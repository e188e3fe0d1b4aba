"""The recipes beside their sources: what sources.yaml says, what the composed recipes say, and docs/trainer_recipes.md.

python tests/trainer/recipe_sources.py    writes docs/trainer_recipes.md
"""

import math
import re
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf
from small_methods import transformer
from torch import nn

from ortho_kernels.trainer.backbones.resnet import ResNet18
from ortho_kernels.trainer.config import load_config, option_groups
from ortho_kernels.trainer.config.recipes import FILES, paper_recipes
from ortho_kernels.trainer.data.colors import LEAST_SIGMA
from ortho_kernels.trainer.data.view_settings import plan_views
from ortho_kernels.trainer.engine.optimizers import build_optimizer
from ortho_kernels.trainer.methods import METHODS
from ortho_kernels.trainer.methods.masking import visible_count

HERE = Path(__file__).parent
DOCUMENT = HERE.parent.parent / "docs" / "trainer_recipes.md"
SMALL_HEADS = {"hidden": 6, "projection": 4, "prediction_hidden": 5, "prototypes": 3, "queue": 2}
SMALL_HEADS |= {"decoder_width": 4, "decoder_depth": 1, "decoder_heads": 1}
LAYERS = {nn.ReLU: "relu", nn.GELU: "gelu"}


class Entry(NamedTuple):
    """What a source sets, and where."""

    value: Any
    file: str
    line: str


class Ours:
    """A composed recipe, its views and its heads."""

    def __init__(self, experiment: str) -> None:
        self.config: Any = load_config([f"experiment={experiment}"])
        self.views = plan_views(
            self.config.method.views, OmegaConf.to_object(self.config.data.views), self.config.data.size
        )
        settings = self.config.method.copy()
        settings.update({key: value for key, value in SMALL_HEADS.items() if key in settings})
        encoder: Any = transformer() if settings.name == "mae" else nn.Identity()
        encoder.features = 7
        self.method: Any = METHODS[settings.name](encoder, settings)

    def epochs(self, share: float) -> float:
        return share * self.config.trainer.max_epochs

    def view(self, index: int) -> Any:
        return self.views[index].settings

    def equal_views(self, index: int) -> int:
        return sum(view == self.views[index] for view in self.views)


@cache
def tree() -> dict[str, Any]:
    content: Any = OmegaConf.to_container(OmegaConf.load(HERE / "sources.yaml"))
    return content


@cache
def ours(recipe: str) -> Ours:
    return Ours(experiment_of(recipe))


def experiment_of(recipe: str) -> str:
    """The smallest of the experiments that is made by a recipe of ours: `imagenet100/dino_vit`, `mae/cifar`, ..."""
    folder, name = recipe.split("/")
    if folder == "mae":
        return next(each for each in sorted(option_groups()["experiment"]) if each.startswith(recipe))
    data = {"cifar": "cifar10"}.get(folder, folder)
    backbones = ("vit_tiny", "vit_small") if name.endswith("_vit") else ("resnet18", "resnet50")
    names = (f"paper/{data}/{name.removesuffix('_vit')}_{backbone}" for backbone in backbones)
    return next(name for name in names if name in paper_recipes())


def experiments() -> set[str]:
    """The recipes that the paper's experiments, and those of MAE, are made of."""
    found = {f"mae/{path.stem}" for path in (FILES / "recipe" / "mae").glob("*.yaml") if path.stem != "base"}
    for name in paper_recipes():
        _, data, rest = name.split("/")
        method, backbone = next((rest.removesuffix(f"_{b}"), b) for b in BACKBONES if rest.endswith(f"_{b}"))
        folder = "cifar" if data.startswith("cifar") else data
        found.add(f"{folder}/{method}" + "_vit" * backbone.startswith("vit"))
    return found


BACKBONES = ("resnet18", "resnet50", "wrn28_2", "vit_tiny", "vit_small")


def entries(recipe: str) -> dict[str, Entry]:
    """All that a recipe's sources set, by key; its own files count before the shared ones."""
    block = tree()["recipes"][recipe]
    found: dict[str, Entry] = {}
    for name in block["include"]:
        found |= dict(own_entries(tree()["shared"][name]))
    return found | dict(own_entries(block))


def own_entries(block: dict[str, Any]) -> Iterator[tuple[str, Entry]]:
    for file, values in block.items():
        if file != "include":
            for key, (value, line) in values.items():
                yield key, Entry(value, file, str(line))


def number(value: Any) -> Any:
    """A product as its value; anything else as it is."""
    return math.prod(map(float, value.split(" * "))) if isinstance(value, str) and " * " in value else value


def deviation(recipe: str, key: str) -> dict[str, Any] | None:
    """The entry of the list of deviations for a recipe's key, if there is one."""
    for entry in tree()["deviations"]:
        if entry["key"] == key and any(fnmatch(recipe, pattern) for pattern in entry["recipes"]):
            return entry
    return None


def value_of_ours(recipe: str, key: str) -> Any:
    """What the recipe has for a source's key, in the source's units."""
    mine = ours(recipe)
    if match := re.fullmatch(r"(\d)\.(.+)", key):
        return OF_A_VIEW[match[2]](mine, int(match[1]))
    return OF_A_RUN[key](mine)


def layers(head: nn.Module) -> str:
    """A head as its layers' names. A bias before a batch norm changes nothing, so it isn't told."""
    found = [layer for layer in head.modules() if not list(layer.children())]
    words = []
    for layer, following in zip(found, [*found[1:], None], strict=True):
        if isinstance(layer, nn.Linear):
            without = layer.bias is None and not isinstance(following, nn.BatchNorm1d)
            words.append("linear without bias" if without else "linear")
        elif isinstance(layer, nn.BatchNorm1d):
            words.append("norm" if layer.affine else "plain norm")
        else:
            words.append(LAYERS[type(layer)])
    return ", ".join(words)


def strength(name: str) -> Callable[[Ours, int], float]:
    return lambda o, index: getattr(o.view(index), name)


# What a key of a source is here: a function of the recipe and the number of the view ...
OF_A_VIEW: dict[str, Callable[[Ours, int], Any]] = {
    "rrc.crop_min_scale": strength("min_area"),
    "rrc.crop_max_scale": strength("max_area"),
    "color_jitter.prob": strength("jitter"),
    "color_jitter.brightness": strength("brightness"),
    "color_jitter.contrast": strength("contrast"),
    "color_jitter.saturation": strength("saturation"),
    "color_jitter.hue": strength("hue"),
    "grayscale.prob": strength("gray"),
    "gaussian_blur.prob": strength("blur"),
    "solarization.prob": strength("solarize"),
    "equalization.prob": lambda o, index: 0.0,  # no such transform
    "horizontal_flip.prob": strength("flip"),
    "crop_size": lambda o, index: o.views[index].size,
    "num_crops": lambda o, index: o.equal_views(index),
    "input_size": lambda o, index: o.views[index].size,
    "min_scale": strength("min_area"),
    "max_scale": strength("max_area"),
    "cj_prob": strength("jitter"),
    "cj_strength * cj_bright": strength("brightness"),
    "cj_strength * cj_contrast": strength("contrast"),
    "cj_strength * cj_sat": strength("saturation"),
    "cj_strength * cj_hue": strength("hue"),
    "random_gray_scale": strength("gray"),
    "gaussian_blur": strength("blur"),
    "solarization_prob": strength("solarize"),
    "sigmas": lambda o, index: [LEAST_SIGMA, o.view(index).blur_sigma],
    "vf_prob": lambda o, index: 0.0,  # no such transform, nor the next
    "rr_prob": lambda o, index: 0.0,
    "hf_prob": strength("flip"),
}
# ... or of the recipe alone.
OF_A_RUN: dict[str, Callable[[Ours], Any]] = {
    # optimizer and schedule
    "optimizer.name": lambda o: o.config.optimizer.name,
    "optimizer": lambda o: o.config.optimizer.name,
    "optimizer.lr": lambda o: o.config.optimizer.lr,
    "blr": lambda o: o.config.optimizer.lr,
    "lr": lambda o: o.config.optimizer.lr / (16 if o.config.optimizer.scaling == "sqrt" else 1),  # of sqrt(256)
    "rate's scaling with the batch": lambda o: o.config.optimizer.scaling,
    "optimizer.weight_decay": lambda o: o.config.optimizer.weight_decay,
    "weight_decay": lambda o: o.config.optimizer.weight_decay,
    "weight_decay of norms and biases": lambda o: o.config.optimizer.weight_decay * o.config.optimizer.decay_norms,
    "tokens decay": lambda o: o.config.optimizer.decay_norms,
    "lr of norms and biases": lambda o: o.config.optimizer.norm_lr,
    "optimizer.exclude_bias_n_norm_wd": lambda o: not o.config.optimizer.decay_norms,
    "optimizer.kwargs.exclude_bias_n_norm": lambda o: not o.config.optimizer.decay_norms,
    "optimizer.kwargs.clip_lr": lambda o: o.config.optimizer.clip,
    "adaptation is clipped": lambda o: o.config.optimizer.clip,
    "optimizer.kwargs.eta": lambda o: o.config.optimizer.trust,
    "trust_coefficient": lambda o: o.config.optimizer.trust,
    "optimizer.kwargs.momentum": lambda o: o.config.optimizer.momentum,
    "momentum": lambda o: o.config.optimizer.momentum,
    "optimizer.kwargs.betas": lambda o: list(build_optimizer(o.config.optimizer, nn.Linear(1, 1), 1).defaults["betas"]),
    "scheduler.warmup_epochs": lambda o: o.epochs(o.config.optimizer.warmup),
    "warmup_epochs": lambda o: o.epochs(o.config.optimizer.warmup),
    "scheduler.warmup_start_lr": lambda o: "the rate over the steps of the warm-up",
    "warmup_start_value": lambda o: 0.0,
    "scheduler.min_lr": lambda o: o.config.optimizer.final_lr * o.config.optimizer.lr,
    "min_lr": lambda o: o.config.optimizer.final_lr,
    "end_value": lambda o: o.config.optimizer.final_lr,
    "predictor's static_lr": lambda o: o.config.method.constant_predictor_rate,
    # trainer
    "optimizer.batch_size * devices": lambda o: o.config.trainer.batch_size,
    "batch size": lambda o: o.config.trainer.batch_size,
    "max_epochs": lambda o: o.config.trainer.max_epochs,
    "epochs": lambda o: o.config.trainer.max_epochs,
    "sync_batchnorm": lambda o: o.config.trainer.sync_batchnorm,
    "batch_shuffle": lambda o: False,
    "precision": lambda o: o.config.trainer.precision,
    "float32_matmul_precision": lambda o: "highest",
    "method_kwargs.clip_grad": lambda o: o.config.trainer.clip or 0,
    "gradient_clip_val": lambda o: o.config.trainer.clip,
    "frozen prototypes count in the clipped norm": lambda o: False,
    "network that is judged": lambda o: o.config.evaluation.network,
    # views
    "augmentations": lambda o: o.config.method.views,
    "number of such views": lambda o: o.equal_views(0),
    "number of local views": lambda o: len(o.views) - 2,
    "gaussian_blur.sigma": lambda o: [LEAST_SIGMA, o.config.data.views.blur_sigma],
    "solarization.threshold": lambda o: 128,
    "blur comes before solarization": lambda o: True,
    "crop's sides": lambda o: [1 / o.config.data.views.max_ratio, o.config.data.views.max_ratio],
    "crop's interpolation": lambda o: "bilinear",
    "jitter's order": lambda o: "brightness, contrast, saturation, hue",
    "normalization": lambda o: "measured on the training images",
    # backbone
    "backbone.name": lambda o: o.config.backbone.name,
    "backbone.conv1.padding": lambda o: _narrow(o).build(3, 32).conv1.padding[0],
    "backbone.maxpool": lambda o: hasattr(_narrow(o).build(3, 32), "maxpool"),
    "patch_size": lambda o: o.config.backbone.patch,
    "depth": lambda o: o.config.backbone.depth,
    "num_heads": lambda o: (
        o.config.backbone.heads or {"vit_tiny": 3, "vit_small": 6, "vit_base": 12}[o.config.backbone.name]
    ),
    "positions": lambda o: o.config.backbone.positions,
    "initialization": lambda o: o.config.backbone.initialization,
    "freeze_patches": lambda o: o.config.backbone.freeze_patches,
    # heads
    "projector": lambda o: layers(o.method.projector),
    "predictor": lambda o: layers(o.method.predictor),
    "method_kwargs.proj_hidden_dim": lambda o: o.config.method.hidden,
    "hidden_dim": lambda o: o.config.method.hidden,
    "method_kwargs.proj_output_dim": lambda o: o.config.method.projection,
    "output_dim": lambda o: o.config.method.projection,
    "num_layers": lambda o: o.config.method.layers,
    "method_kwargs.pred_hidden_dim": lambda o: o.config.method.prediction_hidden,
    "predictor's hidden_dim": lambda o: o.config.method.prediction_hidden,
    "method_kwargs.use_bn_in_head": lambda o: o.config.method.batch_norm,
    "batch_norm": lambda o: o.config.method.batch_norm,
    "method_kwargs.decoder_embed_dim": lambda o: o.config.method.decoder_width,
    "method_kwargs.decoder_depth": lambda o: o.config.method.decoder_depth,
    "method_kwargs.decoder_num_heads": lambda o: o.config.method.decoder_heads,
    # losses
    "method_kwargs.mask_ratio": lambda o: o.config.method.mask,
    "visible patches of 196": lambda o: visible_count(196, o.config.method.mask),
    "method_kwargs.norm_pix_loss": lambda o: o.config.method.normalize_pixels,
    "method_kwargs.temperature": lambda o: o.config.method.temperature,
    "temperature": lambda o: o.config.method.temperature,
    "sigma": lambda o: o.config.method.sigma,
    "both views are queries": lambda o: True,
    "method_kwargs.scale_loss": lambda o: o.config.method.scale,
    "scale of the loss": lambda o: o.config.method.scale,
    "method_kwargs.lamb": lambda o: o.config.method.off_diagonal,
    "lambda_param": lambda o: getattr(o.config.method, "off_diagonal", None) or o.config.method.invariance,
    "method_kwargs.sim_loss_weight": lambda o: o.config.method.invariance,
    "method_kwargs.var_loss_weight": lambda o: o.config.method.variance / 2,  # ours is of the mean of two views
    "mu_param": lambda o: o.config.method.variance,
    "method_kwargs.cov_loss_weight": lambda o: o.config.method.covariance,
    "nu_param": lambda o: o.config.method.covariance,
    # teachers and queues
    "momentum.base_tau": lambda o: o.config.method.momentum,
    "momentum's start_value": lambda o: o.config.method.momentum,
    "momentum.final_tau": lambda o: o.config.method.final_momentum,
    "momentum's end_value": lambda o: o.config.method.final_momentum,
    "method_kwargs.queue_size": lambda o: o.config.method.queue,
    "queue": lambda o: o.config.method.queue,
    "queue waits until it is filled": lambda o: False,
    "method_kwargs.epoch_queue_starts": lambda o: o.epochs(o.config.method.queue_start),
    "start_queue_at_epoch": lambda o: o.epochs(o.config.method.queue_start),
    "method_kwargs.student_temperature": lambda o: o.config.method.student_temperature,
    "student_temp": lambda o: o.config.method.student_temperature,
    "method_kwargs.teacher_temperature": lambda o: o.config.method.final_teacher_temperature,
    "method_kwargs.warmup_teacher_temperature": lambda o: o.config.method.teacher_temperature,
    "method_kwargs.warmup_teacher_temperature_epochs": lambda o: o.epochs(o.config.method.temperature_warmup),
    "teacher_temp": lambda o: o.method.teacher_temperature,
    "center_momentum": lambda o: o.config.method.center_momentum,
    # prototypes
    "method_kwargs.num_prototypes": lambda o: o.config.method.prototypes,
    "n_prototypes": lambda o: o.config.method.prototypes,
    "prototypes have biases": lambda o: o.method.prototypes.bias is not None,
    "prototypes under a weight norm": lambda o: not o.config.method.normalize_in_place,
    "method_kwargs.norm_last_layer": lambda o: o.config.method.fixed_lengths,
    "norm_last_layer": lambda o: o.config.method.fixed_lengths,
    "method_kwargs.freeze_last_layer": lambda o: o.epochs(o.config.method.freeze),
    "freeze_last_layer": lambda o: o.epochs(o.config.method.freeze),
    "method_kwargs.freeze_prototypes_epochs": lambda o: o.epochs(o.config.method.freeze),
    "n_steps_frozen_prototypes": lambda o: o.epochs(o.config.method.freeze),
    "method_kwargs.sk_epsilon": lambda o: o.config.method.epsilon,
    "sinkhorn_epsilon": lambda o: o.config.method.epsilon,
    "method_kwargs.sk_iters": lambda o: o.config.method.iterations,
    "sinkhorn_iterations": lambda o: o.config.method.iterations,
}


def _narrow(o: Ours) -> ResNet18:
    return ResNet18(width=2, stem=o.config.backbone.stem)


def document() -> str:
    """docs/trainer_recipes.md."""
    parts = [TITLE]
    for heading, library, folder in FOLDERS:
        recipes = {name: block for name, block in tree()["recipes"].items() if name.startswith(folder)}
        shared = dict.fromkeys(name for block in recipes.values() for name in block["include"])
        parts.append(f"\n## {heading}\n\n| | file | values (lines) |\n|---|---|---|\n")
        parts += [_rows(name, tree()["shared"][name], library) for name in shared]
        parts += [_rows(f"**{name.rpartition('/')[2]}**", block, library) for name, block in recipes.items()]
    parts.append("\n## Deviations\n\n| recipes | what | the source | here | why |\n|---|---|---|---|---|\n")
    for entry in tree()["deviations"]:
        meant = [name for name in tree()["recipes"] if deviation(name, entry["key"]) is entry]
        values = [entries(name)[entry["key"]].value for name in meant if entry["key"] in entries(name)]
        theirs = "; ".join(dict.fromkeys(map(_format, values)))
        where = ", ".join("all" if pattern == "*" else f"`{pattern}`" for pattern in entry["recipes"])
        parts.append(f"| {where} | {entry['key']} | {theirs} | {_format(entry['ours'])} | {entry['reason']} |\n")
    parts += ["\n## Without a source\n\n", *(f"- `{name}`: {why}\n" for name, why in tree()["no source"].items())]
    return "".join(parts)


TITLE = """\
# Recipes and their sources

What each recipe's source sets, with the line that sets it, and where a recipe deviates from it on purpose.
The names are the sources'. A table begins with what several recipes share; each recipe then names the shared parts that
it takes, and lists its own values. Read were solo-learn at commit 9187ea3, Lightly at commit e8d317f and MAE's own code at
commit efb2a80.

A test holds every recipe to these values. This page is made from `tests/trainer/sources.yaml` by
`python tests/trainer/recipe_sources.py`.
"""
FOLDERS = (
    ("CIFAR-10 and CIFAR-100: solo-learn", "solo-learn", "cifar/"),
    ("ImageNet-100: solo-learn", "solo-learn", "imagenet100/"),
    ("ImageNet-1k: Lightly", "Lightly", "imagenet1k/"),
    ("MAE on CIFAR-10 and CIFAR-100: solo-learn", "solo-learn", "mae/cifar"),
    ("MAE on ImageNet-100: solo-learn", "solo-learn", "mae/imagenet100"),
    ("MAE on ImageNet-1k: its authors", "MAE", "mae/imagenet1k"),
)


def _rows(name: str, block: dict[str, Any], library: str) -> str:
    """A row for each file; the first says whose values they are."""
    source, rows = tree()["sources"][library], []
    head = name + (f": {', '.join(block['include'])}" if "include" in block else "")
    for file in (file for file in block if file != "include"):
        values = ", ".join(f"{_short(key)} **{_format(value)}** ({line})" for key, (value, line) in block[file].items())
        link = f"[{file}](https://github.com/{source['repository']}/blob/{source['commit']}/{file})"
        rows.append(f"| {head} | {link} | {values} |\n")
        head = ""
    return "".join(rows)


def _short(key: str) -> str:
    """A view's number counted from 1; no names of groups."""
    match = re.fullmatch(r"(\d)\.(.+)", key)
    return f"view {int(match[1]) + 1} {match[2]}" if match else key.removeprefix("method_kwargs.")


def _format(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " to ".join(map(_format, value)) if len(value) == 2 else ", ".join(map(_format, value))
    return f"{value:g}" if isinstance(value, float) else str(value).replace("*", "x")


if __name__ == "__main__":
    DOCUMENT.write_text(document())
