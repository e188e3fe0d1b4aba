"""The paper's gamma: the table as it was read, the spellings it understands, and what it refuses."""

import pytest
from torch import nn

from ortho_kernels import paper_gamma
from ortho_kernels.penalty.paper_gamma import DEFAULT_GAMMA

TABLE = [
    ("resnet18", 1e-6, 1e-3),
    ("resnet50", 1e-6, 1e-3),
    ("wrn28_2", 1e-6, 1e-4),
    ("vit_tiny", 1e-5, 1e-3),
    ("vit_small", 1e-5, 1e-3),
    ("vit_base", 1e-6, 1e-3),
    ("convnext_atto", 1e-6, 1e-3),
]


@pytest.mark.parametrize(("backbone", "so", "srip"), TABLE)
def test_the_table(backbone, so, srip):
    assert (paper_gamma("so", backbone), paper_gamma("srip", backbone)) == (so, srip)


@pytest.mark.parametrize("backbone", ["WRN-28-2", "wide_resnet28_2", "Wide-ResNet 28-2", "WideResNet28x2"])
def test_spellings_of_the_wide_network(backbone):
    assert paper_gamma("srip", backbone) == 1e-4


@pytest.mark.parametrize(
    "backbone",
    ["vit_tiny_patch16_224", "ViT-Tiny", "ViT-Ti/16", "vit_small_patch16_224.dino", "ViT-S/16", "vit-small"],
)
def test_spellings_of_the_small_transformers(backbone):
    assert paper_gamma("so", backbone) == 1e-5


@pytest.mark.parametrize("backbone", ["wide_resnet50_2", "wrn28_10", "wrn28_20"])
def test_other_wide_networks_are_none_of_the_papers(backbone):
    assert paper_gamma("srip", backbone) == 1e-3


@pytest.mark.parametrize("backbone", ["vit_small_r26_s32_224", "vit_tiny_r_s16_p8_224", "swin_tiny_patch4_window7_224"])
def test_other_transformers_are_none_of_the_papers(backbone):
    assert paper_gamma("so", backbone) == 1e-6


def test_the_default_for_a_kind_is_that_of_an_unknown_network():
    assert {kind: paper_gamma(kind, "mine") for kind in DEFAULT_GAMMA} == DEFAULT_GAMMA == {"so": 1e-6, "srip": 1e-3}


def test_mistakes():
    with pytest.raises(ValueError, match="kind must be one of 'so', 'srip'; got 'decay'"):
        paper_gamma("decay", "resnet18")
    with pytest.raises(TypeError, match="backbone must be a network's name, as 'resnet18'; got a Linear"):
        paper_gamma("so", nn.Linear(2, 2))
