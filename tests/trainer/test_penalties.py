"""The penalties of the trainer's configuration: the paper's gamma for the backbone, and the control."""

import json

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from ortho_kernels.trainer.config import load_config
from ortho_kernels.trainer.engine.checkpoints import checkpoint_files, read_checkpoint
from ortho_kernels.trainer.engine.penalties import build_penalty
from ortho_kernels.trainer.errors import TrainerError


def gamma(*words):
    return load_config(words).penalty.gamma


@pytest.mark.parametrize(
    ("backbone", "so", "srip"),
    [
        (["backbone=resnet18"], 1e-6, 1e-3),
        (["backbone=resnet18", "backbone.width=16"], 1e-6, 1e-3),
        (["backbone=resnet50"], 1e-6, 1e-3),
        (["backbone=wrn28_2"], 1e-6, 1e-4),
        (["backbone=vit_tiny"], 1e-5, 1e-3),
        (["backbone=vit_small"], 1e-5, 1e-3),
        (["backbone=vit_base"], 1e-6, 1e-3),
        (["backbone=timm", "backbone.model=vit_tiny_patch16_224"], 1e-5, 1e-3),
        (["backbone=timm"], 1e-6, 1e-3),
        (["backbone=torchvision"], 1e-6, 1e-3),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_gamma_is_the_papers_for_the_backbone(backbone, so, srip):
    gammas = {name: gamma(f"penalty={name}", *backbone) for name in ("none", "so", "srip", "decay")}
    assert gammas == {"none": 0, "so": so, "srip": srip, "decay": so}


@pytest.mark.parametrize("penalty", ["so", "srip", "decay"])
def test_a_gamma_that_is_given_wins(penalty):
    words = [f"penalty={penalty}", "backbone=vit_tiny"]
    assert gamma(*words, "penalty.gamma=3e-5") == 3e-5
    assert gamma(*words, "penalty.gamma=0") == 0
    assert gamma(*words, "penalty.gamma=null") == gamma(*words)


def test_a_recipe_keeps_its_own_gamma_but_gives_a_baseline_none():
    recipe = "experiment=quick/fashion_mnist"
    assert (gamma(recipe), gamma(recipe, "penalty=none")) == (2e-4, 0)
    assert gamma("penalty=none", "penalty.gamma=0") == 0
    with pytest.raises(TrainerError, match=r"penalty=none is the baseline, whose gamma is 0; got penalty.gamma=1e-05"):
        gamma("penalty=none", "penalty.gamma=1e-5")


def test_a_recipe_gives_each_penalty_its_gamma():
    words = ["gammas={so: 2e-4, srip: 2e-2}", "backbone=vit_tiny"]
    assert [gamma(f"penalty={name}", *words) for name in ("none", "so", "srip", "decay")] == [0, 2e-4, 2e-2, 1e-5]
    assert gamma("penalty=srip", *words, "penalty.gamma=1") == 1
    with pytest.raises(TrainerError, match=r"gammas names no penalty by sirp. Did you mean srip\?"):
        gamma("penalty=so", "gammas={sirp: 1}")
    with pytest.raises(TrainerError, match=r"penalty.gamma must be at least 0; got -1"):
        gamma("penalty=so", "gammas={so: -1}")


def test_what_a_run_leaves_holds_the_number(run_tiny):
    folder = run_tiny("method=simclr", "penalty=srip")
    settings = json.loads((folder / "results.json").read_text())["settings"]
    [checkpoint] = checkpoint_files(folder / "checkpoints")
    assert settings["penalty.gamma"] == 1e-3
    assert read_checkpoint(checkpoint)["configuration"]["penalty"]["gamma"] == 1e-3
    assert OmegaConf.load(folder / "config.yaml").penalty.gamma == 1e-3


def test_the_control_decays_each_weight_at_the_rate_of_so_at_twice_the_square():
    """At singular values of sqrt(2), where s^2 - 1 is 1, SO and its control have the same gradient."""
    encoder = nn.Sequential(nn.Linear(6, 4, bias=False), nn.Linear(4, 4, bias=False))
    for layer in encoder:
        nn.init.orthogonal_(layer.weight, gain=2**0.5)
    gradients = {}
    for name in ("so", "decay"):
        build_penalty(OmegaConf.to_object(load_config([f"penalty={name}"]).penalty), encoder, 0)().backward()
        gradients[name] = [layer.weight.grad.clone() for layer in encoder]
        encoder.zero_grad()
    for so, decay, layer in zip(gradients["so"], gradients["decay"], encoder, strict=True):
        torch.testing.assert_close(decay, 4 * layer.weight.detach())
        torch.testing.assert_close(so, decay, rtol=1e-4, atol=1e-5)


def test_the_controls_report_measures_so():
    encoder = nn.Linear(4, 4, bias=False)
    nn.init.orthogonal_(encoder.weight)
    [row] = build_penalty(OmegaConf.to_object(load_config(["penalty=decay"]).penalty), encoder, 0).report()
    assert row.value == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["penalty=so", "penalty.split_qkv=true"], "penalty: split_qkv needs a fused"),
        (["penalty=so", "penalty.side=left"], "penalty.side must be one of"),
        (["penalty=srip", "penalty.include=[nothing*]"], "penalty: include pattern 'nothing\\*' matches none"),
    ],
)
def test_mistakes_name_the_option(words, said):
    with pytest.raises(TrainerError, match=said):
        build_penalty(OmegaConf.to_object(load_config(words).penalty), nn.Sequential(nn.Linear(3, 3)), 0)
