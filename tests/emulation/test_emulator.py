"""The emulator itself: faults are reported, by the name of the kernel, and right kernels run."""

import ctypes
import os
import re
import subprocess
import sys

import pytest
import torch
from emulation import HERE, RUNTIME, build, reason_against, runtime_of_sanitizer
from forms import FORMS

SOURCES = [HERE / "faulty_kernels.cpp", *RUNTIME]
WARPGROUPS = FORMS["warpgroups"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    if (reason := reason_against()) is not None:
        pytest.skip(f"emulator: {reason}")
    library = ctypes.CDLL(str(build(tmp_path_factory.mktemp("faulty"), SOURCES, WARPGROUPS)))
    library.run_faulty_kernel.restype = ctypes.c_char_p

    def run(name, late=False):
        numbers = torch.arange(64, dtype=torch.float32)
        pointer = ctypes.c_void_p(numbers.data_ptr())
        fault = library.run_faulty_kernel(name.encode(), pointer, int(late))
        return fault and fault.decode(), numbers

    return run


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("half_a_barrier", "divergent.*ended"),
        ("two_barriers", "divergent"),
        ("half_a_collective", "divergent"),
        ("waits_for_ever", "waits for ever"),
        ("tells_without_a_fence", "no fence.*and a counter"),
        ("hears_without_a_fence", "no fence.*and the barrier"),
        ("misaligned_copy", "an asynchronous copy is not aligned"),
        ("multiplies_what_is_hidden", "not shown to the tensor cores before the last barrier"),
        ("shows_only_the_panel_before", "not shown to the tensor cores before the last barrier"),
        ("begins_without_a_fence", r"a product without begin_products\(\)"),
        ("goes_on_without_a_fence", r"a product without begin_products\(\)"),
        ("awaits_without_a_commit", "awaited that were not committed"),
        ("misaligned_panel", "a panel is not aligned"),
        ("half_a_product", "divergent"),
        ("a_panel_for_each_lane", "different panels"),
        ("leaves_a_barrier_half_full", "ends with threads at a barrier"),
        ("waits_for_too_many", "divergent"),
        ("expects_other_numbers", "different numbers at a barrier"),
        ("arrives_for_nobody", "a barrier at which nobody waits"),
        ("multiplies_what_others_hid", "not shown to the tensor cores before the last barrier"),
    ],
)
@pytest.mark.parametrize("late", [False, True], ids=["early", "late"])
def test_a_fault_is_reported(run, name, words, late):
    fault, _ = run(name, late)
    assert fault is not None
    assert fault.startswith(name)
    assert re.search(words, fault, re.DOTALL), fault


def test_shared_memory_begins_as_nan(run):
    fault, numbers = run("reads_what_nobody_wrote")
    assert fault is None
    assert numbers.isnan().all()


def test_collectives_reach_all_lanes_of_a_warp(run):
    fault, numbers = run("adds_lanes")
    assert fault is None
    assert numbers.tolist() == [sum(range(32))] * 32 + [sum(range(32, 64))] * 32


def test_a_copy_that_nobody_awaits_may_be_late(run):
    assert not run("forgets_to_wait", late=False)[1].isnan().any()
    assert run("forgets_to_wait", late=True)[1].isnan().all()


def test_threads_that_only_arrive_go_on(run):
    fault, numbers = run("hands_over")
    assert fault is None
    assert numbers[:32].eq(2).all()


@pytest.mark.parametrize("name", ["multiplies", "multiplies_what_others_wrote"])
@pytest.mark.parametrize("late", [False, True], ids=["early", "late"])
def test_a_warpgroup_multiplies(run, name, late):
    fault, numbers = run(name, late)
    assert fault is None
    assert numbers.eq(16).all()


@pytest.mark.parametrize("name", ["reads_sums_too_early", "writes_panels_too_early"])
def test_a_product_that_nobody_awaits_may_be_late(run, name):
    assert run(name, late=False)[1].eq(16).all()
    fault, numbers = run(name, late=True)
    assert fault is None
    assert numbers.ne(16).any()


def test_products_that_outlive_their_thread_are_reported(run):
    assert "that nobody awaits" in run("ends_without_waiting", late=True)[0]


# With products and copies that come late.
RUN_ONE = (
    "import ctypes, sys\nctypes.CDLL(sys.argv[1]).run_faulty_kernel(sys.argv[2].encode(), (ctypes.c_float * 64)(), 1)"
)


@pytest.mark.skipif(reason_against() is not None, reason=f"emulator: {reason_against()}")
def test_a_race_is_seen_where_every_schedule_gives_the_same(tmp_path):
    library = build(tmp_path, SOURCES, WARPGROUPS, kernel_flags=("-fsanitize=thread",))
    environment = {**os.environ, "LD_PRELOAD": runtime_of_sanitizer("tsan")}

    def report(*arguments):
        done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True)
        return done.stderr

    if report("-c", ""):
        pytest.skip("ThreadSanitizer does not start here")
    for right in ("orders_by_a_barrier", "multiplies", "hands_over", "multiplies_what_others_wrote"):
        assert report("-c", RUN_ONE, str(library), right) == ""
    for racing in ("orders_by_a_shuffle", "writes_panels_too_early", "writes_what_is_still_read"):
        assert "data race" in report("-c", RUN_ONE, str(library), racing)
