"""Creates a virtual environment, also on a Debian or Ubuntu machine on which python3-venv was never installed."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path


def main(target: Path) -> None:
    if sys.version_info < (3, 10):  # noqa: UP036  This script runs before anything has checked the version.
        raise SystemExit(
            f"Python 3.10 or newer is needed; {sys.executable} is {sys.version.split()[0]} (make PYTHON=...)"
        )
    missing = missing_packages()
    if missing and not install(missing):
        explain(missing)
    if subprocess.run([sys.executable, "-m", "venv", str(target)], check=False).returncode:
        shutil.rmtree(target, ignore_errors=True)
        raise SystemExit(f"Could not create the virtual environment {target}; the reason stands above.")


def missing_packages() -> list[str]:
    """The Debian packages behind what this Python lacks: pip for new environments, headers for the pybind11 module."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    missing = []
    if subprocess.run([sys.executable, "-c", "import ensurepip"], capture_output=True, check=False).returncode:
        missing.append(f"{version}-venv")
    if not Path(sysconfig.get_paths()["include"], "Python.h").exists():
        missing.append(f"{version}-dev")
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        missing.append("g++")
    return missing


def install(packages: list[str]) -> bool:
    """By apt-get, as root or where sudo asks for no password."""
    if shutil.which("apt-get") is None:
        return False
    sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if sudo and shutil.which("sudo") is None:
        return False
    print(f"Installing {' '.join(packages)} by apt-get ...", flush=True)
    environment = ["env", "DEBIAN_FRONTEND=noninteractive"]
    steps = (["update", "-qq"], ["install", "-y", "-qq", *packages])
    return all(subprocess.run([*sudo, *environment, "apt-get", *step], check=False).returncode == 0 for step in steps)


def explain(packages: list[str]) -> None:
    """Without pip there is no environment; without headers or a compiler the torch backend serves."""
    advice = f"sudo apt-get install {' '.join(packages)}"
    if any(package.endswith("-venv") for package in packages):
        raise SystemExit(f"This Python can't create environments with pip in them. Install what is missing: {advice}")
    print(f"The kernels, or their introspection, can't be built here; go on without. To have them: {advice}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
