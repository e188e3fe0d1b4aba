"""The GPU benchmark as far as it goes without a GPU: what it accepts, what it writes, what its contestants compute."""

import json

import pytest
import torch

from benchmarks import gpu, gpu_rivals, rivals

CASE = gpu.Case(
    "so",
    "resnet50",
    "float32",
    [
        gpu.Contestant("eager", 759, 3 * 2**20, [4e-3, 2e-3, 3e-3], [5e-3, 5e-3, 6e-3]),
        gpu.Contestant("cuda", 2, 2**20, [1e-3, 1e-3, 2e-3], [1e-4, 1e-4, 1e-4]),
    ],
    {"triton": "triton is not installed"},
)


def test_results_are_written_with_the_name_of_the_card(tmp_path):
    path = gpu.write(tmp_path / "results" / "gpu.json", {"card": "Some GPU"}, [CASE])
    written = json.loads(path.read_text())
    assert written["card"] == "Some GPU"
    (case,) = written["cases"]
    assert case["contestants"]["eager"]["gpu_ms"] == {"min": 2.0, "median": 3.0}
    assert case["contestants"]["cuda"]["launches"] == 2
    assert case["left_out"] == {"triton": "triton is not installed"}
    assert [each.name for each in path.parent.iterdir()] == ["gpu.json"]


def test_the_table_tells_ratios_and_what_is_left_out():
    text = CASE.table()
    (eager,) = (line for line in text.splitlines() if line.strip().startswith("eager"))
    assert eager.split()[1:4] == ["3.000", "2.000", "3.00"]
    assert "left out: triton is not installed" in text


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_without_a_gpu_it_writes_nothing(tmp_path, capsys):
    assert gpu.main(["--out", str(tmp_path / "gpu.json")]) == 1
    assert "No GPU" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wrong", [["--model", "alexnet"], ["--dtype", "float8"], ["--penalty", "l2"]])
def test_unknown_options_are_errors(wrong):
    with pytest.raises(SystemExit):
        gpu.main(wrong)


def weights():
    return [torch.randn(shape).requires_grad_() for shape in [(8, 3, 3, 3), (20, 6)]]


def test_products_are_those_of_the_penalty():
    """4 (R W) is the gradient of SO; the products are the Gram's, without the identity."""
    leaves = weights()
    gradients = torch.autograd.grad(rivals.eager_so(leaves), leaves)
    for product, leaf, gradient in zip(gpu_rivals.step("products", "so", leaves)(), leaves, gradients, strict=True):
        W = leaf.detach().flatten(1)
        product = product if product.shape == W.shape else product.t()
        torch.testing.assert_close(4 * (product - W), gradient.flatten(1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("penalty", gpu.PENALTIES)
@pytest.mark.parametrize("name", ["published", "eager", "products"])
def test_steps_give_a_tensor_for_each_weight(name, penalty):
    leaves = weights()
    results = gpu_rivals.step(name, penalty, leaves)()
    assert sorted(each.numel() for each in results) == sorted(each.numel() for each in leaves)


@pytest.mark.gpu
def test_the_whole_benchmark(tmp_path):
    out = tmp_path / "gpu.json"
    assert gpu.main(["--model", "resnet18", "--seconds", "0.5", "--out", str(out)]) == 0
    written = json.loads(out.read_text())
    assert written["card"] == torch.cuda.get_device_name()
    assert {case["penalty"] for case in written["cases"]} == set(gpu.PENALTIES)
