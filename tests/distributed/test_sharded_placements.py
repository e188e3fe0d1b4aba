"""Placements of tensor parallelism and unusual meshes, and what `.grad` holds before the penalty is added to it."""

import torch
from ranks import on_ranks
from torch import nn

from ortho_kernels import OrthogonalityPenalty


def weights():
    """A linear weight, one of transformers' Conv1D (in, out), experts as they are and (in, out), and a convolution's."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"linear": (6, 10), "conv1d": (10, 12), "experts": (5, 6, 4), "gate_up_proj": (3, 9, 4)}
    shapes |= {"down_proj": (3, 2, 9), "conv": (8, 5, 3, 3)}
    return {name: torch.randn(shape, generator=generator) / 3 for name, shape in shapes.items()}


def network(place):
    """The layers that hold these weights, each a parameter made by `place(name, weight)`."""
    from transformers.pytorch_utils import Conv1D

    given = {name: nn.Parameter(place(name, weight)) for name, weight in weights().items()}
    model = nn.ModuleDict({"linear": nn.Linear(10, 6), "conv1d": Conv1D(12, 10), "conv": nn.Conv2d(5, 8, 3)})
    for name, module in model.items():
        module.weight = given[name]
    kind = type("Llama4TextExperts", (nn.Module,), {"__module__": "transformers.models.llama4.modeling_llama4"})
    model["turned"] = kind()
    model["turned"].gate_up_proj, model["turned"].down_proj = given["gate_up_proj"], given["down_proj"]
    model["experts"] = nn.ParameterDict({"batch": given["experts"]})
    return model


def penalties(model):
    """With queries, keys and values apart: blocks of rows, which are columns of what Conv1D holds."""
    common = {"gamma": 1.0, "split_qkv": "conv1d*", "batch_dims": {"experts.batch": 1}}
    return {kind: OrthogonalityPenalty(model, kind, **common) for kind in ("so", "srip")}


def whole(tensor):
    return getattr(tensor, "full_tensor", lambda: tensor.clone())().detach()


def measured(model, before=lambda weight: None):
    """Value and gradients, in the loss and added to what `.grad` holds before."""
    found = {}
    held = [*model.values()]
    parameters = [p for module in held for name, p in module.named_parameters() if "bias" not in name]
    for kind, penalty in penalties(model).items():
        for way in ("loss", "added"):
            for parameter in parameters:
                parameter.grad = before(parameter)
            if way == "loss":
                value = penalty()
                value.backward()
            else:
                value = penalty.accumulate_gradients()
            found[kind, way] = value.detach(), [whole(parameter.grad) for parameter in parameters]
    return found


def placed(rank, count):
    from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
    from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
    from torch.distributed.tensor.placement_types import _StridedShard

    flat, square = init_device_mesh("cpu", (count,)), init_device_mesh("cpu", (2, 2))
    turned = DeviceMesh("cpu", [[0, 2], [1, 3]], mesh_dim_names=("outer", "inner"))

    def on(mesh, *placements):
        return lambda name, weight: distribute_tensor(weight, mesh, placements)

    def strided(name, weight):
        """As FSDP2 places what tensor parallelism has cut before."""
        cut = distribute_tensor(weight, turned["inner"], [Shard(0)]).to_local()
        local = distribute_tensor(cut, turned["outer"], [Shard(0)]).to_local()
        placements = [_StridedShard(0, split_factor=2), Shard(0)]
        return DTensor.from_local(
            local, turned, placements, run_check=False, shape=weight.shape, stride=weight.stride()
        )

    def channels_last(name, weight):
        if weight.dim() == 4:
            weight = weight.to(memory_format=torch.channels_last)
        return distribute_tensor(weight, flat, [Shard(0)])

    def partial(weight):
        """A gradient of ones, as sums that are not added up yet."""
        local = torch.ones(weight.shape) / weight.device_mesh.size()
        return DTensor.from_local(local, weight.device_mesh, [Partial()] * weight.device_mesh.ndim)

    def ones(weight):
        return distribute_tensor(torch.ones(weight.shape), weight.device_mesh, weight.placements)

    cases = {
        "rows": on(flat, Shard(0)),
        "columns": on(flat, Shard(1)),
        "last": lambda name, weight: distribute_tensor(weight, flat, [Shard(-1 if weight.dim() < 4 else -3)]),
        "square": on(square, Shard(0), Shard(1)),
        "square turned": on(turned, Shard(1), Shard(0)),
        "twice": on(turned, Shard(1), Shard(1)),
        "half replicated": on(turned, Replicate(), Shard(1)),
        "replicated": on(turned, Replicate(), Replicate()),
        "strided": strided,
        "channels last": channels_last,
    }
    found = {name: measured(network(place)) for name, place in cases.items()}
    for name in ("rows", "square", "half replicated"):
        found[f"{name}, ones before"] = measured(network(cases[name]), ones)
        found[f"{name}, sums before"] = measured(network(cases[name]), partial)
    return found


def test_placements(tmp_path):
    alone = measured(network(lambda name, weight: weight.clone()))
    with_ones = measured(network(lambda name, weight: weight.clone()), torch.ones_like)
    for rank in on_ranks(4, tmp_path, placed, 4):
        for name, found in rank.items():
            expected = with_ones if "before" in name else alone
            for case, theirs in expected.items():
                torch.testing.assert_close(
                    found[case], theirs, rtol=1e-4, atol=1e-5, msg=lambda text, at=(name, case): f"{at}: {text}"
                )
