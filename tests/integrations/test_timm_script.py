"""timm's train script with the penalty: its own parts in its own order, against a loop in plain torch."""

import math
from contextlib import nullcontext
from copy import deepcopy

import pytest
import torch
from ranks import on_ranks
from timm import create_model
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.task import ClassificationTask
from timm.utils import NativeScaler, dispatch_clip_grad
from torch import nn
from written_out import written_penalty

from ortho_kernels import OrthogonalityPenalty

UPDATES = 20
DECAY, EMA = 1e-3, 0.9
GAMMA = {"so": 0.1, "srip": 1.0}
CASES = {
    "plain": {},
    "accumulation": {"accumulate": 3},
    "clipping": {"clip": 0.5},
    # A small rate: where a weight rounds to another bfloat16 by its last bit, both runs go ways of their own.
    "mixed precision": {"mixed": True, "rate": 5e-4},
    "all of them": {"accumulate": 2, "clip": 0.5, "mixed": True, "rate": 5e-4},
}


def network(dtype=torch.float64):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = create_model("test_vit", num_classes=5, img_size=32, embed_dim=32, depth=2, num_heads=2)
        return model.to(dtype)


def batches_of(count, dtype=torch.float64, rank=0):
    generator = torch.Generator().manual_seed(1 + rank)
    images = torch.randn(count, 4, 3, 32, 32, generator=generator)
    return list(zip(images.to(dtype), torch.randint(5, (count, 4), generator=generator), strict=True))


def autocast(mixed):
    return torch.autocast("cpu", torch.bfloat16) if mixed else nullcontext()


def script(task, penalty, batches, accumulate=1, clip=None, mixed=False, rate=0.005):
    """What timm's train.py does once it has a task, as docs/integrations/timm.md changes it; returns the averaged model."""
    optimizer = create_optimizer_v2(task.get_trainable_module(), opt="sgd", lr=rate, weight_decay=DECAY)
    scheduler, _ = create_scheduler_v2(
        optimizer, sched="cosine", num_epochs=1, warmup_epochs=0, step_on_epochs=False, updates_per_epoch=UPDATES
    )
    task.setup_ema(decay=EMA)
    if torch.distributed.is_initialized():
        task.prepare_distributed()
    loss_scaler = NativeScaler(device="cpu") if mixed else None
    updates = 0
    for index, (images, targets) in enumerate(batches):
        need_update = (index + 1) % accumulate == 0
        with nullcontext() if need_update else task.no_sync():
            with autocast(mixed):
                loss = task(images, targets)["loss"]
            loss = loss / accumulate
            if need_update:
                loss = loss + penalty()
            parameters = task.get_clip_parameters()
            if loss_scaler is not None:
                loss_scaler(loss, optimizer, clip_grad=clip, parameters=parameters, need_update=need_update)
            else:
                loss.backward()
                if need_update:
                    if clip is not None:
                        dispatch_clip_grad(parameters, value=clip)
                    optimizer.step()
        if need_update:
            updates += 1
            optimizer.zero_grad()
            task.update_ema(step=updates)
            scheduler.step_update(updates)
    return task.get_trainable_module(ema=True).module


def by_hand(model, kind, *batches, accumulate=1, clip=None, mixed=False, rate=0.005):
    """The same in plain torch, on the batches of all processes; returns the averaged model."""
    names = [name for name, weight in model.named_parameters() if weight.ndim in (2, 4) and name != "head.weight"]
    groups = [{"params": [], "weight_decay": 0.0}, {"params": [], "weight_decay": DECAY}]
    for weight in model.parameters():
        groups[weight.ndim in (2, 4)]["params"].append(weight)
    optimizer = torch.optim.SGD(groups, lr=rate, momentum=0.9, nesterov=True)
    average, clipped = deepcopy(model), 0
    for update in range(UPDATES):
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 + math.cos(math.pi * update / UPDATES)) / 2
        for own in batches:
            for images, targets in own[update * accumulate : (update + 1) * accumulate]:
                with autocast(mixed):
                    loss = nn.functional.cross_entropy(model(images), targets)
                (loss / accumulate / len(batches)).backward()
        (GAMMA[kind] * written_penalty(model, names, kind, update)).backward()
        if clip is not None:
            norm = torch.stack([weight.grad.square().sum() for weight in model.parameters()]).sum().sqrt().item()
            clipped += norm > clip
            for weight in model.parameters():
                weight.grad *= min(1.0, clip / (norm + 1e-6))
        optimizer.step()
        optimizer.zero_grad()
        kept = EMA if update else 0.0  # timm's average begins at the weights after the first update
        with torch.no_grad():
            for mean, weight in zip(average.parameters(), model.parameters(), strict=True):
                mean.mul_(kept).add_(weight, alpha=1 - kept)
    assert clip is None or clipped == UPDATES
    return average


def close(model, truth):
    for (name, given), true in zip(model.named_parameters(), truth.parameters(), strict=True):
        assert (given - true).norm() <= 1e-5 * true.norm(), name


def trained(kind, batches, **options):
    """The model and its average, by the script's parts."""
    model = network(batches[0][0].dtype)
    task = ClassificationTask(model, nn.CrossEntropyLoss(), verbose=False)
    penalty = OrthogonalityPenalty(model, kind, gamma=GAMMA[kind], exclude=model.get_classifier())
    return model, script(task, penalty, batches, **options)


@pytest.mark.parametrize("kind", GAMMA)
@pytest.mark.parametrize("case", CASES)
def test_the_scripts_parts_train_as_a_loop_by_hand(case, kind):
    options = CASES[case]
    batches = batches_of(UPDATES * options.get("accumulate", 1), torch.float32 if "mixed" in options else torch.float64)
    model, average = trained(kind, batches, **options)
    truth = network(batches[0][0].dtype)
    close(average, by_hand(truth, kind, batches, **options))
    close(model, truth)


def trained_on_a_rank(rank):
    model, average = trained("srip", batches_of(2 * UPDATES, rank=rank), accumulate=2)
    return model.state_dict(), dict(average.named_parameters())


def test_on_two_processes(tmp_path):
    """The task wraps the model in DDP after the penalty was made, and `no_sync` holds back all but the last batch."""
    first, second = on_ranks(2, tmp_path, trained_on_a_rank)
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    truth, model = network(), network()
    by_hand(truth, "srip", *(batches_of(2 * UPDATES, rank=rank) for rank in range(2)), accumulate=2)
    model.load_state_dict(first[0])
    close(model, truth)
