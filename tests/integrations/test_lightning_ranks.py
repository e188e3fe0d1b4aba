"""The callback on two processes, by DDP and by FSDP2, against one process that trains on the batches of both."""

import os

import torch
from convolution_training import BATCH, OPTIONS, STEPS, check, images, network, trained
from lightning_tasks import loader, task, trainer
from ranks import on_ranks

RANKS = 2


def join_lightning(rank):
    """What torchrun says of the group, which is there already."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(RANKS), "LOCAL_WORLD_SIZE": str(RANKS)}
    os.environ |= {"GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "tests"}


def shared_out(data, rank):
    """Each process has every second batch."""
    return loader(torch.cat(data.split(BATCH)[rank::RANKS]))


def fit(case, model, data, rank, share=False, **options):
    """The Trainer, after fitting the model."""
    import lightning.pytorch as pl

    from ortho_kernels.integrations.lightning import OrthogonalityCallback

    callback = OrthogonalityCallback(module="net.backbone", share=share, **OPTIONS[case])
    resumed = {"ckpt_path": options.pop("ckpt_path", None)}
    runner = trainer(pl, callback, devices=RANKS, use_distributed_sampler=False, **options)
    runner.fit(model, shared_out(data, rank), **resumed)
    return runner


def full_state(model):
    return {
        name: getattr(weight, "full_tensor", lambda own=weight: own)() for name, weight in model.state_dict().items()
    }


def trained_by_ddp(rank):
    import lightning.pytorch as pl

    join_lightning(rank)
    found = {}
    for case in OPTIONS:
        model = task(pl)
        options = {"strategy": "ddp", "accumulate_grad_batches": 2, "share": case == "warm srip"}
        fit(case, model, images(2 * RANKS * STEPS), rank, **options)
        found[case] = full_state(model.net)
    return found


def trained_by_fsdp2(rank, folder):
    """By case, and for one of them also of a run that is resumed: Lightning loads it after `on_fit_start` then."""
    import lightning.pytorch as pl
    from torch.distributed.fsdp import fully_shard

    class Sharded(type(task(pl))):
        def configure_model(self):
            fully_shard(self.net, mesh=self.device_mesh["data_parallel"])

    def sharded(case, data, **options):
        model, strategy = Sharded(), pl.strategies.ModelParallelStrategy(RANKS, tensor_parallel_size=1)
        runner = fit(case, model, data, rank, strategy=strategy, **options)
        return full_state(model.net), runner

    join_lightning(rank)
    found = {case: sharded(case, images(RANKS * STEPS))[0] for case in OPTIONS}
    data = images(RANKS * STEPS // 4)
    found["whole"], _ = sharded("warm srip", data, max_epochs=4)
    _, half = sharded("warm srip", data, max_epochs=2)
    half.save_checkpoint(f"{folder}/half")
    found["resumed"], _ = sharded("warm srip", data, max_epochs=4, ckpt_path=f"{folder}/half")
    return found


def check_states(found, accumulate):
    """Each rank has the weights of the one process."""
    for case in OPTIONS:
        truth = trained(images(accumulate * STEPS), case, accumulate=accumulate)
        for states in found:
            model = network()
            model.load_state_dict(states[case])
            check(model, truth)
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)


def test_ddp(tmp_path):
    check_states(on_ranks(RANKS, tmp_path, trained_by_ddp), accumulate=2 * RANKS)


def test_fsdp2(tmp_path):
    found = on_ranks(RANKS, tmp_path, trained_by_fsdp2, tmp_path)
    check_states(found, accumulate=RANKS)
    torch.testing.assert_close(found[0]["resumed"], found[0]["whole"], rtol=0, atol=0)
