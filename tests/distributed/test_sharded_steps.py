"""Scalers, accumulation, mixed precision, and compilation under FSDP2, against one process."""

import gc
import weakref

import pytest
import torch
from ranks import on_ranks
from torch import nn

from ortho_kernels import CosineSchedule, OrthogonalityPenalty

KINDS = {"so": {"kind": "so"}, "warm": {"kind": "srip", "warm_start": True}}
STEPS = 6


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 9), nn.Linear(9, 4))


def images(step, part=0):
    return torch.randn(4, 6, generator=torch.Generator().manual_seed(10 * step + part))


def whole(tensor):
    return getattr(tensor, "full_tensor", lambda: tensor.clone())().detach()


def weights(model):
    return [whole(weight) for weight in model.parameters()]


def gradients(model):
    return [whole(weight.grad) for weight in model.parameters() if weight.grad is not None]


def started(model, kind, rate=0.1):
    penalty = OrthogonalityPenalty(model, gamma=CosineSchedule(0.05, 0.02, 4), **KINDS[kind])
    return penalty, torch.optim.SGD(model.parameters(), lr=rate, momentum=0.5)


def scaled(model, kind, place):
    """With a GradScaler, whose third step is skipped."""
    penalty, optimizer = started(model, kind)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=3)
    for step in range(STEPS):
        loss = model(images(step)).square().mean()
        loss = loss * (float("inf") if step == 2 else 1.0)
        scaler.scale(loss + penalty() if place == "loss" else loss).backward()
        if place == "before":
            penalty.accumulate_gradients(scaler=scaler)
        if place == "after":
            scaler.unscale_(optimizer)
            penalty.accumulate_gradients()
        scaler.step(optimizer)
        if place == "stepped":
            penalty.step_(optimizer, scaler=scaler)
        scaler.update()
        optimizer.zero_grad()
    return weights(model)


def accumulated(model, kind, place):
    """Two batches a step, of which the first is not reduced; gradients are clipped, and the penalty with them or not."""
    penalty, optimizer = started(model, kind)
    for step in range(STEPS):
        for part in (0, 1):
            if hasattr(model, "set_requires_gradient_sync"):
                model.set_requires_gradient_sync(part == 1)
            loss = model(images(step, part)).square().mean() / 2
            (loss + penalty() if place == "loss" and part == 0 else loss).backward()
        if place == "before":
            penalty.accumulate_gradients()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        if place == "after":
            penalty.accumulate_gradients()
        optimizer.step()
        optimizer.zero_grad()
    return weights(model)


def perturbed(model, kind, _):
    """SAM's two gradients, which see one objective."""
    penalty, optimizer = started(model, kind)
    for step in range(STEPS):
        with penalty.hold():
            for climb in (0.05, -0.05):
                optimizer.zero_grad()
                (model(images(step)).square().mean() + penalty()).backward()
                if climb > 0:
                    before = [weight.grad.clone() for weight in model.parameters()]
                with torch.no_grad():
                    for weight, gradient in zip(model.parameters(), before, strict=True):
                        weight.add_(gradient, alpha=climb)
        optimizer.step()
    return weights(model)


def gathered(model, kind, place):
    """While the weights are gathered: between forward and backward, and within `unshard`."""
    penalty, _ = started(model, kind)
    loss = model(images(0)).square().mean()
    if place == "loss":
        loss = loss + penalty()
    else:
        penalty.accumulate_gradients()
    loss.backward()
    if hasattr(model, "unshard"):
        model.unshard()
    value = penalty.accumulate_gradients()
    if hasattr(model, "reshard"):
        model.reshard()
    return [value, *gradients(model)]


def twice(model, kind, _):
    """A graph that goes backward twice."""
    penalty, _ = started(model, kind)
    value = penalty()
    value.backward(retain_graph=True)
    (3 * value).backward()
    return [value.detach(), *gradients(model)]


def replaced(model, kind, _):
    """`functional_call` puts other tensors in the place of the parameters: leaves, then what is computed from these."""
    penalty, _ = started(model, kind)
    calls = {"loss": penalty, "added": penalty.accumulate_gradients}

    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, way):
            return calls[way]()

    halves = {f"model.{name}": weight.detach().mul(0.5).requires_grad_() for name, weight in model.named_parameters()}
    value = torch.func.functional_call(Both(), halves, ("loss",))
    value.backward()
    quarters = {name: half * 0.5 for name, half in halves.items()}
    added = torch.func.functional_call(Both(), quarters, ("added",))
    return [value.detach(), added, *(whole(half.grad) for half in halves.values() if half.grad is not None)]


def moved(model, kind, _):
    """In eval mode nothing moves; the report is of the next call."""
    penalty, _ = started(model, kind)
    penalty.eval()
    found = [penalty().detach(), penalty().detach(), torch.tensor(penalty.report().total)]
    penalty.train()
    return [*found, penalty().detach(), penalty().detach()]


CASES = [
    *((scaled, place) for place in ("loss", "before", "after", "stepped")),
    *((accumulated, place) for place in ("loss", "before", "after")),
    *((gathered, place) for place in ("loss", "added")),
    *((case, "") for case in (perturbed, twice, replaced, moved)),
]


def computed(make):
    return {(case.__name__, place, kind): case(make(), kind, place) for kind in KINDS for case, place in CASES}


def sharded(rank, count):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    mesh = init_device_mesh("cpu", (count,))

    def make(**options):
        model = network()
        fully_shard(model[0], mesh=mesh, **options)
        fully_shard(model, mesh=mesh, **options)
        return model

    found = computed(make)
    half = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    for kind in KINDS:
        model = make(mp_policy=half)
        penalty, _ = started(model, kind)
        model(images(0)).float().square().mean().backward()
        before = gradients(model)
        value = penalty.accumulate_gradients()
        added = [after - without for after, without in zip(gradients(model), before, strict=True)]
        found["half", kind] = [value, *(each for each in added if each.dim() == 2)]
    return found


def test_steps(tmp_path):
    alone = computed(network)
    for kind in KINDS:
        model = network()
        value = started(model, kind)[0].accumulate_gradients()
        alone["half", kind] = [value, *gradients(model)]
    for rank in on_ranks(2, tmp_path, sharded, 2):
        assert rank.keys() == alone.keys()
        for case, theirs in alone.items():
            for index, (ours, own) in enumerate(zip(rank[case], theirs, strict=True)):
                assert own.abs().max() > 0
                torch.testing.assert_close(
                    ours, own, rtol=1e-4, atol=1e-5, msg=lambda text, at=(case, index): f"{at}: {text}"
                )


def wrapped_late(rank, count):
    """The numbers of a penalty that was made before its model was sharded, while another sharded model came to its end."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    mesh = init_device_mesh("cpu", (count,))
    other, model = fully_shard(network(), mesh=mesh), network()
    penalty, _ = started(model, "so")
    del other
    gc.collect()
    fully_shard(model, mesh=mesh, mp_policy=MixedPrecisionPolicy(param_dtype=torch.bfloat16))
    weights = list(model.parameters())
    model(images(0))  # from here to the backward, gathered weights of bfloat16 stand in the model
    value = penalty.accumulate_gradients()
    return [value, *(whole(weight.grad) for weight in weights if weight.grad is not None)]


def test_a_model_may_take_the_place_of_another_that_was_sharded(tmp_path):
    model = network()
    expected = [started(model, "so")[0].accumulate_gradients(), *gradients(model)]
    for found in on_ranks(2, tmp_path, wrapped_late, 2):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


class Kept:
    """What autograd keeps of a saved tensor."""

    def __init__(self, tensor):
        self.tensor = tensor


def kept_by_a_value(rank, count):
    """How many entries a value has saved, and how many of them it keeps after its backward."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model, saved = network(), []
    fully_shard(model, mesh=init_device_mesh("cpu", (count,)))
    penalty, _ = started(model, "so")

    def keep(tensor):
        saved.append(weakref.ref(kept := Kept(tensor)))
        return kept

    def alive():
        gc.collect()
        return sum(found.tensor.numel() for kept in saved if (found := kept()) is not None)

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda kept: kept.tensor):
        value = penalty()
    before = alive()
    value.backward()
    local = sum(weight.to_local().numel() for weight in model.parameters() if weight.dim() == 2)
    return before, alive(), local


def test_a_loss_that_is_kept_does_not_keep_gradients(tmp_path):
    for before, after, local in on_ranks(2, tmp_path, kept_by_a_value, 2):
        assert local <= before <= local + 10
        assert after == 0


def compiled(rank, count):
    """The penalty compiled gathers its weights."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model = network()
    fully_shard(model, mesh=init_device_mesh("cpu", (count,)))
    return compiled_calls(model)


def compiled_calls(model):
    found = []
    for kind in KINDS:
        penalty, _ = started(model, kind)
        call = torch.compile(penalty, backend="aot_eager")
        for _ in range(2):
            value = call()
            value.backward()
            found += [value.detach(), *gradients(model)]
            model.zero_grad()
    return found


@pytest.mark.slow
def test_compiled(tmp_path):
    model = network()
    alone = []
    for kind in KINDS:
        penalty, _ = started(model, kind)
        for _ in range(2):
            value = penalty()
            value.backward()
            alone += [value.detach(), *gradients(model)]
            model.zero_grad()
    for rank in on_ranks(2, tmp_path, compiled, 2):
        torch.testing.assert_close(rank, alone, rtol=1e-4, atol=1e-5)
