"""What the tests of the emulated kernels share: a build for tensor cores of warps, and one for those of warpgroups."""

import pytest
from emulation import WARPGROUPS, Emulator, build, reason_against


@pytest.fixture(scope="session", params=[(), WARPGROUPS], ids=["warps", "warpgroups"])
def _emulator(request, tmp_path_factory):
    if (reason := reason_against()) is not None:
        pytest.skip(f"emulator: {reason}")
    return Emulator(build(tmp_path_factory.mktemp("emulated"), flags=request.param))


@pytest.fixture
def emulator(_emulator):
    _emulator.run_as()
    _emulator.launches()
    _emulator.multiprocessors, _emulator.cooperative, _emulator.fast_double = 2, True, True
    return _emulator
