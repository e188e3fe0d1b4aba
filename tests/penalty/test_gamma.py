"""How much each weight counts: gamma as a number, by pattern, as a tensor; the reduction; what a report shows of it."""

import copy
import os
import sys

import numpy as np
import pytest
import torch
from torch import nn
from truth import as_matrices, so_from_spectrum

from ortho_kernels import CosineSchedule, OrthogonalityPenalty, Schedule

NAMES = ("0.weight", "1.weight", "3.weight")


def encoder(dtype=torch.float64):
    return nn.Sequential(nn.Linear(6, 5), nn.Conv2d(4, 6, 3, groups=2), nn.ReLU(), nn.Linear(7, 9)).to(dtype)


def values(model):
    """SO of each weight, and of each of its matrices."""
    return [
        [so_from_spectrum(W).item() for W in as_matrices([model[index].weight], groups)]
        for index, groups in ((0, 1), (1, 2), (3, 1))
    ]


def gradients(model):
    found = [model[index].weight.grad.clone() for index in (0, 1, 3)]
    model.zero_grad()
    return found


def weighted(model, factors):
    """The sum and its gradients, from SO of each weight by itself."""
    total = sum(
        factor * OrthogonalityPenalty(model, gamma=1.0, include=name)()
        for name, factor in zip(NAMES, factors, strict=True)
    )
    total.backward()
    return total.item(), gradients(model)


@pytest.mark.parametrize(
    ("gamma", "factors"),
    [
        ({"0": 0.5, "*": 0.25}, (0.5, 0.25, 0.25)),
        ({"0.weight": 0.5, "[01]": 0.25, "*": 1}, (0.5, 0.25, 1)),  # the first that matches counts
        ({"[013]": 0.5, "*": 1}, (0.5, 0.5, 0.5)),  # "*" may have none left
        ({"3.weight": 0.0, "[01]*": np.float32(2)}, (2, 2, 0)),
        (lambda: {"1": torch.tensor(3.0), "*": 1}, (1, 3, 1)),
        (lambda: {"1": torch.tensor(3.0), "0": CosineSchedule(0.5, 0, 10), "*": 0.1}, (0.5, 3, 0.1)),
        (lambda: torch.tensor(0.75), (0.75, 0.75, 0.75)),
        (0, (0, 0, 0)),
    ],
)
def test_each_weight_counts_its_gamma(backend, gamma, factors):
    model = encoder()
    gamma = gamma() if callable(gamma) else gamma  # a tensor of the device at work
    total, expected = weighted(model, factors)
    for apply in ("penalty", "accumulate_gradients"):
        penalty = OrthogonalityPenalty(model, gamma=gamma)
        value = getattr(penalty, apply)()
        if apply == "penalty":
            value.backward()
        assert value.item() == pytest.approx(total, rel=1e-6)
        assert value.dtype == torch.float64
        torch.testing.assert_close(gradients(model), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kind", ["so", "srip"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_keep_their_dtype(backend, kind, dtype):
    for gamma in (torch.tensor(0.5, dtype=torch.float64), {"0": torch.tensor(0.5).bfloat16(), "*": 0.5}):
        penalty = OrthogonalityPenalty(encoder(dtype), kind, gamma=gamma)
        value = penalty()
        value.backward()
        assert value.dtype == penalty.accumulate_gradients().dtype == torch.float32
        assert penalty.encoder[0].weight.grad.dtype == dtype


@pytest.mark.parametrize("kind", ["so", "srip"])
@pytest.mark.parametrize("given", ["number", "tensor", "patterns"])
def test_reductions(backend, kind, given):
    model = encoder()
    gamma = {"number": 0.5, "tensor": torch.tensor(0.5), "patterns": {"0": 0.5, "*": 0.5}}[given]
    rows = OrthogonalityPenalty(model, kind, gamma=1.0).report()
    found = dict(zip(NAMES, [row.value for row in rows], strict=True))
    expected = {"sum": 0.5 * sum(found.values()), "mean": 0.5 * sum(found.values()) / 4}
    if kind == "so":
        parts = zip(values(model), (5, 3, 7), strict=True)
        expected["entries"] = 0.5 * sum(sum(part) / order**2 for part, order in parts)
    for reduction, value in expected.items():
        penalty = OrthogonalityPenalty(model, kind, gamma=gamma, reduction=reduction)
        assert penalty.accumulate_gradients().item() == pytest.approx(value, rel=1e-6)
        from_parts = gradients(model)
        OrthogonalityPenalty(model, kind, gamma=gamma, reduction=reduction)().backward()
        torch.testing.assert_close(from_parts, gradients(model))


def test_entries_are_those_of_the_gram_of_the_side(backend):
    model = nn.Linear(6, 4).double()
    for side, order in (("small", 4), ("cols", 6), ("large", 6), ("rows", 4)):
        one, entries = (
            OrthogonalityPenalty(model, gamma=1.0, side=side, reduction=reduction)() for reduction in ("sum", "entries")
        )
        assert entries.item() == pytest.approx(one.item() / order**2)


class Half(Schedule, nn.Module):
    """A schedule that is a module too, which torch would register."""

    def at(self, step):
        return torch.full_like(step, 0.5)


def test_gamma_can_be_set_at_any_time():
    model = encoder()
    penalty = OrthogonalityPenalty(model)
    truth = [sum(parts) for parts in values(model)]
    penalty.gamma = {"0": 2.0, "*": 0.0}
    assert penalty().item() == pytest.approx(2 * truth[0])
    assert penalty.gamma == {"0": 2.0, "*": 0.0}
    penalty.gamma = gamma = torch.tensor(1.0)
    gamma.fill_(3.0)
    assert penalty().item() == pytest.approx(3 * sum(truth))
    for wrong in ("1", float("inf"), {"9": 1.0, "*": 1.0}, nn.Parameter(torch.tensor(1.0)), torch.ones(2)):
        with pytest.raises(ValueError, match="gamma"):
            penalty.gamma = wrong
    assert penalty.gamma is gamma
    penalty.gamma = Half()
    assert penalty().item() == pytest.approx(0.5 * sum(truth))
    penalty.gamma = 1
    assert penalty().item() == pytest.approx(sum(truth))
    assert not list(penalty.parameters()) + list(penalty.children())


@pytest.mark.parametrize(
    ("gamma", "message"),
    [
        ({"0": 1.0, "3.weight": 1.0}, r'no gamma pattern matches 1\.weight; "\*" as the last pattern'),
        ({"layer9.*": 1.0, "*": 1.0}, r"gamma pattern 'layer9\.\*' matches none of the weights: 0\.weight, 1\.weight"),
        ({"*": 0.25, "0": 0.5}, r"gamma pattern '0' never counts: patterns before it match 0\.weight"),
        ({"0": 1.0, "1": 2.0, "[01]": 3.0, "*": 1.0}, r"gamma pattern '\[01\]' never counts: .*0\.weight, 1\.weight"),
        ({}, "gamma is an empty dict"),
        ({"0": "1", "*": 1.0}, "gamma of '0' must be a finite number; got '1'"),
        ({"0": {"*": 1.0}, "*": 1.0}, "gamma of '0' must be a finite number"),
        (float("nan"), "gamma must be a finite number; got nan"),
        ([1.0], r"gamma must be a finite number; got \[1\.0\]"),
        (torch.ones(1), r"gamma has shape \(1,\); expected a tensor without dimensions"),
        (torch.tensor(1), "gamma has dtype torch.int64; expected a floating-point tensor"),
        (torch.tensor(1.0, requires_grad=True), "gamma requires a gradient.*detach it"),
        (nn.Parameter(torch.tensor(1.0), requires_grad=False), "gamma requires a gradient"),
        (torch.ones((), device="meta"), "gamma is on meta, but the weights are on cpu"),
        ({"0": torch.ones((), device="meta"), "*": 1.0}, "gamma of '0' is on meta, but the weights are on cpu"),
    ],
)
def test_what_no_gamma_can_be(gamma, message):
    with pytest.raises(ValueError, match=message):
        OrthogonalityPenalty(encoder(), gamma=gamma)


def test_other_options_that_can_not_be():
    with pytest.raises(TypeError, match="gamma takes patterns of names; got <class"):
        OrthogonalityPenalty(encoder(), gamma={nn.Linear: 1.0})
    with pytest.raises(ValueError, match="reduction must be one of 'sum', 'mean', 'entries'; got 'none'"):
        OrthogonalityPenalty(encoder(), reduction="none")
    with pytest.raises(ValueError, match="reduction must be one of 'sum', 'mean'; got 'entries'"):
        OrthogonalityPenalty(encoder(), "srip", reduction="entries")
    with pytest.raises(ValueError, match="'entries' is the mean over the entries of one Gram, and squared=False"):
        OrthogonalityPenalty(encoder(), reduction="entries", squared=False)


class Returning(Schedule):
    """A schedule that returns something else than it should."""

    def __init__(self, returned):
        self.returned = returned

    def at(self, step):
        return self.returned


@pytest.mark.parametrize("pattern", [None, "0"])
@pytest.mark.parametrize(
    ("returned", "error", "message"),
    [
        (0.5, TypeError, r"must be a tensor, made of the step by tensor operations; got 0\.5"),
        (None, TypeError, "must be a tensor.*; got None"),
        (torch.ones(2), ValueError, r"has shape \(2,\); expected a tensor without dimensions"),
        (torch.tensor(1), ValueError, "has dtype torch.int64; expected a floating-point tensor"),
        (torch.ones((), device="meta"), ValueError, "is on meta, but the weights are on cpu: make it there"),
    ],
)
def test_what_no_schedule_can_return(returned, error, message, pattern):
    gamma, name = Returning(returned), "gamma"
    if pattern is not None:
        gamma, name = {pattern: gamma, "*": 1.0}, f"gamma of {pattern!r}"
    with pytest.raises(error, match=f"^{name}: what Returning.at returns {message}"):
        OrthogonalityPenalty(encoder(), gamma=gamma)


@pytest.mark.parametrize("gamma", [Schedule(), {"0": Schedule(), "*": 1.0}])
def test_a_schedule_without_at_says_so(gamma):
    with pytest.raises(NotImplementedError, match=r"Schedule must define at\(step\)"):
        OrthogonalityPenalty(encoder(), gamma=gamma)


@pytest.mark.parametrize("by_pattern", [False, True])
def test_a_schedule_in_float64_leaves_the_penalty_in_float32(by_pattern):
    gamma = Returning(torch.tensor(0.5, dtype=torch.float64))
    model = encoder(torch.float32)
    value = OrthogonalityPenalty(model, gamma={"0": gamma, "*": gamma} if by_pattern else gamma)()
    assert value.dtype is torch.float32
    assert value.item() == pytest.approx(0.5 * OrthogonalityPenalty(model, gamma=1.0)().item())


def test_a_dict_is_changed_by_setting_gamma_alone():
    """What were written into it would not be seen."""
    model, given = encoder(), {"0": 1.0, "*": 0.0}
    penalty = OrthogonalityPenalty(model, gamma=given)
    first = penalty()
    given["0"] = 5.0
    assert penalty() == first
    assert penalty.gamma == {"0": 1.0, "*": 0.0}
    with pytest.raises(TypeError, match="does not support item assignment"):
        penalty.gamma["0"] = 2.0
    penalty.gamma = penalty.gamma | {"0": 2.0}
    assert penalty().item() == pytest.approx(2 * first.item())
    for whole in (penalty, penalty.report()):
        assert copy.deepcopy(whole).gamma == {"0": 2.0, "*": 0.0}


def test_a_weight_that_comes_later_needs_a_gamma_and_one_may_go():
    model = encoder()
    penalty = OrthogonalityPenalty(model, gamma={"0": 1.0, "1": 2.0, "3": 3.0})
    del model[3]
    assert penalty().item() == pytest.approx(sum(f * sum(v) for f, v in zip((1, 2), values_of_two(model), strict=True)))
    model.append(nn.Linear(3, 3).double())
    model.append(nn.Linear(3, 3).double())
    with pytest.raises(ValueError, match=r"the model has changed: no gamma pattern matches 4\.weight"):
        penalty()
    penalty.gamma = {"4": 0.0, "*": 1.0}
    assert penalty().item() == pytest.approx(OrthogonalityPenalty(model, gamma=1.0, exclude="4")().item())


def values_of_two(model):
    return [[so_from_spectrum(W).item() for W in as_matrices([model[index].weight], index + 1)] for index in (0, 1)]


@pytest.mark.parametrize("name", ["a", "b", "b.weight"])
def test_a_shared_weight_has_the_gamma_of_any_of_its_names(name):
    model = nn.ModuleDict({"a": nn.Linear(4, 5), "b": nn.Linear(4, 5), "c": nn.Linear(3, 2)})
    model["b"].weight = model["a"].weight
    report = OrthogonalityPenalty(model, gamma={name: 2.0, "*": 3.0}).report()
    assert [(row.name, row.gamma) for row in report] == [("a.weight", 2.0), ("c.weight", 3.0)]


def test_the_reduction_is_for_all_calls():
    penalty = OrthogonalityPenalty(encoder(), reduction="mean")
    assert penalty.reduction == "mean"
    with pytest.raises(AttributeError, match="reduction"):
        penalty.reduction = "sum"


def test_patterns_see_through_wrappers():
    penalty = OrthogonalityPenalty(nn.DataParallel(encoder()), gamma={"0": 1.0, "module.1": 2.0, "*": 3.0})
    assert [row.gamma for row in penalty.report()] == [1, 2, 3]


def test_a_report_shows_gamma_and_the_weighted_total(backend):
    model = encoder()
    penalty = OrthogonalityPenalty(model, gamma={"0": CosineSchedule(2.0, 0.0, 4), "*": 0.5}, reduction="mean", every=2)
    report = penalty.report()
    assert [row.gamma for row in report] == [2.0, 0.5, 0.5]
    truth = [sum(parts) for parts in values(model)]
    assert report.total == pytest.approx((2 * truth[0] + 0.5 * (truth[1] + truth[2])) / 4)
    assert f"so: sum {sum(truth):.6g}, weighted {report.total:.6g}" in str(report)
    assert penalty().item() == pytest.approx(2 * report.total)  # the call stands for two
    penalty()
    assert penalty.report().rows[0].gamma == pytest.approx(1.0)  # half of the schedule
    assert "gamma={'0': CosineSchedule(start=2.0, end=0.0, steps=4), '*': 0.5}, reduction='mean'" in repr(penalty)
    assert "(calls): Calls(every=2)" in repr(penalty)


@pytest.mark.parametrize("count", [3, 21])
def test_a_call_takes_few_steps(kernels, count):
    """Python's part does not grow with the number of weights: a number that is one for all costs no tensor."""
    penalty = OrthogonalityPenalty(nn.Sequential(*(nn.Linear(8, 8) for _ in range(count))), reduction="mean")
    assert type(penalty._factor()) is float
    for call, most in ((penalty.penalty, 34), (penalty.accumulate_gradients, 44)):
        call()
        call()
        steps = []

        def record(frame, event, argument, steps=steps):
            if event == "call" and f"{os.sep}ortho_kernels{os.sep}" in frame.f_code.co_filename:
                steps.append(frame.f_code.co_name)

        sys.setprofile(record)
        try:
            call()
        finally:
            sys.setprofile(None)
        assert len(steps) <= most, steps


@pytest.mark.parametrize("options", [{}, {"side": "both"}, {"squared": False}, {"reduction": "entries"}])
def test_the_usual_factor_is_made_once_and_stays(options):
    model = encoder()
    penalty = OrthogonalityPenalty(model, gamma=0.3, **options)
    usual = penalty._strength.spread(penalty._factor())
    before = usual.clone()

    def added(*arguments):
        model.zero_grad(set_to_none=False)
        penalty.accumulate_gradients(*arguments)
        return [weight.grad.clone() for _, weight, _ in penalty.weights()]

    penalty.accumulate_gradients()
    first, twice, again = added(), added(2.0), added()
    assert penalty._strength.spread(penalty._factor()) is usual
    assert torch.equal(usual, before)
    penalty.gamma = 0.6
    for one, other, double, changed in zip(first, again, twice, added(), strict=True):
        assert torch.equal(one, other)
        assert torch.equal(double, 2 * one)
        assert torch.equal(changed, double)


@pytest.mark.parametrize("kind", ["so", "srip"])
def test_a_tensor_that_changes_in_place_is_compiled_once(kind):
    from torch._dynamo.testing import CompileCounter

    torch._dynamo.reset()
    model, gamma, counter = encoder(), torch.tensor(1.0), CompileCounter()
    penalty, other = (OrthogonalityPenalty(model, kind, gamma={"0": gamma, "*": 0.5}) for _ in range(2))
    step = torch.compile(penalty, fullgraph=True, backend=counter)
    found = []
    for number in (1.0, 0.5, 2.0):
        gamma.fill_(number)
        found.append(step().item())
        assert found[-1] == pytest.approx(other().item(), rel=1e-6)
    assert len(set(found)) == 3
    assert counter.frame_count == 1


def test_a_compiled_backward_knows_the_gamma_of_its_forward():
    torch._dynamo.reset()
    model, gamma = encoder(), torch.tensor(2.0)
    penalty = OrthogonalityPenalty(model, gamma=gamma)
    penalty().backward()
    expected = gradients(model)
    value = torch.compile(penalty, fullgraph=True, backend="aot_eager")()
    gamma.fill_(100.0)
    value.backward()
    torch.testing.assert_close(gradients(model), expected)
