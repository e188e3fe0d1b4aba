"""The callback in a Trainer on two processes, against the loop on one."""

import os

import pytest
import torch
from llama_training import BATCH, language_model, trained
from ranks import on_ranks
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from transformers import TrainerControl, TrainerState
from transformers_run import arguments, penalized, trainer

from ortho_kernels.integrations.transformers import OrthogonalityCallback

KINDS = ("so", "srip")


def part_of(rank, count, sharded, folder):
    """For each kind, the weights after a Trainer on each rank, which has a part of each batch."""
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(count), LOCAL_WORLD_SIZE=str(count), MASTER_ADDR="-"
    )
    found = []
    for kind in KINDS:
        model = language_model()
        if sharded:
            for block in model.model.layers:
                fully_shard(block)
            fully_shard(model)
            model._is_distributed_loading_by_transformers = True  # as from_pretrained does to one that it shards
        options = {"per_device_train_batch_size": BATCH // count, "ddp_backend": "gloo"}
        run = trainer(folder, penalized(kind, share=not sharded and kind == "srip"), model, **options)
        assert run.accelerator.num_processes == count
        run.train()
        found += [weight.full_tensor() if sharded else weight.detach() for weight in run.model.parameters()]
    return found


@pytest.mark.parametrize("sharded", [False, True], ids=["DDP", "FSDP2"])
def test_two_processes(sharded, tmp_path):
    ranks = on_ranks(2, tmp_path, part_of, 2, sharded, str(tmp_path))
    truth = [weight for kind in KINDS for weight in trained(kind).parameters()]
    for left, right, expected in zip(*ranks, truth, strict=True):
        assert torch.equal(left, right)
        assert (left - expected).norm() <= 1e-5 * expected.norm()


def refused(rank, folder):
    model = FullyShardedDataParallel(language_model(), device_id=torch.device("cpu"))
    with pytest.raises(ValueError, match=r"FSDP1.*take FSDP2"):
        OrthogonalityCallback().on_train_begin(arguments(folder), TrainerState(), TrainerControl(), model=model)


def test_fsdp1_is_refused(tmp_path):
    on_ranks(1, tmp_path, refused, str(tmp_path))
