"""Penalties of sharded weights on several processes against those of the whole weights on one."""

import pytest
import torch
from ranks import on_ranks

from ortho_kernels import soft_orthogonality, srip
from ortho_kernels.distributed.sharded import partition

# Shapes with groups and batch_dims: wide, tall, square, convolutions, grouped, experts, fewer rows than ranks.
WEIGHTS = [
    ((12, 40), 1, 0),
    ((40, 12), 1, 0),
    ((9, 9), 1, 0),
    ((7, 5, 3, 3), 1, 0),
    ((24, 3, 3, 3), 1, 0),
    ((12, 2, 3, 3), 4, 0),
    ((30, 10), 3, 0),
    ((3, 6, 10), 1, 1),
    ((5, 10, 6), 1, 1),
    ((2, 17), 1, 0),
    ((1, 4), 1, 0),
]
SO = [
    {},
    {"side": "both"},
    {"side": "large"},
    {"side": "rows", "diagonal": 0.0},
    {"squared": False},
    {"diagonal": 0.5, "off_diagonal": 2.0, "squared": False, "side": "cols"},
    {"norm": "l1", "side": "rows"},
    {"normalize": "rows", "reduction": "entries"},
]
SRIP = [
    {},
    {"iterations": 1},
    {"iterations": 4, "squared": True},
    {"iterations": 3, "gradient": "envelope", "side": "rows"},
    {"side": "large"},
]


def weights(dtype):
    generator = torch.Generator().manual_seed(0)
    made = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape, _, _ in WEIGHTS]
    return [(weight / weight[0].numel() ** 0.5).to(dtype).requires_grad_() for weight in made]


def starts(side):
    generator = torch.Generator().manual_seed(1)
    found = []
    for shape, groups, batch in WEIGHTS:
        count = groups * (shape[0] if batch else 1)
        rows = shape[batch] // groups
        cols = torch.Size(shape[batch + 1 :]).numel()
        small = min(rows, cols)
        n = {"rows": rows, "cols": cols, "small": small, "large": rows + cols - small}[side]
        found.append(torch.randn(count, n, generator=generator, dtype=torch.float64))
    return found


def computed(leaves):
    """Values and gradients of each penalty."""
    found = {}
    layout = {"groups": [groups for _, groups, _ in WEIGHTS], "batch_dims": [batch for *_, batch in WEIGHTS]}
    for kind, many in (("so", SO), ("srip", SRIP)):
        for options in many:
            if kind == "so":
                values = soft_orthogonality(leaves, **layout, **{"reduction": "none"} | options)
            else:
                start = [x.to(leaves[0].dtype) for x in starts(options.get("side", "small"))]
                values = srip(leaves, **layout, start=start, reduction="none", **options)
            factors = torch.linspace(0.5, 1.5, values.numel(), dtype=values.dtype).view(values.shape)
            gradients = torch.autograd.grad((factors * values).sum(), leaves)
            gradients = [getattr(gradient, "full_tensor", lambda own=gradient: own)() for gradient in gradients]
            found[f"{kind} {options}"] = [values.detach(), *gradients]
    return found


def placements(case, shape):
    """Which are tried: of a mesh of one dimension or more."""
    from torch.distributed.tensor import Replicate, Shard

    if case == "mixed":
        return [[Shard(0)], [Replicate()], [Shard(1)]][len(shape) % 3]
    return {
        "rows": [Shard(0)],
        "in rounds": [Shard(0)],
        "cut": [Shard(0)],
        "cols": [Shard(1)],
        "replicated": [Replicate()],
        "both": [Shard(0), Shard(1)],
        "twice": [Shard(0), Shard(0)],
        "replicas": [Replicate(), Shard(0)],
        "replicas of both": [Replicate(), Shard(0), Shard(1)],
        "both, in a part of a mesh": [Shard(1), Shard(0)],
    }[case]


def sharded(rank, count, cases):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import distribute_tensor

    found = {}
    for case in cases:
        if case == "in rounds":
            partition.ROUND_BYTES = 200
        if case == "cut":
            partition.OVERLOAD = 0.0
        names = ("a", "b", "c")[: len(placements(case, (1, 1)))]
        mesh = init_device_mesh("cpu", {1: (count,), 2: (2, 2), 3: (1, 2, 2)}[len(names)], mesh_dim_names=names)
        if case == "both, in a part of a mesh":
            mesh = init_device_mesh("cpu", (2, 2, 1), mesh_dim_names=("c", "a", "b"))["a", "b"]
        for dtype in (torch.float64, torch.float32):
            leaves = [
                distribute_tensor(weight.detach(), mesh, placements(case, weight.shape)).requires_grad_()
                for weight in weights(dtype)
            ]
            found[case, dtype] = computed(leaves)
    return found


@pytest.mark.parametrize(
    ("count", "cases"),
    [
        (1, ["rows"]),
        (2, ["rows", "cols", "replicated", "mixed"]),
        (3, ["rows", "cols", "in rounds", "cut"]),
        (4, ["both", "twice", "replicas", "replicas of both", "both, in a part of a mesh"]),
    ],
)
def test_values_and_gradients(count, cases, tmp_path):
    alone = {dtype: computed(weights(dtype)) for dtype in (torch.float64, torch.float32)}
    for rank in on_ranks(count, tmp_path, sharded, count, cases):
        for (case, dtype), found in rank.items():
            tolerance = 1e-10 if dtype is torch.float64 else 2e-5
            for name, tensors in alone[dtype].items():
                for index, (ours, theirs) in enumerate(zip(found[name], tensors, strict=True)):
                    off = (ours - theirs).norm() / theirs.norm().clamp(min=1e-30)
                    assert off <= tolerance, f"{case}, {name}, {dtype}: {off:.1e} in {index and WEIGHTS[index - 1]}"
