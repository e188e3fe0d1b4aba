"""The GPU benchmark as far as it goes without a GPU: what it accepts, what it writes, what its contestants compute."""

import gc
import json
import time
import weakref
from types import FunctionType
from unittest import mock

import pytest
import torch

from benchmarks import arguments, measure, rivals
from benchmarks.gpu import batched, contestants, penalties, stopwatch
from benchmarks.gpu.contestants import Steps
from benchmarks.gpu.stopwatch import Times

CASE = penalties.Case(
    "so",
    "resnet50",
    "float32",
    [
        penalties.Contestant(
            "eager", Times([2e-3, 1e-3, 3e-3], [4e-3, 2e-3, 3e-3], [5e-3] * 3), (1e-7, 2e-7), 3 * 2**20
        ),
        penalties.Contestant("cuda-graph", Times([5e-4] * 3, [1e-3, 1e-3, 2e-3], [1e-5] * 3), (1e-8, 2e-8), None),
        penalties.Contestant("products", Times([1e-3], [2e-3], [1e-3]), None, 0),
    ],
    {"triton": "triton is not installed"},
)


def weights(dtype=torch.float32):
    torch.manual_seed(0)
    shapes = [(8, 3, 3, 3), (20, 6), (6, 20), (8, 27), (8, 16)]
    return [(torch.randn(shape) / 4).to(dtype).requires_grad_() for shape in shapes]


def test_each_case_is_a_line_that_names_its_errors_and_what_is_left_out(tmp_path):
    path = tmp_path / "results" / "gpu.jsonl"
    for card in ("Some GPU", "Another"):
        penalties.append(path, {"facts": {"card": card}, **CASE.record()})
    first, second = map(json.loads, path.read_text().splitlines())
    assert (first["facts"]["card"], second["facts"]["card"]) == ("Some GPU", "Another")
    assert first["contestants"]["eager"]["forward_us"] == {"min": 1000.0, "median": 2000.0}
    assert first["contestants"]["eager"]["gradient_error"] == 2e-7
    assert first["contestants"]["products"]["gradient_error"] is None
    assert first["contestants"]["cuda-graph"]["peak_extra_mib"] is None
    assert first["left_out"] == {"triton": "triton is not installed"}


def test_the_table_has_ratios_and_what_is_left_out():
    text = CASE.table()
    (eager,) = (line for line in text.splitlines() if line.strip().startswith("eager"))
    assert eager.split()[1:] == ["2000.0", "3000.0", "3.00", "5000.0", "3.0", "2.0e-07"]
    assert "left out: triton is not installed" in text


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_without_a_gpu_the_entry_says_so(tmp_path, capsys):
    path = tmp_path / "gpu.jsonl"
    assert penalties.main(["--rivals", "cuda", "eager", "--out", str(path)]) == 1
    assert "no GPU" in capsys.readouterr().err
    (line,) = map(json.loads, path.read_text().splitlines())
    assert line["facts"]["card"] == "none"
    assert line["facts"]["torch"] == torch.__version__
    assert line["left_out"] == dict.fromkeys(["cuda", "eager"], "no GPU that torch can use")


@pytest.mark.parametrize("wrong", [["--model", "alexnet"], ["--dtype", "float8"], ["--rivals", "cuda", "cudnn"]])
def test_unknown_options_are_errors_that_list_what_is_accepted(wrong, capsys):
    with pytest.raises(SystemExit):
        penalties.main(wrong)
    assert "choose from" in capsys.readouterr().err


class Stopwatch:
    """Takes no time by the GPU's clock, and runs the steps."""

    def host_seconds(self, step):
        step()
        return 1e-5

    def device_seconds(self, step, host_seconds):
        step()
        return 1e-4


@pytest.fixture
def on_the_cpu(monkeypatch):
    """`penalties.run` over small weights of the CPU; ours is the `torch` backend, a captured step a plain one."""
    monkeypatch.setattr(penalties, "weights_of", lambda model, device, dtype: weights(dtype))
    monkeypatch.setattr(penalties, "Stopwatch", Stopwatch)
    monkeypatch.setattr(penalties, "peak_extra_bytes", lambda steps: 0)
    monkeypatch.setattr(contestants, "captured", lambda step: step)
    monkeypatch.setattr(contestants, "reason_against_backend", lambda name, device_type: None)
    monkeypatch.setattr(contestants, "use_backend", lambda name: rivals.ortho_kernels.use_backend("torch"))
    monkeypatch.setattr(penalties, "VALUE_ERROR", 1e-4)
    monkeypatch.setattr(penalties, "GRADIENT_ERROR", dict.fromkeys(arguments.DTYPES, 1e-2))


@pytest.mark.parametrize("penalty", arguments.PENALTIES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_case_of_all_contestants(on_the_cpu, penalty, dtype):
    names = [name for name in contestants.NAMES if name not in contestants.ON_REQUEST]
    case = penalties.run(names, penalty, "resnet18", dtype, 2.0)
    timed = {each.name for each in case.contestants}
    assert timed | set(case.left_out) == set(names)
    captured = {"products-graph", "bucketed-graph", "graph"}
    expected = {*contestants.OURS, *captured, "products", "bucketed", "eager", "published"}
    assert timed == expected | ({"grouped", "grouped-graph"} if (penalty, dtype) == ("so", "bfloat16") else set())
    assert "soft orthogonality alone" in case.left_out["quack"] or penalty == "so"
    json.dumps(case.record())


class Graph:
    """Of a GPU that isn't there: captured and replayed without doing anything."""

    def replay(self):
        pass


@pytest.mark.parametrize("penalty", arguments.PENALTIES)
def test_a_replayed_step_keeps_what_its_graph_reads(monkeypatch, penalty):
    for name in ("Stream", "current_stream", "stream", "graph"):
        monkeypatch.setattr(torch.cuda, name, lambda *stream: mock.MagicMock())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    made = contestants.steps("products", penalty, weights())
    read = [weakref.ref(tensor) for tensor in tensors_of(made.both)]
    replayed = contestants.Steps(*map(contestants.captured, made))
    results = [replay() for replay in replayed]
    del made
    gc.collect()
    assert len(read) >= len(weights())
    assert all(reference() is not None for reference in read)
    assert [replay() for replay in replayed][1][1] is results[1][1]


def tensors_of(function):
    """All that a function's closure holds, and those of the functions that it holds."""
    for cell in function.__closure__ or ():
        held = cell.cell_contents
        if isinstance(held, FunctionType):
            yield from tensors_of(held)
        elif isinstance(held, list):
            yield from held


def test_what_fails_is_an_entry_and_the_rest_goes_on(on_the_cpu, monkeypatch):
    real = contestants.steps

    def steps(name, penalty, weights):
        made = real("eager", penalty, weights)
        calls = iter(range(1000))

        def fail_later():
            if next(calls) > 3:
                raise RuntimeError("CUDA error: an illegal\nmemory access")
            return made.both()

        def twice():
            value, gradients = made.both()
            return value, [2 * each for each in gradients]

        if name == "bucketed":
            raise torch.OutOfMemoryError("tried to allocate")
        return made._replace(both={"published": fail_later, "cuda": twice}.get(name, made.both))

    monkeypatch.setattr(contestants, "steps", steps)
    monkeypatch.setattr(penalties, "truth", lambda name, *arguments: rivals.truth("ours", *arguments))
    monkeypatch.setattr(contestants, "reason_against_backend", lambda name, _: "too old" if name == "triton" else None)
    case = penalties.run(["cuda", "bucketed", "published", "eager", "triton"], "so", "resnet18", "float32", 0.5)
    assert [each.name for each in case.contestants] == ["eager"]
    assert case.left_out == {
        "cuda": "wrong, so not timed: its gradients off by 1.0e+00, at most 1e-02",
        "bucketed": "out of memory",
        "published": "RuntimeError: CUDA error: an illegal memory access",
        "triton": "too old",
    }


def test_weights_that_do_not_fit_leave_out_everything(monkeypatch):
    def weights_of(*arguments):
        raise torch.OutOfMemoryError("tried to allocate")

    monkeypatch.setattr(penalties, "weights_of", weights_of)
    case = penalties.run(["cuda", "eager"], "so", "transformer_8b", "float32", 1.0)
    assert case.left_out == {"cuda": "out of memory", "eager": "out of memory"}


def test_the_time_of_a_case_holds_its_preparation(on_the_cpu, monkeypatch):
    real = contestants.steps

    def steps(name, *arguments):
        time.sleep(0.3)
        return real(name, *arguments)

    monkeypatch.setattr(contestants, "steps", steps)
    began = time.perf_counter()
    case = penalties.run(["eager", "graph", "bucketed", "products"], "so", "resnet18", "float32", 0.5)
    assert time.perf_counter() - began < 2
    assert {each.name for each in case.contestants} == {"eager", "graph"}  # a capture of what is ready takes little
    assert case.left_out["products"] == "not ready within 75% of 0.5 seconds"


def test_a_series_takes_the_least_number_of_rounds_even_when_the_time_is_up():
    ran = []
    steps = {name: Steps(lambda: None, lambda name=name: ran.append(name)) for name in ("a", "b")}
    times, failed = stopwatch.interleave(steps, time.perf_counter() - 1, Stopwatch())
    assert not failed
    assert len(times["a"].both) == len(times["b"].host) == stopwatch.LEAST_ROUNDS
    assert ran[:12:2] == ["a", "b", "b", "a", "a", "b"]  # each twice a round; who begins rotates


def test_products_are_those_of_the_penalty():
    """4 (R W) is the gradient of SO; the products are the Gram's, without the identity."""
    leaves = weights()
    gradients = torch.autograd.grad(rivals.eager_so(leaves), leaves)
    _, products = contestants.steps("products", "so", leaves).both()
    for product, leaf, gradient in zip(products, leaves, gradients, strict=True):
        W = leaf.detach().flatten(1)
        product = product if product.shape == W.shape else product.t()
        torch.testing.assert_close(4 * (product - W), gradient.flatten(1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("penalty", arguments.PENALTIES)
@pytest.mark.parametrize("name", ["published", "eager", "bucketed"])
def test_rivals_compute_the_penalty(name, penalty):
    leaves = weights()
    value_error, gradient_error = penalties.References(penalty, leaves).errors(
        name, contestants.steps(name, penalty, leaves)
    )
    assert value_error < 1e-5
    assert gradient_error < 1e-4


def test_the_grouped_product_computes_soft_orthogonality():
    leaves = weights(torch.bfloat16)
    steps = contestants.steps("grouped", "so", leaves)
    assert max(penalties.References("so", leaves).errors("grouped", steps)) < 0.02


@pytest.mark.parametrize("is_batched", [True, False])
def test_a_library_of_symmetric_products_is_given_its_gradient(is_batched):
    leaves = weights()
    results = measure.errors(
        lambda weights: batched.symmetric_so(weights, lambda W: W @ W.mT, is_batched),
        rivals.truth("ours", "so", leaves),
        leaves,
    )
    assert max(results) < 1e-5


@pytest.mark.gpu
def test_the_whole_benchmark(tmp_path):
    out = tmp_path / "gpu.jsonl"
    assert (
        penalties.main(["--model", "resnet18", "--seconds", "60", "--rivals", "cuda", "graph", "--out", str(out)]) == 0
    )
    cases = [json.loads(line) for line in out.read_text().splitlines()]
    assert {case["facts"]["card"] for case in cases} == {torch.cuda.get_device_name()}
    assert [case["penalty"] for case in cases] == list(arguments.PENALTIES)
    assert all(set(case["contestants"]) == {"cuda", "graph"} for case in cases)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--seconds", "nan"], "expected a number of seconds above 0, got 'nan'"),
        (["--out", "."], "'.' can't be written: Is a directory"),
        (["--rivals", "nosuch"], "invalid choice: 'nosuch'"),
    ],
)
def test_odd_arguments_are_refused(words, said, capsys):
    with pytest.raises(SystemExit) as ended:
        penalties.main(words)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
