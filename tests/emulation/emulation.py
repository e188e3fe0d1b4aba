"""Builds the CUDA kernels for the emulator, and calls their launchers on CPU tensors."""

import ctypes
import os
import platform
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import forms
import torch
from forms import FORMS

HERE = Path(__file__).resolve().parent
KERNELS = HERE.parents[1] / "csrc" / "ortho" / "cuda"
RUNTIME = (HERE / "emulator.cpp", HERE / "fiber.cpp", HERE / "arithmetic.cpp")
SOURCES = (
    KERNELS / "soft_orthogonality.cu",
    KERNELS / "srip.cu",
    KERNELS / "start_vectors.cu",
    KERNELS / "launch_plan.cpp",
    HERE / "bindings.cpp",
    *RUNTIME,
)
FLAGS = ("-std=c++17", "-O1", "-fPIC", "-Wall", "-Wextra", "-Werror", "-DORTHO_EMULATED", f"-I{HERE}")
SANITIZERS = ("-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")

SCHEDULES = ("forward", "reverse", "random", "first warp first", "last warp first")
STORAGES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def compiler():
    return next((c for c in ("g++", "clang++", "c++") if shutil.which(c)), None)


def reason_against():
    """Why the emulator can't be built here, or None."""
    if compiler() is None:
        return "no C++ compiler"
    if platform.machine() not in ("x86_64", "AMD64"):
        return "the emulator switches between threads by x86-64 instructions"
    return None


def runtime_of_sanitizer(name):
    """The library that must be in a process before anything else is: Python itself has none."""
    command = [compiler(), f"-print-file-name=lib{name}.so"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def build(directory, sources=SOURCES, flags=(), kernel_flags=()):
    """A library of these sources, compiled on all cores; `kernel_flags` are for all but the emulator itself."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(lambda source: _compiled(directory, source, flags, kernel_flags), sources))
    return _linked(Path(directory) / "emulated.so", objects, flags)


def build_forms(directory, sources=SOURCES, flags=(), kernel_flags=()):
    """The same, a library for each form, by its name."""
    differing = [source for source in sources if source.name in forms.SOURCES]
    jobs = [(directory / form, source, (*flags, *own)) for form, own in FORMS.items() for source in differing]
    jobs += [(directory, source, flags) for source in sources if source not in differing]
    for form in FORMS:
        (directory / form).mkdir()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(lambda job: _compiled(*job, kernel_flags), jobs))

    def of(form):
        own = [each for each in objects if each.parent in (directory, directory / form)]
        return _linked(directory / form / "emulated.so", own, flags)

    return {form: of(form) for form in FORMS}


def _compiled(directory, source, flags, kernel_flags):
    target = Path(directory) / f"{source.stem}.o"
    own = () if source in RUNTIME else kernel_flags
    command = [compiler(), *FLAGS, *flags, *own, "-x", "c++", "-c", source, "-o", target]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr[-4000:])
    return target


def _linked(library, objects, flags):
    subprocess.run([compiler(), "-shared", *flags, *map(str, objects), "-o", str(library)], check=True)
    return library


class _Matrix(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("storage", ctypes.c_uint8),
        ("order", ctypes.c_int64),
        ("depth", ctypes.c_int64),
        ("order_stride", ctypes.c_int64),
        ("depth_stride", ctypes.c_int64),
    )


class _Gradient(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("order_stride", ctypes.c_int64),
        ("depth_stride", ctypes.c_int64),
        ("accumulate", ctypes.c_bool),
    )


class _Digit(ctypes.Structure):
    _fields_ = (("size", ctypes.c_int32), ("step", ctypes.c_int32))


class _Permutation(ctypes.Structure):
    _fields_ = (("digits", _Digit * 4), ("count", ctypes.c_int32))


class _Request(ctypes.Structure):
    _fields_ = (
        ("matrices", ctypes.POINTER(_Matrix)),
        ("gradients", ctypes.POINTER(_Gradient)),
        ("permutations", ctypes.POINTER(_Permutation)),
        ("count", ctypes.c_int64),
        ("multiprocessors", ctypes.c_int32),
        ("cooperative", ctypes.c_int32),
        ("fast_double", ctypes.c_int32),
        ("fp64", ctypes.c_int32),
    )


class Emulator:
    """The launchers. A matrix is a tensor `(order, depth)` with any strides; results are those of `ops.py`, packed.

    `multiprocessors` is the size of the GPU: it decides how the depth is cut into parts. `fast_double`: whether SRIP is
    computed in double, or in two floats.
    """

    def __init__(self, library):
        self.library = ctypes.CDLL(str(library))
        for name in ("", "_backward"):
            getattr(self.library, f"emulated_soft_orthogonality{name}").restype = ctypes.c_char_p
            getattr(self.library, f"emulated_srip{name}").restype = ctypes.c_char_p
        self.library.emulated_start_vectors.restype = ctypes.c_char_p
        self.library.emulator_launches.restype = ctypes.c_char_p
        for structure in (_Matrix, _Gradient, _Permutation, _Request):
            size = getattr(self.library, f"emulator_size_of{structure.__name__}")()
            if size != ctypes.sizeof(structure):
                raise TypeError(f"{structure.__name__} has {size} bytes in C++, {ctypes.sizeof(structure)} here")
        self.multiprocessors, self.cooperative, self.fast_double = 2, True, True
        self.run_as()

    def run_as(self, schedule="forward", copies_arrive_late=False, resident_blocks=2, seed=1, truncating=True):
        """`truncating`: how tensor cores add, as NVIDIA's do or exactly."""
        index = SCHEDULES.index(schedule)
        seed = ctypes.c_int64(seed)
        self.library.emulator_set(index, int(copies_arrive_late), resident_blocks, seed, int(truncating))

    def in_all_ways(self):
        """Sets one schedule after the other, with copies that arrive at once and late."""
        yield from self.in_ways(product(SCHEDULES, (False, True)))

    def in_ways(self, ways, resident_blocks=None):
        """Sets each of these schedules, and whether copies arrive late. As many blocks run at the same time, or as many as
        the schedule is to be seen with."""
        for schedule, late in ways:
            self.run_as(schedule, late, resident_blocks or 1 + SCHEDULES.index(schedule) % 3, seed=1 + late)
            yield schedule, late
        self.run_as()

    def launches(self):
        """The names of the kernels launched since the last call of this."""
        return self.library.emulator_launches().decode().split()

    def working_blocks(self):
        """Of the last launch, whose blocks take items from a counter: how many got some."""
        return self.library.emulator_working_blocks()

    def soft_orthogonality(self, matrices, diagonal=1.0, off_diagonal=1.0, keep=True):
        request, C = self._request(matrices)
        values = torch.full((len(matrices),), torch.nan, dtype=C)
        size = sum(len(m) * (len(m) + 1) // 2 for m in matrices) if keep else 0
        residuals = torch.full((size,), torch.nan, dtype=C)
        weights = ctypes.c_double(diagonal), ctypes.c_double(off_diagonal)
        self._call("soft_orthogonality", request, *weights, values, residuals if keep else None)
        return values, residuals

    def soft_orthogonality_backward(self, factors, matrices, residuals, precision=0, gradients=None, accumulate=False):
        gradients = _like(matrices) if gradients is None else gradients
        request, _ = self._request(matrices, gradients, accumulate=accumulate)
        self._call("soft_orthogonality_backward", request, factors, residuals, ctypes.c_int32(precision))
        return gradients

    def srip(self, matrices, start, iterations=2, through=True, keep=True, permutations=None):
        request, C = self._request(matrices, permutations=permutations)
        values = torch.full((len(matrices),), torch.nan, dtype=C)
        pairs = iterations if through else 1
        size = 2 * pairs * sum(len(m) for m in matrices) if keep else 0
        vectors = torch.full((size,), torch.nan, dtype=C)
        options = ctypes.c_int64(iterations), ctypes.c_int32(through)
        self._call("srip", request, start, *options, values, vectors if keep else None)
        return values, vectors

    def srip_backward(self, factors, matrices, vectors, pairs, gradients=None, permutations=None, accumulate=False):
        gradients = _like(matrices) if gradients is None else gradients
        request, _ = self._request(matrices, gradients, permutations, accumulate)
        self._call("srip_backward", request, factors, vectors, ctypes.c_int64(pairs))
        return gradients

    def start_vectors(self, keys, step):
        vectors = torch.full(keys.shape, torch.nan)
        request, _ = self._request([])
        self._call("start_vectors", request, keys, ctypes.c_int64(len(keys)), step, vectors)
        return vectors

    def _call(self, name, request, *arguments):
        given = [ctypes.c_void_p(a.data_ptr()) if isinstance(a, torch.Tensor) else a for a in arguments]
        fault = getattr(self.library, f"emulated_{name}")(ctypes.byref(request), *given)
        if fault is not None:
            raise RuntimeError(fault.decode())

    def _request(self, matrices, gradients=None, permutations=None, accumulate=False):
        double = any(m.dtype is torch.float64 for m in matrices)
        count = len(matrices)
        made = (_Matrix * count)()
        targets = (_Gradient * count)()
        orders = (_Permutation * count)()
        for i, matrix in enumerate(matrices):
            storage = STORAGES.index(matrix.dtype)
            made[i] = _Matrix(matrix.data_ptr(), storage, *matrix.shape, *matrix.stride())
            if gradients is not None and gradients[i] is not None:
                targets[i] = _Gradient(gradients[i].data_ptr(), *gradients[i].stride(), accumulate)
            for d, (size, step) in enumerate(permutations[i] if permutations else ()):
                orders[i].digits[d] = _Digit(size, step)
                orders[i].count = d + 1
        device = self.multiprocessors, self.cooperative, self.fast_double
        request = _Request(made, targets, orders, count, *device, double)
        return request, torch.float64 if double else torch.float32


def _like(matrices):
    """Tensors of NaN with the strides of the matrices, where these don't overlap."""
    return [torch.full_like(m, torch.nan) for m in matrices]
