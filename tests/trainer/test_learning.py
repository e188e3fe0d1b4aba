"""Every method with a convolutional network and a transformer: the loss is finite and falls on a fixed small batch."""

import pytest
import torch

from ortho_kernels.trainer.backbones import BACKBONES, build_encoder
from ortho_kernels.trainer.engine.memory_format import apply_memory_format
from ortho_kernels.trainer.methods import METHODS
from ortho_kernels.trainer.randomness import seed_globally

STEPS = 8
ENCODERS = {"resnet18": {"width": 8}, "vit_tiny": {"patch": 8, "depth": 2}}
SUITED = [(name, encoder) for name in METHODS for encoder in ENCODERS if (name, encoder) != ("mae", "resnet18")]
HEADS = {"hidden": 64, "projection": 32, "prediction_hidden": 32, "queue": 1024, "prototypes": 64, "freeze": 0.0}
HEADS |= {"decoder_width": 32, "decoder_depth": 1, "decoder_heads": 2}
# The teacher and the center of the first step: a target that moves with the student has no loss that must fall.
STILL = {"dino": {"momentum": 1.0, "center_momentum": 1.0}}


def build(name, backbone):
    seed_globally(0, name)
    encoder = build_encoder(BACKBONES[backbone](**ENCODERS[backbone]), channels=3, size=16)
    apply_memory_format(encoder, channels_last=True, sharded=False)
    fields = METHODS[name].Settings.__dataclass_fields__
    options = {key: value for key, value in HEADS.items() if key in fields} | STILL.get(name, {})
    return METHODS[name](encoder, METHODS[name].Settings(**options))


def views_of(method):
    """Of eight pictures: two noisy large views, or one, and two small ones for the methods that take them."""
    generator = torch.Generator().manual_seed(1)
    pictures = torch.randn(8, 3, 16, 16, generator=generator)
    views = [pictures + 0.3 * torch.randn(pictures.shape, generator=generator) for _ in range(2)]
    if method.Settings().views == "one":
        return views[:1]
    return views + [view[..., 4:12, 4:12] for view in views] * (method.Settings().views == "multicrop")


@pytest.mark.parametrize(("name", "backbone"), SUITED)
def test_the_loss_falls_on_a_fixed_batch(name, backbone):
    method = build(name, backbone)
    views = views_of(method)
    optimizer = torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], lr=1e-3)
    queues = {key: value.clone() for key, value in method.state_dict().items() if key.endswith((".vectors", ".oldest"))}
    losses = []
    for step in range(STEPS):
        method.load_state_dict(queues, strict=False)  # lest they fill with this batch, and negatives be positives
        method.progress = step / STEPS
        optimizer.zero_grad()
        output = method(views)
        output.loss.backward()
        method.before_step(step, STEPS)
        optimizer.step()
        method.after_step(step, STEPS)
        losses.append(output.loss.item())
        assert output.loss.shape == ()
        assert output.projections.shape == (8, 192 if name == "mae" else 32)
    assert torch.tensor(losses).isfinite().all(), losses
    assert losses[-1] < losses[0], losses
    assert min(losses[STEPS // 2 :]) < min(losses[: STEPS // 2]), losses
