"""What binds: every step beside the machine's own rates, in one interleaved run, at all threads and at one.

    pytest benchmarks/bench_roofline.py --benchmark-only -k "so-resnet50"

Minima are compared: other tenants of a shared machine only ever add time. Every step has the same time a round. Counted
work is the least that the penalty needs, whoever computes it: for SO n^2 k for the residual's triangle and 2 n^2 k for R W;
for SRIP with m applications through which a gradient goes, 2 m - 1 products of 4 n k and the gradient's 8 m n k. Autograd
over the smaller Gram does 6 n^2 k, so that no kernel at the same share of the peak can be more than twice as fast.
"""

import time
from functools import cache, partial

import pytest
import torch

import ortho_kernels

from .machine_rates import RateMeter
from .openblas import OpenBLAS
from .results import Results
from .rivals import rival
from .roofline import RooflineResults, Step
from .weight_sets import weights_of

CASES = [(penalty, model) for penalty in ("so", "srip") for model in ("resnet18", "resnet50", "vit_small")]
APPLICATIONS = 2
THREADS = sorted({torch.get_num_threads(), 1}, reverse=True)
TURN = 0.5  # seconds, the same for every step of a round
SELDOM = 4  # the published loop takes seconds: it runs once in so many rounds


@pytest.fixture(params=THREADS, ids=lambda count: f"{count}-threads")
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def meter_at(tmp_path_factory):
    """A meter for each number of threads; its rates are the highest that any case of the run has seen."""
    folder = tmp_path_factory.mktemp("rates")
    return cache(lambda threads: RateMeter(folder, threads))


def least_work(penalty, weights):
    """FLOP and bytes."""
    flop = traffic = 0.0
    for weight in weights:
        n, k = sorted((len(weight), weight[0].numel()))
        flop += 3 * n * n * k if penalty == "so" else ((2 * APPLICATIONS - 1) * 4 + 8 * APPLICATIONS) * n * k
        traffic += 2 * 4 * n * k
    return flop, traffic


def with_graph(compute, weights, _):
    torch.autograd.grad(compute(weights), weights)


def on_onednn(compute, weights, _):
    """torch's products by oneDNN, free to round the operands to bfloat16: it does so on CPUs with AMX."""
    matmul = torch.backends.mkldnn.matmul
    before, matmul.fp32_precision = matmul.fp32_precision, "bf16"
    try:
        torch.autograd.grad(compute(weights), weights)
    finally:
        matmul.fp32_precision = before


def steps_of(penalty):
    fused = ortho_kernels.soft_orthogonality_value_and_grad if penalty == "so" else ortho_kernels.srip_value_and_grad
    steps = {name: partial(with_graph, rival(name, penalty)) for name in ("published", "eager", "compiled", "ours")}
    steps["ours, no graph"] = lambda weights, gradients: fused(weights, accumulate_into=gradients)
    if penalty == "so":
        steps["eager by oneDNN"] = partial(on_onednn, rival("eager", penalty))
        if blas := OpenBLAS.find():
            steps[f"OpenBLAS {blas.kernel}"] = blas.step
    return steps


@pytest.mark.parametrize(("penalty", "model"), CASES, ids=["-".join(case) for case in CASES])
def test_share_of_roofline(benchmark, request, meter_at, threads, penalty, model):
    weights = weights_of(model)
    gradients = [torch.zeros_like(weight, requires_grad=False) for weight in weights]
    meter, steps = meter_at(threads), steps_of(penalty)
    if penalty == "so":
        agree(steps, weights)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    end, rounds = time.perf_counter() + request.config.getoption("--case-seconds"), 0
    while rounds < 3 or time.perf_counter() < end:
        meter.measure()
        for name, step in steps.items():
            if name == "published" and rounds % SELDOM:
                continue
            seconds[name] += turn(partial(step, weights, gradients))
        rounds += 1
    flop, traffic = least_work(penalty, weights)
    request.config.stash[RooflineResults.key].steps += [
        Step(threads, penalty, model, name, taken, flop, traffic, meter.rates) for name, taken in seconds.items()
    ]
    benchmark.extra_info.update({name: min(taken) for name, taken in seconds.items()})
    benchmark.pedantic(partial(steps["ours"], weights, gradients), rounds=3)


def turn(call):
    """The times of one call, and of as many more as begin within a turn."""
    taken, end = [], time.perf_counter() + TURN
    while not taken or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return taken


def agree(steps, weights):
    """What is called a step computes the gradient."""
    truth = torch.autograd.grad(rival("ours", "so")(weights), weights)
    for name in [name for name in steps if name.startswith("OpenBLAS") or name == "ours, no graph"]:
        gradients = [torch.zeros_like(weight, requires_grad=False) for weight in weights]
        steps[name](weights, gradients)
        for given, true in zip(gradients, truth, strict=True):
            assert (given - true).norm() < 1e-5 * true.norm(), name


@pytest.mark.parametrize("penalty", ["so", "srip"])
def test_growth(benchmark, request, threads, penalty):
    """1, 2, 4 and 8 copies of ResNet-18, which alone is larger than most caches, cost so many times as much."""
    compute = rival("ours", penalty)
    one = weights_of("resnet18")
    lists = {
        copies: [w.detach().clone().requires_grad_() for _ in range(copies) for w in one] for copies in (1, 2, 4, 8)
    }
    least = dict.fromkeys(lists, float("inf"))
    for _ in range(7):
        for copies, weights in lists.items():
            least[copies] = min(least[copies], *turn(partial(with_graph, compute, weights, None)))
    growth = {copies: taken / least[1] / copies for copies, taken in least.items()}
    benchmark.extra_info.update({str(copies): value for copies, value in growth.items()})
    request.config.stash[Results.key].notes.append(
        f"{penalty}, {threads} threads: " + ", ".join(f"{c} copies cost {c} x {g:.2f}" for c, g in growth.items())
    )
    benchmark.pedantic(lambda: with_graph(compute, one, None), rounds=3)


@pytest.mark.parametrize("kind", ["so", "srip"])
def test_small_model(benchmark, request, threads, kind):
    """What a call costs beside its arithmetic: ResNet-18 of width 8, and the same 21 weights with one number each."""
    from torch import nn

    from ortho_kernels.trainer.backbones import ResNet18, build_encoder

    def encoder(empty):
        model = nn.Sequential(build_encoder(ResNet18(width=8), 3, 32), nn.Linear(64, 10))
        for module in model.modules():
            if empty and isinstance(module, (nn.Conv2d, nn.Linear)):
                module.weight = nn.Parameter(torch.randn((1,) * module.weight.dim()))
        return ortho_kernels.OrthogonalityPenalty(model, kind)

    def graph(penalty):
        penalty().backward()

    taken = {}
    penalties = {"one number a weight": encoder(True), "width 8": encoder(False)}
    for name, penalty in penalties.items():
        graph(penalty)  # gradients are there, as they are when a loss has been differentiated
        for way, call in (("forward + backward", partial(graph, penalty)), ("no graph", penalty.accumulate_gradients)):
            taken[f"{name}, {way}"] = 1e6 * min(turn(call))
    benchmark.extra_info.update(taken)
    request.config.stash[Results.key].notes.append(
        f"{kind}, {threads} threads, 21 weights: " + "; ".join(f"{name} {us:.0f} us" for name, us in taken.items())
    )
    benchmark.pedantic(penalties["width 8"].accumulate_gradients, rounds=100, warmup_rounds=10)
