"""The CUDA kernels without a GPU: what the compiler makes of them for every architecture, and the library in torch."""

import os
import re
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import machine_code
import pytest
import torch
from cuda_builds import KERNELS, Kernel, parsed, run

from ortho_kernels import cuda_toolkit, ops
from ortho_kernels.backends import cuda
from ortho_kernels.cuda_toolkit import machine, virtual

SOURCES = sorted(KERNELS.glob("*.cu"))
FEW = ((8, 0), (9, 0))  # of the architectures: assembling takes long, so the others are slow
REGISTERS, SHARED_BYTES = 65_536, 100 * 1024  # of a multiprocessor; of the least of the architectures (8.6, 8.9, 12.0)
RESERVED_BYTES = 1024  # of shared memory, by CUDA, for each block

AGAINST = cuda.library.reason_against
built = pytest.mark.skipif(AGAINST is not None, reason=f"CUDA kernels: {AGAINST}")


@dataclass
class Assembled:
    """All kernels of all sources for one architecture."""

    architecture: tuple[int, int]
    kernels: list[Kernel]
    cubins: list[Path]
    report: str


@pytest.fixture(scope="module")
def portable(toolkit, tmp_path_factory):
    """Every source as PTX, by the name of the form; warnings are errors."""
    folder = tmp_path_factory.mktemp("cuda")

    def compile(form, source):
        target = folder / f"{source.stem}.{form}.ptx"
        run(toolkit.nvcc, *cuda_toolkit.FLAGS, f"-arch={form}", "-Werror=all-warnings", "-ptx", source, "-o", target)
        return target

    forms = {virtual(each) for each in toolkit.supported()}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return {form: list(pool.map(partial(compile, form), SOURCES)) for form in forms}


@pytest.fixture(
    scope="module",
    params=[pytest.param(each, marks=() if each in FEW else pytest.mark.slow) for each in cuda_toolkit.ARCHITECTURES],
    ids=machine,
)
def assembled(request, toolkit, portable):
    """Every source assembled for one of the architectures, on all cores."""
    if request.param not in toolkit.supported():
        pytest.skip("this nvcc doesn't know it")
    name = machine(request.param)
    sources = portable[virtual(request.param)]
    cubins = [source.with_suffix(f".{name}.cubin") for source in sources]

    def assemble(source, cubin):
        assembler = toolkit.root / "bin" / "ptxas"
        return run(assembler, f"-arch={name}", "-O3", "-v", "--warning-as-error", source, "-o", cubin)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        report = "".join(pool.map(assemble, sources, cubins))
    return Assembled(request.param, list(parsed(report)), cubins, report)


@pytest.fixture(scope="module")
def shared_bytes(toolkit, tmp_path_factory):
    """The shared memory that launches ask for, by kernel: constants of the kernels' headers."""
    folder = tmp_path_factory.mktemp("facts")
    source = folder / "facts.cu"
    source.write_text(
        '#include <cstdio>\n#include "residual_planes.cuh"\n#include "tile_product.cuh"\n#include "vector_pass.cuh"\n'
        "using namespace ortho::cuda;\n"
        'int main() { printf("%zu %zu %zu", tile_block_bytes<float>, spread_shared_bytes,'
        " std::max(PassMemory<double, float>::bytes, PassMemory<double, ortho::bfloat16>::bytes)); }\n"
    )
    run(toolkit.nvcc, *cuda_toolkit.FLAGS, f"-arch={machine(cuda_toolkit.OLDEST)}", f"-I{KERNELS}", source,
        "-o", folder / "facts")  # fmt: skip
    of_tiles, of_spreading, of_passes = map(int, run(folder / "facts").split())
    return {"gram_residual|residual_product": of_tiles, "spread_residuals": of_spreading, "": of_passes}


# What kernels may keep of a thread in memory, outside of their main loops: bytes of the stack, bytes stored and loaded.
NO_SPILLS = (0, 0)
SPILLS_EVERYWHERE = {r"residual_productIff": (24, 64)}
SPILLS = {
    (9, 0): {r"gram_residualIfNS_8bfloat|gram_residualIfNS_7float16": (8, 8)},
    (10, 0): {r"power_iterationI[fd]fdE": (8, 8)},
}


def test_warpgroups_multiply_while_threads_go_on(assembled):
    """The assembler awaits each product by itself where it can't follow the sums; that is no warning but a remark."""
    assert "serialized" not in assembled.report


def test_hardly_a_register_is_spilled(assembled):
    """Next to nothing of a thread is kept in memory, and as many blocks as the planner counts on fit a multiprocessor."""
    kernels = (
        "gram_residual",
        "spread_residuals",
        "residual_product",
        "power_iteration",
        "rank_update",
        "draw_vectors",
    )
    assert {re.search("|".join(kernels), kernel.name)[0] for kernel in assembled.kernels} == set(kernels)
    for kernel in assembled.kernels:
        allowed = (SPILLS.get(assembled.architecture, {}) | SPILLS_EVERYWHERE).items()
        stack, spilled = next((most for pattern, most in allowed if re.search(pattern, kernel.name)), NO_SPILLS)
        assert kernel.stack_bytes <= stack, kernel
        assert kernel.spilled_bytes <= spilled, kernel
        threads, blocks = kernel.threads_and_blocks
        assert -(-kernel.registers // 8) * 8 * threads * blocks <= REGISTERS, kernel


def test_blocks_fit_in_shared_memory(assembled, shared_bytes):
    for kernel in assembled.kernels:
        asked = next(size for pattern, size in shared_bytes.items() if re.search(pattern, kernel.name))
        _, blocks = kernel.threads_and_blocks
        assert blocks * (kernel.shared_bytes + asked + RESERVED_BYTES) <= SHARED_BYTES, kernel


@pytest.fixture(scope="module")
def listings(assembled):
    """The machine code of each kernel, by its mangled name."""
    if machine_code.nvdisasm() is None:
        pytest.skip("no nvdisasm (it is part of the triton wheel)")
    return {name: code for cubin in assembled.cubins for name, code in machine_code.disassemble(cubin).items()}


def listing_of(pattern, listings):
    (own,) = (listing for name, listing in listings.items() if re.search(pattern, name))
    return own


# What multiplies, by architecture, and what loads operands. Float32 numbers are split on their way through registers; where
# warpgroups multiply, 16-bit weights take that way too. R comes as it is.
WARPS, WARPGROUPS = r"HMMA\.16816\.F32", r"HGMMA\.64x128x16\.F32"
STRAIGHT, REGISTERS_FIRST = r"LDGSTS\.E\.(\w+\.)*128", r"LDG\.E\.(\w+\.)*128"
PRODUCTS = {
    # mangled name: (format of the terms, what loads, what loads for warpgroups)
    r"gram_residualIffE": ("", {REGISTERS_FIRST}, {REGISTERS_FIRST}),
    r"gram_residualIfNS_8bfloat16E": (r"\.BF16", {STRAIGHT}, {REGISTERS_FIRST}),
    r"gram_residualIfNS_7float16E": ("", {STRAIGHT}, {REGISTERS_FIRST}),
    r"residual_productIffLi2E": ("", {STRAIGHT, REGISTERS_FIRST}, {STRAIGHT, REGISTERS_FIRST}),
    r"residual_productIffLi1E": ("", {STRAIGHT, REGISTERS_FIRST}, {STRAIGHT, REGISTERS_FIRST}),
    r"residual_productIfNS_8bfloat16ELi1E": (r"\.BF16", {STRAIGHT}, {STRAIGHT, REGISTERS_FIRST}),
    r"residual_productIfNS_7float16ELi2E": ("", {STRAIGHT}, {STRAIGHT, REGISTERS_FIRST}),
}


def product_of(architecture):
    return WARPGROUPS if architecture in cuda_toolkit.WITH_OWN else WARPS


@pytest.mark.parametrize("pattern", PRODUCTS)
def test_products_are_the_tensor_cores_and_loads_are_wide(pattern, listings, assembled):
    """Matrix instructions multiply, and operands come 16 bytes at a time. Warpgroups multiply what is in shared memory;
    for warps fragments come four blocks at a time."""
    format, for_warps, for_warpgroups = PRODUCTS[pattern]
    product = product_of(assembled.architecture)
    loop = machine_code.main_loop(listing_of(pattern, listings), product)
    assert loop.count(f"{product}{format}$") == loop.count(product) > 0
    for_either = for_warpgroups if product is WARPGROUPS else for_warps
    assert {load for load in (STRAIGHT, REGISTERS_FIRST) if loop.count(load)} == for_either
    if product is WARPGROUPS:
        assert not loop.count("HMMA|LDSM")
    else:
        assert loop.count(r"LDSM\.16\.MT?88\.4")


# Instructions of a kernel's main loop, at most, by architecture: for each matrix instruction of a warp, or of a warpgroup
# and 128 columns, or for each number of so many bytes that a thread loads. To see the loops:
# python -m tests.native.machine_code --help
BUDGETS = {
    # mangled name: (unit, sm_80, sm_90)
    r"gram_residualIffE": ("product", 6.2, 186),
    r"gram_residualIfNS_8bfloat16E": ("product", 6.1, 145),
    r"residual_productIffLi2E": ("product", 6.2, 142),
    r"residual_productIffLi1E": ("product", 14.5, 263),
    r"residual_productIfNS_8bfloat16ELi1E": ("product", 6.3, 118),
    r"residual_productIfNS_7float16ELi2E": ("product", 4.6, 75),
    r"power_iterationIffdE": (4, 7.9, 8.5),
    r"power_iterationIffNS0_8TwoFloatE": (4, 27, 27),
    r"power_iterationIfNS_8bfloat16EdE": (2, 4.3, 4.3),
    r"rank_updateIffE": (4, 7.2, 7.5),
    r"rank_updateIfNS_8bfloat16E": (2, 7.8, 7.9),
}


def main_loop_of(pattern, listings, architecture):
    unit, *_ = BUDGETS[pattern]
    own = listing_of(pattern, listings)
    if unit == "product":
        return machine_code.main_loop(own, product_of(architecture))
    return machine_code.main_loop(own, "[FD]FMA", loads=True)


@pytest.mark.parametrize("pattern", BUDGETS)
def test_main_loops_keep_their_instruction_budgets(pattern, listings, assembled):
    """What a load or a product costs beside itself: index arithmetic, conversions and branches creep in unseen."""
    unit, *limits = BUDGETS[pattern]
    if assembled.architecture not in FEW:
        pytest.skip("has no budgets")
    limit = limits[FEW.index(assembled.architecture)]
    loop = main_loop_of(pattern, listings, assembled.architecture)
    units = loop.count(product_of(assembled.architecture)) if unit == "product" else loop.loaded_bytes / unit
    assert len(loop.instructions) / units <= limit, (loop.head, loop.classes())


@pytest.mark.parametrize("pattern", BUDGETS)
def test_main_loops_keep_all_numbers_in_registers(pattern, listings, assembled):
    loop = main_loop_of(pattern, listings, assembled.architecture)
    assert loop.count("LDL|STL") == 0, (loop.head, loop.classes())


@built
def test_the_library_is_linked_to_torch_and_needs_no_cuda_library():
    """So that it loads beside every torch, on machines with and without a GPU."""
    if shutil.which("readelf") is None:
        pytest.skip("readelf is not installed (Debian: binutils)")
    needed = set(re.findall(r"NEEDED.*\[(.+)\]", run("readelf", "-d", cuda.library.path)))
    assert "libtorch_cpu.so" in needed
    assert not any(name.startswith(("libcuda", "libcudart", "libtorch_cuda", "libc10", "libpython")) for name in needed)


@built
def test_its_operators_are_registered():
    for name in ops.NAMES:
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"ortho_kernels_cuda::{name}", "CUDA")
        with pytest.raises(NotImplementedError, match="'CPU' backend"):
            torch.ops.ortho_kernels_cuda.soft_orthogonality([torch.eye(3)], [1], [0], 1.0, 1.0, True)
    assert "nvcc" in cuda.CudaBackend().facts()["CUDA library"]


@built
def test_it_loads_by_itself():
    """In a fresh interpreter, in which nothing of CUDA was started."""
    code = (
        "import torch; from ortho_kernels.backends import cuda;"
        "print(cuda.library.reason_against, torch.cuda.is_initialized())"
    )
    assert run(sys.executable, "-c", code).split() == ["None", "False"]
