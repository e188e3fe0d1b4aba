"""Builds the native libraries, nothing else (metadata is in pyproject.toml).

    ortho_kernels/_C.abi3.so      the operators; one library for every torch >= 2.10 and every Python
    ortho_kernels/_introspect.*   build facts, CPU levels and the planners, for `doctor` and for tests
    ortho_kernels/_cuda.abi3.so   the operators on NVIDIA GPUs; loads on machines without one

Libraries that can't be built, or that ORTHO_KERNELS_NO_NATIVE=1 or ORTHO_KERNELS_NO_CUDA=1 turn off, are left out. The rest
is installed, and `ortho_kernels/_build_log.txt` or `_cuda_build_log.txt` keeps the reason for `doctor`.

The GPU's are compiled where nvcc and a CUDA build of torch are at hand: for the GPUs of this machine; where it has none, for
sm_80 with PTX, from which every newer GPU's driver makes its own at first use; with FORCE_CUDA=1 (also beside another torch)
for all that nvcc knows; with TORCH_CUDA_ARCH_LIST for those listed.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
SOURCES = ROOT / "csrc"
PACKAGE = "ortho_kernels"
OPERATORS = "_C.abi3.so"
INTROSPECTION = f"_introspect{sysconfig.get_config_var('EXT_SUFFIX')}"
CUDA_OPERATORS = "_cuda.abi3.so"
BUILD_LOG, CUDA_BUILD_LOG = "_build_log.txt", "_cuda_build_log.txt"

# The oldest torch whose stable ABI the library needs, as the header macro wants it and as people say it.
TORCH_TARGET, TORCH_TARGET_NAME = "0x020a000000000000", "2.10"

COMMON_FLAGS = ["-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wno-psabi"]
STABLE_ABI_FLAGS = [f"-DTORCH_TARGET_VERSION={TORCH_TARGET}", "-DTORCH_STABLE_ONLY", "-DPy_LIMITED_API=0x030a0000"]
# csrc/ortho/cpu/kernels.cpp is compiled once for each level; the right one is chosen at run time.
LEVEL_SOURCE = "ortho/cpu/kernels.cpp"
LEVEL_FLAGS = ["-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-fno-exceptions"]
AVX2 = ["-mavx2", "-mfma", "-mf16c"]
AVX512 = [*AVX2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mprefer-vector-width=512"]
LEVELS = {"baseline": []}
# What only one level has is compiled apart.
BFLOAT_SOURCE, BFLOAT_LEVEL = "ortho/cpu/bfloat_kernels.cpp", "avx512_bf16"
IS_X86 = platform.machine() in ("x86_64", "AMD64")
if IS_X86:
    LEVELS |= {"avx2": AVX2, "avx512": AVX512}

KERNEL_SOURCES = [
    "ortho/cpu/convolution.cpp",
    "ortho/cpu/cross_gram.cpp",
    "ortho/cpu/dispatch.cpp",
    "ortho/cpu/level.cpp",
    "ortho/cpu/parallel.cpp",
    "ortho/cpu/residual_norm.cpp",
    "ortho/cpu/residuals.cpp",
    "ortho/cpu/scaled_lines.cpp",
    "ortho/cpu/soft_orthogonality.cpp",
    "ortho/cpu/srip.cpp",
    "ortho/cpu/tile_plan.cpp",
]
OPERATOR_SOURCES = ["torch/convolution.cpp", "torch/cpu.cpp", "torch/weight_views.cpp"]
INTROSPECTION_SOURCES = [
    "introspect.cpp",
    "introspect_cuda.cpp",
    "ortho/cpu/level.cpp",
    "ortho/cpu/tile_plan.cpp",
    "ortho/cuda/launch_plan.cpp",
]
CUDA_SOURCES = sorted(
    path.relative_to(SOURCES).as_posix() for path in SOURCES.glob("ortho/cuda/*") if path.suffix in (".cu", ".cpp")
)
CUDA_OPERATOR_SOURCES = ["torch/cuda.cpp", "torch/weight_views.cpp"]


class NotBuilt(Exception):
    """A library can't be had; the message says why."""


def load_cuda_toolkit() -> ModuleType:
    """ortho_kernels/cuda_toolkit.py, without the package around it, which can't be imported yet."""
    path = ROOT / PACKAGE / "cuda_toolkit.py"
    spec = importlib.util.spec_from_file_location("cuda_toolkit", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


cuda_toolkit = load_cuda_toolkit()


def is_set(variable: str) -> bool:
    return os.environ.get(variable, "0") not in ("", "0")


def find_compiler() -> list[str]:
    for candidate in (os.environ.get("CXX"), "g++", "clang++", "c++"):
        if candidate and shutil.which(shlex.split(candidate)[0]):
            return shlex.split(candidate)
    raise NotBuilt("no C++ compiler was found (looked for $CXX, g++, clang++, c++)")


def find_ninja() -> list[str]:
    if shutil.which("ninja"):
        return ["ninja"]
    try:
        import ninja  # noqa: F401
    except ImportError:
        raise NotBuilt("ninja was not found (pip install ninja)") from None
    return [sys.executable, "-m", "ninja"]


def find_torch() -> tuple[str, Path]:
    try:
        import torch
    except Exception as error:
        raise NotBuilt(
            f"torch can't be imported ({error}); install it first and build with --no-build-isolation"
        ) from None
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if version < tuple(int(part) for part in TORCH_TARGET_NAME.split(".")):
        raise NotBuilt(f"torch {torch.__version__} is older than {TORCH_TARGET_NAME}")
    return torch.__version__, Path(torch.__file__).resolve().parent


def find_introspection_headers() -> list[str] | None:
    """Include flags, or None: the operators need neither Python's headers nor pybind11, so they are built all the same."""
    python = Path(sysconfig.get_path("include"))
    try:
        import pybind11
    except ImportError:
        missing = "pybind11 (pip install pybind11)"
    else:
        if (python / "Python.h").exists():
            return ["-isystem", pybind11.get_include(), "-isystem", str(python)]
        missing = f"{python / 'Python.h'} (on Debian the package python3-dev)"
    print(f"ortho_kernels: built without introspection, which needs {missing}: doctor shows less", file=sys.stderr)
    return None


def object_name(source: str, prefix: str = "") -> str:
    return prefix + Path(source).with_suffix("").as_posix().replace("/", "_")


def write_if_changed(path: Path, text: str) -> None:
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


class NinjaFile:
    """Compile and link steps, each with flags of its own, written as one build.ninja."""

    def __init__(self, compiler: list[str], directory: Path, nvcc: list[str] | None = None) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.lines = [
            "ninja_required_version = 1.5",
            f"cxx = {shlex.join(compiler)}",
            "rule compile",
            "  command = $cxx -MMD -MF $out.d $flags -c $in -o $out",
            "  depfile = $out.d",
            "  deps = gcc",
            "  description = compile $out",
            "rule link",
            "  command = $cxx -shared -o $out $in $flags",
            "  description = link $out",
        ]
        if nvcc:
            self.lines += [
                f"nvcc = {shlex.join(nvcc)}",
                "rule compile_cuda",
                "  command = $nvcc -MMD -MF $out.d $flags -c $in -o $out",
                "  depfile = $out.d",
                "  deps = gcc",
                "  description = compile $out",
            ]

    def compile(self, source: str, name: str, flags: list[str]) -> str:
        target = f"{name}.o"
        self._step("compile_cuda" if source.endswith(".cu") else "compile", target, [str(SOURCES / source)], flags)
        return target

    def link(self, target: str, objects: list[str], flags: list[str]) -> None:
        self._step("link", target, objects, flags)

    def run(self, ninja: list[str], log: str) -> None:
        write_if_changed(self.directory / "build.ninja", "\n".join(self.lines) + "\n")
        done = subprocess.run(
            [*ninja, "-C", str(self.directory)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        print(done.stdout)
        if done.returncode != 0:
            raise NotBuilt(f"the compiler failed; what it said is in {PACKAGE}/{log}\n{done.stdout[-8000:]}")

    def _step(self, rule: str, target: str, inputs: list[str], flags: list[str]) -> None:
        def escaped(path: str) -> str:
            return path.replace("$", "$$").replace(" ", "$ ").replace(":", "$:")

        self.lines.append(f"build {escaped(target)}: {rule} {' '.join(map(escaped, inputs))}")
        self.lines.append(f"  flags = {shlex.join(flags).replace('$', '$$')}")


def check_wanted(*variables: str) -> None:
    for variable in variables:
        if is_set(variable):
            raise NotBuilt(f"{variable} was set")
    if sys.platform != "linux":
        raise NotBuilt(f"the build is written for Linux, this is {sys.platform}")


def build_native(directory: Path) -> list[str]:
    """Leaves the CPU's libraries in `directory` and returns their names, or raises NotBuilt."""
    check_wanted("ORTHO_KERNELS_NO_NATIVE")
    compiler, ninja = find_compiler(), find_ninja()
    torch_version, torch = find_torch()

    file = NinjaFile(compiler, directory)
    write_facts(directory / "build_facts.h", compiler, torch_version)
    torch_headers = ["-isystem", str(torch / "include")]

    # What takes longest to compile comes first.
    operators = []
    for level, flags in reversed(LEVELS.items()):
        own = [*COMMON_FLAGS, *LEVEL_FLAGS, *flags, f"-DORTHO_LEVEL={level}"]
        operators.append(file.compile(LEVEL_SOURCE, f"cpu_kernels_{level}", own))
    if IS_X86:
        own = [*COMMON_FLAGS, *LEVEL_FLAGS, *AVX512, "-mavx512bf16", f"-DORTHO_LEVEL={BFLOAT_LEVEL}"]
        operators.append(file.compile(BFLOAT_SOURCE, "bfloat_kernels", own))
    for source in OPERATOR_SOURCES:
        own = [*COMMON_FLAGS, *STABLE_ABI_FLAGS, *torch_headers]
        operators.append(file.compile(source, f"torch_{Path(source).stem}", own))
    operators += [file.compile(source, Path(source).stem, COMMON_FLAGS) for source in KERNEL_SOURCES]
    file.link(OPERATORS, operators, ["-s", "-Wl,--no-undefined", f"-L{torch / 'lib'}", "-ltorch_cpu"])

    built = [OPERATORS]
    if headers := find_introspection_headers():
        own = [*COMMON_FLAGS, f"-I{directory}", *headers]
        objects = [file.compile(source, object_name(source, "introspect_"), own) for source in INTROSPECTION_SOURCES]
        file.link(INTROSPECTION, objects, ["-s"])
        built.append(INTROSPECTION)
    file.run(ninja, BUILD_LOG)
    return built


def build_cuda(directory: Path) -> list[str]:
    """Leaves the GPU's library in `directory` and returns its name, or raises NotBuilt."""
    check_wanted("ORTHO_KERNELS_NO_NATIVE", "ORTHO_KERNELS_NO_CUDA")
    compiler, ninja = find_compiler(), find_ninja()
    _, torch = find_torch()
    try:
        check_torch_has_cuda()
        toolkit = cuda_toolkit.find_toolkit()
        check_release(toolkit)
        targets = choose_targets(toolkit)
        runtime = toolkit.static_runtime
    except cuda_toolkit.ToolkitError as error:
        raise NotBuilt(str(error)) from None

    file = NinjaFile(compiler, directory, [str(toolkit.nvcc), f"-ccbin={shlex.join(compiler)}"])
    device_flags = [*cuda_toolkit.FLAGS, *targets.flags()]
    objects = [
        file.compile(source, object_name(source), device_flags if source.endswith(".cu") else COMMON_FLAGS)
        for source in CUDA_SOURCES
    ]
    facts = f"nvcc {'.'.join(map(str, toolkit.release))} for {targets}"
    for source in CUDA_OPERATOR_SOURCES:
        own = [*COMMON_FLAGS, *STABLE_ABI_FLAGS, f'-DORTHO_CUDA_FACTS="{facts}"']
        own += ["-isystem", str(torch / "include"), "-isystem", str(toolkit.root / "include")]
        objects.append(file.compile(source, object_name(source), own))
    # A runtime of its own, so that one library serves every torch.
    libraries = [f"-L{torch / 'lib'}", "-ltorch_cpu", f"-L{runtime}", "-lcudart_static", "-lpthread", "-ldl", "-lrt"]
    file.link(CUDA_OPERATORS, objects, ["-s", "-Wl,--no-undefined", "-Wl,--exclude-libs,ALL", *libraries])
    file.run(ninja, CUDA_BUILD_LOG)
    return [CUDA_OPERATORS]


def cuda_is_forced() -> bool:
    return is_set("FORCE_CUDA") or is_set("TORCH_CUDA_ARCH_LIST")


def check_torch_has_cuda() -> None:
    import torch

    if torch.version.cuda is None and not cuda_is_forced():
        kind = "for ROCm" if torch.version.hip else "without CUDA"
        raise NotBuilt(f"torch {torch.__version__} is built {kind} (FORCE_CUDA=1 builds the kernels all the same)")


def check_release(toolkit) -> None:
    """A runtime of a newer CUDA generation than torch's would need a newer driver than torch does."""
    import torch

    if torch.version.cuda and int(torch.version.cuda.split(".")[0]) < toolkit.release[0] and not cuda_is_forced():
        raise NotBuilt(
            f"{toolkit.nvcc} is of CUDA {toolkit.release[0]}, torch {torch.__version__} of CUDA {torch.version.cuda}: point "
            "CUDA_HOME to a toolkit of torch's generation, or set FORCE_CUDA=1 if the GPU's driver is new enough"
        )


def choose_targets(toolkit):
    """See the head of this file."""
    import torch

    supported = toolkit.supported()
    if listed := os.environ.get("TORCH_CUDA_ARCH_LIST"):
        return cuda_toolkit.listed_targets(listed, supported)
    if is_set("FORCE_CUDA"):
        return cuda_toolkit.Targets(supported)
    if torch.cuda.is_available():
        devices = range(torch.cuda.device_count())
        return cuda_toolkit.device_targets([torch.cuda.get_device_capability(i) for i in devices], supported)
    return cuda_toolkit.Targets((cuda_toolkit.OLDEST,))


def write_facts(path: Path, compiler: list[str], torch_version: str) -> None:
    version = subprocess.run([*compiler, "--version"], capture_output=True, text=True).stdout.partition("\n")[0]
    facts = {
        "COMPILER": version.strip() or shlex.join(compiler),
        "FLAGS": shlex.join(COMMON_FLAGS),
        "TORCH_VERSION": torch_version,
        "TORCH_TARGET": TORCH_TARGET_NAME,
    }
    quoted = {name: value.replace("\\", "\\\\").replace('"', '\\"') for name, value in facts.items()}
    write_if_changed(path, "".join(f'#define ORTHO_{name} "{value}"\n' for name, value in quoted.items()))


@dataclass(frozen=True)
class Part:
    """Libraries that are built together, or left out for one reason."""

    title: str
    libraries: tuple[str, ...]
    log: str
    build: Callable[[Path], list[str]]
    otherwise: str


PARTS = (
    Part("native CPU kernels", (OPERATORS, INTROSPECTION), BUILD_LOG, build_native, "the slower torch backend serves"),
    Part("CUDA kernels", (CUDA_OPERATORS,), CUDA_BUILD_LOG, build_cuda, "GPUs are served by other backends"),
)


class BuildNative(build_ext):
    """Libraries are put in place only after every step of their part succeeded; what is not built now is removed."""

    def run(self) -> None:
        place = self._place()
        place.mkdir(parents=True, exist_ok=True)
        for part in PARTS:
            self._build(part, Path(self.build_temp).resolve() / Path(part.libraries[0]).name.partition(".")[0], place)

    def _build(self, part: Part, directory: Path, place: Path) -> None:
        (place / part.log).unlink(missing_ok=True)
        built: list[str] = []
        try:
            built = part.build(directory)
        except NotBuilt as reason:
            (place / part.log).write_text(f"{reason}\n")
            print(
                f"\northo_kernels: the {part.title} are not built: {reason.args[0].splitlines()[0]}\n"
                f"ortho_kernels: everything works without them; {part.otherwise}.\n",
                file=sys.stderr,
            )
        for name in part.libraries:
            if name in built:
                shutil.copy2(directory / name, place / f"{name}.new")
                os.replace(place / f"{name}.new", place / name)
            else:
                (place / name).unlink(missing_ok=True)

    def _place(self) -> Path:
        return ROOT / PACKAGE if self.inplace else Path(self.build_lib).resolve() / PACKAGE

    def get_outputs(self) -> list[str]:
        files = (self._place() / name for part in PARTS for name in (*part.libraries, part.log))
        return [str(file) for file in files if file.exists()]

    def get_output_mapping(self) -> dict[str, str]:
        return {}


setup(
    ext_modules=[Extension(f"{PACKAGE}.{name}", []) for name in ("_C", "_introspect", "_cuda")],
    cmdclass={"build_ext": BuildNative},
)
