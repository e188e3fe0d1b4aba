"""Tuning: what is tried, what is kept, what is written; the measuring itself needs a GPU."""

import time
from functools import partial

import pytest
import torch

from ortho_kernels import tune
from ortho_kernels.backends.triton import heuristics
from ortho_kernels.backends.triton.heuristics import TABLE

BASE = TABLE["sm_90"]


@pytest.fixture(autouse=True)
def tuned_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("ORTHO_KERNELS_TUNED", str(tmp_path))
    heuristics.configuration.cache_clear()
    yield tmp_path
    heuristics.configuration.cache_clear()


def ready(entry, found, until):
    return found


def run(entries, measure, prepare=ready, until=float("inf")):
    said = []
    status = tune.keep_the_best(tune.tune(BASE, entries, prepare, measure, until, said.append), said.append)
    return status, "\n".join(said)


def wide_is_fast(entry, candidate):
    """Few rows can't run."""
    choice = getattr(candidate, entry)
    return None if choice.rows in (16, 512) else 1 / choice.columns


@pytest.mark.parametrize("entry", tune._STEPS)
def test_candidates_fit_and_begin_with_the_table(entry):
    found = list(tune.candidates(TABLE["sm_89"], entry))
    assert found[0] == TABLE["sm_89"]
    assert len(set(found)) == len(found) > 3
    assert all(heuristics.misfits(candidate) == [] for candidate in found)


def test_the_fastest_that_runs_is_kept_and_read_again(tuned_folder):
    status, said = run(["update", "passes"], wide_is_fast)
    assert status == 0
    assert [each.name for each in tuned_folder.iterdir()] == ["triton_sm_90.json"]
    best = heuristics.configuration("sm_90")
    for entry in (best.update, best.passes):
        assert (entry.rows, entry.columns) in ((32, 128), (1024, 8))
    assert best.residual_float32 == BASE.residual_float32
    assert "cut short" not in said


def test_where_nothing_runs_nothing_is_written(tuned_folder):
    status, said = run(["update"], lambda entry, candidate: None)
    assert status == 0
    assert "as it was: none could be measured" in said
    assert "nothing is written" in said
    assert not list(tuned_folder.iterdir())


def test_when_the_time_is_up_the_best_so_far_is_kept(tuned_folder):
    def slow(entry, candidate):
        time.sleep(0.05)
        return wide_is_fast(entry, candidate)

    began = time.monotonic()
    status, said = run(["product_tf32", "update"], slow, until=began + 0.6)
    assert time.monotonic() - began < 5
    assert status == 0
    assert "Cut short: product_tf32" in said
    assert list(tuned_folder.iterdir())


def test_ctrl_c_keeps_the_best_so_far():
    calls = []

    def interrupted(entry, candidate):
        calls.append(candidate)
        if len(calls) == 12:
            raise KeyboardInterrupt
        return 1 / len(calls)

    status, said = run(["update", "passes"], interrupted)
    assert status == 130
    assert "Interrupted." in said
    assert heuristics.configuration("sm_90") == calls[10]
    assert len(calls) == 12


def test_an_error_of_the_card_keeps_what_earlier_entries_found():
    def failing(entry, candidate):
        if entry == "passes":
            raise RuntimeError("CUDA error: an illegal memory access")
        return wide_is_fast(entry, candidate)

    with pytest.raises(RuntimeError, match="illegal memory access"):
        run(["update", "passes"], failing)
    assert heuristics.configuration("sm_90").update.columns == 128


def test_what_compiles_the_same_is_compiled_once_and_what_fails_is_passed_over():
    pytest.importorskip("triton")
    given = []

    def fill_cache(jobs, until):
        given.extend(jobs)
        for job in jobs:
            yield job, "no registers left" if job.configuration.passes.rows == 512 else None

    prepare = partial(tune.compiled, say=print, fill_cache=fill_cache)
    found = list(tune.candidates(BASE, "passes"))
    results = list(prepare("passes", found, float("inf")))
    assert results == [None if candidate.passes.rows == 512 else candidate for candidate in found]
    assert [job.kernel for job in given].count("combine_sums") == 1  # the same for all candidates
    assert len(given) < len(found) + 4
    status, _ = run(["passes"], wide_is_fast, prepare)
    assert status == 0


def test_what_is_not_compiled_in_time_is_not_measured():
    pytest.importorskip("triton")

    def fill_cache(jobs, until):
        yield jobs[0], None

    measured = []

    def measure(entry, candidate):
        measured.append(candidate)
        return 1.0

    _, said = run(["update", "passes"], measure, partial(tune.compiled, say=print, fill_cache=fill_cache))
    assert "Cut short: update, passes" in said
    assert all(each.passes.rows == BASE.passes.rows for each in measured)


def test_a_backward_waits_for_the_forward_that_it_is_given():
    pytest.importorskip("triton")
    kernels = set()

    def fill_cache(jobs, until):
        kernels.update(job.kernel for job in jobs)
        return iter(())

    assert not list(tune.compiled("product_half", list(tune.candidates(BASE, "product_half")), 0.0, print, fill_cache))
    assert kernels == {"residuals", "residual_products"}


@pytest.mark.parametrize("wrong", [["--entries", "residuals"], ["--seconds", "0"], ["--seconds", "-3"]])
def test_bad_options_are_errors(wrong, capsys):
    with pytest.raises(SystemExit):
        tune.main(wrong)
    said = capsys.readouterr().err
    assert "must be more than 0" in said or all(entry in said for entry in tune._STEPS)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_without_a_gpu_it_says_so(capsys):
    assert tune.main([]) == 1
    assert "Nothing to tune" in capsys.readouterr().err


def test_a_folder_that_can_not_be_written_is_said_before_the_tuning(tmp_path):
    assert tune.reason_against_writing(tmp_path / "new" / "folder") is None
    assert list((tmp_path / "new" / "folder").iterdir()) == []
    (tmp_path / "file").write_text("")
    reason = tune.reason_against_writing(tmp_path / "file" / "below")
    assert "can't be written (Not a directory); ORTHO_KERNELS_TUNED names another folder" in reason
