"""`share=group`: the ranks of DDP share out the matrices; values, gradients and vectors are those of one process."""

import copy
import os
import time
from contextlib import contextmanager
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from forking import forking_context
from ranks import on_ranks
from torch import nn
from torch.multiprocessing.spawn import start_processes
from torch.nn.utils import parametrizations
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.model_shapes import MODELS
from ortho_kernels import CosineSchedule, OrthogonalityPenalty, use_backend
from ortho_kernels.distributed.assignment import assign
from ortho_kernels.distributed.exact_sum import exact_sum
from ortho_kernels.distributed.replicated.owned import Owned
from ortho_kernels.options import SO
from ortho_kernels.weight_views import weight_views

STEPS = 20
IMAGES = 8
PENALTIES = {
    "so": {"kind": "so"},
    "fresh": {"kind": "srip"},
    "warm": {"kind": "srip", "warm_start": True},
}


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3),
            nn.Tanh(),
            nn.Conv2d(8, 6, 3, groups=2),
            nn.Flatten(),
            nn.Linear(24, 10),
            nn.Linear(10, 7),
        )


def batch(step):
    return torch.randn(IMAGES, 3, 6, 6, generator=torch.Generator().manual_seed(step))


def trained(model, kind, way, share, images_of):
    """The weights and the penalty's state after 20 steps, whose gradients DDP averages where `model` is wrapped."""
    penalty = OrthogonalityPenalty(model, gamma=0.02, share=share, **PENALTIES[kind])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for step in range(STEPS):
        optimizer.zero_grad()
        loss = model(images_of(step)).square().mean()
        if way == "loss":
            loss = loss + penalty()
        loss.backward()
        if way == "accumulated":
            penalty.accumulate_gradients()
        optimizer.step()
        if way == "stepped":
            penalty.step_(optimizer)
    model = getattr(model, "module", model)
    return {"weights": dict(model.state_dict()), "penalty": dict(penalty.state_dict())}


def trained_replicas(rank, count):
    found = {}
    size = IMAGES // count
    for way in ("loss", "accumulated", "stepped"):
        for kind in PENALTIES:
            replica = nn.parallel.DistributedDataParallel(network())
            images_of = lambda step: batch(step)[rank * size : (rank + 1) * size]  # noqa: E731
            found[f"{way} {kind}"] = trained(replica, kind, way, dist.group.WORLD, images_of)
    return found


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_training_with_ddp_is_that_of_one_process(count, tmp_path):
    first, *others = on_ranks(count, tmp_path, trained_replicas, count)
    for other in others:
        torch.testing.assert_close(other, first, rtol=0, atol=0)
    for case, found in first.items():
        way, kind = case.split()
        expected = trained(network(), kind, way, False, batch)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
        moved = (found["weights"]["4.weight"] - network()[4].weight).abs().max()
        assert moved > 1e-3, case


class Experts(nn.Module):
    """Seven experts in one weight, more than a rank's fair share, beside a small layer."""

    def __init__(self):
        super().__init__()
        self.up = nn.Parameter(torch.randn(7, 12, 9))
        self.layer = nn.Linear(5, 4)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 4)
        self.second.weight = self.first.weight


def seeded(make):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return make()


def computed():
    model = network()
    parametrizations.weight_norm(model[4])
    return model


def frozen():
    model = network()
    model[0].weight.requires_grad_(False)
    return model


def cast():
    return network().bfloat16()


def mixed():
    model = network()
    model[4].double()
    return model


GAMMAS = {"0": torch.tensor(0.5), "2": CosineSchedule(0.4, 0.1, steps=4), "*": 0.1}
CASES = {
    "so": (network, {}),
    "so, a gamma each": (network, {"gamma": GAMMAS}),
    "so, one gamma in a tensor": (network, {"gamma": torch.tensor(0.2)}),
    "so, the mean": (network, {"reduction": "mean"}),
    "so, the entries": (network, {"reduction": "entries"}),
    "so, every second call": (network, {"every": 2}),
    "so, of experts": (lambda: seeded(Experts), {"batch_dims": {"up": 1}}),
    "so, l1": (network, {"norm": "l1"}),
    "so, of both sides": (network, {"side": "both"}),
    "so, of tied weights": (lambda: seeded(Tied), {}),
    "so, of computed weights": (computed, {}),
    "so, of frozen weights": (frozen, {}),
    "so, of bfloat16": (cast, {}),
    "so, of channels last": (lambda: network().to(memory_format=torch.channels_last), {}),
    "so, of two dtypes": (mixed, {}),
    "so, split": (lambda: seeded(lambda: nn.MultiheadAttention(8, 2)), {"split_qkv": True, "split_heads": True}),
    "srip": (network, {"kind": "srip"}),
    "srip, of experts": (lambda: seeded(Experts), {"kind": "srip", "batch_dims": {"up": 1}}),
    "srip, warm, of experts": (
        lambda: seeded(Experts),
        {"kind": "srip", "warm_start": True, "gradient": "envelope", "batch_dims": {"up": 1}},
    ),
    "srip, warm": (network, {"kind": "srip", "warm_start": True, "gamma": GAMMAS}),
    "srip, of computed weights": (computed, {"kind": "srip"}),
}


def gradients_of(model):
    """Takes them away."""
    found = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad()
    return found


def three_steps(case, share):
    """Values, gradients and the state of each way; of the loss the mean of the gradients over ranks, as DDP makes it."""
    make, options = CASES[case]
    model = make()
    penalty = OrthogonalityPenalty(model, share=share, **{"gamma": 0.3} | options)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    found = {}
    for step in range(3):
        value = penalty()
        value.backward()
        if share and value:
            average_gradients(penalty, share)
        found[f"{step} loss"] = value.detach(), gradients_of(model)
        with penalty.hold():
            twice = [penalty.accumulate_gradients(2.0) for _ in range(2)]
        found[f"{step} added"] = twice, gradients_of(model)
        weights = {name: weight.detach().clone() for name, weight in model.named_parameters()}
        found[f"{step} stepped"] = penalty.step_(optimizer), weights
    found["state"] = dict(penalty.state_dict())
    return found


def average_gradients(penalty, group):
    """As DDP does, of all parameters that the penalty reaches."""
    for name, weight in penalty.encoder.named_parameters():
        reached = any(name.startswith(own.removesuffix("weight")) for own in penalty.names) and weight.dim() > 1
        if weight.requires_grad and reached:
            weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
            dist.all_reduce(weight.grad, group=group)
            weight.grad /= dist.get_world_size(group)


@contextmanager
def group_of_one():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield dist.group.WORLD
    finally:
        dist.destroy_process_group()


def searched(share):
    """LBFGS, whose line search calls as often as it likes, on every rank alike."""
    model = network()
    penalty = OrthogonalityPenalty(model, "srip", gamma=1.0, warm_start=True, share=share)
    weights = [weight for weight in model.parameters() if weight.dim() > 1]
    optimizer = torch.optim.LBFGS(weights, lr=0.1, max_iter=4, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        return penalty.accumulate_gradients()

    for _ in range(2):
        with penalty.hold():
            optimizer.step(closure)
    return {"weights": dict(model.state_dict()), "penalty": dict(penalty.state_dict())}


def all_cases(rank):
    world = dist.group.WORLD
    return {case: three_steps(case, world) for case in CASES}, searched(world)


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_every_option_has_the_numbers_of_one_process(count, tmp_path):
    first, *others = on_ranks(count, tmp_path, all_cases)
    for other in others:
        torch.testing.assert_close(other, first, rtol=0, atol=0)
    cases, after_search = first
    with group_of_one() as group:
        torch.testing.assert_close(after_search, searched(group), rtol=0, atol=0)
    torch.testing.assert_close(after_search, searched(False), rtol=1e-3, atol=1e-4)  # a search magnifies the last digit
    for case, found in cases.items():
        digits = {"rtol": 1e-2, "atol": 1e-2} if "bfloat16" in case else {"rtol": 1e-5, "atol": 1e-6}
        torch.testing.assert_close(
            found, three_steps(case, False), **digits, msg=lambda text, case=case: f"{case}: {text}"
        )
        if case == "so, of two dtypes":  # a part of float32 alone is computed in it
            continue
        with group_of_one() as group:
            torch.testing.assert_close(found, three_steps(case, group), rtol=0, atol=0)


class WithSpare(nn.Module):
    """A layer that the penalty uses, and the loss doesn't."""

    def __init__(self):
        super().__init__()
        self.used, self.spare = nn.Linear(6, 5), nn.Linear(5, 4, bias=False)

    def forward(self, inputs):
        return self.used(inputs)


@pytest.mark.parametrize("kind", PENALTIES)
def test_weights_that_are_all_frozen_are_measured(kind):
    expected = OrthogonalityPenalty(network(), **PENALTIES[kind])().detach()
    model = network().requires_grad_(False)
    with group_of_one() as group:
        penalty = OrthogonalityPenalty(model, share=group, **PENALTIES[kind])
        with penalty.hold():
            values = [penalty(), penalty.accumulate_gradients(), penalty.step_(torch.optim.SGD(model.parameters()))]
    torch.testing.assert_close(values, [expected] * 3)
    assert gradients_of(model) == {}


def trained_with_a_spare_layer(rank):
    """DDP waits for every parameter: also on a rank whose part holds none of them."""
    found = {}
    found_unused = {"find_unused_parameters": True}  # the spare weight: DDP waits for it no longer
    for setting in ({}, {"static_graph": True}, {"gradient_as_bucket_view": True}, found_unused):
        replica = nn.parallel.DistributedDataParallel(seeded(WithSpare), **setting)
        penalty = OrthogonalityPenalty(replica, gamma=0.1, share=dist.group.WORLD)
        optimizer = torch.optim.SGD(replica.parameters(), lr=0.1)
        for step in range(4):
            optimizer.zero_grad()
            if step == 2:  # a batch that is accumulated, without a reduction
                with replica.no_sync():
                    replica(torch.ones(2, 6)).sum().backward()
            loss = replica(torch.ones(2, 6)).sum()
            if setting is found_unused:
                loss.backward()
                penalty.accumulate_gradients()
            else:
                (loss + penalty()).backward()
            optimizer.step()
        found[str(setting)] = dict(replica.module.state_dict())
    return found


def test_ddp_gets_every_parameter(tmp_path):
    ranks = on_ranks(3, tmp_path, trained_with_a_spare_layer)
    model = seeded(WithSpare)
    penalty = OrthogonalityPenalty(model, gamma=0.1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(4):
        optimizer.zero_grad()
        (model(torch.ones(2, 6)).sum() * (2 if step == 2 else 1) + penalty()).backward()
        optimizer.step()
    for rank in ranks:
        for found in rank.values():
            torch.testing.assert_close(found, dict(model.state_dict()), rtol=1e-5, atol=1e-6)


def counted(rank):
    """The products that each rank computes, and the bytes that it gives to collectives, by way and penalty."""
    moved, found = [], {}
    reduce = dist.all_reduce

    def counting(tensor, *arguments, **options):
        moved.append(tensor.nbytes)
        return reduce(tensor, *arguments, **options)

    dist.all_reduce = counting
    model = network()
    with use_backend("torch"):  # whose operations torch counts
        for kind, options in PENALTIES.items():
            for share in (dist.group.WORLD, False):
                penalty = OrthogonalityPenalty(model, share=share, **options)
                penalty.accumulate_gradients()  # the first call compares what the ranks have
                for way, call in (
                    ("loss", lambda own: own().backward()),
                    ("added", lambda own: own.accumulate_gradients()),
                ):
                    moved.clear()
                    with FlopCounterMode(display=False) as counter:
                        call(penalty)
                    found[kind, way, bool(share)] = counter.get_total_flops(), list(moved)
    return found


def test_products_are_shared_out_and_one_collective_moves_the_values_and_gradients(tmp_path):
    ranks = on_ranks(2, tmp_path, counted)
    model = network()
    padded = [-(-bytes // 256) * 256 for bytes in (weight.nbytes for weight in model.parameters() if weight.dim() > 1)]
    for kind in PENALTIES:
        for way in ("loss", "added"):
            shared, whole = [rank[kind, way, True] for rank in ranks], ranks[0][kind, way, False]
            if kind == "so":  # torch counts no products of a matrix and a vector
                flops = [flops for flops, _ in shared]
                assert sum(flops) == whole[0]
                assert max(flops) < 0.8 * whole[0]  # the largest matrix alone takes more than half
            assert whole[1] == []
            vectors = 256 if kind == "warm" else 0
            expected = 256 + vectors + (sum(padded) if way == "added" else 0)
            assert [moved for _, moved in shared] == [[expected]] * 2


@pytest.mark.parametrize(("model", "most"), [("resnet50", 0.2501), ("vit_base", 0.253)])
def test_a_rank_of_four_computes_little_more_than_a_quarter(model, most):
    weights = [torch.empty(shape) for shape in MODELS[model]()]
    views = weight_views(weights, 1)
    parts = [Owned(weights, views, SO(), rank, 4) for rank in range(4)]
    [costs] = {tuple(part.costs) for part in parts}  # all ranks find the same
    orders, depths = zip(*((min(view.rows, view.cols), max(view.rows, view.cols)) for view in views.views), strict=True)
    products = [1.5 * n**2 * k for n, k in zip(orders, depths, strict=True)]
    owned = [[products[index] for index in part.matrices.tolist()] for part in parts]
    assert [sum(own) for own in owned] == pytest.approx(costs)
    assert sorted(index for part in parts for index in part.matrices.tolist()) == list(range(len(weights)))
    assert max(map(sum, owned)) <= most * sum(products)


@pytest.mark.parametrize(
    ("costs", "ranks", "loads", "owners"),
    [
        ([1, 5, 4, 3], 2, None, [0, 0, 1, 1]),  # 5 to 0, 4 and 3 to 1, 1 to 0
        ([2, 2, 2], 2, None, [0, 1, 0]),
        ([2, 2], 2, [3, 0], [1, 1]),
        ([3, 3], 5, None, [0, 1]),
        ([], 3, None, []),
    ],
)
def test_the_longest_goes_first_to_the_rank_with_the_least(costs, ranks, loads, owners):
    assert assign(costs, ranks, loads) == owners


def test_a_batch_that_exceeds_the_fair_share_is_cut():
    weights = [torch.randn(7 * 12, 9), torch.randn(4, 5)]
    views = weight_views(weights, [7, 1])
    parts = [Owned(weights, views, SO(), rank, 4) for rank in range(4)]
    assert [part.matrices.tolist() for part in parts] == [[1, 2], [3, 4], [5, 6], [0, 7]]
    for part in parts:
        for own, first in zip(part.of(weights), part.matrices.tolist(), strict=False):
            assert own.data_ptr() == weights[0][12 * first].data_ptr() if first < 7 else own is weights[1]
    # The vectors of a matrix of order 9 lie one after the other, those of the small weight last.
    assert parts[3].vectors.tolist() == [*range(9), *range(63, 67)]


def each_holds_some(rank):
    """Every number of many dtypes is one rank's, down to the byte."""
    whole = [
        torch.tensor([float("nan"), -0.0, float("inf"), 1e-45]),
        torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).bfloat16(),
        torch.tensor([2**62, -1, 7]),
        torch.tensor([True, False, True]),
        torch.tensor(-3.5, dtype=torch.float64),
        torch.zeros(0),
    ]
    own = []
    for tensor in whole:
        flat = tensor.flatten().clone()
        flat[torch.arange(flat.numel()) % 2 != rank] = 0
        own.append(flat.view(tensor.shape))
    summed = exact_sum(own, dist.group.WORLD)
    as_bytes = lambda tensors: [tensor.reshape(-1).view(torch.uint8).tolist() for tensor in tensors]  # noqa: E731
    return as_bytes(summed) == as_bytes(whole)


def test_the_sum_is_exact_to_the_bit(tmp_path):
    assert on_ranks(2, tmp_path, each_holds_some) == [True, True]


def raised(call):
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def refusals(rank):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    world, found = dist.group.WORLD, {}
    alone = dist.new_group([0])
    found["no group"] = raised(lambda: OrthogonalityPenalty(network(), share=2))
    mesh = init_device_mesh("cpu", (2,), mesh_dim_names=("data",))
    found["mesh"] = raised(lambda: OrthogonalityPenalty(network(), share=mesh))
    OrthogonalityPenalty(network(), share=mesh.get_group("data"))
    if rank == 1:
        found["no member"] = raised(lambda: OrthogonalityPenalty(network(), share=alone))

    model = network()
    model[5] = nn.Linear(10, 7 + rank)
    found["shapes"] = raised(OrthogonalityPenalty(model, share=world))
    found["number"] = raised(OrthogonalityPenalty(network(), exclude="5" if rank else None, share=world))
    found["options"] = raised(OrthogonalityPenalty(network(), side="rows" if rank else "cols", share=world))
    frozen = network().requires_grad_(rank == 0)
    found["frozen"] = raised(OrthogonalityPenalty(frozen, share=world).accumulate_gradients)

    shared = OrthogonalityPenalty(network(), "srip", share=world)
    found["transformed"] = raised(lambda: torch.func.grad(lambda _: shared())(torch.ones(())))
    found["compiled"] = raised(torch.compile(shared, backend="eager", fullgraph=True))
    found["before"] = shared.accumulate_gradients()
    if rank == 1:  # alone
        found["report"] = shared.report().total
        shared.eval()
        found["eval"] = shared(), torch.compile(shared, backend="eager", fullgraph=True)()
        shared.train()
    found["after"] = copy.deepcopy(shared).accumulate_gradients()

    sharded = network()
    fully_shard(sharded, mesh=mesh)
    found["sharded"] = raised(lambda: OrthogonalityPenalty(sharded, share=world))
    late = network()
    penalty = OrthogonalityPenalty(late, share=world)
    fully_shard(late, mesh=mesh)
    found["sharded later"] = raised(penalty)
    return found


def test_no_group_is_refused(monkeypatch):
    """torch's WORLD is None until it is initialized. A process that was started alone shares with nobody."""
    assert dist.group.WORLD is None
    for share in (dist.group.WORLD, True):
        monkeypatch.setenv("WORLD_SIZE", "2")
        with pytest.raises(RuntimeError, match="init_process_group first"):
            OrthogonalityPenalty(network(), share=share)
    monkeypatch.setenv("WORLD_SIZE", "1")
    alone, unshared = (OrthogonalityPenalty(network(), share=share) for share in (True, False))
    assert repr(alone) == repr(unshared)
    assert torch.equal(alone(), unshared())


def test_what_is_refused_and_what_one_rank_may_call_alone(tmp_path):
    first, second = on_ranks(2, tmp_path, refusals)
    assert "no member" in second.pop("no member")
    alone = OrthogonalityPenalty(network(), "srip")
    before = alone.accumulate_gradients()
    report, value = second.pop("report"), second.pop("eval")
    assert report == alone.report().total
    assert value == (alone.eval()(),) * 2
    for found in (first, second):
        seven = "rank 0 has 5.weight: 7 x 10 with strides (10, 1), torch.float32, trained, and rank 1 has"
        for case, words in {
            "no group": "TypeError: share must be True or a torch.distributed.ProcessGroup",
            "mesh": "mesh.get_group",
            "shapes": f"{seven} 5.weight: 8 x 10",
            "number": f"{seven} nothing more",
            "options": "rank 0 has SO(side='cols'",
            "frozen": "rank 1 has 0.weight: 8 x 27 with strides (27, 9, 3, 1), torch.float32, frozen",
            "compiled": "outside of the compiled function",
            "transformed": "penalty.eval()",
            "sharded": "ValueError: 0.weight is a DTensor: sharded weights are shared out by themselves",
            "sharded later": "ValueError: 0.weight is a DTensor",
        }.items():
            assert words in found[case], (case, found[case])
        assert found["before"] == before
    assert first["after"] == second["after"]


def test_a_group_must_be_there():
    with group_of_one() as group:
        pass
    with pytest.raises(RuntimeError, match="init_process_group first"):
        OrthogonalityPenalty(network(), share=group)


def goes_on(rank, state):
    """Three more steps of SRIP, warm, from a checkpoint."""
    model = network()
    penalty = OrthogonalityPenalty(model, "srip", gamma=0.3, warm_start=True, share=dist.group.WORLD)
    penalty.load_state_dict(state["penalty"])
    model.load_state_dict(state["weights"])
    return penalized_steps(model, penalty, 3)


def penalized_steps(model, penalty, steps):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(steps):
        penalty.step_(optimizer)
    return {"penalty": dict(penalty.state_dict()), "weights": dict(model.state_dict())}


def test_a_run_goes_on_with_another_number_of_ranks(tmp_path):
    model = network()
    penalty = OrthogonalityPenalty(model, "srip", gamma=0.3, warm_start=True)
    state = penalized_steps(model, penalty, 3)
    two = on_ranks(2, tmp_path, goes_on, copy.deepcopy(state))
    six = penalized_steps(model, penalty, 3)
    for rank in two:
        torch.testing.assert_close(rank, six, rtol=1e-5, atol=1e-7)
    seven = on_ranks(3, tmp_path, goes_on, two[1])
    torch.testing.assert_close(seven[0], penalized_steps(model, penalty, 3), rtol=1e-5, atol=1e-7)


def one_is_missing(rank, folder, how):
    """Rank 0 calls; rank 1 dies, or lives on without a call."""
    dist.init_process_group("gloo", f"file://{folder}/{how}", timedelta(seconds=60), world_size=2, rank=rank)
    group = dist.new_group(timeout=timedelta(seconds=1))
    penalty = OrthogonalityPenalty(network(), share=group)
    penalty()
    if rank == 1:
        if how == "late":
            time.sleep(4)
        os._exit(0)
    begin = time.perf_counter()
    said = raised(penalty.accumulate_gradients)
    made = [name for name, weight in penalty.encoder.named_parameters() if weight.grad is not None]
    torch.save((said, time.perf_counter() - begin, made), f"{folder}/{how}.pt")
    os._exit(0)


@pytest.mark.parametrize("how", ["dead", "late"])
def test_a_missing_rank_is_an_error_within_the_timeout(how, tmp_path):
    context = forking_context().get_start_method()
    start_processes(one_is_missing, (str(tmp_path), how), nprocs=2, start_method=context)
    said, seconds, made = torch.load(tmp_path / f"{how}.pt")
    assert said.startswith("RuntimeError")
    assert seconds < 4
    assert made == []  # no half of a gradient
