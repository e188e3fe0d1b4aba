"""The operators: schemas, shapes for tracing, and gradients. One call serves all weights of a model.

`weights` are raw weights, `groups[i]` is the number of matrices in weight i and `sides[i]` which Gram of them is meant
(0: rows, W W^T; 1: cols, W^T W). Values, start vectors and everything kept for the backward have the compute dtype:
float64 where any weight is float64, else float32. Tensors of all matrices are packed one after the other:

- `values`     one a matrix
- `residuals`  the lower triangle of each R, row by row, weighted by `diagonal` and `off_diagonal`; n (n + 1) / 2 entries.
               Of `residual_norm`: that of K, half of the symmetric part of d value / d Gram. Either way the gradient is
               4 K W
- `start`      n entries, in the order of the rows or columns of the weight as its shape gives them
- `kept`       dL/dG of each cross Gram, n x m entries, row by row
- `vectors`    `pairs x 2 x n`: for each application of R from the last to the first (only the last for the envelope
               gradient) the adjoint `lambda` and the vector `x`; the gradient is `sum (lambda x^T + x lambda^T) W`

`cross_gram` is of pairs: a weight and the other at its place, whose cross Gram is G = A B^T. `norm` counts `options.NORMS`.
The CPU alone has it. `wanted` and `gradients` of its backward are those of the weights, then those of the others.

A backward operator writes `factors[m]` times the gradient of matrix m to `gradients`, or adds it there if `accumulate`: one
tensor for each `wanted` weight, of its shape and dtype, with columns in the order of the weight's (see `new_gradient`).
`factors` lies on the device and has one number a matrix: autograd's incoming gradient, a scale or a schedule.

`precision`, 0 to 2, is torch.get_float32_matmul_precision() (`PRECISIONS`): how far the backward product of float32 weights,
in which nothing cancels, may be rounded. The forward always keeps float32's digits.

`residual_norm` has the other norms of R, numbered as in `NORMS`; `unit_rows_norm` has all norms, of weights whose rows are
scaled to length 1.

Of a convolution (`weights` are kernels of one or two dimensions, or linear), `strides`, `paddings` and `identities` have two
numbers (y, x) a weight: those of the kernel's convolution with itself, and the place of its output that is held against the
identity. `residuals` are then half of the derivative by each shift's product, dense; see `kept_entries` of `shifts.py`.

`extreme_eigenvalues` are the largest and the smallest of each W W^T, `(2, matrices)` in float64, from two vectors of each,
`(entries, 2)`. `vectors` are then 4 pairs, `(8, entries)`.

`gram_times_vectors` is W W^T x of every matrix, float64, from packed vectors x of the compute dtype.
`start_vectors` draws SRIP's start: one standard Gaussian float32 for each int64 of `keys`, at this `step` (0-d int64).
`copy_now` copies a tensor that may change before the backward: compiled, that applies torch's own operators to it anew.

Implementations are registered by the backends, one for each dispatch key.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from . import reference
from .fakes import FAKES, kept_pairs
from .weight_views import GradientSlots, WeightViews, gradient_slots, is_traced, is_transformed, new_gradient

NAMESPACE = "ortho_kernels"
NAMES = ("soft_orthogonality", "soft_orthogonality_backward", "srip", "srip_backward")
PRECISIONS = ("highest", "high", "medium")

SCHEMAS = (
    "soft_orthogonality(Tensor[] weights, int[] groups, int[] sides, float diagonal, float off_diagonal, bool keep)"
    " -> (Tensor values, Tensor residuals)",
    "soft_orthogonality_backward(Tensor factors, Tensor[] weights, int[] groups, int[] sides, Tensor residuals,"
    " int precision, Tensor(a!)[] gradients, int[] wanted, bool accumulate) -> ()",
    "srip(Tensor[] weights, int[] groups, int[] sides, Tensor start, int iterations, bool through, bool keep)"
    " -> (Tensor values, Tensor vectors)",
    "srip_backward(Tensor factors, Tensor[] weights, int[] groups, int[] sides, Tensor vectors, int pairs,"
    " Tensor(a!)[] gradients, int[] wanted, bool accumulate) -> ()",
)
CPU_NAMES = (
    "residual_norm",
    "unit_rows_norm",
    "unit_rows_norm_backward",
    "cross_gram",
    "cross_gram_backward",
    "convolution_orthogonality",
    "convolution_orthogonality_backward",
    "extreme_eigenvalues",
    "extreme_eigenvalues_backward",
)
CPU_SCHEMAS = (
    "residual_norm(Tensor[] weights, int[] groups, int[] sides, int norm, float diagonal, float off_diagonal, bool keep)"
    " -> (Tensor values, Tensor residuals)",
    "unit_rows_norm(Tensor[] weights, int[] groups, int[] sides, int norm, float diagonal, float off_diagonal, bool keep)"
    " -> (Tensor values, Tensor residuals)",
    "unit_rows_norm_backward(Tensor factors, Tensor[] weights, int[] groups, int[] sides, Tensor residuals,"
    " int precision, Tensor(a!)[] gradients, int[] wanted, bool accumulate) -> ()",
    "cross_gram(Tensor[] weights, Tensor[] others, int[] groups, int norm, bool keep) -> (Tensor values, Tensor kept)",
    "cross_gram_backward(Tensor factors, Tensor[] weights, Tensor[] others, int[] groups, Tensor kept, int precision,"
    " Tensor(a!)[] gradients, int[] wanted, bool accumulate) -> ()",
    "convolution_orthogonality(Tensor[] weights, int[] groups, int[] strides, int[] paddings, int[] identities, bool keep)"
    " -> (Tensor values, Tensor residuals)",
    "convolution_orthogonality_backward(Tensor factors, Tensor[] weights, int[] groups, int[] strides, int[] paddings,"
    " int[] identities, Tensor residuals, Tensor(a!)[] gradients, int[] wanted, bool accumulate) -> ()",
    "extreme_eigenvalues(Tensor[] weights, int[] groups, Tensor start, bool keep) -> (Tensor values, Tensor vectors)",
    "extreme_eigenvalues_backward(Tensor factors, Tensor[] weights, int[] groups, Tensor vectors, Tensor(a!)[] gradients,"
    " int[] wanted, bool accumulate) -> ()",
)
PRODUCT_SCHEMA = "gram_times_vectors(Tensor[] weights, int[] groups, Tensor vectors) -> Tensor"
START_SCHEMA = "start_vectors(Tensor keys, Tensor step) -> Tensor"
COPY_SCHEMA = "copy_now(Tensor tensor) -> Tensor"

library = torch.library.Library(NAMESPACE, "DEF")
for schema in (*SCHEMAS, *CPU_SCHEMAS, PRODUCT_SCHEMA, START_SCHEMA, COPY_SCHEMA):
    library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))

_operators = torch.ops.ortho_kernels


def wants_gradient(weights: Sequence[Tensor]) -> bool:
    if torch.is_grad_enabled():
        for weight in weights:  # usually the first one answers
            if weight.requires_grad:
                return True
    return False


def backward_precision() -> int:
    """What `torch.set_float32_matmul_precision` asks for now; exact in what Dynamo compiles: it cannot trace the getter."""
    return 0 if torch.compiler.is_compiling() else PRECISIONS.index(torch.get_float32_matmul_precision())


class Route(NamedTuple):
    """The way to the backend that was chosen for weights with these views, past torch's dispatcher.

    On a GPU the dispatcher would hand a call back to Python, where the views are looked up and the backend is asked again.
    """

    backend: Any
    views: WeightViews


def _operate(name: str, route: Route | None, *arguments: Any) -> Any:
    """An operator, below autograd: the dispatcher's where a trace, a transform or a class of tensors is to see it."""
    with torch._C._AutoDispatchBelowAutograd():
        if route is not None and route.views.plain and not is_transformed():
            return route.backend.operate(name, route.views, *arguments)
        return getattr(_operators, name).default(*arguments)


def new_gradients(
    weights: Sequence[Tensor], wanted: Sequence[bool] | None = None, views: WeightViews | None = None
) -> list[Tensor]:
    """A gradient for each weight that is wanted, to be written over.

    On a GPU all lie in one buffer, at the same distances from each other in every step: what a backend keeps of their places
    on the device stays true, and a CUDA graph can be captured.
    """
    wanted = (True,) * len(weights) if wanted is None else tuple(wanted)
    apart = not weights or weights[0].device.type == "cpu"
    if is_traced() or (apart and (views is None or not views.plain)):
        return [torch.empty_like(w) if w.is_contiguous() else new_gradient(w) for w in compress(weights, wanted)]
    slots = None if views is None else views.gradient_slots.get(wanted)
    if slots is None:
        slots = gradient_slots(list(compress(weights, wanted)))
        if views is not None:
            views.gradient_slots[wanted] = slots
    return slots.apart() if apart else in_one_buffer(slots, weights[0].device)


def in_one_buffer(slots: GradientSlots, device: torch.device) -> list[Tensor]:
    return slots.of(torch.empty(slots.nbytes, dtype=torch.uint8, device=device))


for name, fake in FAKES.items():
    torch.library.register_fake(f"{NAMESPACE}::{name}", fake, lib=library)


# vmap would need operators with a batch dimension: matrices of one shape are groups of one weight already.


def refuse_vmap(*_):
    raise RuntimeError(
        "torch.func.vmap can't batch the kernels: pass the matrices as groups of one weight, soft_orthogonality("
        '[batch.reshape(b * out, in)], groups=b, reduction="none"), or as a list of weights, or take vmap under '
        "ortho_kernels.use_backend('torch')"
    )


def under_vmap(weights: Sequence[Tensor]) -> bool:
    """Whether vmap, among other transforms or alone, hides a dimension of any of these."""
    if torch.compiler.is_compiling() or not torch._C._are_functorch_transforms_active():
        return False
    functorch, layers = torch._C._functorch, list(weights)
    while layers := [tensor for tensor in layers if functorch.is_functorch_wrapped_tensor(tensor)]:
        if any(map(functorch.is_batchedtensor, layers)):
            return True
        layers = [functorch.get_unwrapped(tensor) for tensor in layers]
    return False


for name in (*NAMES, *CPU_NAMES):
    library.impl(name, refuse_vmap, "FuncTorchBatched")
    library.impl(name, refuse_vmap, "Batched")  # autograd's is_grads_batched


# Gradients. The operators have an autograd kernel; called from Python it is entered directly, ahead of the dispatcher,
# because only there torch.func transforms know it. What is being compiled sees the operator itself.


def _differentiable(name, backward, given, paired=False):
    """An operator `(weights, *options, keep)`, differentiable by one call of its backward operator.

    `given(kept, *options)`, called when the gradient is taken, is what the backward operator takes between the weights and
    the gradients. `paired`: an operator `(weights, others, *options, keep)`, whose gradients are those of both lists.
    """
    operator, gradients_of = getattr(_operators, name).default, _differentiable_no_further(backward, paired)
    lists = 2 if paired else 1

    def compute(constants, *weights):
        route, *options = constants
        return _operate(name, route, *(_halves(weights) if paired else (weights,)), *options)

    def remember(ctx, inputs, output):
        (route, *options), *weights = inputs
        _, kept = output
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(kept)
        ctx.save_for_backward(kept, *weights)
        ctx.route, (*ctx.options, ctx.keep) = route, options

    class Differentiable(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *inputs):
            output = compute(*inputs)
            remember(ctx, inputs, output)
            return output

        @staticmethod
        def backward(ctx, factors, _):
            wanted = ctx.needs_input_grad[1:]
            if factors is None:
                return None, *(None for _ in wanted)
            if not ctx.keep:
                raise RuntimeError("computed with keep=False: nothing was kept from which to take a gradient")
            kept, *weights = ctx.saved_tensors
            gradients = gradients_of(factors.contiguous(), weights, given(kept, *ctx.options), wanted, ctx.route)
            if len(gradients) == len(wanted):
                return None, *gradients
            remaining = iter(gradients)
            return None, *(next(remaining) if want else None for want in wanted)

        @staticmethod
        def jvp(ctx, *_):
            raise RuntimeError(
                "the kernels' penalties have no forward-mode derivative; take it under ortho_kernels.use_backend('torch')"
            )

    class Transformable(Differentiable):
        """The same for torch.func, which wants its context set up apart: 45 us more a call."""

        vmap = staticmethod(refuse_vmap)
        forward = staticmethod(compute)
        setup_context = staticmethod(remember)

    def autograd_kernel(*arguments, route=None):
        weights = [*arguments[0], *arguments[1]] if paired else arguments[0]
        if wants_gradient(weights) or forward_ad._current_level >= 0:  # a tangent must meet jvp, not vanish
            transformed = torch._C._are_functorch_transforms_active()
            return (Transformable if transformed else Differentiable).apply((route, *arguments[lists:]), *weights)
        return _operate(name, route, *arguments)

    def call(*arguments, route=None):
        if torch.compiler.is_compiling():
            return operator(*arguments)
        return autograd_kernel(*arguments, route=route)

    library.impl(name, autograd_kernel, "Autograd")
    return call


def _halves(weights):
    """The weights and the others, which follow them."""
    return weights[: len(weights) // 2], weights[len(weights) // 2 :]


class SecondDerivative(torch.autograd.Function):
    """Stands where a gradient's own gradient would be taken, and says what to do instead: `words`."""

    @staticmethod
    def forward(compute, words, *inputs):
        return tuple(compute())

    vmap = staticmethod(refuse_vmap)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.words = inputs[1]

    @staticmethod
    def backward(ctx, *_):
        raise RuntimeError(ctx.words)


_ONCE = (
    "the kernels' penalties can be differentiated once; for second derivatives run the forward under "
    "ortho_kernels.use_backend('torch')"
)


def _differentiable_no_further(write, paired):
    """New gradients of the `wanted` weights, by a backward operator that writes them."""

    def compute(factors, weights, given, wanted, route):
        gradients = new_gradients(weights, wanted, route and route.views)
        lists = _halves(weights) if paired else (weights,)
        write(factors, *lists, *given, gradients, wanted, False, route=route)
        return gradients

    def gradients_of(factors, weights, *rest):
        inputs = (factors, *weights)
        if not torch.compiler.is_compiling() and wants_gradient(inputs):
            return SecondDerivative.apply(lambda: compute(factors, weights, *rest), _ONCE, *inputs)
        return compute(factors, weights, *rest)

    return gradients_of


def _backward(name):
    """A backward operator as it is called from Python: part of no graph, yet autograd learns what has changed."""
    operator = getattr(_operators, name).default

    def write(*arguments, route=None):
        if torch.compiler.is_compiling():
            operator(*arguments)
            return
        _operate(name, route, *arguments)
        torch.autograd.graph.increment_version(arguments[-3])

    return write


soft_orthogonality_backward = _backward("soft_orthogonality_backward")
unit_rows_norm_backward = _backward("unit_rows_norm_backward")
srip_backward = _backward("srip_backward")
cross_gram_backward = _backward("cross_gram_backward")
convolution_orthogonality_backward = _backward("convolution_orthogonality_backward")
extreme_eigenvalues_backward = _backward("extreme_eigenvalues_backward")


def _of_a_side(kept, groups, sides, *_):
    return groups, sides, kept, backward_precision()


soft_orthogonality = _differentiable("soft_orthogonality", soft_orthogonality_backward, _of_a_side)
residual_norm = _differentiable("residual_norm", soft_orthogonality_backward, _of_a_side)
unit_rows_norm = _differentiable("unit_rows_norm", unit_rows_norm_backward, _of_a_side)
srip = _differentiable(
    "srip", srip_backward, lambda kept, groups, sides, *iteration: (groups, sides, kept, kept_pairs(*iteration))
)
cross_gram = _differentiable(
    "cross_gram", cross_gram_backward, lambda kept, groups, norm: (groups, kept, backward_precision()), paired=True
)
convolution_orthogonality = _differentiable(
    "convolution_orthogonality", convolution_orthogonality_backward, lambda kept, *options: (*options, kept)
)
extreme_eigenvalues = _differentiable(
    "extreme_eigenvalues", extreme_eigenvalues_backward, lambda kept, groups, start: (groups, kept)
)


def gradient_name(index: int) -> str:
    """What errors call the tensor that gets the gradient of this weight."""
    return f"the gradient of weights[{index}]"


def last_vectors(vectors: Tensor, orders: Sequence[int], pairs: int) -> Tensor:
    """The vectors with which the iteration ended, normalized and packed, out of all that was kept for the backward."""
    # Of the pairs kept for a matrix the first begins with x_m.
    return torch.cat(vectors.split([size for n in orders for size in (n, (2 * pairs - 1) * n)])[::2])


gram_times_vectors = _operators.gram_times_vectors.default

# Start vectors: the definition serves where a backend has no operator of its own

start_vectors = _operators.start_vectors.default
library.impl(start_vectors, reference.start_vectors, "CompositeExplicitAutograd")
torch.library.register_fake(
    f"{NAMESPACE}::start_vectors", lambda keys, step: torch.empty_like(keys, dtype=torch.float32), lib=library
)

copy_now = _operators.copy_now.default
library.impl(copy_now, torch.clone, "CompositeExplicitAutograd")
torch.library.register_fake(f"{NAMESPACE}::copy_now", torch.empty_like, lib=library)
