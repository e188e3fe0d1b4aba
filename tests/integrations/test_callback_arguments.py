"""What both callbacks take: errors come when they are made, and paths lead through wrappers."""

import pytest
import torch
from torch import nn

from ortho_kernels import CosineSchedule
from ortho_kernels.integrations.arguments import submodule
from ortho_kernels.integrations.lightning import OrthogonalityCallback as LightningCallback
from ortho_kernels.integrations.transformers import OrthogonalityCallback as TransformersCallback


@pytest.mark.parametrize("callback", [LightningCallback, TransformersCallback])
@pytest.mark.parametrize(
    ("error", "words", "kind", "options"),
    [
        (ValueError, "kind must be one of 'so', 'srip'; got 'backbone'", "backbone", {}),
        (TypeError, "'so' has no option 'gama'", "so", {"gama": 1.0}),
        (TypeError, "'so' has no option 'warm_start'", "so", {"warm_start": True}),
        (ValueError, "gamma must be a finite number; got '1e-3'", "so", {"gamma": "1e-3"}),
        (ValueError, "every must be a positive int", "so", {"every": 0}),
        (ValueError, "side must be one of", "so", {"side": "left"}),
        (ValueError, "lora must be None or 'factors'; got 'factor'", "so", {"lora": "factor"}),
        (TypeError, "name must be a string.*got 3", "so", {"name": 3}),
    ],
)
def test_what_needs_no_model_is_refused_at_once(callback, error, words, kind, options):
    with pytest.raises(error, match=words):
        callback(kind, **options)


def test_what_one_of_them_takes_is_refused_by_the_other_at_once():
    with pytest.raises(ValueError, match=r"got 'products'.*LoraPenalty"):
        LightningCallback(lora="products", gamma=1.0)
    with pytest.raises(TypeError, match="'gamma'"):
        TransformersCallback(lora="products")
    with pytest.raises(TypeError, match="every"):
        TransformersCallback(lora="products", gamma=1.0, every=2)
    with pytest.raises(TypeError, match="name must be a string, which the logs and a file"):
        TransformersCallback(name=None)


@pytest.mark.parametrize("callback", [LightningCallback, TransformersCallback])
def test_what_the_model_decides_waits_for_it(callback):
    """And no random number is drawn meanwhile."""
    before = torch.get_rng_state()
    gammas = {"layer1.*": CosineSchedule(1.0, 0.0, 10), "*": 1e-3}
    callback("srip", gamma=gammas, include=["layer1.*", nn.Linear], split_qkv=True, groups="whole", warm_start=True)
    callback("so", gamma=torch.tensor(1.0), exclude="head", batch_dims={"experts": 1}, lora="factors")
    callback("srip", generator=torch.Generator())
    assert torch.equal(before, torch.get_rng_state())


def test_a_path_need_not_name_the_wrapper():
    model = nn.ModuleDict({"backbone": nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.Linear(3, 4)))})
    innermost = model["backbone"][1][0]
    model["backbone"][1] = torch.compile(model["backbone"][1], backend="eager")
    model["backbone"] = torch.compile(model["backbone"], backend="eager")
    compiled = torch.compile(model, backend="eager")
    assert submodule(compiled, "backbone.1.0") is innermost
    assert submodule(compiled, "_orig_mod.backbone._orig_mod.1._orig_mod.0") is innermost
    assert submodule(compiled, "backbone") is model["backbone"]
    with pytest.raises(ValueError, match=r"module='backbone\.2': backbone has no '2'; it has 0, 1$"):
        submodule(compiled, "backbone.2")
