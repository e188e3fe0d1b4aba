"""What only a device shows: graphs, streams, threads, several devices, launches, synchronization, memory.

`python -m pytest -m gpu` runs this and the whole numeric suite on a GPU; elsewhere it is skipped.
"""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn
from truth import as_matrices, relative, so_from_spectrum, so_gradient

from ortho_kernels import CosineSchedule, OrthogonalityPenalty, soft_orthogonality, srip

pytestmark = pytest.mark.gpu
ops = torch.ops.ortho_kernels

SHAPES = [(64, 3, 7, 7), (256, 64, 1, 1), (64, 256, 1, 1), (300, 700), (33, 5), (1, 9), (2000, 40), (512, 512, 3, 3)]
PENALTIES = ["so", "srip"]
TRAINED = {
    "so": {"kind": "so", "gamma": 0.01},
    "scheduled srip": {"kind": "srip", "gamma": CosineSchedule(0.05, 0.0, 20)},
    "warm srip": {"kind": "srip", "gamma": 0.05, "warm_start": True},
}


def leaves():
    return [torch.randn(shape).div(max(shape) ** 0.5).requires_grad_() for shape in SHAPES]


def starts():
    return [torch.randn(1, min(shape[0], torch.Size(shape[1:]).numel())) for shape in SHAPES]


def step_of(penalty, weights, start):
    """One forward and backward: values and gradients."""
    if penalty.startswith("so"):
        values = soft_orthogonality(
            weights, reduction="none", side="large" if penalty == "so, larger side" else "small"
        )
    else:
        values = srip(weights, start=start, reduction="none")
    return [values.detach(), *torch.autograd.grad(values.sum(), weights)]


def same(left, right):
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def after_three(step):
    """The step, after three calls."""
    for _ in range(3):
        step()
    return step, None


def as_graph(step):
    """What replays the step, after three calls on a side stream, and the tensors into which it writes its results."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        after_three(step)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = step()
    return graph.replay, results


@pytest.mark.smoke
@pytest.mark.parametrize("penalty", [*PENALTIES, "so, larger side"])
def test_a_captured_step_replays_on_the_weights_of_then(kernels, penalty):
    weights, start = leaves(), starts()
    replay, captured = as_graph(lambda: step_of(penalty, weights, start))
    for seed in (1, 2, 3):
        torch.manual_seed(seed)
        with torch.no_grad():
            for weight in weights:
                weight.normal_(std=max(weight.shape) ** -0.5)
        replay()
        assert same(captured, step_of(penalty, weights, start))


def trained(options, way, prepared):
    """A model and its penalty after 20 steps: three with the first images, and 17 of what `prepared` makes of the step."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 48), nn.Tanh(), nn.Linear(48, 80))
    penalty = OrthogonalityPenalty(model, **options)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    images = torch.randn(16, 64)

    def step():
        optimizer.zero_grad()
        loss = model(images).square().mean()
        (loss + penalty() if way == "loss" else loss).backward()
        if way == "accumulate_gradients":
            penalty.accumulate_gradients()
        optimizer.step()

    step, _ = prepared(step)
    for _ in range(17):
        images.normal_()
        step()
    return model, penalty


@pytest.mark.smoke
@pytest.mark.parametrize("way", ["loss", "accumulate_gradients"])
@pytest.mark.parametrize("case", TRAINED)
def test_a_captured_training_step(kernels, case, way):
    """Forward, penalty, backward and optimizer in one graph, within which counts, vectors and schedules move on."""
    model, penalty = trained(TRAINED[case], way, as_graph)
    truth, eager = trained(TRAINED[case], way, after_three)
    for given, true in zip(model.parameters(), truth.parameters(), strict=True):
        assert relative(given.detach(), true.detach().double()) < 1e-5
    torch.testing.assert_close(penalty.state_dict(), eager.state_dict(), rtol=1e-4, atol=1e-5)


def test_a_captured_call_can_not_be_left_out(kernels):
    penalty = OrthogonalityPenalty(nn.Linear(8, 6), every=2)
    penalty.accumulate_gradients()
    with (
        pytest.raises(RuntimeError, match=r"call a penalty of every=2 outside of the CUDA graph"),
        torch.cuda.graph(torch.cuda.CUDAGraph()),
    ):
        penalty.accumulate_gradients()


@pytest.mark.smoke
@pytest.mark.parametrize("penalty", PENALTIES)
def test_two_streams_at_once(kernels, penalty):
    start = starts()
    sets = [leaves() for _ in range(2)]
    truths = [step_of(penalty, weights, start) for weights in sets]
    torch.cuda.synchronize()
    streams = [torch.cuda.Stream() for _ in sets]
    results = [[] for _ in sets]
    for _ in range(20):
        for weights, stream, own in zip(sets, streams, results, strict=True):
            with torch.cuda.stream(stream):
                own.append(step_of(penalty, weights, start))
    torch.cuda.synchronize()
    for own, truth in zip(results, truths, strict=True):
        assert all(same(result, truth) for result in own)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_threads_with_streams_of_their_own(kernels, penalty):
    start = starts()
    sets = [leaves() for _ in range(4)]
    truths = [step_of(penalty, weights, start) for weights in sets]
    torch.cuda.synchronize()

    def run(weights):
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            result = step_of(penalty, weights, start)
        stream.synchronize()
        return result

    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            assert all(same(*pair) for pair in zip(pool.map(run, sets), truths, strict=True))


@pytest.mark.parametrize("penalty", PENALTIES)
def test_every_device_whichever_is_current(kernels, penalty):
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    weights, start = leaves(), starts()
    truth = step_of(penalty, weights, start)
    for index in range(torch.cuda.device_count()):
        moved = [weight.detach().to(f"cuda:{index}").requires_grad_() for weight in weights]
        for current in range(2):
            with torch.cuda.device(current):
                result = step_of(penalty, moved, [x.to(f"cuda:{index}") for x in start])
                assert torch.cuda.current_device() == current
            assert all(tensor.device.index == index for tensor in result)
            for given, true in zip(result, truth, strict=True):
                torch.testing.assert_close(given.to(true.device), true, rtol=1e-5, atol=1e-6)


@pytest.mark.smoke
@pytest.mark.parametrize("penalty", PENALTIES)
def test_the_host_never_waits(kernels, penalty):
    weights, start = leaves(), starts()
    step_of(penalty, weights, start)  # the first call may build and copy what later ones find
    torch.cuda.set_sync_debug_mode("error")
    try:
        step_of(penalty, weights, start)
    finally:
        torch.cuda.set_sync_debug_mode("default")


# Of a forward with its backward. R is spread before its product; Triton's phases of SRIP are launches of their own.
LAUNCHES = {("so", "cuda"): 3, ("srip", "cuda"): 2, ("so", "triton"): 3, ("srip", "triton"): 9}


@pytest.mark.smoke
@pytest.mark.parametrize("penalty", PENALTIES)
def test_a_step_is_a_few_launches_for_all_weights(kernels, penalty):
    weights = [weight.detach() for weight in leaves()]
    groups, sides = [1] * len(weights), [int(len(w) > w[0].numel()) for w in weights]
    start, into = (
        torch.cat([x[0] for x in starts()]),
        ([torch.empty_like(w) for w in weights], [1] * len(weights), False),
    )

    def step():
        if penalty == "so":
            values, kept = ops.soft_orthogonality(weights, groups, sides, 1.0, 1.0, True)
            ops.soft_orthogonality_backward(torch.ones_like(values), weights, groups, sides, kept, 0, *into)
        else:
            values, kept = ops.srip(weights, groups, sides, start, 2, True, True)
            ops.srip_backward(torch.ones_like(values), weights, groups, sides, kept, 2, *into)

    step()
    torch.cuda.synchronize()
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as trace:
        step()
        torch.cuda.synchronize()
    names = [event.name for event in trace.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    launched = [name for name in names if not name.startswith(("Memset", "Memcpy")) and "FillFunctor" not in name]
    assert len(launched) == LAUNCHES[penalty, kernels], names


@pytest.mark.smoke
@pytest.mark.parametrize("penalty", PENALTIES)
def test_the_same_bits_every_time(kernels, penalty):
    weights, start = leaves(), starts()
    truth = step_of(penalty, weights, start)
    other = torch.randn(4096, 4096)
    for _ in range(10):
        with torch.cuda.stream(torch.cuda.Stream()):
            other @ other  # something beside it, so that blocks are not always placed alike
        assert same(step_of(penalty, weights, start), truth)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_memory_does_not_grow(kernels, penalty):
    weights, start = leaves(), starts()
    step_of(penalty, weights, start)
    before = torch.cuda.memory_allocated()
    for _ in range(20):
        step_of(penalty, weights, start)
    assert torch.cuda.memory_allocated() == before


@pytest.mark.smoke
def test_thousands_of_matrices(kernels):
    weights = [torch.randn(4 + i % 29, 5 + i % 31).requires_grad_() for i in range(3000)]
    values, *gradients = step_of("so", weights, None)
    for index in range(0, 3000, 250):
        (W,) = as_matrices(weights[index : index + 1])
        assert relative(values[index], so_from_spectrum(W)) < 1e-5
        assert relative(gradients[index], so_gradient(W)) < 1e-5


def test_numbers_beyond_32_bits_of_offset(kernels):
    """The last rows of a weight of more than 2^31 entries."""
    rows, columns = 70_000, 32_768
    if torch.cuda.mem_get_info()[0] < 3 * 2 * rows * columns:
        pytest.skip("needs 14 GB of free memory")
    storage = torch.zeros(rows * columns, dtype=torch.bfloat16)
    weight = storage.view(rows, columns)[-64:]
    weight.normal_()
    value = soft_orthogonality([weight])
    assert relative(value, so_from_spectrum(weight.double().flatten(1))) < 1e-5


def test_tensors_of_another_device_are_named(kernels):
    weights = [weight.detach() for weight in leaves()]
    groups, sides = [1] * len(weights), [0] * len(weights)
    with pytest.raises(RuntimeError, match=r"start|weights"):
        ops.srip(weights, groups, sides, torch.randn(10, device="cpu"), 2, True, True)


def test_compiled_with_cuda_graphs(kernels):
    weights = leaves()
    compiled = torch.compile(lambda *w: soft_orthogonality(w), mode="reduce-overhead", fullgraph=True)
    truth = step_of("so", weights, None)
    for _ in range(4):
        torch.compiler.cudagraph_mark_step_begin()
        gradients = torch.autograd.grad(compiled(*weights), weights)
        for given, true in zip(gradients, truth[1:], strict=True):
            torch.testing.assert_close(given, true)
