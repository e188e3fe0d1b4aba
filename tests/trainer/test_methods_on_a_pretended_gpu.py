"""Every method trains on a pretended GPU as on the CPU, and between rows of figures no step waits for it."""

import pytest
from pretended_gpu import only_without_a_gpu
from small_methods import backbone_of, small_heads
from two_devices import train_on_both

from ortho_kernels.trainer.methods import METHODS

pytestmark = only_without_a_gpu

# Attention is rounded otherwise there, and a ReLU may turn a rounding into a step: float64 for those.
WITH_ATTENTION = [(name, "backbone=vit_tiny", "64-true") for name in ("dino", "mocov3")]


@pytest.mark.parametrize(
    ("method", "backbone", "precision"), [*((name, backbone_of(name), "32-true") for name in METHODS), *WITH_ATTENTION]
)
def test_a_method_trains_as_on_the_cpu_and_waits_for_nothing(tmp_path, method, backbone, precision):
    words = [f"method={method}", backbone, *small_heads(method), f"trainer.precision={precision}"]
    assert train_on_both(tmp_path, *words) == []
