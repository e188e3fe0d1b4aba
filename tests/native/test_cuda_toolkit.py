"""Which nvcc builds the CUDA kernels, for which GPUs, and what is said where it can't."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ortho_kernels.backends import cuda
from ortho_kernels.cuda_toolkit import (
    ARCHITECTURES,
    Targets,
    Toolkit,
    ToolkitError,
    device_targets,
    find_toolkit,
    listed_targets,
)

ROOT = Path(__file__).parents[2]
ALL = tuple(ARCHITECTURES)


def fake_nvcc(folder, release="12.4", root="/opt/cuda"):
    """A script that answers as nvcc does."""
    nvcc = folder / "bin" / "nvcc"
    nvcc.parent.mkdir()
    nvcc.write_text(
        f"#!/bin/sh\ncase $1 in --version) echo 'Cuda compilation tools, release {release}, V{release}.99';;\n"
        f"*) echo '#$ _SPACE_= '; echo '#$ _HERE_={root}/bin';; esac\n"
    )
    nvcc.chmod(0o755)
    return nvcc


def test_the_toolkit_is_asked_not_guessed(tmp_path):
    """The path of nvcc may be that of a wrapper, which lies nowhere near the toolkit."""
    toolkit = Toolkit(fake_nvcc(tmp_path))
    assert toolkit.release == (12, 4)
    assert toolkit.root == Path("/opt/cuda")
    assert toolkit.supported() == ((8, 0), (8, 6), (8, 9), (9, 0))
    with pytest.raises(ToolkitError, match=r"no libcudart_static\.a"):
        toolkit.static_runtime  # noqa: B018


def test_an_old_toolkit_is_named(tmp_path):
    with pytest.raises(ToolkitError, match=r"is of CUDA 12\.0; 12\.1 or newer is needed"):
        Toolkit(fake_nvcc(tmp_path, release="12.0")).supported()


@pytest.mark.parametrize(("release", "named"), [((11, 8), True), ((12, 0), True), ((12, 1), False), ((13, 0), False)])
def test_an_old_driver_is_named(monkeypatch, release, named):
    monkeypatch.setattr(cuda, "_against", None)
    monkeypatch.setattr(cuda, "_driver", release)
    reason = cuda.CudaBackend().reason_against(torch.float32) or ""
    words = (
        f"the NVIDIA driver supports CUDA {release[0]}.{release[1]} only; the kernels need 12.1 (driver 530) or newer"
    )
    assert (words in reason) == named


def test_the_variable_comes_first_and_must_be_right(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "nowhere"))
    with pytest.raises(ToolkitError, match=r"CUDA_HOME is '.*nowhere', but .*bin/nvcc does not exist"):
        find_toolkit()
    nvcc = fake_nvcc(tmp_path)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    assert find_toolkit() == Toolkit(nvcc)


@pytest.mark.parametrize(
    ("listed", "architectures", "ptx"),
    [
        ("8.0", ((8, 0),), False),
        ("7.0 7.5 8.0;9.0+PTX", ((8, 0), (9, 0)), True),
        ("9.0a, 12.0", ((9, 0), (12, 0)), False),
        ("8.7", ((8, 6),), False),  # runs the machine code of a lower minor number
        ("12.1+PTX", ((12, 0),), True),
        ("11.0", ((10, 0),), True),  # no machine code for it is known: it needs the portable form
    ],
)
def test_lists_of_architectures(listed, architectures, ptx):
    assert listed_targets(listed, ALL) == Targets(architectures, ptx)


@pytest.mark.parametrize(
    ("listed", "words"), [("Hopper", "'Hopper' is none"), ("7.0", "need 8.0 or newer"), ("", "expected a list")]
)
def test_lists_that_make_no_sense(listed, words):
    with pytest.raises(ToolkitError, match=words):
        listed_targets(listed, ALL)


def test_the_gpus_of_a_machine():
    assert device_targets([(9, 0), (8, 9), (9, 0)], ALL) == Targets(((8, 9), (9, 0)))
    assert device_targets([(7, 5), (8, 0)], ALL) == Targets(((8, 0),))
    assert device_targets([(10, 3)], ALL[:4]) == Targets(((9, 0),))  # an nvcc from before it: through the portable form
    with pytest.raises(ToolkitError, match=r"compute capability is 7\.5; the kernels need 8\.0"):
        device_targets([(7, 5)], ALL)


def test_flags_make_the_portable_form_once():
    hopper = "-gencode=arch=compute_90a,code=sm_90a"
    assert Targets(((8, 0), (9, 0))).flags() == ["-gencode=arch=compute_80,code=[sm_80,compute_80]", hopper]
    assert Targets(((12, 0),), ptx=False).flags() == ["-gencode=arch=compute_80,code=[sm_120]"]
    assert Targets(((9, 0),), ptx=False).flags() == [hopper]
    assert str(Targets(((8, 0), (9, 0)))) == "sm_80, sm_90a + PTX"


BUILD = (
    "import pathlib, runpy, sys\n"
    "sys.argv = ['setup.py', '--name']\n"
    "setup = runpy.run_path('setup.py', run_name='__main__')\n"
    "try: setup['build_cuda'](pathlib.Path(r'{}'))\n"
    "except setup['NotBuilt'] as reason: print('NOT BUILT:', reason)"
)


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"ORTHO_KERNELS_NO_CUDA": "1"}, "ORTHO_KERNELS_NO_CUDA was set"),
        ({"CUDA_HOME": "/nowhere", "FORCE_CUDA": "1"}, "CUDA_HOME is '/nowhere'"),
        ({"CUDA_HOME": "{bare}", "TORCH_CUDA_ARCH_LIST": "8.0"}, "has no libcudart_static.a"),
    ],
    ids=lambda value: "" if isinstance(value, str) else "-".join(value),
)
def test_the_build_says_what_is_missing(tmp_path, environment, words):
    fake_nvcc(tmp_path, root=tmp_path)
    names = ("FORCE_CUDA", "TORCH_CUDA_ARCH_LIST", "ORTHO_KERNELS_NO_CUDA", "ORTHO_KERNELS_NO_NATIVE", "CUDA_PATH")
    own = {name: value for name, value in os.environ.items() if name not in names}
    own |= {name: value.format(bare=tmp_path) for name, value in environment.items()}
    done = subprocess.run(
        [sys.executable, "-c", BUILD.format(tmp_path / "build")], cwd=ROOT, env=own, capture_output=True, text=True
    )
    assert "NOT BUILT: " in done.stdout, done.stderr
    assert words in done.stdout


def test_each_part_is_left_out_with_its_reason(tmp_path):
    """The package is installed all the same."""
    command = [
        sys.executable,
        "setup.py",
        "-q",
        "build_ext",
        "--build-lib",
        tmp_path / "lib",
        "--build-temp",
        tmp_path / "temp",
    ]
    environment = {**os.environ, "ORTHO_KERNELS_NO_NATIVE": "1"}
    done = subprocess.run([*map(str, command)], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    logs = {log.name: log.read_text() for log in (tmp_path / "lib" / "ortho_kernels").iterdir()}
    assert logs == dict.fromkeys(("_build_log.txt", "_cuda_build_log.txt"), "ORTHO_KERNELS_NO_NATIVE was set\n")
    assert "the native CPU kernels are not built" in done.stderr
    assert "the CUDA kernels are not built" in done.stderr
