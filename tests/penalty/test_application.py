"""The ways to apply the penalty, each against a training loop written out in plain float64 torch."""

import pickle
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from truth import so_from_spectrum
from waits import Waits
from written_out import written_penalty

from ortho_kernels import CosineSchedule, OrthogonalityPenalty

STEPS = 5
GAMMA = {"0": 0.05, "*": 0.02}
KINDS = ("so", "srip")


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4)).double()


def batches(count=STEPS):
    torch.manual_seed(1)
    return [torch.randn(16, 6, dtype=torch.float64) for _ in range(count)]


def loss_of(model, images):
    return (model(images) - 1).square().mean()


def made(model, kind, **options):
    """A penalty, and the same written out: a function of a model and a step."""
    penalty = OrthogonalityPenalty(model, kind, **{"gamma": GAMMA} | options)

    def written(own, step=0, factor=1.0):
        first, second = (written_penalty(own, [name], kind, step) for name in ("0.weight", "2.weight"))
        return factor * (0.05 * first + 0.02 * second)

    return penalty, written


def close(model, other, rtol=1e-6):
    for left, right in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(left, right, rtol=rtol, atol=1e-9)


def decay(model, written, rates, step=0, factor=1.0):
    """`W -= lr * d penalty / dW`, from autograd of the formula."""
    weights = [model[0].weight, model[2].weight]
    gradients = torch.autograd.grad(written(model, step, factor), weights)
    with torch.no_grad():
        for weight, gradient, rate in zip(weights, gradients, rates, strict=True):
            weight -= rate * gradient


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("way", "clipped"),
    [
        ("loss", "not"),
        ("loss", "with the penalty"),
        ("accumulate_gradients", "not"),
        ("accumulate_gradients", "with the penalty"),
        ("accumulate_gradients", "without it"),
    ],
)
def test_in_the_loss_and_without_a_graph(backend, way, clipped, kind):
    """Also with clipping: what is in `.grad` by then is clipped too."""
    model, truth = network(), network()
    penalty, written = made(model, kind)
    optimizers = [torch.optim.AdamW(one.parameters(), lr=0.05) for one in (model, truth)]
    for step, images in enumerate(batches()):
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss = loss_of(model, images)
        (loss + penalty() if way == "loss" else loss).backward()
        if way != "loss" and clipped != "without it":
            penalty.accumulate_gradients()
        if clipped != "not":
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        if way != "loss" and clipped == "without it":
            penalty.accumulate_gradients()
        optimizers[0].step()

        loss = loss_of(truth, images)
        (loss if clipped == "without it" else loss + written(truth, step)).backward()
        if clipped != "not":
            nn.utils.clip_grad_norm_(truth.parameters(), 0.1)
        if clipped == "without it":
            written(truth, step).backward()
        optimizers[1].step()
    close(model, truth)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", ["loss", "accumulate_gradients", "step_"])
def test_gradient_accumulation(backend, way, kind):
    """Once an optimizer step, however many batches it takes."""
    model, truth = network(), network()
    penalty, written = made(model, kind)
    optimizers = [torch.optim.SGD(one.parameters(), lr=0.1, momentum=0.9) for one in (model, truth)]
    for step in range(STEPS):
        for optimizer in optimizers:
            optimizer.zero_grad()
        for part, images in enumerate(batches(3)):
            loss = loss_of(model, images) / 3
            (loss + penalty() if way == "loss" and part == 2 else loss).backward()
        if way == "accumulate_gradients":
            penalty.accumulate_gradients()
        optimizers[0].step()
        if way == "step_":
            penalty.step_(optimizers[0])

        loss = sum(loss_of(truth, images) for images in batches(3)) / 3
        (loss if way == "step_" else loss + written(truth, step)).backward()
        optimizers[1].step()
        if way == "step_":
            decay(truth, written, (0.1, 0.1), step)
    close(model, truth)


class Overflows:
    """Gradients of every third step overflow."""

    def __init__(self):
        self.step = 0

    def __call__(self, model):
        self.step += 1
        if self.step % 3 == 0:
            model[0].weight.grad[0, 0] = float("inf")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "optimizer", [torch.optim.SGD, partial(torch.optim.Adam, fused=True)], ids=["SGD", "fused Adam"]
)
@pytest.mark.parametrize("way", ["loss", "before unscale_", "after unscale_", "step_"])
def test_a_gradient_scaler_and_the_steps_that_it_skips(backend, way, optimizer, kind):
    model, truth = network(), network()
    penalty, written = made(model, kind)
    optimizers = [optimizer(one.parameters(), lr=0.05) for one in (model, truth)]
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    overflow = Overflows()
    for step, images in enumerate(batches(7)):
        for one in optimizers:
            one.zero_grad()
        loss = loss_of(model, images)
        scaler.scale(loss + penalty() if way == "loss" else loss).backward()
        overflow(model)
        if way == "before unscale_":
            penalty.accumulate_gradients(scaler=scaler)
        if way == "after unscale_":
            scaler.unscale_(optimizers[0])
            penalty.accumulate_gradients()
        scaler.step(optimizers[0])
        if way == "step_":
            before = [weight.detach().clone() for weight in model.parameters()]
            penalty.step_(optimizers[0], scaler=scaler)
            moved = any(not torch.equal(*pair) for pair in zip(before, model.parameters(), strict=True))
            assert moved == (step % 3 != 2)
        scaler.update()

        if step % 3 == 2:  # skipped; the call counts
            continue
        loss = loss_of(truth, images)
        (loss if way == "step_" else loss + written(truth, step)).backward()
        optimizers[1].step()
        if way == "step_":
            decay(truth, written, (0.05, 0.05), step)
    close(model, truth)


def test_a_scaler_whose_optimizer_has_not_stepped_is_refused():
    model = network()
    penalty = OrthogonalityPenalty(model, gamma=CosineSchedule(1, 0, 5))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu")
    before = [weight.clone() for weight in model.parameters()]
    words = r"between scaler\.step\(optimizer\) and scaler\.update\(\)"
    scaler.scale(loss_of(model, batches(1)[0])).backward()
    for prepare in (lambda: None, lambda: scaler.unscale_(optimizer)):
        prepare()
        with pytest.raises(RuntimeError, match=words):
            penalty.step_(optimizer, scaler=scaler)
    model.zero_grad()
    scaler.update()
    with pytest.raises(RuntimeError, match=words):
        penalty.step_(optimizer, scaler=scaler)
    with pytest.raises(TypeError, match=r"scaler must be a torch\.amp\.GradScaler; got a int"):
        penalty.step_(optimizer, scaler=1)
    assert all(torch.equal(*pair) for pair in zip(before, model.parameters(), strict=True))
    assert penalty.calls.step == 0
    penalty.step_(optimizer, scaler=torch.amp.GradScaler("cpu", enabled=False))
    assert not torch.equal(before[0], model[0].weight)


def test_a_skipped_step_leaves_weights_alone_whose_gradient_is_not_finite():
    """inf times 0 would be NaN."""
    model = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1e20, 1.0], [1.0, 2.0]]))
    penalty, before = OrthogonalityPenalty(model, gamma=1.0), model.weight.detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(model.weight.sum() * torch.inf).backward()
    scaler.step(optimizer)
    penalty.step_(optimizer, scaler=scaler)
    assert torch.equal(model.weight, before)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", ["loss", "accumulate_gradients", "step_"])
def test_sam(backend, way, kind):
    """Sharpness-aware minimization (arXiv 2010.01412): the optimizer takes the gradient at the worst point nearby."""
    model, truth = network(), network()
    penalty, written = made(model, kind)
    optimizers = [torch.optim.SGD(one.parameters(), lr=0.1) for one in (model, truth)]

    def sam(own, optimizer, backward, rho=0.05):
        backward()
        weights = list(own.parameters())
        with torch.no_grad():
            norm = torch.stack([weight.grad.norm() for weight in weights]).norm()
            moves = [rho * weight.grad / norm for weight in weights]
            torch._foreach_add_(weights, moves)
            optimizer.zero_grad()
        backward()
        with torch.no_grad():
            torch._foreach_sub_(weights, moves)
        optimizer.step()
        optimizer.zero_grad()

    for step, images in enumerate(batches()):

        def backward(images=images):
            loss = loss_of(model, images)
            (loss + penalty() if way == "loss" else loss).backward()
            if way == "accumulate_gradients":
                penalty.accumulate_gradients()

        def backward_of_truth(images=images, step=step):
            loss = loss_of(truth, images)
            (loss if way == "step_" else loss + written(truth, step)).backward()

        with penalty.hold():
            sam(model, optimizers[0], backward)
        if way == "step_":
            penalty.step_(optimizers[0])
        sam(truth, optimizers[1], backward_of_truth)
        if way == "step_":
            decay(truth, written, (0.1, 0.1), step)
    close(model, truth)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", ["loss", "accumulate_gradients", "step_"])
def test_lbfgs(backend, way, kind):
    """A closure, which the line search calls as often as it likes, and which returns the whole objective."""
    model, truth = network(), network()
    penalty, written = made(model, kind)
    optimizers = [
        torch.optim.LBFGS(one.parameters(), lr=0.5, max_iter=4, line_search_fn="strong_wolfe") for one in (model, truth)
    ]
    calls = 0
    for step, images in enumerate(batches(3)):

        def closure(images=images):
            nonlocal calls
            calls += 1
            optimizers[0].zero_grad()
            loss = loss_of(model, images)
            if way == "loss":
                loss = loss + penalty()
            loss.backward()
            return loss.detach() + penalty.accumulate_gradients() if way == "accumulate_gradients" else loss

        def closure_of_truth(images=images, step=step):
            optimizers[1].zero_grad()
            loss = loss_of(truth, images)
            loss = loss if way == "step_" else loss + written(truth, step)
            loss.backward()
            return loss

        with penalty.hold():
            optimizers[0].step(closure)
        optimizers[1].step(closure_of_truth)
        if way == "step_":
            penalty.step_(optimizers[0])
            decay(truth, written, (0.5, 0.5), step)
    assert calls > 3
    close(model, truth, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rate", ["number", "tensor", "schedule"])
def test_a_decoupled_step(backend, kind, rate):
    """AdamW with two groups, a schedule of gamma and `every`: nothing of the optimizer is touched."""
    model, truth = network(), network()
    schedule = CosineSchedule(1.0, 0.0, 10)
    penalty, written = made(
        model, kind, gamma={"0": CosineSchedule(0.05, 0, 10), "*": CosineSchedule(0.02, 0, 10)}, every=2
    )
    make = torch.tensor if rate == "tensor" else float
    optimizers = [
        torch.optim.AdamW(
            [{"params": one[0].parameters()}, {"params": one[2].parameters(), "lr": make(0.02)}],
            lr=make(0.05),
            weight_decay=0.1,
        )
        for one in (model, truth)
    ]
    plans = [torch.optim.lr_scheduler.ExponentialLR(one, 0.5 if rate == "schedule" else 1.0) for one in optimizers]
    for step, images in enumerate(batches(6)):
        for own, optimizer in zip((model, truth), optimizers, strict=True):
            optimizer.zero_grad()
            loss_of(own, images).backward()
            optimizer.step()
        gradients = [weight.grad.clone() for weight in model.parameters()]
        value = penalty.step_(optimizers[0])
        assert not value.requires_grad
        for left, right in zip(gradients, model.parameters(), strict=True):
            assert torch.equal(left, right.grad)
        rates = [float(group["lr"]) for group in optimizers[1].param_groups]
        factor = schedule.at(torch.tensor(step, dtype=torch.float64))
        if step % 2:
            assert value == 0
        else:
            torch.testing.assert_close(value, written(truth, step // 2, 2 * factor).detach())
            decay(truth, written, rates, step // 2, 2 * factor)
        for plan in plans:
            plan.step()
    close(model, truth)
    for left, right in zip(*(one.state_dict()["state"].values() for one in optimizers), strict=True):
        torch.testing.assert_close(left, right)


def test_a_step_down_in_16_bit(backend):
    for dtype in (torch.bfloat16, torch.float16):
        layer = nn.Linear(8, 6, bias=False).to(dtype)
        with torch.no_grad():
            layer.weight.mul_(4)
        before = so_from_spectrum(layer.weight.detach().double())
        penalty = OrthogonalityPenalty(layer, gamma=1.0)
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.01)
        for _ in range(20):
            assert penalty.step_(optimizer).dtype == torch.float32
        assert so_from_spectrum(layer.weight.detach().double()) < before / 4


def test_the_weights_that_no_group_holds_are_named():
    model = network()
    optimizer = torch.optim.SGD(model[0].parameters(), lr=0.1)
    penalty = OrthogonalityPenalty(model, "srip")
    before, state = model[0].weight.detach().clone(), copy_of(penalty)
    with pytest.raises(ValueError, match=r"no parameter group of the optimizer holds 2\.weight: .*`exclude`"):
        penalty.step_(optimizer)
    assert torch.equal(model[0].weight, before)
    assert penalty.state_dict() == state
    model[2].weight.requires_grad_(False)
    frozen = model[2].weight.clone()
    penalty.step_(optimizer)
    assert torch.equal(model[2].weight, frozen)
    assert not torch.equal(model[0].weight, before)
    assert model[0].weight.grad is None
    with pytest.raises(TypeError, match=r"optimizer must be a torch\.optim\.Optimizer; got a Linear"):
        penalty.step_(model[0])
    optimizer.param_groups[0]["lr"] = None
    with pytest.raises(ValueError, match="parameter group 0 has lr=None; step_ needs a finite learning rate"):
        penalty.step_(optimizer)


def copy_of(penalty):
    return {name: value.clone() for name, value in penalty.state_dict().items()}


COMPUTED = {
    "weight_norm": parametrizations.weight_norm,
    "hook": nn.utils.weight_norm,
    "orthogonal": parametrizations.orthogonal,
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
@pytest.mark.parametrize("case", COMPUTED)
def test_a_decoupled_step_of_computed_weights(backend, case):
    torch.manual_seed(0)
    layer = COMPUTED[case](nn.Linear(6, 4, bias=False).double())
    model = nn.Sequential(layer, nn.Linear(4, 3).double())
    rates = {id(weight): 0.01 * (1 + index) for index, weight in enumerate(layer.parameters())}
    groups = [{"params": [weight], "lr": rates[id(weight)]} for weight in layer.parameters()]
    optimizer = torch.optim.SGD([*groups, {"params": model[1].parameters()}], lr=0.05)
    penalty = OrthogonalityPenalty(model, gamma=1.0, side="cols")
    other = OrthogonalityPenalty(model, gamma=1.0, side="cols")
    other().backward()
    expected = [w.detach() - rates.get(id(w), 0.05) * (0 if w.grad is None else w.grad) for w in model.parameters()]
    model.zero_grad()
    penalty.step_(optimizer)
    for weight, truth in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(weight.detach(), truth)
        assert weight.grad is None
    without = torch.optim.SGD(model[1].parameters(), lr=0.05)
    with pytest.raises(ValueError, match=r"no parameter group of the optimizer holds 0\.weight"):
        penalty.step_(without)


def test_a_parametrization_with_parameters_of_its_own():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(4, 1))

        def forward(self, weight):
            return self.scale * weight

    layer = nn.Linear(6, 4)
    nn.utils.parametrize.register_parametrization(layer, "weight", Scaled())
    penalty = OrthogonalityPenalty(layer, gamma=1.0)
    with pytest.raises(ValueError, match="no parameter group of the optimizer holds weight"):
        penalty.step_(torch.optim.SGD([layer.parametrizations.weight.original], lr=0.1))
    penalty().backward()
    scale = layer.parametrizations.weight[0].scale
    expected = scale.detach() - 0.1 * scale.grad
    penalty.step_(torch.optim.SGD(layer.parameters(), lr=0.1))
    torch.testing.assert_close(scale.detach(), expected)


def test_a_transposed_linear_layer_steps_too():
    pytest.importorskip("transformers")
    from transformers.pytorch_utils import Conv1D

    layer = Conv1D(6, 4)
    penalty = OrthogonalityPenalty(layer, gamma=1.0)
    penalty().backward()
    expected = layer.weight.detach() - 0.1 * layer.weight.grad
    penalty.step_(torch.optim.SGD(layer.parameters(), lr=0.1))
    torch.testing.assert_close(layer.weight.detach(), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_penalty_that_was_applied_is_pickled_with_its_model(kind):
    model = network()
    penalty = OrthogonalityPenalty(model, kind, gamma=GAMMA)
    for _ in range(2):
        penalty.accumulate_gradients()
    model.zero_grad()  # torch pickles no gradients
    other, copied = pickle.loads(pickle.dumps((model, penalty)))
    assert torch.equal(copied.accumulate_gradients(), penalty.accumulate_gradients())
    for name in ("0.weight", "2.weight"):
        assert torch.equal(other.get_parameter(name).grad, model.get_parameter(name).grad)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_waits_for_the_device(kind):
    model = network()
    gamma = {"0": CosineSchedule(1.0, 0.0, 5), "*": torch.tensor(0.5)}
    penalty = OrthogonalityPenalty(model, kind, gamma=gamma, reduction="mean")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu")
    penalty()
    for images in batches(2):
        scaler.scale(loss_of(model, images)).backward()
        with Waits() as waits, penalty.hold():
            penalty().backward()
            penalty.accumulate_gradients(scaler=scaler)
        assert waits.seen == []
        scaler.step(optimizer)
        with Waits() as waits:
            penalty.step_(optimizer, scaler=scaler)
        assert waits.seen == []
        scaler.update()
