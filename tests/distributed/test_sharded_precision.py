"""Near orthogonality R is a difference of nearly equal numbers: sharded weights keep what one process has of it."""

import torch
from ranks import on_ranks
from truth import near_orthogonal, relative

from ortho_kernels import soft_orthogonality, srip
from ortho_kernels.distributed.sharded import partition

SHAPES = [(64, 300), (300, 64), (48, 1000), (128, 128)]
PENALTIES = {
    "so": (soft_orthogonality, {}),
    "exact": (srip, {}),
    "five rounds": (srip, {"iterations": 5}),
    "envelope": (srip, {"gradient": "envelope"}),
}


def weights(dtype=torch.float32):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return [near_orthogonal(*shape).to(dtype).requires_grad_() for shape in SHAPES]


def computed(leaves):
    """Values and gradients."""
    generator, found = torch.Generator().manual_seed(1), {}
    start = [torch.randn(1, min(shape), generator=generator) for shape in SHAPES]
    for name, (function, options) in PENALTIES.items():
        given = {"start": start} if function is srip else {}
        values = function(leaves, reduction="none", **given, **options)
        gradients = torch.autograd.grad(values.sum(), leaves)
        found[name] = values.detach(), [getattr(own, "full_tensor", lambda own=own: own)() for own in gradients]
    return found


def sharded(rank, count):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    mesh, found = init_device_mesh("cpu", (count,)), {}
    for case, dim in (("rows", 0), ("cols", 1), ("cut", 0)):
        if case == "cut":
            partition.OVERLOAD = 0.0
        leaves = [distribute_tensor(weight.detach(), mesh, [Shard(dim)]).requires_grad_() for weight in weights()]
        found[case] = computed(leaves)
    return found


def test_values_and_gradients_near_orthogonality(tmp_path):
    """Twice one process's error, or 1e-5, where what is summed over ranks is float32."""
    truth, alone = computed(weights(torch.float64)), computed(weights())
    for case, found in on_ranks(3, tmp_path, sharded, 3)[0].items():
        for name, (values, gradients) in truth.items():
            for index, shape in enumerate(SHAPES):
                theirs = abs(alone[name][0][index] / values[index] - 1)
                ours = abs(found[name][0][index] / values[index] - 1)
                assert ours <= max(2 * theirs, 3e-6), f"{case}, {name}, {shape}: value {ours:.1e}, alone {theirs:.1e}"
                theirs = relative(alone[name][1][index], gradients[index])
                ours = relative(found[name][1][index], gradients[index])
                assert ours <= max(2 * theirs, 1e-5), f"{case}, {name}, {shape}: {ours:.1e}, alone {theirs:.1e}"
