"""The rows of docs/where_to_put_it.md for several processes, each against one process's loop in plain float64 torch."""

import warnings
from contextlib import nullcontext

import pytest
import torch
from ranks import on_ranks
from torch import nn
from truth import relative
from written_out import written_penalty

from ortho_kernels import OrthogonalityPenalty

STEPS, RANKS, BATCHES = 20, 2, 2
GAMMA = {"so": 0.02, "srip": 0.1}
CLIP = 0.3


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 4)).double()


def batches_of(rank):
    """Those of each step."""
    generator = torch.Generator().manual_seed(1 + rank)
    return torch.randn(STEPS, BATCHES, 8, 6, dtype=torch.float64, generator=generator)


def loss_of(model, images):
    return (model(images) - 1).square().mean() / BATCHES


def optimizer_of(model):
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def finish_step(way, penalty, model, optimizer):
    if way == "before clipping":
        penalty.accumulate_gradients()
    if "clipping" in way:
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
    if way == "after clipping":
        penalty.accumulate_gradients()
    optimizer.step()


def ddp(kind, rank, way):
    """Two batches a step, of which DDP's reduction waits for the last."""
    from torch.nn.parallel import DistributedDataParallel

    model = network()
    replica, optimizer = DistributedDataParallel(model), optimizer_of(model)
    penalty = OrthogonalityPenalty(model, kind, gamma=GAMMA[kind])
    for batches in batches_of(rank):
        optimizer.zero_grad()
        for last, images in zip((False, True), batches, strict=True):
            with nullcontext() if last else replica.no_sync():
                loss = loss_of(replica, images)
                if (way == "in the last loss" and last) or (way == "in the first loss" and not last):
                    loss = loss + penalty()
                loss.backward()
        finish_step(way, penalty, model, optimizer)
    return dict(model.named_parameters())


def fsdp1(kind, rank, way):
    """In float32, beyond which `clip_grad_norm_` of FSDP1 doesn't go."""
    from torch.distributed.fsdp import FullyShardedDataParallel as FSDP

    warnings.simplefilter("ignore", FutureWarning)
    model = FSDP(network().float(), use_orig_params=True, device_id=torch.device("cpu"))
    optimizer = optimizer_of(model)
    with FSDP.summon_full_params(model, with_grads=True):
        penalty = OrthogonalityPenalty(model, kind, gamma=GAMMA[kind])
    for batches in batches_of(rank):
        optimizer.zero_grad()
        for images in batches:
            loss_of(model, images.float()).backward()
        if way == "before clipping":
            with FSDP.summon_full_params(model, with_grads=True):
                penalty.accumulate_gradients()
        if "clipping" in way:
            model.clip_grad_norm_(CLIP)
        if way == "after clipping":
            with FSDP.summon_full_params(model, with_grads=True):
                penalty.accumulate_gradients()
        optimizer.step()
    with FSDP.summon_full_params(model):
        return {name: weight.detach().clone() for name, weight in model.module.named_parameters()}


def fsdp2(kind, rank, way):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model = network()
    fully_shard(model, mesh=init_device_mesh("cpu", (RANKS,)))
    optimizer = optimizer_of(model)
    penalty = OrthogonalityPenalty(model, kind, gamma=GAMMA[kind])
    for batches in batches_of(rank):
        optimizer.zero_grad()
        for last, images in zip((False, True), batches, strict=True):
            loss = loss_of(model, images)
            (loss + penalty() if way == "in the last loss" and last else loss).backward()
        finish_step(way, penalty, model, optimizer)
    return {name: weight.full_tensor().detach() for name, weight in model.named_parameters()}


ROWS = {
    ddp: ["in the last loss", "in the first loss", "before clipping", "after clipping"],
    fsdp1: ["before clipping", "after clipping"],
    fsdp2: ["in the last loss", "before clipping", "after clipping"],
}


def all_rows(rank):
    return {
        f"{row.__name__}, {kind}, {way}": row(kind, rank, way) for row in ROWS for kind in GAMMA for way in ROWS[row]
    }


@pytest.fixture(scope="module")
def replicas(tmp_path_factory):
    return on_ranks(RANKS, tmp_path_factory.mktemp("ranks"), all_rows)


def by_hand(kind, way):
    """One process, on the batches of all."""
    model = network()
    optimizer = optimizer_of(model)
    clipped = 0
    for step, batches in enumerate(zip(*map(batches_of, range(RANKS)), strict=True)):
        optimizer.zero_grad()
        (sum(loss_of(model, images) for own in batches for images in own) / RANKS).backward()
        penalty = GAMMA[kind] * written_penalty(model, ["0.weight", "2.weight"], kind, step)
        if way != "after clipping":
            penalty.backward()
        if "clipping" in way:
            clipped += nn.utils.clip_grad_norm_(model.parameters(), CLIP) > CLIP
        if way == "after clipping":
            penalty.backward()
        optimizer.step()
    assert "clipping" not in way or clipped > 0
    return model


@pytest.mark.parametrize("kind", GAMMA)
@pytest.mark.parametrize(("row", "way"), [(row, way) for row in ROWS for way in ROWS[row]])
def test_processes_train_as_one(replicas, row, kind, way):
    first, second = (found[f"{row.__name__}, {kind}, {way}"] for found in replicas)
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    for name, true in by_hand(kind, way).named_parameters():
        assert relative(first[name], true) < 1e-5, name
