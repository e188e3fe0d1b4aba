"""Folders of tests that need libraries beside torch: skipped where those are missing, file by file, with the reason.

In continuous integration (the environment variable CI) a missing library is an error instead.
"""

import os
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # which pytest brings

TESTS = Path(__file__).parent
# By folder or file: the extras of pyproject.toml whose packages its tests import.
EXTRAS = {
    TESTS / "trainer": ("trainer",),
    TESTS / "benchmarks" / "gpu" / "test_gpu_training.py": ("trainer",),
    TESTS / "integrations": ("trainer", "test"),
    TESTS / "distributed" / "test_sharded_models.py": ("test",),
    TESTS / "distributed" / "test_sharded_placements.py": ("test",),
    TESTS / "models": ("test",),
    TESTS / "spectra": ("trainer", "test"),
    TESTS / "test_docs.py": ("trainer", "test"),
}


@cache
def missing(extra):
    """The extra's packages that are not installed, or not in the version that it asks for."""
    project = tomllib.loads((TESTS.parent / "pyproject.toml").read_text())["project"]
    requirements = map(Requirement, project["optional-dependencies"][extra])
    return [str(each) for each in requirements if not met(each)]


def met(requirement):
    try:
        return requirement.specifier.contains(version(requirement.name), prereleases=True)
    except PackageNotFoundError:
        return False


class WithoutNeeds(pytest.Module):
    """A file of tests that is not imported."""

    def collect(self):
        if os.environ.get("CI"):
            pytest.fail(self.reason, pytrace=False)
        pytest.skip(self.reason, allow_module_level=True)


def module_of(path, parent):
    """The file's tests as one skip where its folder's needs are not met, else None: pytest's own way."""
    lacking = [name for extra in EXTRAS.get(path, EXTRAS.get(path.parent, ())) for name in missing(extra)]
    if not lacking:
        return None
    module = WithoutNeeds.from_parent(parent, path=path)
    module.reason = f"needs {', '.join(lacking)}"
    return module
