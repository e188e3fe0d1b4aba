"""Released penalties, our call of each, and how far the two are apart: the table of docs/recipes.md.

python tests/recipes.py    measures on the CPU kernels, and writes the table
"""

import inspect
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import originals
import torch
from torch import nn
from truth import near_orthogonal, relative

import ortho_kernels
from ortho_kernels import compat, use_backend

DOCUMENT = Path(__file__).parents[1] / "docs" / "recipes.md"
LIMIT = 1e-5
NEAR = 1e-3  # the noise on near orthogonal weights
Shapes = Mapping[str, tuple[int, ...]]


def filters(shapes):
    """Each weight near orthogonal as a matrix, one filter a row."""
    return {name: near_orthogonal(*shape, noise=NEAR) for name, shape in shapes.items()}


def batches(shapes):
    """Each matrix of each batch near orthogonal."""

    def batch(count, *shape):
        return torch.stack([near_orthogonal(*shape, noise=NEAR) for _ in range(count)])

    return {name: batch(*shape) for name, shape in shapes.items()}


def middle_taps(shapes):
    """Kernels near orthogonal as convolutions: the middle tap is an orthogonal matrix, the others are small."""
    kernels = {name: NEAR * torch.randn(shape) for name, shape in shapes.items()}
    for kernel in kernels.values():
        out, into, height, width = kernel.shape
        kernel[:, :, height // 2, width // 2] += near_orthogonal(out, into, noise=0)
    return kernels


def apart(shapes):
    """Weights whose rows are all near orthogonal to each other."""
    counts = [shape[0] for shape in shapes.values()]
    joint = near_orthogonal(sum(counts), *next(iter(shapes.values()))[1:], noise=NEAR)
    return dict(zip(shapes, joint.split(counts), strict=True))


class Recipe(NamedTuple):
    """A released penalty: `ours` is the call as the page shows it, and as it is measured."""

    who: str
    original: Callable[..., torch.Tensor]
    ours: str
    weights: Shapes
    vectors: Shapes = MappingProxyType({})  # constants: start vectors
    near: Callable[[Shapes], dict[str, torch.Tensor]] = filters

    @property
    def formula(self) -> str:
        return inspect.getdoc(self.original).partition("\n")[0]

    @property
    def link(self) -> str:
        """Where the released code has it; the paper, where no code has it."""
        source = inspect.getdoc(self.original).partition("\n\n")[2].replace("\n", " ")
        if found := re.fullmatch(r"arXiv (\S+), .+", source):
            return f"https://arxiv.org/abs/{found[1]}"
        repository, commit, file, first, last = re.fullmatch(
            r"(\S+) at (\w{40}), (\S+):(\d+)(?:-(\d+))?", source
        ).groups()
        lines = f"L{first}" + (f"-L{last}" if last else "")
        return f"https://github.com/{repository}/blob/{commit}/{file}#{lines}"


KERNEL = {"W": (48, 16, 3, 3)}
LAYERS = {"W": (48, 16, 3, 3), "V": (80, 64)}
LINEAR = {"W": (48, 80), "V": (80, 48)}
RECIPES = [
    Recipe("Bansal et al.: wide ResNet", originals.original_wide_resnet, "l2_reg_ortho(model)", LAYERS),
    Recipe("Bansal et al.: ImageNet and SVHN", originals.original_imagenet, "l2_reg_ortho_imagenet(model)", LAYERS),
    Recipe(
        "Bansal et al.: CIFAR ResNet in Keras",
        originals.original_keras_resnet,
        'srip([W], side="rows", start=[v])',
        KERNEL,
        {"v": (1, 48)},
    ),
    Recipe("Bansal et al.: SO", originals.original_so, 'soft_orthogonality([W], side="rows")', KERNEL),
    Recipe("Bansal et al.: DSO", originals.original_dso, 'soft_orthogonality([W], side="both")', KERNEL),
    Recipe(
        "Bansal et al.: mutual coherence",
        originals.original_mutual_coherence,
        'soft_orthogonality([W], side="rows", norm="max")',
        KERNEL,
    ),
    Recipe("OCNN: `orth_dist`", originals.original_orth_dist, "orth_dist(W)", KERNEL),
    Recipe(
        "OCNN: `deconv_orth_dist`, default",
        originals.original_deconv_orth_dist,
        "deconv_orth_dist(W)",
        KERNEL,
        near=middle_taps,
    ),
    Recipe(
        "OCNN: `deconv_orth_dist`, stride 1",
        originals.original_deconv_orth_dist_of_stride_1,
        "deconv_orth_dist(W, stride=1)",
        {"W": (24, 32, 3, 3)},
        near=middle_taps,
    ),
    Recipe(
        "OCNN: the paper",
        originals.original_ocnn_paper,
        "convolution_orthogonality([W])",
        {"W": (24, 32, 3, 3)},
        near=middle_taps,
    ),
    Recipe("BigGAN", originals.original_biggan, 'soft_orthogonality([W], side="rows", diagonal=0) / 2', KERNEL),
    Recipe(
        "BigGAN: `default_ortho`",
        originals.original_biggan_default,
        'soft_orthogonality([W], side="rows") / 2',
        KERNEL,
    ),
    Recipe("GOR: inter", originals.original_gor_inter, "soft_orthogonality([W], groups=4)", KERNEL),
    Recipe(
        "GOR: intra",
        originals.original_gor_intra,
        "soft_orthogonality([W.flatten(1).unflatten(0, (4, -1)).transpose(0, 1)], batch_dims=1)",
        KERNEL,
    ),
    Recipe(
        "Kim, Yun: `norm_reg`",
        originals.original_norm_reg,
        'soft_orthogonality([W, V], side="large", reduction="mean")',
        LINEAR,
    ),
    Recipe(
        "Kim, Yun: `psrip_reg`",
        originals.original_psrip_reg,
        'srip([W, V], side="large", squared=True, start=[w, v], reduction="mean")',
        LINEAR,
        {"w": (1, 80), "v": (1, 80)},
    ),
    Recipe(
        "Kim, Yun: `ortho_reg`",
        originals.original_ortho_reg,
        'soft_orthogonality([W], side="cols", diagonal=0)',
        KERNEL,
    ),
    Recipe(
        "Kim, Yun: `ortho`",
        originals.original_isometry,
        "convolution_orthogonality([W]) / 2",
        {"W": (24, 32, 3, 3)},
        near=middle_taps,
    ),
    Recipe("ABD-Net: OW (`SVMO`)", originals.original_svmo, "svmo(W, start=start)", KERNEL, {"start": (48, 2)}),
    Recipe("ABD-Net: `SVDO`", originals.original_svdo, "svdo(W, start=start)", KERNEL, {"start": (48, 2)}),
    Recipe(
        "ABD-Net: OF",
        originals.original_of_penalty,
        "of_penalty(F, start=start)",
        {"F": (4, 24, 6, 8)},
        {"start": (4, 24, 2)},
        near=batches,
    ),
    Recipe("ABD-Net: `SO`", originals.original_abd_so, 'srip([W], side="rows", start=[v])', KERNEL, {"v": (1, 48)}),
    Recipe("OrthDNNs", originals.original_orthdnns, 'soft_orthogonality([W], side="rows", norm="l21")', KERNEL),
    Recipe(
        "OrthDNNs: SRIP",
        originals.original_orthdnns_srip,
        'srip([W], side="rows", start=[v])',
        KERNEL,
        {"v": (1, 48)},
    ),
    Recipe(
        "PointNet's T-Net",
        originals.original_pointnet,
        "soft_orthogonality([T], batch_dims=1) / 2",
        {"T": (8, 64, 64)},
        near=batches,
    ),
    Recipe(
        "PointNet's T-Net in PyTorch",
        originals.original_pointnet_pytorch,
        'soft_orthogonality([T], batch_dims=1, squared=False, reduction="mean")',
        {"T": (8, 64, 64)},
        near=batches,
    ),
    Recipe(
        "vector-quantize-pytorch",
        originals.original_vector_quantize,
        'soft_orthogonality([codes], batch_dims=1, side="rows", normalize="rows", reduction="entries") / len(codes)',
        {"codes": (2, 40, 64)},
        near=batches,
    ),
    Recipe(
        "AdaLoRA",
        originals.original_adalora,
        'soft_orthogonality([A, B], squared=False, reduction="mean")',
        {"A": (8, 96), "B": (64, 8)},
    ),
    Recipe(
        "CODA-Prompt",
        originals.original_coda_prompt,
        'soft_orthogonality([K, A, P], side="rows", reduction="entries")',
        {"K": (10, 64), "A": (10, 64), "P": (10, 8, 64)},
    ),
    Recipe(
        "O-LoRA",
        originals.original_o_lora,
        'soft_orthogonality([A_new], against=[A_old], norm="l1")',
        {"A_new": (8, 96), "A_old": (16, 96)},
        near=apart,
    ),
    Recipe(
        "ERNIE's router",
        originals.original_ernie,
        'soft_orthogonality([W.T], side="rows", normalize="rows", reduction="entries")',
        {"W": (96, 32)},
    ),
    Recipe(
        "ERNIE's router, k = 2 groups",
        originals.original_ernie_groups,
        'soft_orthogonality([W.T], groups=2, side="rows", normalize="rows", reduction="entries") / 2',
        {"W": (96, 32)},
    ),
]


def difference(recipe: Recipe, dtype: torch.dtype, near: bool) -> tuple[float, float]:
    """How far our value and gradients in this dtype are from the formula in float64, relative."""
    torch.manual_seed(0)
    given = recipe.near(recipe.weights) if near else {name: torch.randn(s) for name, s in recipe.weights.items()}
    vectors = {name: torch.rand(shape) for name, shape in recipe.vectors.items()}
    true = {name: nn.Parameter(weight.double()) for name, weight in given.items()}
    mine = {name: nn.Parameter(weight.to(dtype)) for name, weight in given.items()}
    torch.manual_seed(1)  # some draw their start vectors themselves
    truth = recipe.original(**true, **{name: vector.double() for name, vector in vectors.items()})
    torch.manual_seed(1)
    names = {**vars(ortho_kernels), **vars(compat), "model": nn.ParameterList(mine.values()), **mine, **vectors}
    with use_backend("cpu"), warnings.catch_warnings():
        warnings.simplefilter("error")  # where the CPU kernels lack an option, the reference would serve
        value = eval(recipe.ours, names)
    gradients = torch.autograd.grad(value, list(mine.values()))
    right = torch.autograd.grad(truth, list(true.values()))
    return relative(value.detach(), truth.detach()), relative(flat(gradients), flat(right))


def flat(tensors) -> torch.Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


def worst(recipe: Recipe, dtype: torch.dtype) -> tuple[float, float]:
    """Of value and gradient, the larger difference: of random weights, and of near orthogonal ones."""
    return tuple(map(max, *(difference(recipe, dtype, near) for near in (False, True))))


def table(measured: Callable[[Recipe, torch.dtype], tuple[float, float]] = worst) -> str:
    """The rows, with the differences that are measured."""
    rows = []
    for recipe in RECIPES:
        single, double = (", ".join(map(_format, measured(recipe, dtype))) for dtype in (torch.float32, torch.float64))
        formula = recipe.formula.replace("|", r"\|")
        rows.append(f"| [{recipe.who}]({recipe.link}) | {formula} | `{recipe.ours}` | {single} | {double} |\n")
    return "".join(rows)


def _format(number: float) -> str:
    return f"{number:.0e}" if number else "0"


def with_table(page: str, rows: str) -> str:
    """The page with these rows in its table."""
    return re.sub(r"(?<=\|---\|\n)(\| \[.*\n)*", lambda _: rows, page, count=1)


if __name__ == "__main__":
    DOCUMENT.write_text(with_table(DOCUMENT.read_text(), table()))
