"""The stages of `gpu_day.py`, in order of value: is it right, how fast is it, and why."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.machinery import PathFinder
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PYTHON = sys.executable
NUMERIC = ("tests/test_soft_orthogonality.py", "tests/test_srip.py", "tests/test_gradients.py", "tests/gpu")
OF_THE_TRAINER = ("tests/trainer/test_trainer_on_gpu.py", "tests/trainer/test_no_waits.py")
SLOW = "not compile and not opcheck and not every_half and not beyond_32_bits"  # what torch compiles takes 10 s a test
WORKERS = min(6, os.cpu_count() or 1)  # processes of tests: each has a context of its own on the card
TO_FINISH = 12  # seconds before its box ends at which a tool that can stop by itself does
TRAINER_NEEDS = ("hydra", "omegaconf", "lightly", "lightning", "torchvision", "timm", "sklearn", "tqdm")
# What the trainer's tests ask for besides; without torchmetrics and faster-coco-eval those of detection are skipped.
TRAINER_TESTS_NEED = (*TRAINER_NEEDS, "pytest", "scipy", "matplotlib", "tensorboard", "numpy", "PIL")
TRAINING = ("data=digits", "trainer=gpu", "trainer.max_steps=200", "trainer.tensorboard=false")
# With CIFAR-10 at hand: the short run that the goals speak of.
CIFAR10 = (
    "experiment=paper/cifar10/simclr_resnet18", "trainer=gpu", "trainer.precision=bf16-mixed", "trainer.max_steps=300",
    "trainer.tensorboard=false",
)  # fmt: skip

Command = Callable[[float], Sequence[str]]  # by the seconds that it has


@dataclass(frozen=True)
class Stage:
    """One question to the card: a command, its time box in seconds, and what has to be there for it."""

    name: str
    seconds: float
    command: Command
    tools: tuple[str, ...] = ()  # on the PATH
    modules: tuple[str, ...] = ()  # that Python can import
    environment: Mapping[str, str] = field(default_factory=dict)
    junit: Path | None = None  # where its tests write what became of them
    needed: Path | None = None  # a folder that an earlier stage filled
    left_out: str | None = None  # why there is nothing to run

    def reason_against(self, path: Sequence[str]) -> str | None:
        """Why it can't start, or None if it can. `path` is where its Python looks for modules."""
        if self.left_out is not None:
            return self.left_out
        if self.needed is not None and not (self.needed.is_dir() and any(self.needed.iterdir())):
            return f"the stage before made nothing in {self.needed.name}/"
        tools = [tool for tool in self.tools if shutil.which(tool) is None]
        if tools:
            return f"{', '.join(tools)}: not on the PATH"
        modules = [name for name in self.modules if PathFinder.find_spec(name, list(path)) is None]
        return f"not installed: {', '.join(modules)}" if modules else None


@dataclass(frozen=True)
class Options:
    """What the stages are made for: where things go, and what was brought along."""

    out: Path
    running: Path  # the file to which the stage that runs adds its findings
    scratch: Path  # a folder for what nobody reads afterwards
    wheels: Path | None = None
    variants: Path | None = None
    training: Sequence[str] = TRAINING


def all_stages(options: Options) -> list[Stage]:
    """All of them. Where a folder was not given, the stage that needs it says so."""
    out, tuned = options.out, {"ORTHO_KERNELS_TUNED": str(options.out / "tuned")}

    def python(module: str, *words: str) -> Command:
        return lambda seconds: [PYTHON, "-m", f"benchmarks.{module}", *words, "--out", str(options.running)]

    def timed(models: Sequence[str], dtypes: Sequence[str], rivals: Sequence[str], seconds: float) -> Command:
        words = ("--model", *models, "--dtype", *dtypes, "--penalty", "so", "srip", "--rivals", *rivals)
        return python("gpu.penalties", *words, "--seconds", str(seconds))

    large, small, dtypes = ("resnet50", "vit_base"), ("resnet18", "vit_small"), ("float32", "bfloat16")
    cuda, triton = ("cuda", "cuda-graph"), ("triton", "triton-graph")
    graphs = (cuda[1], triton[1], "products-graph", "bucketed-graph", "grouped-graph", "graph")
    eager = (cuda[0], triton[0], "products", "bucketed", "grouped", "eager", "published", "quack")
    return [
        *_provisions(options),
        Stage("ceilings", 30, python("gpu.ceilings")),
        Stage("doctor", 60, lambda seconds: [PYTHON, "-m", "ortho_kernels.doctor", "--gpu"]),
        _tests("smoke", 75, out / "smoke.xml", "gpu and smoke", "cuda-gpu or triton-gpu"),
        Stage("rivals", 95, timed(large, dtypes, graphs, 10)),
        Stage("host", 25, python("host_time", "--device", "cuda")),
        *(_sanitized(tool) for tool in ("memcheck", "racecheck")),
        Stage("training", 120, python("gpu.training", *options.training), modules=TRAINER_NEEDS),
        _tests("trainer", 60, out / "trainer.xml", "gpu", files=OF_THE_TRAINER, modules=TRAINER_TESTS_NEED),
        _tests("cuda tests", 75, out / "cuda.xml", "gpu", f"cuda-gpu and {SLOW}"),
        *(_counters(backend, python, out / "ncu.csv") for backend in ("cuda", "triton")),
        Stage("eager", 75, timed(large, dtypes, eager, 8)),
        _tests("triton tests", 75, out / "triton.xml", "gpu", f"triton-gpu and {SLOW}"),
        *_variants(options, python, timed(large, dtypes, cuda[1:], 6)),
        Stage("kernels small", 45, timed(small, dtypes, (*cuda, *triton), 5)),
        Stage("tuning", 60, _tuning, environment=tuned),
        Stage("tuned", 45, timed(large, dtypes, triton, 5), environment=tuned, needed=out / "tuned"),
    ]


def _provisions(options: Options) -> list[Stage]:
    """What has to be made before the first question: brought packages, and the library where there is none."""
    made = []
    if options.wheels is not None:
        wheels = sorted(map(str, options.wheels.glob("*.whl")))
        words = ["--no-index", "--no-deps", "--no-compile", "--no-cache-dir", "--upgrade", "--target"]
        command = [PYTHON, "-m", "pip", "install", "-q", *words, str(options.scratch / "site"), *wheels]
        left_out = None if wheels else f"there are no wheels in {options.wheels}"
        made.append(Stage("wheels", 60, lambda seconds: command, left_out=left_out))
    if not (ROOT / "ortho_kernels" / "_cuda.abi3.so").exists():
        build = [PYTHON, "setup.py", "-q", "build_ext", "--inplace"]
        made.append(Stage("build", 240, lambda seconds: build, tools=("nvcc",)))
    return made


def _tests(
    name: str,
    box: float,
    junit: Path,
    marks: str,
    names: str | None = None,
    files: Sequence[str] = NUMERIC,
    modules: tuple[str, ...] = ("pytest", "hypothesis"),
) -> Stage:
    """Tests with these marks and of these names, by several processes where pytest-xdist is there."""

    def command(seconds: float) -> list[str]:
        words = [PYTHON, "-m", "pytest", "-v", "--tb=short", "-p", "no:cacheprovider", f"--junitxml={junit}"]
        words += ["-m", marks, "--maxfail=40"]
        if names is not None:
            words += ["-k", names]
        several = _newer("pytest-xdist", (2,))
        if several:
            words += ["-n", str(WORKERS)]
        if _newer("pytest-timeout", (2,)):
            # A process that waits for a hung kernel hears no signal: it has to go, and another one takes its place.
            words += ["--timeout=60", *["--timeout-method=thread"] * several]
        if _newer("pytest-timeout", (2, 3)):
            words += [f"--session-timeout={max(5, seconds - TO_FINISH):.0f}"]
        return [*words, *files]

    return Stage(name, box, command, modules=modules, junit=junit)


def _newer(package: str, least: tuple[int, ...]) -> bool:
    """Whether a package is there, and of this version at least."""
    try:
        found = version(package).split(".")
    except PackageNotFoundError:
        return False
    return tuple(int(part) for part in found[: len(least)] if part.isdigit()) >= least


def _counters(backend: str, python: Callable[..., Command], table: Path) -> Stage:
    words = ("gpu.counters", "--backend", backend, "--table", str(table))
    return Stage(f"ncu {backend}", 60, python(*words), tools=("ncu",))


def _sanitized(tool: str) -> Stage:
    """compute-sanitizer over every kernel of the CUDA library, each tensor in an allocation of its own."""
    words = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "1", "--kernel-name", "kns=ortho"]
    command = [*words, PYTHON, "-m", "benchmarks.gpu.workload", "shapes", "--backend", "cuda"]
    environment = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    return Stage(tool, 70, lambda seconds: command, tools=("compute-sanitizer",), environment=environment)


def _variants(options: Options, python: Callable[..., Command], timed: Command) -> list[Stage]:
    """Other builds of the CUDA library: whether each is right, how fast it is, and why."""
    libraries = sorted(options.variants.glob("*.so")) if options.variants is not None else []
    if not libraries:
        there = "no folder of other builds was given" if options.variants is None else f"no *.so in {options.variants}"
        return [Stage("variant", 0, timed, left_out=f"{there} (--variants FOLDER)")]
    stages = []
    for path in libraries:
        name, out = f"variant {path.stem}", f"{options.out}/variant_{path.stem}"
        smoke = _tests(f"{name} smoke", 60, Path(f"{out}.xml"), "gpu and smoke", "cuda-gpu")
        counters = replace(_counters("cuda", python, Path(f"{out}.csv")), name=f"{name} ncu")
        own = {"ORTHO_KERNELS_CUDA_LIBRARY": str(path.resolve())}
        stages += [replace(each, environment=own) for each in (smoke, Stage(name, 35, timed), counters)]
    return stages


def _tuning(seconds: float) -> list[str]:
    return [PYTHON, "-m", "ortho_kernels.tune", "--seconds", f"{max(5, seconds - TO_FINISH):.0f}"]
