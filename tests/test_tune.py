"""Tuning: what is tried, what is kept, what is written; the measuring itself needs a GPU."""

import pytest
import torch

from ortho_kernels import tune
from ortho_kernels.backends.triton import heuristics
from ortho_kernels.backends.triton.heuristics import TABLE


@pytest.mark.parametrize("entry", tune._STEPS)
def test_candidates_fit_and_begin_with_the_table(entry):
    found = list(tune.candidates(TABLE["sm_89"], entry))
    assert found[0] == TABLE["sm_89"]
    assert len(set(found)) == len(found) > 3
    assert all(heuristics.misfits(candidate) == [] for candidate in found)


def test_the_fastest_that_runs_is_kept_and_read_again(tmp_path, monkeypatch):
    monkeypatch.setenv("ORTHO_KERNELS_TUNED", str(tmp_path))
    heuristics.configuration.cache_clear()
    best = tune.fastest(TABLE["sm_90"], "update", lambda c: None if c.update.rows == 16 else 1 / c.update.columns)
    assert (best.update.rows, best.update.columns) == (32, 128)
    path = tune.write(best)
    assert [each.name for each in tmp_path.iterdir()] == [path.name] == ["triton_sm_90.json"]
    assert heuristics.configuration("sm_90") == best
    heuristics.configuration.cache_clear()
    with pytest.raises(RuntimeError, match="no configuration of update could run on sm_90"):
        tune.fastest(TABLE["sm_90"], "update", lambda c: None)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_without_a_gpu_it_says_so(capsys):
    assert tune.main([]) == 1
    assert "Nothing to tune" in capsys.readouterr().err
