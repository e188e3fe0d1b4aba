"""SRIP's fresh start vectors: functions of seed, step and name alone."""

import copy

import pytest
import torch
from torch import nn

from ortho_kernels import OrthogonalityPenalty, ops, reference
from ortho_kernels.penalty.start import entry_keys


def encoder():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(30, 20), nn.Conv2d(8, 12, 3, groups=2))


def sequence(penalty, steps=4):
    return [penalty().item() for _ in range(steps)]


def test_are_standard_gaussians_without_correlation():
    keys = entry_keys(0, "layer1.weight", 200_000)
    draws = [ops.start_vectors(keys, torch.tensor(step)).double() for step in (0, 1, 2**40)]
    for seed, name in ((1, "layer1.weight"), (0, "layer2.weight")):
        draws.append(ops.start_vectors(entry_keys(seed, name, 200_000), torch.tensor(0)).double())
    noise = 5 / 200_000**0.5
    for draw in draws:
        assert abs(draw.mean()) < noise
        assert draw.square().mean().item() == pytest.approx(1, abs=2 * noise)
        assert draw.pow(4).mean().item() == pytest.approx(3, abs=10 * noise)
        assert abs((draw[1:] * draw[:-1]).mean()) < noise
    for index, left in enumerate(draws):
        for right in draws[:index]:
            assert abs((left * right).mean()) < noise


def test_the_native_kernel_computes_the_definition(kernels):
    keys = entry_keys(7, "w", 10_000).to(torch.get_default_device())
    for step in (0, 12345, 2**62):
        at = torch.tensor(step)
        torch.testing.assert_close(ops.start_vectors(keys, at), reference.start_vectors(keys, at), rtol=2e-6, atol=0)


def test_known_numbers():
    """SplitMix64's published outputs from seed 1234567, so that a stream can't change unseen."""
    states = torch.tensor(1234567) + torch.arange(1, 4) * reference.GOLDEN
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert [number % 2**64 for number in reference.splitmix64(states).tolist()] == published


def test_do_not_depend_on_any_generator(backend):
    values = []
    for seed in (0, 1):
        penalty = OrthogonalityPenalty(encoder(), "srip")
        torch.manual_seed(seed)
        values.append(sequence(penalty))
    assert values[0] == values[1]
    assert len(set(values[0])) == 4  # each step's are its own
    assert sequence(OrthogonalityPenalty(encoder(), "srip", seed=1)) != values[0]


def test_draw_nothing():
    state = torch.get_rng_state()
    penalty = OrthogonalityPenalty(torch.nn.utils.skip_init(nn.Linear, 6, 4), "srip")
    penalty()
    penalty.accumulate_gradients()
    assert torch.equal(state, torch.get_rng_state())


def test_both_ways_of_computing_share_the_count(backend):
    model = encoder()
    one, other = OrthogonalityPenalty(model, "srip"), OrthogonalityPenalty(model, "srip")
    for step in range(4):
        value = one() if step % 2 else one.accumulate_gradients()
        assert value.item() == pytest.approx(other().item(), rel=1e-6)
    assert one.start.step == 4


def test_evaluation_and_report_do_not_count():
    penalty = OrthogonalityPenalty(encoder(), "srip", gamma=1.0)
    first = sequence(copy.deepcopy(penalty), 1)
    penalty.eval()
    assert sequence(penalty, 2) == 2 * first
    penalty.train()
    report = penalty.report()
    assert penalty.training
    assert sum(row.value for row in report) == pytest.approx(first[0], rel=1e-6)
    assert sequence(penalty, 1) == first


def test_resume():
    penalty = OrthogonalityPenalty(encoder(), "srip")
    sequence(penalty, 3)
    state = penalty.state_dict()
    assert set(state) == {"start.step"}
    resumed = OrthogonalityPenalty(encoder(), "srip")
    resumed.load_state_dict(state)
    assert sequence(resumed) == sequence(penalty)


def test_a_checkpoint_without_the_count_loads_strictly_and_starts_at_0():
    penalty = OrthogonalityPenalty(encoder(), "srip")
    first = sequence(penalty)
    penalty.load_state_dict({}, strict=True)
    assert sequence(penalty) == first


def test_a_weight_keeps_its_vectors_whatever_stands_beside_it():
    model = encoder()
    alone = OrthogonalityPenalty(model, "srip", gamma=1.0, include="1.weight")
    both = OrthogonalityPenalty(model, "srip", gamma=1.0)
    [_, last] = [row.value for row in both.report()]
    assert alone().item() == pytest.approx(last, rel=1e-6)
    wrapped = OrthogonalityPenalty(torch.nn.DataParallel(model), "srip", gamma=1.0)
    assert wrapped.names == ("module.0.weight", "module.1.weight")
    assert wrapped() == both()


def test_names_count_though_shapes_are_the_same():
    model = nn.ModuleDict({"a": nn.Linear(9, 9), "b": nn.Linear(9, 9)})
    penalty = OrthogonalityPenalty(model, "srip", include="a").eval()
    other = OrthogonalityPenalty(nn.ModuleDict({"c": model["a"]}), "srip").eval()
    assert penalty() != other()
    model["c"] = model.pop("a")
    penalty = OrthogonalityPenalty(model, "srip").eval()
    penalty()
    model["a"] = model.pop("b")
    assert penalty() == OrthogonalityPenalty(model, "srip").eval()()


def test_deferred_initialization():
    def build():
        model = nn.ModuleDict({"encoder": encoder()})
        model["penalty"] = OrthogonalityPenalty(model["encoder"], "srip")
        return model

    source = build()
    sequence(source["penalty"])
    target = build().to("meta").to_empty(device="cpu")
    target.load_state_dict(source.state_dict())
    assert sequence(target["penalty"]) == sequence(source["penalty"])


KINDS = {
    "fresh": dict,
    "warm": lambda: {"warm_start": True},
    "generator": lambda: {"generator": torch.Generator()},
}


def in_a_checkpoint(penalty, reentrant):
    return lambda x: torch.utils.checkpoint.checkpoint(lambda x: x.sum() + penalty(), x, use_reentrant=reentrant)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reentrant", [True, False])
def test_a_checkpoint_would_compute_another_gradient(reentrant, kind):
    """torch.utils.checkpoint runs a part of the model twice: the second time from other start vectors."""
    penalty, x = OrthogonalityPenalty(encoder(), "srip", **KINDS[kind]()), torch.ones(2, requires_grad=True)
    with pytest.raises(RuntimeError, match=r"within torch.utils.checkpoint, .*: call it outside, or in eval mode"):
        in_a_checkpoint(penalty, reentrant)(x).backward()
    in_a_checkpoint(penalty.eval(), reentrant)(x).backward()
    in_a_checkpoint(OrthogonalityPenalty(encoder(), "so"), reentrant)(x).backward()


@pytest.mark.parametrize("kind", ["fresh", "warm"])
def test_nor_is_a_checkpoint_compiled(kind):
    torch._dynamo.reset()
    model = encoder()
    penalty, x = OrthogonalityPenalty(model, "srip", **KINDS[kind]()), torch.ones(2, requires_grad=True)
    with pytest.raises(
        RuntimeError, match=r"traced within torch.utils.checkpoint, .*: call it outside, or in eval mode"
    ):
        torch.compile(in_a_checkpoint(penalty, False), backend="aot_eager", fullgraph=True)(x)
    torch._dynamo.reset()
    torch.compile(in_a_checkpoint(penalty.eval(), False), backend="aot_eager", fullgraph=True)(x).backward()
    found = [weight.grad.clone() for weight in (model[0].weight, model[1].weight)]
    model.zero_grad()
    penalty().backward()
    torch.testing.assert_close(found, [weight.grad for weight in (model[0].weight, model[1].weight)])


def test_counts_after_it_was_made_for_inference():
    model = encoder()
    with torch.inference_mode():
        penalty = OrthogonalityPenalty(model, "srip")
    assert len(set(sequence(penalty))) == 4


def test_transforms_say_what_to_do():
    model = nn.ModuleDict({"encoder": nn.Linear(4, 3)})
    model["penalty"] = OrthogonalityPenalty(model["encoder"], "srip")
    model.forward = lambda: model["penalty"]()
    weights = {"encoder.weight": torch.randn(3, 4)}
    with pytest.raises(RuntimeError, match=r"torch.func's transforms don't allow: call penalty.eval\(\)"):
        torch.func.grad(lambda w: torch.func.functional_call(model, w, ()))(weights)
    model["penalty"].eval()
    gradient = torch.func.grad(lambda w: torch.func.functional_call(model, w, ()))(weights)
    assert gradient["encoder.weight"].abs().sum() > 0
    assert type(model["penalty"].start.step) is torch.Tensor  # nothing of the transform was left behind
    model["penalty"].start.step.data_ptr()


def test_made_under_another_default_device():
    model = encoder()
    with torch.device("meta"):
        penalties = [OrthogonalityPenalty(model, "srip"), OrthogonalityPenalty(model, "srip", warm_start=True)]
    assert all(penalty().isfinite() for penalty in penalties)


def test_moves_with_the_model_or_after_it(backend):
    model = encoder()
    penalty = OrthogonalityPenalty(model, "srip")
    value = penalty.eval()().item()
    model.double()
    assert penalty().item() == pytest.approx(value, rel=1e-5)
    assert penalty().dtype == torch.float64


def test_compiles_once_for_all_steps():
    from torch._dynamo.testing import CompileCounter

    model = encoder()
    penalty, eager = OrthogonalityPenalty(model, "srip"), OrthogonalityPenalty(model, "srip")
    counter = CompileCounter()
    step = torch.compile(penalty, fullgraph=True, backend=counter)
    values = [step().item() for _ in range(4)]
    assert values == pytest.approx(sequence(eager), rel=1e-6)
    assert len(set(values)) == 4
    assert counter.frame_count == 1
    assert penalty.start.step == 4


@pytest.mark.parametrize("seed", [1.5, "1", True, 1j])
def test_a_seed_is_an_int(seed):
    with pytest.raises(TypeError, match="seed must be an int; got"):
        OrthogonalityPenalty(encoder(), "srip", seed=seed)


def test_a_generator_draws_instead_and_reports_leave_it_alone():
    generator = torch.Generator().manual_seed(0)
    penalty = OrthogonalityPenalty(encoder(), "srip", generator=generator)
    state = generator.get_state()
    penalty.report()
    assert torch.equal(generator.get_state(), state)
    assert penalty() != penalty()
    assert not penalty.state_dict()
    with pytest.raises(ValueError, match="seed makes the start vectors, so a generator has nothing to draw"):
        OrthogonalityPenalty(encoder(), "srip", seed=1, generator=generator)
