"""The prose of docs/recipes.md."""

TITLE = """\
# Penalties of released codes, one call each

Each row is a penalty as a released code has it, and the call that gives its value and its gradient. The first column links to
the code's lines. W is a weight seen as a matrix, one filter a row; R = W Wᵀ - I unless the row says otherwise. Strengths
(gamma, lambda, beta) are left out: multiply by yours. Formulas are of one weight where no sum or mean over layers is named;
the calls take any list.

The last columns hold the relative difference of our value and of our gradient from the formula in plain torch, in float64.
Ours ran in float32 and in float64, on the CPU kernels. Each number is the larger of two: at random weights, and at nearly
orthogonal ones (noise 1e-3). A test holds every one to 1e-5. `python tests/recipes.py` measures and writes this page, from
the formulas in `tests/originals.py`.

| who | formula | ours | float32: value, gradient | float64: value, gradient |
|---|---|---|---|---|
"""

MEANING = """
`model` is any module with these weights; `v`, `w` and `start` are start vectors, which are drawn afresh where none are given.
The functions are in `ortho_kernels` and in `ortho_kernels.compat`.

## What the codes do beside their formula

"""

NOTES = {
    "Bansal et al.": (
        "The released code has SRIP alone. SO, DSO and mutual coherence are the paper's, whose W has one filter a column. "
        "The files in PyTorch square the norm, the file in Keras does not; either is meant where its row names it. "
        "Those for ImageNet (`resnet` and `preresnet`) and SVHN take WᵀW whatever its size. That is a bug for a wide weight: "
        "its larger Gram has a null space, so the value is 1 or more however orthogonal the filters are. "
        "The Keras file draws v once, when it builds its graph. "
        "Where R v = 0, the file for wide ResNets gives NaN, and ours 0."
    ),
    "OCNN.": (
        "`orth_dist` ignores its `stride`. `deconv_orth_dist` holds the identity against the middle of the shifts that it "
        "computes. At stride 1 and padding 1 these are 9 of the 25 shifts of a 3 x 3 kernel, with the zero shift in the "
        "middle. At its defaults they are 4, none of them the zero shift: the identity stands against shift (1, 1). "
        "That is a bug, which the training of strided layers meets. "
        "The paper means all shifts, which `convolution_orthogonality` has."
    ),
    "BigGAN.": (
        "The code adds the gradient to `.grad` by hand, and computes no value. It is that of half the sum of squares: with "
        'gamma = strength / 2, `OrthogonalityPenalty(model, side="rows", diagonal=0)` and `accumulate_gradients()` do the '
        "same. `default_ortho` fails with a blacklist that is not empty: it compares tensors by `in`."
    ),
    "GOR.": (
        "A layer has min(groups, filters // 4) groups there. The version in the README is another one: it always takes the "
        "columns' Gram, and does not run."
    ),
    "Kim, Yun.": (
        "`norm_reg` and `psrip_reg` compare the output channels with the input channels, the wrong way round, which is a bug. "
        "Linear and 1 x 1 layers get the larger Gram (the rows of the table); so do 3 x 3 layers with fewer outputs than "
        'inputs: `side="cols"`. The others have `side="rows"`. The smaller Gram is meant. '
        "`ortho_reg` subtracts the diagonal as a row, from every row of WᵀW, which is a bug: the entries off the diagonal are "
        "meant, and measured here. "
        "`ortho` is of the input channels where there are fewer of them: give it `W.transpose(0, 1)`. "
        "`or_reg` sums the differences of the rows' 1-norms from 1; there is no such option here."
    ),
    "ABD-Net.": (
        "Training uses the class `SVMO` for weights; no option selects `SVDO` or `SO`. The paper calls its penalty SVDO, "
        "spectral value *difference* orthogonality: the formula of the class `SVMO`, without the factor 10. The class `SVDO` "
        "has the ratio. Zero matrices give NaN there, and 0 here."
    ),
    "OrthDNNs.": (
        "The code uses `pairwise_distance`, which adds 1e-6 to every entry of R. That is not meant, and left out here. Near "
        "orthogonality it changes the gradient by 7e-4 at noise 1e-3, and by 7e-3 at noise 1e-4, of a 64 x 576 weight. "
        "The loss takes half the sum."
    ),
    "PointNet.": (
        "The two codes differ: the authors' has half the sum of squares over the batch, the one in PyTorch a mean of roots. "
        "The paper has the square, of one T."
    ),
    "vector-quantize-pytorch.": (
        "The 1 / n is the part of the diagonal, where the cosine is 1; what is left is R of rows of unit length. For "
        "`orthogonal_reg_active_codes_only` and `orthogonal_reg_max_codes`, give `codes[:, ids]`. A zero code counts as "
        "orthogonal there, and as 1 / (h n²) here."
    ),
    "AdaLoRA.": "Every `lora_A` and `lora_B` of the adapter counts; its `lora_E` does not.",
    "CODA-Prompt.": (
        "The entries of earlier tasks are detached: give `torch.cat([K[:s].detach(), K[s:f]])`. "
        "P, of three dimensions, is a weight of (prompts, length * width)."
    ),
    "O-LoRA.": "The sum runs over all layers; the old factors are frozen. The loss has the norms of the new factors as well.",
    "ERNIE's router.": (
        "The gate is `(width, experts)`, hence `W.T`. The code takes a step of its own after the optimizer's, "
        "W - lr lambda gradient (`ernie/callbacks/ortho_loss_callback.py`)."
    ),
}
