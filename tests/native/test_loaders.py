"""The CUDA kernels with loaders (sm_90a, -DORTHO_LOADERS), as the compiler makes them: no card has run them."""

import re
import subprocess

import machine_code
import pytest
from cuda_builds import KERNELS, parsed, run

from ortho_kernels import cuda_toolkit

SOURCE = KERNELS / "soft_orthogonality.cu"
FLAGS = (*cuda_toolkit.FLAGS, "-DORTHO_LOADERS")
HOPPER = "-gencode=arch=compute_90a,code=sm_90a"

# Instructions of the main loops for a chunk of 128 x 128: of a warp that multiplies, and of one that loads what is aligned.
BUDGETS = {
    r"gram_residualIffE": (228, 290),
    r"gram_residualIfNS_8bfloat16E": (155, 106),
    r"residual_productIffLi2E": (228, 214),
    r"residual_productIfNS_8bfloat16ELi1E": (127, 138),
}


@pytest.fixture(scope="module")
def compiled(toolkit, tmp_path_factory):
    """The machine code, and what the assembler says of it."""
    if (9, 0) not in toolkit.supported():
        pytest.skip("this nvcc doesn't know sm_90a")
    cubin = tmp_path_factory.mktemp("loaders") / "soft_orthogonality.cubin"
    report = run(toolkit.nvcc, *FLAGS, HOPPER, "-Werror=all-warnings", "-Xptxas", "-v", "-cubin", SOURCE, "-o", cubin)
    return cubin, report


@pytest.fixture(scope="module")
def loops(compiled):
    """The loops of each kernel, by its mangled name."""
    if machine_code.nvdisasm() is None:
        pytest.skip("no nvdisasm (it is part of the triton wheel)")
    listings = machine_code.disassemble(compiled[0])
    return {
        pattern: machine_code.loops(next(code for name, code in listings.items() if re.search(pattern, name)))
        for pattern in BUDGETS
    }


def test_registers_are_shared_out(compiled):
    """The assembler ignores how where a path through the kernel has more; the pool is a multiprocessor's 65,536."""
    report = compiled[1]
    assert "setmaxnreg" not in report
    assert "serialized" not in report
    kernels = [each for each in parsed(report) if re.search(r"(gram_residual|residual_product)If", each.name)]
    assert len(kernels) == 7
    for kernel in kernels:
        assert kernel.registers * 512 == 65_536, kernel


@pytest.mark.parametrize("pattern", BUDGETS)
def test_main_loops_keep_their_instruction_budgets(pattern, loops):
    multiplying = [loop for loop in loops[pattern] if loop.count(r"HGMMA\.64x128x16")]
    loading = [loop for loop in loops[pattern] if loop.count(r"BAR\.ARV") and loop.wide_bytes == 128]
    assert len(multiplying) == 4  # along the depth or along the order, aligned or not
    assert len(loading) == 2  # along the depth or along the order
    for found, budget in zip((multiplying, loading), BUDGETS[pattern], strict=True):
        for loop in found:
            assert loop.count("LDL|STL") == 0, (loop.head, loop.classes())
            assert len(loop.instructions) <= budget, (loop.head, loop.classes())


@pytest.mark.parametrize("pattern", BUDGETS)
def test_what_is_loaded_is_awaited_one_chunk_later(pattern, loops):
    loading = [loop for loop in loops[pattern] if loop.count(r"BAR\.ARV") and loop.wide_bytes == 128]
    assert len(loading) == 2
    for loop in loading:
        assert loop.awaited_at_once() == [], loop.head


def test_another_architecture_is_refused(toolkit, tmp_path):
    command = [toolkit.nvcc, *FLAGS, "-arch=sm_80", "-cubin", SOURCE, "-o", tmp_path / "x.cubin"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    assert done.returncode != 0
    assert "ORTHO_LOADERS is for sm_90a alone" in done.stderr
