"""The streamed covariance against numpy's, and the memory that it takes."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from ortho_kernels.spectra import StreamingCovariance


def test_a_streamed_covariance_is_numpys():
    """In batches of any size, far from the origin, where a sum of squares would lose its digits."""
    features = 1e4 + torch.randn(1000, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    covariance = StreamingCovariance()
    for batch in features.split([1, 0, 37, 500, 462]):
        covariance.update(batch)
    assert covariance.count == 1000
    torch.testing.assert_close(covariance.mean, features.mean(0))
    torch.testing.assert_close(
        covariance.covariance(), torch.from_numpy(np.cov(features.numpy().T)), rtol=1e-9, atol=1e-12
    )
    expected = np.linalg.eigvalsh(np.cov(features.numpy().T))[::-1].copy()
    torch.testing.assert_close(covariance.eigenvalues(), torch.from_numpy(expected), rtol=1e-9, atol=1e-12)


def test_a_streamed_covariance_refuses_other_dimensions():
    covariance = StreamingCovariance()
    covariance.update(torch.ones(2, 3))
    with pytest.raises(ValueError, match="4 dimensions, and those before had 3"):
        covariance.update(torch.ones(2, 4))


def test_second_moments_are_those_of_the_whole_table():
    features = 5 + torch.randn(300, 4, dtype=torch.float64)
    covariance = StreamingCovariance()
    for batch in features.split(70):
        covariance.update(batch)
    torch.testing.assert_close(covariance.second_moments(), features.T @ features)


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_gives_nan(poison):
    covariance = StreamingCovariance()
    covariance.update(torch.randn(5, 3))
    covariance.update(torch.tensor([[0.0, poison, 1.0]]))
    covariance.update(torch.randn(5, 3))
    assert covariance.eigenvalues().isnan().all()
    assert covariance.correlation().isnan().all()


def test_no_features_have_no_eigenvalues():
    assert StreamingCovariance().eigenvalues().shape == (0,)


STREAM = """
import json, sys, time
import torch
from ortho_kernels.spectra import StreamingCovariance

def memory(key):  # in MB; getrusage would count what the process was before it became this one
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) * 1024 / 1e6

SAMPLES, DIMENSIONS, BATCH = int(sys.argv[1]), 512, 1000  # larger batches cost what they take themselves
mixing = torch.randn(DIMENSIONS, DIMENSIONS, generator=torch.Generator().manual_seed(0)) * DIMENSIONS**-0.5
draw = torch.Generator().manual_seed(1)
check = (torch.randn(2, 2, dtype=torch.float64) @ torch.randn(2, 2, dtype=torch.float64)).sum()  # libraries are loaded
start = memory("VmRSS")
covariance, seconds = StreamingCovariance(), 0.0
for _ in range(SAMPLES // BATCH):
    batch = 3 + torch.randn(BATCH, DIMENSIONS, generator=draw) @ mixing
    begin = time.monotonic()
    covariance.update(batch)
    seconds += time.monotonic() - begin
eigenvalues = covariance.eigenvalues()
peak = memory("VmHWM")
print(json.dumps({"mb": peak - start, "seconds": seconds, "eigenvalues": eigenvalues.tolist()}))
"""


def numpys_eigenvalues(samples):
    """The same numbers, by sums over chunks in numpy."""
    mixing = (torch.randn(512, 512, generator=torch.Generator().manual_seed(0)) * 512**-0.5).numpy()
    draw = torch.Generator().manual_seed(1)
    total, products = np.zeros(512), np.zeros((512, 512))
    for _ in range(samples // 1000):
        noise = torch.randn(1000, 512, generator=draw)
        chunk = (3 + noise @ torch.from_numpy(mixing)).numpy().astype(np.float64) - 3
        total += chunk.sum(0)
        products += chunk.T @ chunk
    covariance = (products - np.outer(total, total) / samples) / (samples - 1)
    return np.linalg.eigvalsh(covariance)[::-1]


def stream(samples):
    done = subprocess.run([sys.executable, "-c", STREAM, str(samples)], capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    print(f"{samples} x 512 features: {result['mb']:.0f} MB beyond the start, {result['seconds']:.1f} s")
    np.testing.assert_allclose(result["eigenvalues"], numpys_eigenvalues(samples), rtol=1e-6)
    return result


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
def test_a_stream_of_features_takes_no_memory_for_its_length():
    assert stream(20_000)["mb"] < 200


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
def test_a_million_features_take_less_than_200_mb():
    assert stream(1_000_000)["mb"] < 200
