"""Each method against its paper's formula, and the ways of its gradients."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ortho_kernels.trainer.methods import METHODS


class Encoder(nn.Sequential):
    features = 6

    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(12, self.features), nn.ReLU())


def build(name, **options):
    torch.manual_seed(0)
    method = METHODS[name]
    return method(Encoder(), method.Settings(hidden=10, projection=5, **options))


def two_views(batch=8):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, batch, 3, 2, 2, generator=generator)


def test_simclr_is_the_normalized_temperature_scaled_cross_entropy():
    method = build("simclr", temperature=0.3)
    first, second = two_views(batch=4)
    output = method([first, second])
    z = [method.projector(method.encoder(view)) for view in (first, second)]
    z = F.normalize(torch.cat(z), dim=1).tolist()
    total = 0.0
    for i in range(8):
        similarity = [math.exp(sum(a * b for a, b in zip(z[i], z[j], strict=True)) / 0.3) for j in range(8)]
        total -= math.log(similarity[(i + 4) % 8] / (sum(similarity) - similarity[i]))
    assert output.loss.item() == pytest.approx(total / 8, rel=1e-5)


def test_byol_is_the_mean_squared_distance_of_directions_up_to_a_constant():
    method = build("byol")
    first, second = two_views()
    output = method([first, second])

    def distance(student_view, teacher_view):
        prediction = F.normalize(method.predictor(method.projector(method.encoder(student_view))), dim=1)
        target = F.normalize(method.teacher(teacher_view), dim=1)
        return (prediction - target).square().sum(1).mean()

    # |p - t|^2 = 2 - 2 cos(p, t), and the loss is minus the cosine, averaged over both directions.
    expected = (distance(first, second) + distance(second, first)) / 4 - 1
    assert output.loss.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_symmetric(name):
    first, second = two_views()
    one = build(name)([first, second]).loss
    other = build(name)([second, first]).loss
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", METHODS)
def test_gradients_reach_every_trained_parameter_and_no_teacher(name):
    method = build(name)
    method([*two_views()]).loss.backward()
    for parameter_name, parameter in method.named_parameters():
        if parameter_name.startswith("teacher."):
            assert parameter.grad is None, parameter_name
            assert not parameter.requires_grad, parameter_name
        else:
            assert parameter.grad is not None, parameter_name
            assert parameter.grad.isfinite().all(), parameter_name


@pytest.mark.parametrize("name", METHODS)
def test_the_loss_falls_on_a_fixed_batch(name):
    method = build(name)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for step in range(40):
        optimizer.zero_grad()
        loss = method([*two_views()]).loss
        loss.backward()
        optimizer.step()
        method.after_step(step, 40)
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1


def test_the_byol_teacher_starts_as_the_student_and_follows_it():
    method = build("byol", momentum=0.9)
    student = [*method.encoder.parameters(), *method.projector.parameters()]
    teacher = list(method.teacher.parameters())
    for ours, theirs in zip(student, teacher, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    before = [parameter.clone() for parameter in teacher]
    with torch.no_grad():
        for parameter in student:
            parameter.add_(1.0)
    method.after_step(0, 100)
    for old, new in zip(before, teacher, strict=True):
        torch.testing.assert_close(new, old + 0.1)


def test_the_byol_momentum_ends_at_one():
    method = build("byol", momentum=0.9)
    before = [parameter.clone() for parameter in method.teacher.parameters()]
    with torch.no_grad():
        for parameter in method.encoder.parameters():
            parameter.add_(1.0)
    method.after_step(99, 100)
    for old, new in zip(before, method.teacher.parameters(), strict=True):
        torch.testing.assert_close(new, old)
