"""Gammas that change over training: their numbers, their count, `every`, `hold`, and that a resumed run goes on alike."""

import copy
import math

import pytest
import torch
from torch import nn

from ortho_kernels import CosineSchedule, OrthogonalityPenalty, Schedule, StepSchedule

COSINE = CosineSchedule(2.0, 0.5, 4)


def cosine(step):
    return 0.5 + 1.5 * (1 + math.cos(math.pi * min(step / 4, 1))) / 2


def encoder():
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Conv2d(4, 6, 3, groups=2))


def at(schedule, step, dtype=torch.float64):
    found = schedule.at(torch.tensor(step, dtype=dtype))
    assert (found.dtype, found.dim()) == (dtype, 0)
    return found.item()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cosine(dtype):
    for step in range(7):
        assert at(COSINE, step, dtype) == pytest.approx(cosine(step), rel=1e-6)
    assert at(CosineSchedule(0, 1e-3, 1000), 100_000, dtype) == pytest.approx(1e-3)


def test_steps_are_factors_of_gamma():
    schedule = StepSchedule(4.0, {5: 0.25, 2: 0.5})  # in any order
    assert [at(schedule, step) for step in range(7)] == [4, 4, 2, 2, 2, 1, 1]
    assert schedule == StepSchedule(4.0, {2: 0.5, 5: 0.25})
    assert hash(schedule) == hash(StepSchedule(4.0, {2: 0.5, 5: 0.25}))


@pytest.mark.parametrize("imagenet", [False, True])
def test_bansals_steps_are_those_of_the_released_code(imagenet):
    """`adjust_ortho_decay_rate(epoch + 1)`, whose conditions are these."""
    schedule = StepSchedule.bansal(10, gamma=0.1, imagenet=imagenet)
    first = 30 if imagenet else 20
    for epoch in range(130):
        counted = epoch + 1
        factor = 0.0 if counted > 120 else 1e-6 if counted > 70 else 1e-4 if counted > 50 else 1e-3
        factor = factor if counted > first else 1.0
        for step in (10 * epoch, 10 * epoch + 9):
            assert at(schedule, step) == pytest.approx(0.1 * factor)
    assert StepSchedule.bansal(10).gamma == 1e-2


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: CosineSchedule(math.nan, 0, 4), "CosineSchedule: start must be a finite number; got nan"),
        (lambda: CosineSchedule(0, "1", 4), "CosineSchedule: end must be a finite number; got '1'"),
        (lambda: CosineSchedule(0, 1, 0), "CosineSchedule: steps must be a positive int; got 0"),
        (lambda: StepSchedule(math.inf, {}), "StepSchedule: gamma must be a finite number; got inf"),
        (lambda: StepSchedule(1, {2.5: 1}), r"StepSchedule: a step must be a positive int; got 2\.5"),
        (lambda: StepSchedule(1, {2: None}), "the factor from step 2 on must be a finite number; got None"),
        (lambda: StepSchedule.bansal(0), "steps_per_epoch must be a positive int; got 0"),
    ],
)
def test_what_no_schedule_can_be(made, message):
    with pytest.raises(ValueError, match=message):
        made()


def test_factors_are_a_mapping():
    with pytest.raises(TypeError, match=r"StepSchedule: factors must be a dict of factors by step; got \[1\]"):
        StepSchedule(1, [1])


@pytest.mark.parametrize("kind", ["so", "srip"])
def test_the_step_is_the_number_of_calls_in_training_mode(backend, kind):
    model = encoder()
    penalty, one = OrthogonalityPenalty(model, kind, gamma=COSINE), OrthogonalityPenalty(model, kind, gamma=1.0)
    for step in range(6):
        value = penalty.accumulate_gradients() if step % 2 else penalty()
        assert value.item() == pytest.approx(cosine(step) * one().item(), rel=1e-6)
        penalty.eval()
        assert penalty().item() == pytest.approx(cosine(step + 1) * one.eval()().item(), rel=1e-6)
        one.train()
        penalty.train()
    assert penalty.calls.step == 6


def test_a_schedule_of_ones_own():
    class Warmup(Schedule):
        def at(self, step):
            return (step / 10).clamp(max=1.0)

    penalty = OrthogonalityPenalty(encoder(), gamma={"0": Warmup(), "*": 0.0})
    first, *_ = [row.value for row in penalty.report()]
    assert [penalty().item() for _ in range(3)] == pytest.approx([0, first / 10, first / 5])


def test_nothing_is_counted_without_a_schedule():
    penalty = OrthogonalityPenalty(encoder(), gamma={"0": 1.0, "*": torch.tensor(2.0)}, reduction="entries")
    assert not penalty.state_dict()
    assert penalty.calls is None
    penalty.gamma = COSINE
    penalty()
    assert penalty.state_dict() == {"calls.step": 1}
    penalty.gamma = CosineSchedule(1.0, 0.0, 8)
    assert penalty.calls.step == 1  # the count goes on
    penalty.gamma = 1.0
    assert not penalty.state_dict()
    assert "calls" not in repr(penalty)
    penalty.eval()
    penalty.gamma = COSINE
    penalty()
    assert penalty.state_dict() == {"calls.step": 0}


OPTIONS = {
    "so": ("so", {}),
    "srip": ("srip", {}),
    "warm": ("srip", {"warm_start": True}),
}


@pytest.mark.parametrize("case", OPTIONS)
@pytest.mark.parametrize("every", [1, 3])
def test_a_resumed_run_goes_on_alike(case, every):
    kind, options = OPTIONS[case]
    model = encoder()

    def build():
        gamma = {"0": CosineSchedule(2.0, 0.5, 20), "*": 1.0}
        return OrthogonalityPenalty(model, kind, gamma=gamma, every=every, **options)

    def go_on(penalty, calls):
        found = []
        for _ in range(calls):
            with penalty.hold():
                found += [penalty().item(), penalty.accumulate_gradients().item()]
        return found

    penalty = build()
    go_on(penalty, 4)
    resumed, copied = build(), copy.deepcopy(penalty)
    resumed.load_state_dict(penalty.state_dict())
    expected = go_on(penalty, 5)
    assert go_on(resumed, 5) == expected
    assert go_on(copied, 5) == expected
    assert len(set(expected)) > 1

    penalty, resumed = build(), build()
    with penalty.hold():  # a checkpoint in the middle of a step holds where it began
        first = penalty().item()
        resumed.load_state_dict(penalty.state_dict())
        assert go_on(resumed, 1)[0] == first
    assert go_on(resumed, 5) == go_on(penalty, 5)


def test_a_checkpoint_from_before_the_count_begins_at_0():
    penalty = OrthogonalityPenalty(encoder(), gamma=COSINE, every=2)
    first = [penalty().item() for _ in range(3)]
    penalty.load_state_dict({}, strict=True)
    assert [penalty().item() for _ in range(3)] == first


@pytest.mark.parametrize("case", OPTIONS)
def test_every_third_call(backend, case):
    """The first call counts, for three; between them it is 0, and no start vector moves."""
    kind, options = OPTIONS[case]
    model = encoder()
    penalty = OrthogonalityPenalty(model, kind, gamma=1.0, every=3, **options)
    plain = OrthogonalityPenalty(model, kind, gamma=1.0, **options)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    calls = {
        "penalty": lambda one: one(),
        "accumulate_gradients": lambda one: one.accumulate_gradients(),
        "step_": lambda one: one.step_(optimizer),
    }
    for call in range(9):
        take = list(calls.values())[call // 3]
        model.zero_grad()
        value = take(penalty)
        assert (value.dtype, value.device, value.dim()) == (torch.float32, model[0].weight.device, 0)
        if call % 3 == 0:
            assert value.item() == pytest.approx(3 * take(plain).item(), rel=1e-6)
        else:
            assert value == 0
            if call < 3:
                (value + 0).backward()  # a loop that takes the penalty backward by itself goes on
            assert all(weight.grad is None for weight in model.parameters())
    starts = [{key: value for key, value in one.state_dict().items() if "start" in key} for one in (penalty, plain)]
    torch.testing.assert_close(*starts)
    penalty()  # the tenth counts
    penalty.eval()
    assert penalty().item() == pytest.approx(plain.eval()().item(), rel=0.5)  # in eval mode every call does, for one
    assert penalty() > 0


def test_a_call_that_is_left_out_has_the_device_and_dtype_of_the_model_as_it_is():
    model = nn.ModuleList([nn.Linear(3, 3), nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))])
    penalty = OrthogonalityPenalty(model, every=2)
    penalty()
    model[0].double()
    assert penalty().dtype == torch.float64
    alone = OrthogonalityPenalty(model[1], every=2)
    alone()
    with torch.no_grad():
        value = alone()
    assert (value.dtype, value.requires_grad) == (torch.float32, False)


@pytest.mark.parametrize("every", [0, -1, 1.5, True, "2"])
def test_every_is_a_positive_int(every):
    with pytest.raises(ValueError, match="every must be a positive int, the number of calls of which one is computed"):
        OrthogonalityPenalty(encoder(), every=every)


@pytest.mark.parametrize("fullgraph", [True, False])
def test_a_compiled_call_can_not_be_left_out(fullgraph):
    torch._dynamo.reset()
    penalty = OrthogonalityPenalty(encoder(), every=2)
    with pytest.raises(RuntimeError, match=r"call a penalty of every=2 outside of torch\.compile"):
        torch.compile(penalty, fullgraph=fullgraph, backend="aot_eager")()


def test_a_checkpoint_would_count_twice():
    model, x = encoder(), torch.ones(2, requires_grad=True)
    for options in ({"gamma": COSINE}, {"every": 2}):
        penalty = OrthogonalityPenalty(model, **options)
        with pytest.raises(RuntimeError, match=r"within torch.utils.checkpoint, .*another step than the first"):
            torch.utils.checkpoint.checkpoint(
                lambda x, penalty=penalty: x.sum() + penalty(), x, use_reentrant=False
            ).backward()


KINDS = {**OPTIONS, "generator": ("srip", {"generator": None})}


def build(case, model, **more):
    kind, options = KINDS[case]
    options = {name: torch.Generator().manual_seed(0) for name in options if name == "generator"} or options
    return OrthogonalityPenalty(model, kind, gamma=COSINE, **options, **more)


@pytest.mark.parametrize("case", KINDS)
def test_calls_within_a_hold_see_one_objective(backend, case):
    model = encoder()
    held, plain = build(case, model), build(case, model)
    for _ in range(3):
        with held.hold():
            first = held().item()
            assert held.accumulate_gradients().item() == pytest.approx(first, rel=1e-6)
            with held.hold():  # within another it does nothing
                assert held().item() == first
            held.eval()
            assert held().item() == first
            held.train()
            held.report()
        assert plain().item() == pytest.approx(first, rel=1e-6)
    torch.testing.assert_close(held.state_dict(), plain.state_dict())
    with held.hold():
        held.eval()
        held()
        held.train()
    with held.hold():
        pass
    torch.testing.assert_close(held.state_dict(), plain.state_dict())  # no call in training mode, no step
    assert held().item() == pytest.approx(plain().item(), rel=1e-6)


@pytest.mark.parametrize("case", KINDS)
def test_a_hold_that_an_exception_ends_moves_on_once_too(case):
    model = encoder()
    held, plain = build(case, model), build(case, model)

    def fail():
        with held.hold():
            held()
            held()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    plain()
    assert held() == plain()


@pytest.mark.parametrize("case", [case for case in KINDS if case != "generator"])  # torch copies no generator
def test_a_copy_made_within_a_hold_is_not_held(case):
    model = encoder()
    held, plain = build(case, model), build(case, model)
    with held.hold():
        held()
        copied = copy.deepcopy(held)
    for _ in range(3):
        assert copied() == plain()
    torch.testing.assert_close(copied.state_dict(), plain.state_dict())


def test_a_warm_start_takes_the_vectors_of_the_last_call():
    model = encoder()
    held, plain = build("warm", model), build("warm", model)
    with held.hold():
        held()
        with torch.no_grad():
            model[0].weight.add_(1.0)
        held()
    plain()
    assert held() == plain()


def test_a_hold_keeps_the_turn_of_every():
    penalty = OrthogonalityPenalty(encoder(), gamma=1.0, every=2)
    found = []
    for _ in range(4):
        with penalty.hold():
            found.append([penalty().item() > 0 for _ in range(3)])
    assert found == [[True] * 3, [False] * 3] * 2


def test_a_model_that_changes_within_a_hold():
    model = encoder()
    penalty = build("warm", model)
    with penalty.hold():
        penalty()
        model.append(nn.Linear(6, 3))
        penalty()
    assert penalty() > 0
    with penalty.hold():
        penalty()
        model[0] = nn.Linear(6, 4)
        penalty.refresh()
    assert penalty() > 0


@pytest.mark.parametrize("kind", ["so", "srip"])
def test_compiles_once_for_all_steps(kind):
    from torch._dynamo.testing import CompileCounterWithBackend

    torch._dynamo.reset()
    model = encoder()
    gamma = {"0": COSINE, "*": StepSchedule(1.0, {2: 0.5, 3: 0.25})}
    penalty, eager = (OrthogonalityPenalty(model, kind, gamma=gamma) for _ in range(2))
    counter = CompileCounterWithBackend("aot_eager")
    step = torch.compile(penalty, fullgraph=True, backend=counter)
    for _ in range(4):
        value, expected = step(), eager()
        assert value.item() == pytest.approx(expected.item(), rel=1e-6)
        [found] = torch.autograd.grad(value, [model[0].weight])
        torch.testing.assert_close(found, *torch.autograd.grad(expected, [model[0].weight]))
    assert counter.frame_count == 1
    with penalty.hold(), eager.hold():
        first = step()
        assert step().item() == pytest.approx(eager().item(), rel=1e-6)
    first.backward()  # after the step has moved on
    assert step().item() == pytest.approx(eager().item(), rel=1e-6)
    assert penalty.calls.step == eager.calls.step == 6


def test_exports():
    model = encoder()
    penalty, other = (OrthogonalityPenalty(model, gamma={"0": COSINE, "*": 1.0}) for _ in range(2))
    exported = torch.export.export(penalty, ())
    assert exported.module()().item() == pytest.approx(other().item())


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_script_of_a_model_that_holds_a_schedule():
    model = nn.Sequential(nn.Linear(4, 3))
    model[0].penalty = OrthogonalityPenalty(model, gamma=COSINE, every=2)
    assert torch.jit.script(model)(torch.ones(2, 4)).shape == (2, 3)


def test_moves_with_the_model_or_after_it():
    model = encoder()
    penalty = OrthogonalityPenalty(model, gamma=COSINE)
    value = penalty.eval()().item()
    model.double()
    assert penalty().item() == pytest.approx(value, rel=1e-5)
    assert penalty().dtype == torch.float64


def test_deferred_initialization():
    def made():
        model = nn.ModuleDict({"encoder": encoder()})
        model["penalty"] = OrthogonalityPenalty(model["encoder"], gamma=COSINE, every=2)
        return model

    source, target = made(), made()
    for _ in range(3):
        source["penalty"]()
    target = target.to("meta").to_empty(device="cpu")
    target.load_state_dict(source.state_dict())
    for _ in range(3):
        assert target["penalty"]() == source["penalty"]()


def test_transforms_say_what_to_do():
    model = nn.ModuleDict({"encoder": nn.Linear(4, 3)})
    model["penalty"] = OrthogonalityPenalty(model["encoder"], gamma=COSINE)
    model.forward = lambda: model["penalty"]()
    weights = {"encoder.weight": torch.randn(3, 4)}
    call = torch.func.grad(lambda w: torch.func.functional_call(model, w, ()))
    with pytest.raises(RuntimeError, match=r"torch.func's transforms don't allow: call penalty.eval\(\)"):
        call(weights)
    model["penalty"].eval()
    assert call(weights)["encoder.weight"].abs().sum() > 0
