"""Recipes: each is held to its source, built, made small, and runs two steps."""

import pytest
import torch
from recipe_sources import (
    DOCUMENT,
    deviation,
    document,
    entries,
    experiments,
    number,
    tree,
    value_of_ours,
)

from ortho_kernels.trainer.config import load_config, option_groups
from ortho_kernels.trainer.config.recipes import paper_recipes
from ortho_kernels.trainer.data import Splits
from ortho_kernels.trainer.data.images import MemoryImages
from ortho_kernels.trainer.distributed.processes import Ranks
from ortho_kernels.trainer.engine.optimizers import rate_factor
from ortho_kernels.trainer.methods import METHODS
from ortho_kernels.trainer.runs.pretrain import build_module

RECIPES = option_groups()["experiment"]
SMALLER = {
    "method": {"hidden": 16, "projection": 8, "prediction_hidden": 16, "queue": 32, "prototypes": 10}
    | {"decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2},
    "backbone": {"width": 4, "depth": 1, "factor": 1, "patch": 8},
    "data": {"size": 16},
    "trainer": {"batch_size": 8},
}


def made_small(config):
    """The same recipe at a size that a test can afford."""
    for group, values in SMALLER.items():
        for key, value in values.items():
            if key in config[group]:
                config[group][key] = value
    if config.backbone.name == "wrn28_2":
        config.backbone.depth = 10
    config.data.views.local.size = 8
    return config


def two_steps(config):
    """The losses of two steps on noise, and the module after them."""
    channels = 1 if config.data.name in ("fashion_mnist", "digits") else 3
    pixels = torch.randint(0, 256, (16, channels, 16, 16), generator=torch.Generator().manual_seed(0)).byte()
    images = MemoryImages(pixels, torch.zeros(16, dtype=torch.int64))
    module = build_module(config, Splits(images, images, ["noise"]), Ranks(), steps=2)
    setup = module.configure_optimizers()
    optimizer, schedule = setup["optimizer"], setup["lr_scheduler"]["scheduler"]
    losses = []
    for step in range(2):
        module.method.progress = step / 2
        loss = module.method(module.views(pixels[:8], step)).loss
        loss.backward()
        module.method.before_step(step, 2)
        (module.gamma * module.penalty()).backward()
        optimizer.step()
        schedule.step()
        module.method.after_step(step, 2)
        losses.append(loss.item())
    return losses, module


def same(theirs, mine):
    """Whether a source's value and ours are one, in any form of a number."""
    theirs = number(theirs)
    if isinstance(theirs, list) and isinstance(mine, list):
        return len(theirs) == len(mine) and all(map(same, theirs, mine))
    if isinstance(theirs, bool) or not isinstance(theirs, (int, float)) or not isinstance(mine, (int, float)):
        return type(theirs) is type(mine) and theirs == mine
    return mine == pytest.approx(theirs, rel=1e-4)


@pytest.mark.parametrize("recipe", tree()["recipes"])
def test_a_recipe_is_its_sources_but_for_the_deviations_that_are_listed(recipe):
    wrong = []
    for key, entry in entries(recipe).items():
        mine, listed = value_of_ours(recipe, key), deviation(recipe, key)
        where = f"{key}: {entry.value} ({entry.file}:{entry.line})"
        if listed is None and not same(entry.value, mine):
            wrong.append(f"{where}, here {mine}")
        elif listed is not None and same(entry.value, mine):
            wrong.append(f"{where}: is listed as a deviation, and is none")
        elif listed is not None and not same(listed["ours"], mine):
            wrong.append(f"{where}: the list of deviations says {listed['ours']}, here {mine}")
    assert not wrong, "\n" + "\n".join(wrong)


def test_every_recipe_has_a_source_or_says_why_not():
    assert tree()["recipes"].keys() | tree()["no source"].keys() == experiments()
    assert not tree()["recipes"].keys() & tree()["no source"].keys()


def test_no_deviation_is_left_over():
    for entry in tree()["deviations"]:
        meant = [name for name in tree()["recipes"] if deviation(name, entry["key"]) is entry]
        assert any(entry["key"] in entries(name) for name in meant), entry


def test_what_recipes_share_is_used():
    used = {name for block in tree()["recipes"].values() for name in block["include"]}
    assert used == tree()["shared"].keys()


def test_the_documented_table_is_made_from_the_sources():
    assert DOCUMENT.read_text() == document(), "run: python tests/trainer/recipe_sources.py"


def first_of_each_network():
    """The recipes; slow are those of a method and network that another data set has had."""
    seen = set()
    for recipe in RECIPES:
        networks = recipe.rpartition("/")[2]
        yield pytest.param(recipe, marks=pytest.mark.slow if networks in seen else ())
        seen.add(networks)


@pytest.mark.parametrize("recipe", list(first_of_each_network()))
def test_every_recipe_runs_two_steps(recipe):
    config = made_small(load_config([f"experiment={recipe}"]))
    losses, module = two_steps(config)
    assert torch.tensor(losses).isfinite().all()
    assert all(parameter.isfinite().all() for parameter in module.parameters())
    if recipe.startswith("paper/"):
        data, method, *_ = recipe.removeprefix("paper/").replace("/", " ").split()
        assert config.data.name == data
        assert method == f"{config.method.name}_{config.backbone.name}"
        small_transformer = config.backbone.name in ("vit_tiny", "vit_small")
        assert (config.penalty.name, config.penalty.gamma) == ("so", 1e-5 if small_transformer else 1e-6)


def test_the_papers_first_experiment():
    config = load_config(["experiment=paper/cifar100/byol_resnet18"])
    assert (config.trainer.batch_size, config.trainer.max_epochs) == (256, 1000)
    assert (config.optimizer.name, config.optimizer.lr, config.optimizer.weight_decay) == ("lars", 1.0, 1e-5)
    assert (config.method.views, config.method.momentum) == ("asymmetric", 0.99)
    assert list(config.data.views.asymmetric.solarize) == [0.0, 0.2]
    assert (config.backbone.width, config.backbone.stem) == (64, "cifar")


def test_all_methods_of_the_paper_have_recipes():
    assert len(METHODS.keys() - {"mae"}) == 13
    for folder in ("cifar10", "cifar100", "imagenet100"):
        assert {f"paper/{folder}/{name}_resnet18" for name in METHODS.keys() - {"mae"}} <= paper_recipes().keys()


def test_a_baseline_is_a_word_away():
    for recipe in ("experiment=paper/cifar100/byol_resnet18", "experiment=quick/fashion_mnist"):
        whole, baseline = load_config([recipe]), load_config([recipe, "penalty=none"])
        whole.penalty.gamma = 0.0
        assert whole == baseline


def test_large_images_get_the_large_stem_and_the_settings_of_their_own_runs():
    config = load_config(["experiment=paper/imagenet100/byol_resnet50"])
    assert (config.backbone.stem, config.method.prediction_hidden, config.optimizer.lr) == ("imagenet", 8192, 0.5)
    assert (config.trainer.max_epochs, config.data.size) == (400, 224)


def test_the_square_root_rule_of_lightlys_simclr():
    optimizer = load_config(["experiment=paper/imagenet1k/simclr_resnet50"]).optimizer
    for batch in (256, 1024):
        assert optimizer.lr * rate_factor(optimizer.scaling, batch) == pytest.approx(0.075 * batch**0.5)


def test_transformers_train_with_adamw():
    config = load_config(["experiment=paper/imagenet100/dino_vit_tiny"])
    assert (config.optimizer.name, config.optimizer.lr, config.backbone.patch) == ("adamw", 5e-3, 16)
    assert (config.method.prototypes, config.method.fixed_lengths) == (65536, False)
