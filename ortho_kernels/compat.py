"""The names that existing training scripts carry, with their exact semantics: swap the import, keep the results.

from ortho_kernels.compat import l2_reg_ortho   # Bansal, Chen and Wang, NeurIPS 2018
from ortho_kernels.compat import orth_dist      # OCNN: Wang, Chen, Chakraborty and Yu, CVPR 2020
from ortho_kernels.compat import compute_orth_regu  # AdaLoRA: Zhang et al., ICLR 2023
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from . import functional
from .weight_checks import check_weights
from .weight_views import view_weight

_STARTS = ("uniform", "normal")


def l2_reg_ortho(model: nn.Module, *, side: str = "small", start: str = "uniform") -> Tensor | None:
    """The SRIP term of Bansal, Chen and Wang, "Can We Gain More from Orthogonality Regularizations in Training Deep CNNs?".

    The sum over every parameter with 2 or more dimensions, embeddings and the classifier included, of sigma^2 with
    sigma = |R R v| / |R v|. Two variants circulate; the defaults are the first:

    - `side="small"`, `start="uniform"`: the smaller Gram, v uniform in [0, 1) (the released code for wide ResNets);
    - `side="cols"`, `start="normal"`: always W^T W, v Gaussian (the released code for ImageNet). For a wide W this Gram has
      a null space, so sigma >= 1 however orthogonal the rows are, and the gradient may push the wrong way.

    It differs from the paper behind this package (arXiv 2411.00392; `OrthogonalityPenalty(encoder, "srip")`) in three ways:
    sigma is squared; every matrix-shaped parameter counts, not the encoder's conv and linear weights alone; and v is
    uniform, not Gaussian, by default. It differs from the released code in one: where R v = 0 its value is 0, not NaN.

    Returns:
        The sum, differentiable; `None`, as the released code has it, for a model without such a parameter.

    Raises:
        ValueError: for a sharded parameter (`DTensor`), for which each process would draw another v.
    """
    if start not in _STARTS:
        raise ValueError(f"start must be 'uniform' or 'normal'; got {start!r}")
    named = [(name, weight) for name, weight in model.named_parameters() if weight.dim() >= 2]
    if not named:
        return None
    names, weights = zip(*named, strict=True)
    check_weights(weights, [1] * len(weights), names)
    draw = torch.rand if start == "uniform" else torch.randn
    vectors = [draw(1, view_weight(weight, 1).order(side), device=weight.device) for weight in weights]
    return functional.srip(weights, side=side, start=vectors, squared=True)


def orth_dist(mat: Tensor, stride: int | None = None) -> Tensor:
    """||M^T M - I||_F of OCNN, M the taller of `mat` (flattened to 2-D) and its transpose: the smaller Gram.

    It differs from SO in arXiv 2411.00392 in that the norm is not squared (the gradient has unit scale however close to
    orthogonal `mat` is), and from the released code in that its gradient at an orthogonal `mat` is 0, not NaN. `stride` is
    accepted and ignored, as there. One call a layer is how that code is written;
    `soft_orthogonality(weights, squared=False)` gives the sum over all layers in one call.
    """
    return functional.soft_orthogonality([mat], squared=False)


def compute_orth_regu(model: nn.Module, regu_weight: float = 0.1, *, adapter: str = "") -> Tensor:
    """The orthogonality term of AdaLoRA: `regu_weight` times the mean over its factors of ||G - I||_F, G the factor's Gram.

    The factors are the parameters P with "lora_A" in their names, where G = P P^T, and with "lora_B", where G = P^T P. This
    is `compute_orth_regu` of Zhang et al. (ICLR 2023; `loralib/loralib/adalora.py` of github.com/QingruZhang/AdaLoRA, commit
    19e47de). PEFT has the same formula in `AdaLoraModel.forward` (`src/peft/tuners/adalora/model.py` of
    github.com/huggingface/peft, commit 5d602fd). There the weight is `orth_reg_weight`, and only parameters count whose
    names contain the trained adapter's: `adapter="default"` unless another name was chosen. PEFT adds the term by itself
    where the model's output has a `loss` and its configuration a `task_type`, and only there (0.21).

    In terms of this package it is `regu_weight * soft_orthogonality(factors, squared=False, reduction="mean")`, with
    `side="rows"` for lora_A and `side="cols"` for lora_B, the small sides, r x r. It differs from the released codes in
    two ways: its gradient at an orthogonal factor is 0, not NaN, and it keeps float32's digits for 16-bit factors.

    Raises:
        ValueError: for a model without such a parameter, of which the released code makes a division by zero, and PEFT 0.
    """
    factors: dict[str, list[Tensor]] = {"lora_A": [], "lora_B": []}
    for name, parameter in model.named_parameters():
        letter = next((letter for letter in factors if letter in name), None)
        if letter is not None and adapter in name:
            factors[letter].append(parameter)
    if not any(factors.values()):
        named = f", and with {adapter!r}," if adapter else ""
        raise ValueError(f"the model has no parameter with lora_A or lora_B{named} in its name")
    norms = [
        functional.soft_orthogonality(factors[letter], side=side, squared=False, reduction="none")
        for letter, side in (("lora_A", "rows"), ("lora_B", "cols"))
        if factors[letter]
    ]
    return regu_weight * torch.cat(norms).mean()
