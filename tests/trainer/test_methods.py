"""Each method against its paper's formula, and the ways of its gradients."""

import math

import pytest
import torch
import torch.nn.functional as F
from small_methods import OF_PAIRS, SMALL, WITH_QUEUE, Encoder, build, views_of
from torch import nn

from ortho_kernels.trainer.methods import METHODS
from ortho_kernels.trainer.methods.base import MethodSettings

WITH_TEACHER = ["byol", "dino", "mocov2plus", "mocov3", "nnbyol"]


def projections(method, views):
    return [method.projector(method.encoder(view)) for view in views]


def directions(vectors):
    return (vectors / vectors.square().sum(1, keepdim=True).sqrt()).tolist()


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def cross_entropy(similarities, own):
    """-log of the share of one among exponentials, with plain numbers."""
    return -math.log(math.exp(similarities[own]) / sum(map(math.exp, similarities)))


def mean(values):
    return sum(values) / len(values)


def test_simclr_is_the_normalized_temperature_scaled_cross_entropy():
    method = build("simclr", temperature=0.3)
    views = views_of(method, batch=4)
    z = directions(torch.cat(projections(method, views)))
    terms = []
    for i in range(8):
        similarities = {j: dot(z[i], z[j]) / 0.3 for j in range(8) if j != i}
        terms.append(cross_entropy(list(similarities.values()), list(similarities).index((i + 4) % 8)))
    assert method(views).loss.item() == pytest.approx(mean(terms), rel=1e-5)


@pytest.mark.parametrize("name", ["dcl", "dclw"])
def test_dcl_leaves_the_positive_out_of_the_denominator_and_dclw_weighs_it(name):
    method = build(name, temperature=0.3)
    views = views_of(method, batch=4)
    z = directions(torch.cat(projections(method, views)))
    alike = [math.exp(dot(z[i], z[i + 4]) / 0.5) for i in range(4)]
    terms = []
    for i in range(8):
        weight = 2 - alike[i % 4] / mean(alike) if name == "dclw" else 1.0
        negatives = sum(math.exp(dot(z[i], z[j]) / 0.3) for j in range(8) if j % 4 != i % 4)
        terms.append(-weight * dot(z[i], z[(i + 4) % 8]) / 0.3 + math.log(negatives))
    assert method(views).loss.item() == pytest.approx(mean(terms), rel=1e-5)


def test_byol_is_the_squared_distance_of_directions_summed_over_both_ways():
    method = build("byol")
    views = views_of(method)
    predictions = [directions(method.predictor(z)) for z in projections(method, views)]
    targets = [directions(method.teacher(view)) for view in views]
    distances = [
        sum((a - b) ** 2 for a, b in zip(p, t, strict=True))
        for ours, theirs in zip(predictions, reversed(targets), strict=True)
        for p, t in zip(ours, theirs, strict=True)
    ]
    assert method(views).loss.item() == pytest.approx(2 * mean(distances), rel=1e-5)


def test_nnbyol_predicts_the_nearest_earlier_target():
    method = build("nnbyol")
    views = views_of(method)
    held = method.queue.vectors.tolist()
    predictions = [directions(method.predictor(z)) for z in projections(method, views)]
    targets = [directions(method.teacher(view)) for view in views]
    cosines = [
        dot(p, max(held, key=lambda vector: dot(vector, t)))
        for ours, theirs in zip(predictions, reversed(targets), strict=True)
        for p, t in zip(ours, theirs, strict=True)
    ]
    assert method(views).loss.item() == pytest.approx(2 * mean([2 - 2 * cosine for cosine in cosines]), rel=1e-5)
    method.after_step(0, 100)
    torch.testing.assert_close(method.queue.vectors[:8], torch.tensor(targets[0]))
    assert method.queue.vectors[8:].tolist() == held[8:]


def test_nnclr_is_the_cross_entropy_of_neighbors_and_predictions():
    method = build("nnclr", temperature=0.3)
    views = views_of(method)
    held = method.queue.vectors.tolist()
    z = projections(method, views)
    predictions = [directions(method.predictor(projection)) for projection in z]
    terms = []
    for ours, theirs in zip(z, reversed(predictions), strict=True):
        for i, direction in enumerate(directions(ours)):
            nearest = max(held, key=lambda vector: dot(vector, direction))
            terms.append(cross_entropy([dot(nearest, p) / 0.3 for p in theirs], i))
    assert method(views).loss.item() == pytest.approx(mean(terms), rel=1e-5)
    method.after_step(0, 100)
    torch.testing.assert_close(method.queue.vectors[:8], F.normalize(z[0], dim=1))


def test_mocov2plus_tells_the_key_from_those_in_the_queue():
    method = build("mocov2plus", temperature=0.3)
    views = views_of(method)
    queues = [method.second_queue, method.first_queue]  # of the views that the keys are of
    held = [queue.vectors.tolist() for queue in queues]
    queries = [directions(z) for z in projections(method, views)]
    keys = [directions(method.teacher(view)) for view in reversed(views)]
    terms = [
        cross_entropy([dot(q, k) / 0.3, *(dot(q, negative) / 0.3 for negative in negatives)], 0)
        for ours, theirs, negatives in zip(queries, keys, held, strict=True)
        for q, k in zip(ours, theirs, strict=True)
    ]
    assert method(views).loss.item() == pytest.approx(mean(terms), rel=1e-5)
    method.after_step(0, 100)
    for queue, theirs in zip(queues, keys, strict=True):
        torch.testing.assert_close(queue.vectors[:8], torch.tensor(theirs))


def test_mocov3_tells_the_key_from_those_of_the_batch():
    method = build("mocov3", temperature=0.3)
    views = views_of(method)
    queries = [directions(method.predictor(z)) for z in projections(method, views)]
    keys = [directions(method.teacher(view)) for view in reversed(views)]
    ways = [
        mean([cross_entropy([dot(q, k) / 0.3 for k in theirs], i) for i, q in enumerate(ours)])
        for ours, theirs in zip(queries, keys, strict=True)
    ]
    assert method(views).loss.item() == pytest.approx(2 * 0.3 * sum(ways), rel=1e-5)


def test_simsiam_is_minus_the_cosine_with_the_other_view():
    method = build("simsiam")
    views = views_of(method)
    z = projections(method, views)
    predictions = [directions(method.predictor(projection)) for projection in z]
    cosines = [
        dot(p, t)
        for ours, theirs in zip(predictions, reversed(z), strict=True)
        for p, t in zip(ours, directions(theirs), strict=True)
    ]
    assert method(views).loss.item() == pytest.approx(-mean(cosines), rel=1e-5)


def test_vicreg_is_invariance_variance_and_covariance():
    method = build("vicreg", invariance=3.0, variance=5.0, covariance=7.0)
    views = views_of(method)
    z = [projection.double() for projection in projections(method, views)]
    invariance = (z[0] - z[1]).square().mean()
    variance = sum(F.relu(1 - (x.var(0) + 1e-4).sqrt()).mean() for x in z) / 2
    covariances = [torch.cov(x.T) for x in z]
    covariance = sum((c.square().sum() - c.diagonal().square().sum()) / len(c) for c in covariances)
    expected = 3 * invariance + 5 * variance + 7 * covariance
    assert method(views).loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_barlow_twins_is_the_distance_of_correlations_from_the_identity():
    method = build("barlow_twins", off_diagonal=0.3, scale=0.5)
    views = views_of(method)
    z = [projection.double() for projection in projections(method, views)]
    loss = 0.0
    for i in range(5):
        for j in range(5):
            correlation = torch.corrcoef(torch.stack([z[0][:, i], z[1][:, j]]))[0, 1].item()
            loss += (1 - correlation) ** 2 if i == j else 0.3 * correlation**2
    assert method(views).loss.item() == pytest.approx(0.5 * loss, rel=1e-3)  # batch norm adds 1e-5 to variances


def test_dino_is_the_cross_entropy_of_students_with_the_teacher_of_another_view():
    method = build("dino", final_teacher_temperature=0.08, temperature_warmup=0.5)
    views = views_of(method)
    method.progress = 0.25  # half of the warm-up: between 0.04 and 0.08
    center = torch.randn(12, generator=torch.Generator().manual_seed(3))
    method.center.mean.copy_(center)
    head = F.normalize(method.prototypes.weight, dim=1)
    scores = [F.normalize(z, dim=1) @ head.T for z in projections(method, views)]
    teacher = [method.teacher(view) for view in views[:2]]
    terms = []
    for i, target in enumerate(teacher):
        probabilities = torch.softmax((target - center).double() / 0.06, dim=1)
        for j, score in enumerate(scores):
            if i != j:
                terms.append(-(probabilities * torch.log_softmax(score.double() / 0.1, 1)).sum(1).mean().item())
    assert len(terms) == 2 * 4
    assert method(views).loss.item() == pytest.approx(mean(terms), rel=1e-5)
    moved = 0.9 * center + 0.1 * torch.cat(teacher).mean(0)
    method.after_step(0, 100)
    torch.testing.assert_close(method.center.mean, moved)


@pytest.mark.parametrize("given", [None, True, False])
@pytest.mark.parametrize("normalized", [True, False])
def test_the_head_of_dino_has_batch_norm_where_its_encoder_does(given, normalized):
    encoder = Encoder()
    if normalized:
        encoder.append(nn.BatchNorm1d(encoder.features))
    method = METHODS["dino"](
        encoder, METHODS["dino"].Settings(hidden=10, projection=5, prototypes=12, batch_norm=given)
    )
    norms = [layer for layer in method.projector.modules() if isinstance(layer, nn.BatchNorm1d)]
    assert len(norms) == 2 * (normalized if given is None else given)


def assignments(scores, batch):
    """Sinkhorn and Knopp's equal partition, the slow way: rows sum to 1, columns to the same."""
    q = torch.exp(scores.double() / 0.05)
    for _ in range(3):
        q = q / q.sum(0, keepdim=True) / q.shape[1]
        q = q / q.sum(1, keepdim=True) / q.shape[0]
    return (q * len(scores))[:batch]


@pytest.mark.parametrize("progress", [0.0, 0.5])
def test_swav_predicts_the_assignments_of_other_views(progress):
    method = build("swav", temperature=0.3)
    views = views_of(method)
    method.progress = progress
    head = F.normalize(method.prototypes.weight, dim=1)
    z = [F.normalize(projection, dim=1) for projection in projections(method, views)]
    scores = [directions_of_view @ head.T for directions_of_view in z]
    terms = []
    for i in range(2):
        earlier = method.queues[i].vectors @ head.T if progress else torch.empty(0, 12)
        codes = assignments(torch.cat([scores[i], earlier]), batch=8)
        for j, score in enumerate(scores):
            if i != j:
                terms.append(-(codes * torch.log_softmax(score.double() / 0.3, 1)).sum(1).mean().item())
    assert method(views).loss.item() == pytest.approx(mean(terms), rel=1e-5)
    method.after_step(0, 100)
    for queue, vectors in zip(method.queues, z, strict=False):
        torch.testing.assert_close(queue.vectors[:8], vectors)


@pytest.mark.parametrize("name", OF_PAIRS)
def test_symmetric(name):
    method = build(name)
    first, second, *small = views_of(method)
    state = {key: value.clone() for key, value in method.state_dict().items()}
    for key, value in state.items():
        if key.endswith(".vectors"):  # queues hold other noise for either view
            value.fill_(value.shape[1] ** -0.5)
    method.load_state_dict(state)
    one = method([first, second, *small]).loss
    method.load_state_dict(state)
    torch.testing.assert_close(one, method([second, first, *small]).loss)


@pytest.mark.parametrize("name", METHODS)
def test_gradients_reach_every_trained_parameter_and_no_teacher(name):
    method = build(name)
    method(views_of(method)).loss.backward()
    for parameter_name, parameter in method.named_parameters():
        if parameter_name.startswith("teacher."):
            assert parameter.grad is None, parameter_name
            assert not parameter.requires_grad, parameter_name
        else:
            assert parameter.grad is not None, parameter_name
            assert parameter.grad.isfinite().all(), parameter_name


@pytest.mark.parametrize("name", WITH_TEACHER)
def test_no_gradient_flows_back_from_a_target(name):
    method = build(name)
    views = [view.requires_grad_() for view in views_of(method)]
    assert not method.teacher(views[0]).requires_grad


@pytest.mark.parametrize("name", ["simsiam", "nnclr"])
def test_without_its_predictor_nothing_learns(name):
    """What is predicted is a constant: all gradients come through the predictions."""
    method = build(name)
    with torch.no_grad():
        for parameter in method.predictor.parameters():
            parameter.zero_()
    method(views_of(method)).loss.backward()
    assert all(not p.grad.any() for p in [*method.encoder.parameters(), *method.projector.parameters()])


def test_the_codes_of_swav_are_constants():
    """A view gets its gradient from the term in which it predicts, none from that in which it is predicted."""
    method = build("swav")
    first, second, *_ = views_of(method)
    first = first.requires_grad_()
    loss = method([first, second]).loss
    [whole] = torch.autograd.grad(loss, first)
    scores = [method.prototypes(x) for x in projections(method, [first, second])]
    codes = assignments(scores[1].detach(), batch=8).float()
    own = -(codes * torch.log_softmax(scores[0] / 0.1, 1)).sum(1).mean() / 2
    [expected] = torch.autograd.grad(own, first)
    torch.testing.assert_close(whole, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", WITH_TEACHER)
def test_a_teacher_starts_as_the_student_and_follows_it(name):
    method = build(name, momentum=0.9)
    student = [method.encoder, method.projector] + ([method.prototypes] if name == "dino" else [])
    ours = [parameter for module in student for parameter in module.parameters()]
    theirs = list(method.teacher.parameters())
    before = [parameter.clone() for parameter in theirs]
    for mine, copy in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, copy, rtol=0, atol=0)
    with torch.no_grad():
        for parameter in ours:
            parameter.add_(1.0)
    method.after_step(0, 100)
    for old, new in zip(before, theirs, strict=True):
        torch.testing.assert_close(new, old + 0.1)


@pytest.mark.parametrize("name", WITH_TEACHER)
def test_the_momentum_ends_where_it_should(name):
    method = build(name, momentum=0.9, final_momentum=0.995)
    before = [parameter.clone() for parameter in method.teacher.parameters()]
    with torch.no_grad():
        for parameter in method.encoder.parameters():
            parameter.add_(1.0)
    method.after_step(99, 100)
    moved = list(method.teacher.parameters())
    encoder = len(list(method.encoder.parameters()))
    for old, new in zip(before[:encoder], moved[:encoder], strict=True):
        torch.testing.assert_close(new, old + 0.005)


@pytest.mark.parametrize("name", ["dino", "swav"])
def test_prototypes_wait(name):
    method = build(name, freeze=0.1)
    for step in (9, 10):
        method(views_of(method)).loss.backward()
        method.before_step(step, 100)
        assert (method.prototypes.weight.grad is None) == (step < 10)


@pytest.mark.parametrize("name", WITH_QUEUE)
def test_a_queue_is_part_of_a_checkpoint(name):
    method = build(name)
    method.progress = 1.0
    method(views_of(method))
    method.after_step(0, 100)
    torch.manual_seed(7)
    copy = METHODS[name](Encoder(), method.Settings(**{k: v for k, v in SMALL.items() if hasattr(method.Settings, k)}))
    copy.progress = 1.0
    copy.load_state_dict(method.state_dict())
    torch.testing.assert_close(copy(views_of(copy)).loss, method(views_of(method)).loss, rtol=0, atol=0)
    for key, value in method.state_dict().items():
        assert torch.equal(value, copy.state_dict()[key]), key


@pytest.mark.parametrize("name", METHODS)
def test_a_method_says_who_it_is(name):
    settings = METHODS[name].Settings()
    assert isinstance(settings, MethodSettings)
    assert settings.name == name
    assert settings.views in ("one", "two", "asymmetric", "multicrop")
