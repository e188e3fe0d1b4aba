"""A run that is checkpointed on some ranks and goes on with others: the same vectors, the same weights."""

import pytest
import torch
from ranks import on_ranks
from torch import nn

from ortho_kernels import OrthogonalityPenalty

STEPS = 4
PENALTIES = {
    "so": {"kind": "so", "gamma": 0.02, "every": 3},
    "fresh": {"kind": "srip", "gamma": 0.05},
    "warm": {"kind": "srip", "gamma": 0.05, "warm_start": True},
}


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 7, 3), nn.Tanh(), nn.Flatten(), nn.Linear(7 * 16, 10), nn.Linear(10, 5))


def trained(model, penalty, first):
    """Steps on data that is a function of the step."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for step in range(first, first + STEPS):
        optimizer.zero_grad()
        images = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(step))
        model(images).square().mean().backward()
        penalty.accumulate_gradients()
        optimizer.step()


def run(rank, count, way, folder, first):
    """Trains from the checkpoint of this step, and writes that of the next."""
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    found = {}
    for name, options in PENALTIES.items():
        model = network()
        fully_shard(model, mesh=init_device_mesh("cpu", (count,)))
        penalty = OrthogonalityPenalty(model, **options)
        path, full = f"{folder}/{way}-{name}", StateDictOptions(full_state_dict=True)
        if first and way == "full":
            state, vectors = torch.load(f"{path}-{first}.pt")
            set_model_state_dict(model, state, options=full)
            penalty.load_state_dict(vectors)
        elif first:
            state = {"model": get_model_state_dict(model), "penalty": penalty.state_dict()}
            dcp.load(state, checkpoint_id=f"{path}-{first}")
            set_model_state_dict(model, state["model"])
            penalty.load_state_dict(state["penalty"])
        trained(model, penalty, first)
        whole = get_model_state_dict(model, options=full)
        if way == "full" and rank == 0:
            torch.save((whole, penalty.state_dict()), f"{path}-{first + STEPS}.pt")
        elif way == "dcp":
            dcp.save(
                {"model": get_model_state_dict(model), "penalty": penalty.state_dict()},
                checkpoint_id=f"{path}-{first + STEPS}",
            )
        found[name] = whole | {f"penalty {key}": value for key, value in penalty.state_dict().items()}
    torch.distributed.barrier()
    return found


@pytest.mark.parametrize("way", [pytest.param("full", marks=pytest.mark.slow), "dcp"])
def test_a_run_goes_on_with_other_ranks(way, tmp_path):
    alone = {}
    for name, options in PENALTIES.items():
        model = network()
        penalty = OrthogonalityPenalty(model, **options)
        alone[name] = []
        for part in range(4):
            trained(model, penalty, STEPS * part)
            vectors = {f"penalty {key}": value for key, value in penalty.state_dict().items()}
            alone[name].append({key: value.clone() for key, value in (model.state_dict() | vectors).items()})
    for part, count in enumerate((4, 2, 3, 1)):
        for rank in on_ranks(count, tmp_path, run, count, way, str(tmp_path), STEPS * part):
            for name, states in alone.items():
                assert rank[name].keys() == states[part].keys()
                for key, theirs in states[part].items():
                    off = (rank[name][key] - theirs).double().norm() / theirs.double().norm()
                    assert off <= 1e-5, f"{count} ranks, {name}, {key}: {off:.1e}"
