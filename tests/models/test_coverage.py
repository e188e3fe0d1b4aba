"""Other people's models: what multiplies in a forward pass is covered, or left out for a reason that is expected."""

from collections import defaultdict
from fnmatch import fnmatchcase
from typing import NamedTuple

import pytest
import torch
from architectures import EMBEDDING, Architecture
from language_models import LANGUAGE
from parameter_use import ParameterUse, parameters_behind
from perception_models import PERCEPTION
from timm_models import TIMM
from torch import nn
from torch_models import TORCH
from torchvision_models import TORCHVISION

from ortho_kernels import OrthogonalityPenalty

ARCHITECTURES = TORCHVISION + TIMM + LANGUAGE + PERCEPTION + TORCH


class Traced(NamedTuple):
    """A model after one forward pass. Parameters stand under the first of their names."""

    architecture: Architecture
    model: nn.Module
    use: ParameterUse
    covered: set[str]
    reasons: dict[str, str]


@pytest.fixture(scope="module", params=ARCHITECTURES, ids=lambda architecture: architecture.name)
def traced(request):
    architecture = request.param
    torch.manual_seed(0)
    model = architecture.build().eval()
    inputs, use = architecture.inputs(), ParameterUse(model)
    with use:
        model(**inputs)
    penalty = OrthogonalityPenalty(model)
    covered = {parameter for name in penalty.names for parameter in parameters_behind(model, name)}
    reasons = defaultdict(str)
    for name, reason in penalty.uncovered.items():  # a shared parameter is listed under each of its names
        for parameter in parameters_behind(model, name):
            reasons[parameter] += f"{name}: {reason}\n"
    return Traced(architecture, model, use, covered, reasons)


def test_what_multiplies_is_covered_or_has_the_expected_reason(traced):
    left_out = traced.use.products - traced.covered
    matched = set()
    for pattern, words in traced.architecture.uncovered.items():
        names = {name for name in left_out if fnmatchcase(name, pattern)}
        assert names, f"{pattern} is expected among what multiplies and is left out: {sorted(left_out)}"
        for name in names:
            assert words in traced.reasons[name]
        matched |= names
    assert left_out == matched


def test_what_does_not_multiply_is_not_covered(traced):
    assert traced.covered <= traced.use.products


def test_what_an_embedding_alone_reads_is_left_out_as_such(traced):
    for name in traced.use.lookups - traced.use.products:
        assert name not in traced.covered
        assert EMBEDDING in traced.reasons[name]


def test_every_matrix_is_either_covered_or_has_a_reason(traced):
    matrices = {name for name, parameter in traced.model.named_parameters() if parameter.dim() >= 2}
    assert matrices <= traced.covered | set(traced.reasons)
    assert not traced.covered & set(traced.reasons)
