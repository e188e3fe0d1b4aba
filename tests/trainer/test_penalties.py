"""The penalties of the trainer's configuration: the paper's grid, and the control."""

import pytest
import torch
from torch import nn

from ortho_kernels.trainer.config import load_config
from ortho_kernels.trainer.errors import TrainerError
from ortho_kernels.trainer.penalties import PENALTIES, build_penalty


def test_the_grid_is_the_papers():
    gammas = {name: load_config([f"penalty={name}"]).penalty.gamma for name in PENALTIES}
    assert [gammas[name] for name in ("so_weak", "so", "so_strong")] == [1e-7, 1e-6, 1e-5]
    assert [gammas[name] for name in ("srip_weak", "srip", "srip_strong")] == [1e-5, 1e-4, 1e-3]
    assert gammas["none"] == 0


def test_the_control_decays_each_weight_at_the_rate_of_so_at_twice_the_square():
    """At singular values of sqrt(2), where s^2 - 1 is 1, SO and its control have the same gradient."""
    encoder = nn.Sequential(nn.Linear(6, 4, bias=False), nn.Linear(4, 4, bias=False))
    for layer in encoder:
        nn.init.orthogonal_(layer.weight, gain=2**0.5)
    gradients = {}
    for name in ("so", "decay"):
        build_penalty(load_config([f"penalty={name}"]).penalty, encoder)().backward()
        gradients[name] = [layer.weight.grad.clone() for layer in encoder]
        encoder.zero_grad()
    for so, decay, layer in zip(gradients["so"], gradients["decay"], encoder, strict=True):
        torch.testing.assert_close(decay, 4 * layer.weight.detach())
        torch.testing.assert_close(so, decay, rtol=1e-4, atol=1e-5)


def test_the_controls_report_measures_so():
    encoder = nn.Linear(4, 4, bias=False)
    nn.init.orthogonal_(encoder.weight)
    [row] = build_penalty(load_config(["penalty=decay"]).penalty, encoder).report()
    assert row.value == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["penalty=so", "penalty.split_qkv=true"], "penalty: split_qkv needs a fused"),
        (["penalty=so", "penalty.side=left"], "penalty: side must be one of"),
        (["penalty=srip", "penalty.include=[nothing*]"], "penalty: include pattern 'nothing\\*' matches none"),
    ],
)
def test_mistakes_name_the_option(words, said):
    with pytest.raises(TrainerError, match=said):
        build_penalty(load_config(words).penalty, nn.Sequential(nn.Linear(3, 3)))
