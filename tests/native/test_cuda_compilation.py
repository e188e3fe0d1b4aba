"""The CUDA kernels without a GPU: what the compiler makes of them for every architecture, and the library in torch."""

import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from ortho_kernels import cuda_toolkit, ops
from ortho_kernels.backends import cuda
from ortho_kernels.cuda_toolkit import machine

KERNELS = Path(__file__).parents[2] / "csrc" / "ortho" / "cuda"
SOURCES = sorted(KERNELS.glob("*.cu"))
FEW = ((8, 0), (9, 0))  # of the architectures: assembling takes long, so the others are slow
REGISTERS, SHARED_BYTES = 65_536, 100 * 1024  # of a multiprocessor; of the least of the architectures (8.6, 8.9, 12.0)
RESERVED_BYTES = 1024  # of shared memory, by CUDA, for each block

AGAINST = cuda.library.reason_against
built = pytest.mark.skipif(AGAINST is not None, reason=f"CUDA kernels: {AGAINST}")


@dataclass
class Kernel:
    """What the assembler says of one kernel on one architecture."""

    name: str
    registers: int
    shared_bytes: int
    stack_bytes: int
    spilled_bytes: int

    @property
    def threads_and_blocks(self):
        planner = pytest.importorskip("ortho_kernels._introspect").cuda
        if re.search(r"gram_residual|residual_product", self.name):
            return planner.tile_threads, planner.tile_blocks
        return planner.pass_threads, planner.pass_blocks


@dataclass
class Assembled:
    """All kernels of all sources for one architecture."""

    kernels: list[Kernel]
    cubins: list[Path]


def run(*command):
    done = subprocess.run([*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout[-6000:]
    return done.stdout


def parsed(report):
    pattern = (
        r"Compiling entry function '(\w+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads"
        r".*?Used (\d+) registers([^\n]*)"
    )
    for name, stack, stores, loads, registers, rest in re.findall(pattern, report, re.DOTALL):
        shared = re.search(r"(\d+) bytes smem", rest)
        yield Kernel(name, int(registers), int(shared[1]) if shared else 0, int(stack), int(stores) + int(loads))


@pytest.fixture(scope="module")
def toolkit():
    try:
        toolkit = cuda_toolkit.find_toolkit()
        toolkit.supported()
    except cuda_toolkit.ToolkitError as error:
        pytest.skip(str(error))
    return toolkit


@pytest.fixture(scope="module")
def portable(toolkit, tmp_path_factory):
    """Every source as PTX; warnings are errors."""
    folder = tmp_path_factory.mktemp("cuda")

    def compile(source):
        target = folder / f"{source.stem}.ptx"
        arch = f"-arch={cuda_toolkit.VIRTUAL}"
        run(toolkit.nvcc, *cuda_toolkit.FLAGS, arch, "-Werror=all-warnings", "-ptx", source, "-o", target)
        return target

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(compile, SOURCES))


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
    cubins = [source.with_suffix(f".{name}.cubin") for source in portable]

    def assemble(source, cubin):
        assembler = toolkit.root / "bin" / "ptxas"
        return run(assembler, f"-arch={name}", "-O3", "-v", "--warning-as-error", source, "-o", cubin)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        reports = pool.map(assemble, portable, cubins)
        return Assembled([kernel for report in reports for kernel in parsed(report)], cubins)


@pytest.fixture(scope="module")
def shared_bytes(toolkit, tmp_path_factory):
    """The most shared memory that launches ask for, of tiles and of passes: constants of the kernels' headers."""
    folder = tmp_path_factory.mktemp("facts")
    source = folder / "facts.cu"
    source.write_text(
        '#include <cstdio>\n#include "tile_product.cuh"\n#include "vector_pass.cuh"\nusing namespace ortho::cuda;\n'
        'int main() { printf("%zu %zu", tile_shared_bytes,'
        " std::max(PassMemory<double, float>::bytes, PassMemory<double, ortho::bfloat16>::bytes)); }\n"
    )
    run(toolkit.nvcc, *cuda_toolkit.FLAGS, f"-arch={machine(cuda_toolkit.OLDEST)}", f"-I{KERNELS}", source,
        "-o", folder / "facts")  # fmt: skip
    return tuple(map(int, run(folder / "facts").split()))


def test_no_register_is_spilled(assembled):
    """Nothing of a thread is kept in memory, and as many blocks as the planner counts on fit a multiprocessor."""
    kernels = ("gram_residual", "residual_product", "power_iteration", "rank_update")
    assert {re.search("|".join(kernels), kernel.name)[0] for kernel in assembled.kernels} == set(kernels)
    for kernel in assembled.kernels:
        assert (kernel.stack_bytes, kernel.spilled_bytes) == (0, 0), kernel
        threads, blocks = kernel.threads_and_blocks
        assert -(-kernel.registers // 8) * 8 * threads * blocks <= REGISTERS, kernel


def test_blocks_fit_in_shared_memory(assembled, shared_bytes):
    for kernel in assembled.kernels:
        of_tiles, of_passes = shared_bytes
        asked = of_tiles if re.search(r"gram_residual|residual_product", kernel.name) else of_passes
        _, blocks = kernel.threads_and_blocks
        assert kernel.shared_bytes + asked <= 48 * 1024, kernel  # more would have to be asked for
        assert blocks * (kernel.shared_bytes + asked + RESERVED_BYTES) <= SHARED_BYTES, kernel


def disassembler():
    """NVIDIA's own, of the toolkit or of the triton wheel."""
    try:
        import triton
    except ImportError:
        own = None
    else:
        own = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "nvdisasm"
    found = shutil.which("nvdisasm") or (own and own.exists() and str(own))
    if not found:
        pytest.skip("no nvdisasm (it is part of the triton wheel)")
    return found


# What the products of a kernel's numbers are made of: the mangled template arguments, and the instruction.
INSTRUCTIONS = {
    r"gram_residualIffE": r"HMMA\.16816\.F32\.BF16",
    r"gram_residualIfNS_8bfloat16E": r"HMMA\.16816\.F32\.BF16",
    r"gram_residualIfNS_7float16E": r"HMMA\.16816\.F32",
    r"residual_productIffNS0_13SplitBfloat16ILi3ELi3EE": r"HMMA\.16816\.F32\.BF16",
    r"residual_productIffNS0_4Tf32E": r"HMMA\.1688\.F32\.TF32",
}


def test_products_are_the_tensor_cores_and_copies_are_wide(assembled):
    """Matrix instructions multiply, and operands come into shared memory 16 bytes at a time, past the registers."""
    (cubin,) = (cubin for cubin in assembled.cubins if cubin.stem.startswith("soft_orthogonality"))
    code = {}
    for section in run(disassembler(), "-c", cubin).split("\n\t.section\t.text.")[1:]:
        code[section.partition(",")[0]] = section
    for pattern, instruction in INSTRUCTIONS.items():
        (own,) = (text for name, text in code.items() if re.search(pattern, name))
        assert re.search(instruction, own), pattern
        assert re.search(r"LDGSTS\.E\.(\w+\.)*128", own), pattern


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
