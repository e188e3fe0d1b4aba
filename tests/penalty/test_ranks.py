"""SRIP on several processes whose random states differ: one penalty, one gradient, replicas that stay the same."""

import torch
from ranks import on_ranks
from torch import nn

from ortho_kernels import OrthogonalityPenalty

STEPS = 20


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 4 * 4, 10), nn.Linear(10, 7))


def penalties(model):
    return {
        "fresh": OrthogonalityPenalty(model, "srip", gamma=1.0),
        "warm": OrthogonalityPenalty(model, "srip", gamma=1.0, warm_start=True),
    }


def full_gradients(model):
    """Takes the gradients of the weights away, whole where they are sharded."""
    found = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad()
    return {name: getattr(gradient, "full_tensor", lambda own=gradient: own)() for name, gradient in found.items()}


def two_steps(model):
    """The values and the gradients of each penalty, in the loss and added in place."""
    found = {}
    for kind, penalty in penalties(model).items():
        for step in range(2):
            value = penalty()
            value.backward()
            found[f"{kind} {step} loss"] = full_gradients(model)
            added = penalty.accumulate_gradients()
            found[f"{kind} {step} added"] = full_gradients(model)
            found[f"{kind} {step} values"] = torch.stack([value.detach(), added])
    return found


def steps_down(model):
    """The weights after a decoupled step of each penalty, whole where they are sharded."""
    found = {}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for kind, penalty in penalties(model).items():
        penalty.step_(optimizer)
        found[f"{kind} stepped"] = {
            name: getattr(weight, "full_tensor", lambda own=weight: own.clone())().detach()
            for name, weight in model.named_parameters()
        }
    return found


def two_sharded_steps(rank, count):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model = network()
    fully_shard(model, mesh=init_device_mesh("cpu", (count,)))
    found = two_steps(model)
    if count == 2:
        found["compiled"] = compiled_values(model)
    return found | steps_down(model)


def gathered_gradients(rank, count):
    """The gradients while the root's weights are gathered, in bfloat16, after a forward pass without a backward."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    model = network()
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16)
    fully_shard(model, mesh=init_device_mesh("cpu", (count,)), mp_policy=policy)
    found = {}
    for kind, penalty in penalties(model).items():
        for way in ("loss", "added"):
            with torch.no_grad():
                model(torch.randn(4, 3, 6, 6))
            assert type(model[3].weight) is nn.Parameter  # a gathered one
            value = penalty.accumulate_gradients() if way == "added" else penalty()
            if way == "loss":
                value.backward()
            model.reshard()
            found[f"{kind} {way}"] = value.detach(), full_gradients(model)
    return found | refusals(count)


def refusals(count):
    """What is said of computed weights, gathered and sharded, and of a model without shards beside them."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model, found = network(), {}
    nn.utils.parametrizations.weight_norm(model[4])
    fully_shard(model, mesh=init_device_mesh("cpu", (count,)))
    for state in ("sharded", "gathered"):
        if state == "gathered":
            model.unshard()
        try:
            OrthogonalityPenalty(model)
        except RuntimeError as error:
            found[state] = str(error)
        found[f"{state} but left out"] = OrthogonalityPenalty(model, exclude="4").names
    OrthogonalityPenalty(network())()
    return found


def test_gradients_reach_the_shards_while_weights_are_gathered(tmp_path):
    model = network()
    alone = {}
    for kind, penalty in penalties(model).items():
        for way in ("loss", "added"):
            alone[f"{kind} {way}"] = penalty.accumulate_gradients(), full_gradients(model)
    for rank in on_ranks(2, tmp_path, gathered_gradients, 2):
        for state in ("sharded", "gathered"):
            assert "of which weight of ParametrizedLinear is computed is sharded" in rank.pop(state)
            assert rank.pop(f"{state} but left out") == ("0.weight", "3.weight")
        torch.testing.assert_close(rank, alone)


def compiled_values(model):
    return {
        kind: torch.compile(penalty, backend="aot_eager", fullgraph=True)().detach()
        for kind, penalty in penalties(model).items()
    }


def test_sharded_weights_have_the_gradient_of_one_process_whatever_their_number(tmp_path):
    alone = two_steps(network()) | steps_down(network())
    assert len({str(alone[f"fresh {step} values"].tolist()) for step in range(2)}) == 2
    for count in (2, 4):
        for rank in on_ranks(count, tmp_path, two_sharded_steps, count):
            for kind, value in rank.pop("compiled", {}).items():
                torch.testing.assert_close(value, alone[f"{kind} 0 values"][0])
            torch.testing.assert_close(rank, alone, rtol=1e-5, atol=1e-6)


def trained_replicas(rank):
    """The weights after some steps of DDP, each process on data of its own."""
    from torch.nn.parallel import DistributedDataParallel

    found = {}
    for kind in ("fresh", "warm"):
        model = network()
        replica = DistributedDataParallel(model)
        penalty = penalties(replica)[kind]
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        for _ in range(STEPS):
            optimizer.zero_grad()
            replica(torch.randn(4, 3, 6, 6)).square().mean().backward()
            penalty.accumulate_gradients(0.1)
            optimizer.step()
        found[kind] = model.state_dict()
    return found


def test_replicas_stay_the_same(tmp_path):
    first, second = on_ranks(2, tmp_path, trained_replicas)
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    moved = (first["fresh"]["3.weight"] - network()[3].weight).abs().max()
    assert moved > 1e-3
    assert not torch.equal(first["fresh"]["3.weight"], first["warm"]["3.weight"])


def flat_weights(rank):
    """What FSDP1 answers outside forward, and the gradient where its weights are gathered."""
    import warnings

    from torch.distributed.fsdp import FullyShardedDataParallel as FSDP

    warnings.simplefilter("ignore", FutureWarning)
    found = {}
    for whole in (False, True):
        model = network()
        penalty = OrthogonalityPenalty(model, "srip", gamma=1.0)
        sharded = FSDP(model, use_orig_params=whole, device_id=torch.device("cpu"))
        for name, call in (("called", penalty), ("made", lambda model=sharded: OrthogonalityPenalty(model, "srip"))):
            try:
                call()
            except (ValueError, RuntimeError) as error:
                found[f"{name} {whole}"] = str(error)
    sharded(torch.randn(4, 3, 6, 6)).sum().backward()
    sharded.zero_grad()
    with FSDP.summon_full_params(sharded, with_grads=True):
        inside = OrthogonalityPenalty(sharded, "srip", gamma=1.0)
        found["names"] = list(inside.names)
        found["value"] = inside.accumulate_gradients().item()
        found["gradient"] = sharded.module[3].weight.grad.clone()
    return found


def test_fsdp1_says_what_to_do(tmp_path):
    found = on_ranks(2, tmp_path, flat_weights)
    alone = network()
    penalty = OrthogonalityPenalty(alone, "srip", gamma=1.0)
    value = penalty.accumulate_gradients().item()
    for rank in found:
        for case in ("called False", "called True", "made False", "made True"):
            assert rank[case].count("summon_full_params") == 1, case
        assert rank["names"] == [f"_fsdp_wrapped_module.{name}" for name in penalty.names]
        assert rank["value"] == value
        assert torch.equal(rank["gradient"], alone[3].weight.grad)
