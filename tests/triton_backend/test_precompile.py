"""A cache that was filled without a GPU is the one that launches on it look in."""

import argparse
import json
import os
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch
from forking import forking_context

pytest.importorskip("triton", reason="triton is not installed")

from ortho_kernels import precompile
from ortho_kernels.backends.triton import ahead_of_time
from ortho_kernels.backends.triton.ahead_of_time import Compilers, Job, WeightShape, distinct, jobs_of, kernel_calls
from ortho_kernels.backends.triton.heuristics import TABLE
from ortho_kernels.backends.triton.matrices import STORAGES

BOTH_PENALTIES = [
    "apply_residuals", "begin_iteration", "combine_sums", "finish_iteration", "rank_updates", "residual_products",
    "residuals", "spread_residuals",
]  # fmt: skip
SHAPES = ["64x3x7x7", "256x64x1x1", "64x256x1x1", "10x16"]  # every layout, and a tiny matrix
# Counts of matrices and items that are multiples of 16 and others, for which triton would compile apart.
LISTS = [SHAPES, SHAPES * 4, [*SHAPES, "320x512", "9x33"]]
WEIGHTS = [WeightShape((64, 64, 3, 3)), WeightShape((64, 4, 3, 3), groups=16)]


def run(*arguments, cache):
    environment = os.environ | {"TRITON_CACHE_DIR": str(cache), "PYTHONPATH": os.getcwd()}
    environment.pop("TRITON_INTERPRET", None)
    done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    return done.stdout


@pytest.mark.parametrize("dtype", ["bfloat16", pytest.param("float32", marks=pytest.mark.slow)])
def test_launches_find_what_was_compiled_ahead_once_for_all_lists(tmp_path, dtype):
    said = run("-m", "ortho_kernels.precompile", "sm_90", "--shapes", *SHAPES, "--dtypes", dtype, cache=tmp_path)
    assert f"{len(BOTH_PENALTIES)} kernels for sm_90" in said
    compiled = sorted(each.name for each in tmp_path.iterdir())
    said = run("-m", "benchmarks.launch_without_gpu", "sm_90", dtype, *map(",".join, LISTS), cache=tmp_path)
    launched = [json.loads(line) for line in said.splitlines()]
    assert sorted(each["kernel"] for each in launched) == BOTH_PENALTIES
    assert all(each["cache_hit"] for each in launched), launched
    assert sorted(each.name for each in tmp_path.iterdir()) == compiled


@pytest.mark.parametrize("count", ["0", "-2"])
def test_a_process_at_least_compiles(count, capsys):
    with pytest.raises(SystemExit):
        precompile.main(["sm_90", "--shapes", "64x3", f"--processes={count}"])
    assert f"--processes must be 1 or more, got {count}" in capsys.readouterr().err


def test_a_tuned_file_that_does_not_fit_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ORTHO_KERNELS_TUNED", str(tmp_path))
    (tmp_path / "triton_sm_87.json").write_text("{")
    assert precompile.main(["sm_87", "--shapes", "64x3"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("Nothing was compiled: ")
    assert "triton_sm_87.json" in said


def test_keys_do_not_depend_on_what_was_launched_before(tmp_path):
    code = (
        "import sys; from ortho_kernels.backends.triton.kernels import KERNELS\n"
        "for kernel in sorted(KERNELS, key=lambda kernel: kernel.__name__, reverse=sys.argv[1] == 'reverse'):\n"
        "    print(kernel.__name__, kernel.cache_key)"
    )
    forward, reverse = (run("-c", code, order, cache=tmp_path).splitlines() for order in ("forward", "reverse"))
    assert sorted(forward) == sorted(reverse)


def test_jobs_are_all_that_both_penalties_launch():
    jobs = jobs_of(TABLE["sm_90"], WEIGHTS, torch.float32)
    assert sorted(job.kernel for job in jobs) == BOTH_PENALTIES


def test_what_compiles_the_same_is_compiled_once():
    jobs = [job for precision in (0, 1) for job in jobs_of(TABLE["sm_90"], WEIGHTS, torch.float32, precision)]
    assert [job.kernel for job in distinct(jobs)].count("residual_products") == 2
    assert len(distinct(jobs)) == len(BOTH_PENALTIES) + 1


def argument_types(value):
    if isinstance(value, tuple):
        return tuple(map(argument_types, value))
    return value.dtype if isinstance(value, torch.Tensor) else type(value)


@pytest.mark.parametrize("architecture", TABLE)
def test_calls_of_one_identity_have_arguments_of_the_same_types(architecture):
    """Whichever is compiled serves all, of every dtype and precision."""
    found = {}
    for dtype in STORAGES:
        for precision in range(3):
            for call in kernel_calls(TABLE[architecture], tuple(WEIGHTS), dtype, precision):
                types = argument_types(call.arguments)
                assert found.setdefault(call.identity, types) == types, (call.name, dtype, precision)


def test_every_precision_finds_its_kernels_compiled():
    jobs = [job for precision in range(3) for job in jobs_of(TABLE["sm_90"], WEIGHTS, torch.float32, precision)]
    kernels = [job.kernel for job in distinct(jobs)]
    assert kernels.count("residual_products") == 3
    assert kernels.count("spread_residuals") == 2  # R is of float32 or of bfloat16


def _end_or_sleep(job):
    """Compiles nothing: ends its process, takes its time, or fails, by the number of rows of the first weight."""
    rows = job.weights[0].shape[0]
    if rows == 1:
        os._exit(1)
    if rows == 2:
        time.sleep(60)
    return "no such layout" if rows == 3 else None


def _serve_fakes(connection, architecture):
    ahead_of_time._compile = _end_or_sleep
    ahead_of_time._serve(connection, architecture)


@pytest.fixture
def fakes(monkeypatch):
    monkeypatch.setattr(ahead_of_time, "_serve", _serve_fakes)
    monkeypatch.setattr(ahead_of_time, "multiprocessing", SimpleNamespace(get_context=lambda method: forking_context()))


def jobs_with(*rows):
    return [Job("residuals", TABLE["sm_90"], (WeightShape((count, 9)),), torch.float32) for count in rows]


def test_a_compiler_that_ends_its_process_or_fails_is_told_and_the_rest_goes_on(fakes):
    jobs = jobs_with(1, 3, 4, 5)
    with Compilers("sm_90", processes=1) as compilers:
        results = {job.weights[0].shape[0]: reason for job, reason in compilers.fill_cache(jobs)}
    assert results == {1: "the compiler ended its process", 3: "no such layout", 4: None, 5: None}


def test_jobs_are_left_when_the_time_is_up(fakes):
    with Compilers("sm_90", processes=2) as compilers:
        assert [reason for _, reason in compilers.fill_cache(jobs_with(4, 4))] == [None, None]
        began = time.monotonic()
        done = [job.weights[0].shape[0] for job, _ in compilers.fill_cache(jobs_with(2, 4, 2, 5), until=began + 2)]
        assert done == [4]
        assert time.monotonic() - began < 10
        assert [reason for _, reason in compilers.fill_cache(jobs_with(5))] == [None]


def test_who_wants_no_more_ends_the_compilers_at_once(fakes):
    with Compilers("sm_90", processes=2) as compilers:
        results = compilers.fill_cache(jobs_with(4, 2, 2))
        next(results)
        began = time.monotonic()
        results.close()
        assert time.monotonic() - began < 20
        assert [reason for _, reason in compilers.fill_cache(jobs_with(4, 5))] == [None, None]


@pytest.mark.parametrize("text", ["64", "64x", "3x0", "axb", ""])
def test_shapes_that_are_none(text):
    with pytest.raises(argparse.ArgumentTypeError, match="expected two or more sizes"):
        precompile.shape_of(text)


def test_weights_of_a_model_by_name():
    pytest.importorskip("torchvision")
    weights = precompile.weights_of_model("resnext50_32x4d")
    assert WeightShape((64, 3, 7, 7)) in weights
    assert WeightShape((128, 4, 3, 3), groups=32) in weights


def test_an_unknown_model_says_so(capsys):
    pytest.importorskip("torchvision")
    pytest.importorskip("timm")
    assert precompile.main(["sm_90", "--model", "alexnet_v7"]) == 1
    assert "neither torchvision nor timm has it" in capsys.readouterr().err
