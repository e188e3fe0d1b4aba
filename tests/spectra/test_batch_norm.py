"""Which norm follows a layer, and the layer with it folded in against what the two put out."""

import pytest
import timm
import torch
import torchvision
from torch import nn

from ortho_kernels.spectra import folded_weight, following_batch_norms, weight_spectra


def lived_in(network):
    """With running statistics and scales that are not those of a new network."""
    draw = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.copy_(torch.randn(module.num_features, generator=draw))
            module.running_var.copy_(0.1 + torch.rand(module.num_features, generator=draw))
            if module.affine:
                nn.init.uniform_(module.weight, -2, 2, generator=draw)
                nn.init.uniform_(module.bias, generator=draw)
    return network.eval()


@pytest.mark.parametrize(
    ("layer", "norm", "size"),
    [
        (nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), nn.BatchNorm2d(6), (5, 4, 7, 7)),
        (nn.Conv1d(4, 6, 3), nn.BatchNorm1d(6), (5, 4, 7)),
        (nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2), nn.BatchNorm2d(6, affine=False), (5, 4, 3, 3)),
        (nn.Linear(4, 6, bias=False), nn.BatchNorm1d(6, eps=0.1), (5, 4)),
    ],
)
def test_the_folded_layer_puts_out_what_both_do(layer, norm, size):
    network = lived_in(nn.Sequential(layer, norm)).double()
    inputs = torch.randn(size, dtype=torch.float64)
    expected = network(inputs)
    zero = network(torch.zeros_like(inputs))  # what does not depend on the input: the folded bias
    with torch.no_grad():
        layer.weight.copy_(folded_weight(layer, norm))
        if layer.bias is not None:
            layer.bias.zero_()
    torch.testing.assert_close(layer(inputs) + zero, expected)


def test_a_whole_resnet_with_folded_norms_is_the_same_network():
    network = lived_in(torchvision.models.resnet18(num_classes=5)).double()
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    expected = network(images)
    pairs = following_batch_norms(network, images)
    assert len(pairs) == 20
    for name, norm_name in pairs.items():
        layer, norm = network.get_submodule(name), network.get_submodule(norm_name)
        weight = folded_weight(layer, norm)
        shift = norm.bias - norm.running_mean * norm.weight / (norm.running_var + norm.eps).sqrt()
        owner, _, attribute = norm_name.rpartition(".")
        setattr(network.get_submodule(owner), attribute, nn.Identity())
        layer.weight = nn.Parameter(weight)
        layer.bias = nn.Parameter(shift.detach())
    torch.testing.assert_close(network(images), expected)


def test_a_norm_follows_a_layer_only_where_nothing_is_between():
    class PreActivation(nn.Module):
        def __init__(self):
            super().__init__()
            self.bn1, self.conv1, self.bn2, self.conv2 = (
                nn.BatchNorm2d(3),
                nn.Conv2d(3, 3, 1),
                nn.BatchNorm2d(3),
                nn.Conv2d(3, 3, 1),
            )
            self.bn3, self.conv3, self.bn4 = nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

        def forward(self, x):
            x = x + self.conv2(self.bn2(self.conv1(self.bn1(x))))  # bn3 then takes a sum
            return self.bn4(self.conv3(self.bn3(x)).relu_())  # the tensor that conv3 has put out, changed

    assert following_batch_norms(PreActivation(), torch.randn(2, 3, 4, 4)) == {"conv1": "bn2"}


def test_norms_of_timm_that_hold_an_activation_are_found():
    pairs = following_batch_norms(timm.create_model("efficientnet_b0"), torch.randn(1, 3, 32, 32))
    assert pairs["conv_stem"] == "bn1"
    assert pairs["blocks.1.0.conv_dw"] == "blocks.1.0.bn2"


def test_looking_changes_nothing():
    network = torchvision.models.resnet18(num_classes=2)
    network.layer1.eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    weight_spectra(network, "layer1", images=torch.randn(2, 3, 32, 32), fold_batch_norm=True)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert network.training
    assert not network.layer1.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_a_norm_without_statistics_is_refused():
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2, track_running_stats=False))
    with pytest.raises(ValueError, match="without running statistics"):
        weight_spectra(network, images=torch.randn(2, 1, 4, 4), fold_batch_norm=True)
