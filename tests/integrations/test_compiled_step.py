"""A whole training step under torch.compile: the eager step's weights after 20 of them, compiled once."""

import pytest
import torch
from torch import nn
from written_out import written_penalty

from ortho_kernels import CosineSchedule, OrthogonalityPenalty

STEPS = 20
COSINE = CosineSchedule(0.05, 0.0, STEPS)
PENALTIES = {
    "so": ("so", {"gamma": COSINE}),
    "srip": ("srip", {"gamma": COSINE}),
    "warm srip": ("srip", {"gamma": 0.05, "warm_start": True}),
}


@pytest.fixture(autouse=True)
def compiles_anew():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10)).double()


def batches():
    return torch.randn(STEPS, 4, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def in_the_loss(model, penalty, optimizer, compiled):
    @compiled
    def step(images):
        optimizer.zero_grad()
        loss = model(images).square().mean() + penalty()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def in_place(model, penalty, optimizer, compiled):
    """`accumulate_gradients` stays outside, lest its graph be compiled for every new `.grad`."""

    @compiled
    def backward(images):
        loss = model(images).square().mean()
        loss.backward()
        return loss.detach()

    def step(images):
        optimizer.zero_grad()
        loss = backward(images)
        value = penalty.accumulate_gradients()
        optimizer.step()
        return loss + value

    return step


def update_written_out(model, penalty, optimizer, compiled):
    """Without an optimizer, around whose step torch breaks the graph."""
    weights = list(model.parameters())

    @compiled
    def step(images):
        loss = model(images).square().mean() + penalty()
        gradients = torch.autograd.grad(loss, weights)
        with torch.no_grad():
            for weight, gradient in zip(weights, gradients, strict=True):
                weight.sub_(gradient, alpha=0.05)
        return loss.detach()

    return step


def trained(case, make, **compilation):
    """The model, the losses, and the graphs after two steps and after all."""
    kind, options = PENALTIES[case]
    model = network()
    penalty = OrthogonalityPenalty(model, kind, **options)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    step = make(model, penalty, optimizer, torch.compile(**compilation) if compilation else lambda step: step)
    losses, graphs = [], []
    for images in batches():
        losses.append(step(images))
        graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    return model, penalty, torch.stack(losses), (graphs[1], graphs[-1])


def same(compiled, eager):
    for (name, given), true in zip(compiled[0].named_parameters(), eager[0].parameters(), strict=True):
        assert (given - true).norm() <= 1e-5 * true.norm(), name
    torch.testing.assert_close(compiled[1].state_dict(), eager[1].state_dict(), rtol=1e-5, atol=0)
    torch.testing.assert_close(compiled[2], eager[2], rtol=1e-5, atol=0)
    after_two, at_last = compiled[3]
    assert 0 < after_two == at_last


@pytest.mark.parametrize("compiler", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("case", "make"), [("so", in_the_loss), ("srip", in_the_loss), ("warm srip", in_the_loss), ("srip", in_place)]
)
def test_the_whole_step(case, make, compiler):
    same(trained(case, make, backend=compiler), trained(case, make))


@pytest.mark.skipif(
    not hasattr(torch._dynamo.config, "trace_autograd_ops"), reason="this torch traces no autograd.grad"
)
@pytest.mark.parametrize("case", ["srip", "warm srip"])
def test_the_whole_step_as_one_graph(case):
    with torch._dynamo.config.patch(trace_autograd_ops=True):
        compiled = trained(case, update_written_out, backend="aot_eager", fullgraph=True)
    assert compiled[3] == (1, 1)
    same(compiled, trained(case, update_written_out))


@pytest.mark.parametrize("case", ["so", "srip"])
def test_the_eager_step_is_the_formulas(case):
    kind, _ = PENALTIES[case]
    model, *_ = trained(case, in_the_loss)
    truth = network()
    optimizer = torch.optim.SGD(truth.parameters(), lr=0.05, momentum=0.9)
    for step, images in enumerate(batches()):
        optimizer.zero_grad()
        penalty = written_penalty(truth, ["0.weight", "3.weight"], kind, step)
        gamma = COSINE.at(torch.tensor(step, dtype=torch.float64))
        (truth(images).square().mean() + gamma * penalty).backward()
        optimizer.step()
    for given, true in zip(model.parameters(), truth.parameters(), strict=True):
        assert (given - true).norm() <= 1e-5 * true.norm()
