"""The forms of the kernels, by what multiplies 16-bit terms: tensor cores of warps, or of warpgroups as on sm_90a, for
which others may load."""

import pytest

FORMS = {  # the compiler's flags
    "warps": (),
    "warpgroups": ("-DORTHO_WARPGROUPS",),
    "loaders": ("-DORTHO_WARPGROUPS", "-DORTHO_LOADERS"),
}
SOURCES = ("soft_orthogonality.cu",)  # that differ between them

# For a test of what they share: double precision, the products of small matrices and of triangles, SRIP, start vectors.
in_one_form = pytest.mark.parametrize("emulator", ["warps"], indirect=True)


def forms_of(name):
    """Those in which a case of `cases.py` is run: whatever has 16-bit terms in both."""
    return ["warps"] if name.startswith(("srip", "start vectors")) or "float64" in name else list(FORMS)


def in_their_forms(names, marks_of=lambda name: ()):
    """Parametrizes `emulator` and `name` by these cases, each in all forms that it depends on."""
    pairs = [(form, name) for name in names for form in forms_of(name)]
    parameters = [pytest.param(*pair, marks=marks_of(pair[1]), id="-".join(pair)) for pair in pairs]
    return pytest.mark.parametrize(("emulator", "name"), parameters, indirect=["emulator"])
