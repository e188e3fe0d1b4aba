"""The operators: schemas, shapes for tracing, and gradients. One call serves all weights of a model.

`weights` are raw weights, `groups[i]` tells how many matrices weight i holds and `sides[i]` which Gram of them is meant
(0: rows, W W^T; 1: cols, W^T W). Values, start vectors and everything kept for the backward have the compute dtype:
float64 where any weight is float64, else float32. Tensors of all matrices are packed one after the other:

- `values`     one a matrix
- `residuals`  the lower triangle of each R, row by row, weighted by `diagonal` and `off_diagonal`; n (n + 1) / 2 entries
- `start`      n entries, in the order of the rows or columns of the weight as its shape gives them
- `vectors`    `pairs x 2 x n`: for each application of R from the last to the first (only the last for the envelope
               gradient) the adjoint `lambda` and the vector `x`; the gradient is `sum (lambda x^T + x lambda^T) W`

`precision`, 0 to 2, is torch.get_float32_matmul_precision() (`PRECISIONS`): how far the backward product of float32 weights,
in which nothing cancels, may be rounded. The forward always keeps float32's digits.

`..._value_and_grad` is forward and backward in one, for whoever needs no graph: it tells every matrix's penalty (SO's value
or, not `squared`, its root; SRIP's sigma or, `squared`, its square) and writes `scale` times their gradients to
`gradients`, or adds them there if `add`: one tensor for each `wanted` weight, of its shape, dtype and strides. SRIP's also
tells `last`, the vectors the iteration ended with, packed as `start`. Where a backend has no operator of its own for this,
its forward and backward are called one after the other.

`start_vectors` draws SRIP's start: one standard Gaussian float32 for each int64 of `keys`, at this `step` (0-d int64).

Implementations are registered by the backends, one for each dispatch key.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd import forward_ad

from . import reference
from .matrix_view import check_storage, matrix_view

NAMESPACE = "ortho_kernels"
NAMES = ("soft_orthogonality", "soft_orthogonality_backward", "srip", "srip_backward")
ROWS, COLS = 0, 1
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
VALUE_AND_GRAD_SCHEMAS = (
    "soft_orthogonality_value_and_grad(Tensor[] weights, int[] groups, int[] sides, float diagonal, float off_diagonal,"
    " bool squared, float scale, int precision, bool add, Tensor(a!)[] gradients, int[] wanted) -> Tensor values",
    "srip_value_and_grad(Tensor[] weights, int[] groups, int[] sides, Tensor start, int iterations, bool through,"
    " bool squared, float scale, bool add, Tensor(a!)[] gradients, int[] wanted) -> (Tensor values, Tensor last)",
)
START_SCHEMA = "start_vectors(Tensor keys, Tensor step) -> Tensor"

library = torch.library.Library(NAMESPACE, "DEF")
for schema in (*SCHEMAS, *VALUE_AND_GRAD_SCHEMAS, START_SCHEMA):
    library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))

_operators = torch.ops.ortho_kernels
_soft_orthogonality = _operators.soft_orthogonality.default
_srip = _operators.srip.default


def _allocating(operator):
    """Temporary: gives the backward operators new gradients."""

    def call(factors, weights, groups, sides, kept, option, wanted):
        gradients = [torch.empty_like(w) for w, want in zip(weights, wanted, strict=True) if want]
        operator(factors, weights, groups, sides, kept, option, gradients, wanted, False)
        left = iter(gradients)
        return [next(left) if want else w.new_empty(0) for w, want in zip(weights, wanted, strict=True)]

    return call


_soft_orthogonality_backward = _allocating(_operators.soft_orthogonality_backward.default)
_srip_backward = _allocating(_operators.srip_backward.default)


def compute_dtype(weights: Sequence[Tensor]) -> torch.dtype:
    """The dtype of values: float64 where any weight is float64, else float32."""
    return torch.float64 if any(weight.dtype is torch.float64 for weight in weights) else torch.float32


def backward_precision() -> int:
    """What `torch.set_float32_matmul_precision` asks for now. Dynamo can't trace the question; exact is always right."""
    return 0 if torch.compiler.is_compiling() else PRECISIONS.index(torch.get_float32_matmul_precision())


def orders(weights: Sequence[Tensor], groups: Sequence[int], sides: Sequence[int]) -> list[int]:
    """The order n of every matrix, groups of one weight side by side."""
    result = []
    for weight, count, side in zip(weights, groups, sides, strict=True):
        view = matrix_view(weight, count)
        result += [view.rows if side == ROWS else view.cols] * count
    return result


# Shapes, for torch.compile and torch.export


def _fake_soft_orthogonality(weights, groups, sides, diagonal, off_diagonal, keep):
    n = orders(weights, groups, sides)
    kept = sum(order * (order + 1) // 2 for order in n) if keep else 0
    like = {"dtype": compute_dtype(weights)}
    return weights[0].new_empty(len(n), **like), weights[0].new_empty(kept, **like)


def _fake_srip(weights, groups, sides, start, iterations, through, keep):
    n = orders(weights, groups, sides)
    pairs = iterations if through else 1
    return start.new_empty(len(n)), start.new_empty(pairs * 2 * sum(n) if keep else 0)


def _fake_gradients(weights, wanted):
    return [torch.empty_like(w) if want else w.new_empty(0) for w, want in zip(weights, wanted, strict=True)]


torch.library.register_fake(f"{NAMESPACE}::soft_orthogonality", _fake_soft_orthogonality, lib=library)
torch.library.register_fake(f"{NAMESPACE}::srip", _fake_srip, lib=library)
for _name in ("soft_orthogonality_backward", "srip_backward"):
    torch.library.register_fake(f"{NAMESPACE}::{_name}", lambda *_: None, lib=library)


# vmap would need operators with a batch dimension: matrices of one shape are groups of one weight already.

_INSTEAD_OF_VMAP = (
    "torch.func.vmap can't batch the kernels: pass the matrices as groups of one weight, soft_orthogonality("
    '[batch.reshape(b * out, in)], groups=b, reduction="none"), or as a list of weights'
)


def refuse_vmap(*_):
    raise RuntimeError(f"{_INSTEAD_OF_VMAP}, or take vmap under ortho_kernels.use_backend('torch')")


def _refuse_vmap_of_value_and_grad(*_):
    raise RuntimeError(_INSTEAD_OF_VMAP)


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


for name in NAMES:
    library.impl(name, refuse_vmap, "FuncTorchBatched")
    library.impl(name, refuse_vmap, "Batched")  # autograd's is_grads_batched


# Gradients. The operators have an autograd kernel; called from Python it is entered directly, ahead of the dispatcher,
# because only there torch.func transforms know it. What is being compiled sees the operator itself.


def _differentiable(forward, backward, constant):
    """An operator `(weights, groups, sides, *rest)`, differentiable by one call of its backward operator.

    `constant(*rest)`, called when the gradient is taken, is what the backward operator takes after the kept tensor.
    """

    def compute(options, *weights):
        with torch._C._AutoDispatchBelowAutograd():
            return forward(weights, *options)

    def remember(ctx, inputs, output):
        options, *weights = inputs
        _, kept = output
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(kept)
        ctx.save_for_backward(kept, *weights)
        ctx.groups, ctx.sides, *ctx.rest = options
        ctx.keep = options[-1]

    class Differentiable(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *inputs):
            output = compute(*inputs)
            remember(ctx, inputs, output)
            return output

        @staticmethod
        def backward(ctx, grad_values, _):
            wanted = ctx.needs_input_grad[1:]
            if grad_values is None:
                return None, *(None for _ in wanted)
            if not ctx.keep:
                raise RuntimeError("computed with keep=False: nothing was kept from which to take a gradient")
            kept, *weights = ctx.saved_tensors
            gradients = backward(
                grad_values.contiguous(),
                weights,
                ctx.groups,
                ctx.sides,
                kept,
                constant(*ctx.rest),
                [int(w) for w in wanted],
            )
            return None, *(gradient if want else None for gradient, want in zip(gradients, wanted, strict=True))

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

    def autograd_kernel(weights, *options):
        wanted = torch.is_grad_enabled() and any(weight.requires_grad for weight in weights)
        if wanted or forward_ad._current_level >= 0:  # a tangent must meet jvp, not vanish
            transformed = torch._C._are_functorch_transforms_active()
            return (Transformable if transformed else Differentiable).apply(options, *weights)
        return compute(options, *weights)

    def call(weights, *options):
        return (forward if torch.compiler.is_compiling() else autograd_kernel)(weights, *options)

    library.impl(forward, autograd_kernel, "Autograd")
    return call


class _SecondDerivative(torch.autograd.Function):
    """Stands where a gradient's own gradient would be taken, and says what to do instead."""

    @staticmethod
    def forward(compute, *inputs):
        return tuple(compute())

    vmap = staticmethod(refuse_vmap)

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, *_):
        raise RuntimeError(
            "the kernels' penalties can be differentiated once; for second derivatives run the forward under "
            "ortho_kernels.use_backend('torch')"
        )


def _differentiable_no_further(operator):
    def compute(grad_values, weights, *options):
        with torch._C._AutoDispatchBelowAutograd():
            return operator(grad_values, weights, *options)

    def autograd_kernel(grad_values, weights, *options):
        inputs = (grad_values, *weights)
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs):
            return list(_SecondDerivative.apply(lambda: compute(grad_values, weights, *options), *inputs))
        return compute(grad_values, weights, *options)

    def call(*arguments):
        return (operator if torch.compiler.is_compiling() else autograd_kernel)(*arguments)

    return call


soft_orthogonality = _differentiable(
    _soft_orthogonality,
    _differentiable_no_further(_soft_orthogonality_backward),
    lambda diagonal, off_diagonal, keep: backward_precision(),
)
srip = _differentiable(
    _srip,
    _differentiable_no_further(_srip_backward),
    lambda start, iterations, through, keep: iterations if through else 1,
)


# Forward and backward in one


def gradient_name(index: int) -> str:
    """What errors call the tensor that gets the gradient of this weight."""
    return f"the gradient of weights[{index}]"


def _write(gradients, computed, wanted, add):
    indices = [index for index, want in enumerate(wanted) if want]
    check_storage(gradients, [gradient_name(index) for index in indices])
    for target, index in zip(gradients, indices, strict=True):
        target.add_(computed[index]) if add else target.copy_(computed[index])


def _soft_orthogonality_in_two_calls(
    weights, groups, sides, diagonal, off_diagonal, squared, scale, precision, add, gradients, wanted
):
    values, residuals = _soft_orthogonality(weights, groups, sides, diagonal, off_diagonal, True)
    factors = torch.full_like(values, scale)
    if not squared:
        values = values.sqrt()
        factors = torch.where(values == 0, 0, factors / (2 * values))
    computed = _soft_orthogonality_backward(factors, weights, groups, sides, residuals, precision, wanted)
    _write(gradients, computed, wanted, add)
    return values


def _srip_in_two_calls(weights, groups, sides, start, iterations, through, squared, scale, add, gradients, wanted):
    values, vectors = _srip(weights, groups, sides, start, iterations, through, True)
    pairs = iterations if through else 1
    factors = 2 * scale * values if squared else torch.full_like(values, scale)
    _write(gradients, _srip_backward(factors, weights, groups, sides, vectors, pairs, wanted), wanted, add)
    return values.square() if squared else values, last_vectors(vectors, orders(weights, groups, sides), pairs)


def last_vectors(vectors: Tensor, orders: Sequence[int], pairs: int) -> Tensor:
    """The vectors that the iteration ended with, normalised and packed, out of all that was kept for the backward."""
    # Of the pairs kept for a matrix the first begins with x_m.
    return torch.cat(vectors.split([size for n in orders for size in (n, (2 * pairs - 1) * n)])[::2])


def _value_and_grad(name, in_two_calls, fake):
    """An operator `(*options, gradients, wanted)` that is no part of any graph."""
    operator = getattr(_operators, name).default
    library.impl(operator, in_two_calls, "CompositeExplicitAutograd")
    library.impl(operator, _refuse_vmap_of_value_and_grad, "FuncTorchBatched")
    torch.library.register_fake(f"{NAMESPACE}::{name}", fake, lib=library)

    def call(*arguments):
        if torch.compiler.is_compiling():
            return operator(*arguments)
        with torch._C._AutoDispatchBelowAutograd():
            result = operator(*arguments)
        torch.autograd.graph.increment_version(arguments[-2])
        return result

    return call


soft_orthogonality_value_and_grad = _value_and_grad(
    "soft_orthogonality_value_and_grad",
    _soft_orthogonality_in_two_calls,
    lambda weights, groups, sides, *options: _fake_soft_orthogonality(weights, groups, sides, 1.0, 1.0, False)[0],
)
srip_value_and_grad = _value_and_grad(
    "srip_value_and_grad",
    _srip_in_two_calls,
    lambda weights, groups, sides, start, *options: (
        _fake_srip(weights, groups, sides, start, 1, False, False)[0],
        torch.empty_like(start),
    ),
)


# Start vectors: the definition serves where a backend has no operator of its own

start_vectors = _operators.start_vectors.default
library.impl(start_vectors, reference.start_vectors, "CompositeExplicitAutograd")
torch.library.register_fake(
    f"{NAMESPACE}::start_vectors", lambda keys, step: torch.empty_like(keys, dtype=torch.float32), lib=library
)
