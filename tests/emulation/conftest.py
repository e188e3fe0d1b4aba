"""What the tests of the emulated kernels share: a build of each form."""

import pytest
from emulation import Emulator, build_forms, reason_against
from forms import FORMS


@pytest.fixture(scope="session")
def _emulators(tmp_path_factory):
    if (reason := reason_against()) is not None:
        pytest.skip(f"emulator: {reason}")
    libraries = build_forms(tmp_path_factory.mktemp("emulated"))
    return {form: Emulator(library) for form, library in libraries.items()}


@pytest.fixture(params=FORMS)
def emulator(request, _emulators):
    """Each form, unless a test says which (`forms.py`)."""
    emulator = _emulators[request.param]
    emulator.run_as()
    emulator.launches()
    emulator.multiprocessors, emulator.cooperative, emulator.fast_double = 2, True, True
    return emulator
