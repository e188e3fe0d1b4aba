"""What the tests of the emulated kernels share: one build."""

import pytest
from emulation import Emulator, build, reason_against


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    if (reason := reason_against()) is not None:
        pytest.skip(f"emulator: {reason}")
    return build(tmp_path_factory.mktemp("emulated"))


@pytest.fixture(scope="session")
def _emulator(library):
    return Emulator(library)


@pytest.fixture
def emulator(_emulator):
    _emulator.run_as()
    _emulator.launches()
    _emulator.multiprocessors, _emulator.cooperative, _emulator.fast_double = 2, True, True
    return _emulator
