"""The rooms of the trainer: few at the top, and imports that go one way."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

from ortho_kernels import trainer

TOP = Path(trainer.__file__).parent


def imports():
    """For each room (a folder, or a module at the top) the rooms that it imports from, at any time."""
    graph = {}
    for path in TOP.rglob("*.py"):
        package = path.relative_to(TOP).parts[:-1]
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level:
                there = (*package[: len(package) - node.level + 1], *(node.module or node.names[0].name).split("."))
                here = path.relative_to(TOP).with_suffix("").parts[0]
                if there[0] != here:
                    graph.setdefault(here, set()).add(there[0])
    return graph


def test_there_are_few_rooms():
    """What a user runs is a module at the top; the rest has a room."""
    assert len([path for path in TOP.iterdir() if path.name != "__pycache__"]) <= 29


def test_no_import_runs_back_up():
    order = list(TopologicalSorter(imports()).static_order())  # raises where there is a circle
    assert order.index("engine") < order.index("config") < order.index("runs")
    for room in ("data", "methods", "backbones", "report"):
        assert order.index(room) < order.index("config")
    assert imports()["data"] <= {"distributed", "errors", "host_copies", "options", "randomness", "registry"}
