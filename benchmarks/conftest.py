"""Collects what the benchmarks measured and, at the end, writes the CSV and the plot and prints the ratios."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads cost 20 ms a call on two shared cores

from .results import Results
from .roofline import RooflineResults


def pytest_addoption(parser):
    group = parser.getgroup("ortho_kernels")
    group.addoption("--case-seconds", type=float, default=12.0, help="time for the interleaved rounds of one case")


def pytest_configure(config):
    config.stash[Results.key] = Results()
    config.stash[RooflineResults.key] = RooflineResults()


def pytest_terminal_summary(terminalreporter, config):
    results = config.stash[Results.key]
    if results.rows:
        terminalreporter.section("ortho_kernels: ratios of medians, forward + backward")
        terminalreporter.write(results.table())
        for path in results.write():
            terminalreporter.write_line(f"written: {path}")
    roofline = config.stash[RooflineResults.key]
    if roofline.steps:
        terminalreporter.section("ortho_kernels: shares of the roofline, forward + backward")
        terminalreporter.write(roofline.table())
        for path in roofline.write():
            terminalreporter.write_line(f"written: {path}")
    if results.notes:  # accuracy, and what importing costs
        terminalreporter.section("ortho_kernels: other figures")
        terminalreporter.write("".join(f"{line}\n" for line in results.notes))
        terminalreporter.write_line(f"written: {results.write_notes()}")
