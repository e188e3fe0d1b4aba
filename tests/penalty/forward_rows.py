"""Which rows of a fused projection a model's own `forward` calls q, k and v.

The local variables of these names are read from the frames of one forward pass. The rows that such a variable depends on
are those where the gradient of the weight is not zero: bias, scale, norm and rotation change the values of q, k and v, not
the rows they come from.
"""

import importlib
import itertools
import re
import sys

import torch

from ortho_kernels.penalty.fused_projections import KNOWN, fused_projections
from ortho_kernels.penalty.heads import head_rows

NAMES = [
    ("q", "k", "v"),
    ("query", "key", "value"),
    ("queries", "keys", "values"),
    ("query_states", "key_states", "value_states"),
    ("query_layer", "key_layer", "value_layer"),
]


def frames(forward):
    """The local variables called q, k and v of every function that runs in a forward pass, in order of time."""
    found = []

    def on_event(frame, event, _):
        if event in ("return", "c_call"):  # before a call too: torch's attention deletes them before it returns
            for names in NAMES:
                variables = {role: frame.f_locals.get(name) for role, name in zip("qkv", names, strict=True)}
                found.append({role: value for role, value in variables.items() if isinstance(value, torch.Tensor)})

    sys.setprofile(on_event)
    try:
        forward()
    finally:
        sys.setprofile(None)
    return found


def rows_of(variable, weight, along):
    """The rows of a weight (its columns where `along` is 1) that a tensor depends on."""
    if not variable.requires_grad:
        return []
    (gradient,) = torch.autograd.grad(
        variable, weight, torch.randn_like(variable), retain_graph=True, allow_unused=True
    )
    return [] if gradient is None else gradient.transpose(0, along).flatten(1).any(1).nonzero().flatten().tolist()


def rows_by_role(found, weight, along, roles):
    """For each role the rows that it is computed from, in the first of these frames where all of them have some."""
    for variables in found:
        if set(roles) <= variables.keys():
            rows = {role: rows_of(variables[role], weight, along) for role in roles}
            if all(rows.values()):
                return rows
    raise AssertionError(f"no function of the forward pass has {', '.join(roles)}")


def check(module, *args, roles="qkv", **kwargs):
    """The cut of a module's last fused projection is that of its forward; returns what the projections are said to be."""
    found = fused_projections(module)
    assert found
    name, cut = list(found.items())[-1]
    weight = module.get_parameter(name)
    along = 1 if "Conv1D" in type(module.get_submodule(name.rpartition(".")[0])).__name__ else 0
    found_frames = frames(lambda: module(*args, **kwargs))
    rows = rows_by_role(found_frames, weight, along, roles)
    check_heads(head_rows(module)[name], found_frames, weight, along, rows)
    size = weight.shape[along] // len(roles)
    equal = {role: list(range(index * size, (index + 1) * size)) for index, role in enumerate(roles)}
    everything = sorted(itertools.chain(*rows.values()))
    if isinstance(cut, int):
        assert cut == len(roles)
        assert rows == equal
    elif cut.startswith("holds") or "gate" in cut:
        assert set(everything) < set(range(weight.shape[along]))
    else:
        assert rows != equal
        assert everything == list(range(weight.shape[along]))
    if "unequal" in str(cut):
        assert [*itertools.chain(*rows.values())] == everything
        sizes = [size for size, _ in itertools.groupby(map(len, rows.values()))]
        assert [*map(int, re.findall(r"\d+", cut))] == sizes
    return found


def check_heads(size, found_frames, weight, along, rows):
    """Somewhere in forward, q, k and v have a dimension of heads (some with batches), each one block of so many rows."""
    if isinstance(size, str):
        return
    for role, own in rows.items():
        blocks = {tuple(own[first : first + size]) for first in range(0, len(own), size)}
        assert len(own) == len(blocks) * size
        if len(blocks) == 1:
            continue
        seen = {id(frame[role]): frame[role] for frame in found_frames if role in frame}
        assert any(
            {tuple(rows_of(part, weight, along)) for part in variable.unbind(dim)} == blocks
            for variable in seen.values()
            for dim in range(variable.dim())
            if variable.shape[dim] % len(blocks) == 0
        ), role


def class_of(path):
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def listed(library):
    """The listed classes of a library, as FILE.CLASS."""
    return {key.partition(".")[2].rpartition(".")[0] for key in KNOWN if key.startswith(f"{library}.")}


def tokens(*shape):
    return torch.randn(shape or (2, 16, 32))
