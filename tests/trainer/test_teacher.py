"""A teacher drops nothing at random, whatever its student does in training."""

import pytest
import timm
import torch
from torch import nn
from torchvision import models
from torchvision.models import convnext

from ortho_kernels.trainer.methods.teacher import Teacher


def attention():
    return nn.Sequential(
        nn.Unflatten(3, (2, 16)), nn.Flatten(1, 3), nn.TransformerEncoderLayer(16, 2, 16, dropout=0.5, batch_first=True)
    )


class Functional(nn.Module):
    """Drops by its own `training`, not by a layer for it."""

    def forward(self, images):
        return nn.functional.dropout(images, 0.5, self.training)


CONVNEXT = {"block_setting": [convnext.CNBlockConfig(8, None, 2)]}
SWIN = {"patch_size": [4, 4], "embed_dim": 8, "depths": [2], "num_heads": [2], "window_size": [4, 4]}
NETWORKS = {
    "timm drop path": lambda: timm.create_model("test_vit", img_size=32, drop_path_rate=0.5),
    "timm dropout": lambda: timm.create_model("test_vit", img_size=32, proj_drop_rate=0.5),
    "timm attention dropout": lambda: timm.create_model("test_vit", img_size=32, attn_drop_rate=0.5),
    "timm patch dropout": lambda: timm.create_model("test_vit", img_size=32, patch_drop_rate=0.5),
    "timm drop block": lambda: timm.layers.DropBlock2d(0.5),
    "timm functional dropout": lambda: timm.create_model("test_resnet", drop_rate=0.5),
    "convnext": lambda: models.ConvNeXt(**CONVNEXT, stochastic_depth_prob=0.5),
    "efficientnet": lambda: models.efficientnet_b0(stochastic_depth_prob=0.5),
    "swin": lambda: models.SwinTransformer(**SWIN, stochastic_depth_prob=0.9),
    "dropout": lambda: nn.Dropout(0.5),
    "dropout of channels": lambda: nn.Dropout2d(0.5),
    "alpha dropout": lambda: nn.AlphaDropout(0.5),
    "attention": attention,
    "functional": Functional,
}


@pytest.mark.parametrize("network", NETWORKS)
def test_the_teacher_answers_alike_where_the_student_does_not(network):
    torch.manual_seed(0)
    student = NETWORKS[network]().train()
    teacher = Teacher(student)
    images = torch.randn(8, 3, 32, 32)
    with torch.no_grad():
        assert not torch.equal(student(images), student(images))
        for _ in range(2):
            assert torch.equal(teacher(images), teacher(images))
            nn.ModuleList([teacher]).train()  # as the trainer does when it starts


def test_batch_norm_of_the_teacher_takes_the_statistics_of_the_batch():
    student = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))
    teacher = Teacher(student)
    answer = teacher(torch.randn(64, 3) + 5)
    torch.testing.assert_close(answer.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(answer.var(0, correction=0), torch.ones(3), atol=1e-3, rtol=0)
    assert teacher[0][1].num_batches_tracked == 1
    teacher.eval()
    assert not torch.allclose(teacher(torch.randn(64, 3) + 5).mean(0), torch.zeros(3), atol=1e-5)
