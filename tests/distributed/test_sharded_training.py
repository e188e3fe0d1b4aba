"""Training under FSDP2, tensor parallelism and both: after 20 steps the weights are those of one process."""

import pytest
import torch
from ranks import on_ranks
from torch import nn

from ortho_kernels import OrthogonalityPenalty

STEPS = 20
WAYS = ("loss", "added", "stepped")
KINDS = {
    "so": {"kind": "so", "gamma": 0.01},
    "fresh": {"kind": "srip", "gamma": 0.02},
    "warm": {"kind": "srip", "gamma": 0.02, "warm_start": True},
}


class Replicated(nn.Linear):
    """A layer of which every tensor parallel rank holds all."""


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = nn.Linear(6, 14), nn.Tanh(), nn.Linear(14, 10), nn.Tanh(), Replicated(10, 5), nn.Linear(5, 3)
        return nn.Sequential(*layers)


def batch(step, part):
    return torch.randn(4, 6, generator=torch.Generator().manual_seed(100 * step + part))


def trained(model, parts, way, **options):
    """The weights after training, whole, on the batches of these parts of the data."""
    penalty = OrthogonalityPenalty(model, **options)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5)
    for step in range(STEPS):
        optimizer.zero_grad()
        loss = model(torch.cat([batch(step, part) for part in parts])).square().mean()
        (loss + penalty() if way == "loss" else loss).backward()
        if way == "added":
            penalty.accumulate_gradients()
        optimizer.step()
        if way == "stepped":
            penalty.step_(optimizer)
    return {name: whole(weight).detach().clone() for name, weight in model.named_parameters()}


def whole(tensor):
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def parallelize(model, mesh):
    """Tensor parallelism of the first layers; the third stands whole on each rank."""
    from torch.distributed.tensor import DTensor, Replicate, distribute_module
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    parallelize_module(model, mesh, {"0": ColwiseParallel(), "2": RowwiseParallel()})
    distribute_module(
        model[4],
        mesh,
        input_fn=lambda module, inputs, mesh: (DTensor.from_local(inputs[0], mesh, [Replicate()]),),
        output_fn=lambda module, outputs, mesh: outputs.to_local(),
    )


def stacked(stack, count):
    """The model of each stack, and the parts of the data that this rank has, of so many."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import CPUOffloadPolicy, fully_shard

    model = network()
    if stack == "tensor parallel":
        parallelize(model, init_device_mesh("cpu", (count,)))
        return model, [0, 1]
    if count == 4:
        mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    else:
        mesh = init_device_mesh("cpu", (count,))  # without a name
    if stack == "both":
        parallelize(model, mesh["tp"])
        for layer in (model[0], model[2]):
            fully_shard(layer, mesh=mesh["dp"])
        fully_shard(model, mesh=mesh["dp"])
        return model, [mesh.get_local_rank("dp")]
    offload = {"offload_policy": CPUOffloadPolicy(pin_memory=False)} if stack == "offloaded" else {}
    fully_shard(model, mesh=mesh, **offload)
    return model, [0, 1] if count == 3 else [torch.distributed.get_rank() % 2]


def trained_in(rank, count, stack):
    found = {}
    for name, options in KINDS.items():
        for way in WAYS:
            model, parts = stacked(stack, count)
            found[name, way] = trained(model, parts, way=way, **options)
    found["placements"] = [str(getattr(weight, "placements", None)) for weight in model.parameters()][::2]
    return found


def slow(*case):
    return pytest.param(*case, marks=pytest.mark.slow)


@pytest.fixture(scope="module")
def alone():
    return {
        (name, way): trained(network(), [0, 1], way=way, **options) for name, options in KINDS.items() for way in WAYS
    }


@pytest.mark.parametrize(
    ("stack", "count", "placements"),
    [
        slow("tensor parallel", 2, ["(Shard(dim=0),)", "(Shard(dim=1),)", "(Replicate(),)", "None"]),
        slow(
            "both",
            4,
            [
                "(_StridedShard(dim=0, sf=2), Shard(dim=0))",
                "(Shard(dim=0), Shard(dim=1))",
                "(Shard(dim=0), Replicate())",
                "(Shard(dim=0),)",
            ],
        ),
        slow("replicas", 4, ["(Replicate(), Shard(dim=0))"] * 4),
        slow("offloaded", 2, ["(Shard(dim=0),)"] * 4),
        ("uneven", 3, ["(Shard(dim=0),)"] * 4),
    ],
)
def test_training_is_that_of_one_process(stack, count, placements, alone, tmp_path):
    plain = trained(network(), [0, 1], way="loss", kind="so", gamma=0.0)
    ranks = on_ranks(count, tmp_path, trained_in, count, stack)
    assert ranks[0].pop("placements") == placements
    for case, weights in alone.items():
        for name, weight in weights.items():
            for rank in ranks:
                off = (rank[case][name] - weight).norm() / weight.norm()
                assert off <= 1e-5, f"{case}, {name}: {off:.1e}"
                assert torch.equal(rank[case][name], ranks[0][case][name]), f"{case}, {name}: replicas differ"
            if weight.dim() == 2:
                moved = (weight - plain[name]).norm() / plain[name].norm()
                assert moved > 1e-3, f"{case}, {name}: {moved:.1e}"
