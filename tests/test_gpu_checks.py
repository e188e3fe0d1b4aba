"""What `doctor --gpu` makes of errors; what it says where there is no GPU."""

import pytest
import torch

from ortho_kernels import doctor, gpu_checks

DTYPES = list(gpu_checks.VALUES)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_errors_of_each_dtype_are_judged_by_its_rounding(dtype):
    good = {"so values": gpu_checks.VALUES[dtype], "so gradients": gpu_checks.GRADIENTS[dtype]}
    finding, is_good = gpu_checks.judge(good, "cuda", dtype)
    assert is_good
    assert finding.startswith("works")
    for name in good:
        finding, is_good = gpu_checks.judge(good | {name: 2 * good[name]}, "cuda", dtype)
        assert not is_good
        assert finding.startswith("WRONG")
        assert name in finding
        assert not gpu_checks.judge(good | {name: float("nan")}, "cuda", dtype)[1]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ["cpu", "torch"])
def test_the_check_of_any_dtype_passes_on_the_cpu(name, dtype):
    """The errors that it tells are within what a GPU will be held to."""
    reason = doctor.reason_against(name, "cpu")
    if reason is not None:
        pytest.skip(reason)
    finding, good = gpu_checks.judge(doctor.check(name, "cpu", dtype), name, dtype)
    assert good, finding


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_asked_for_a_gpu_that_is_not_there(capsys):
    assert doctor.main(["--gpu"]) == 1
    assert "nothing was run on one" in capsys.readouterr().out


@pytest.mark.gpu
def test_the_doctor_finds_the_gpu_well(capsys):
    assert doctor.main(["--gpu"]) == 0
    text = capsys.readouterr().out
    assert torch.cuda.get_device_name() in text
    assert "WRONG" not in text
