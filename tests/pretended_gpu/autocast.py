"""What torch.autocast does on CUDA, for the functions that networks and losses call.

torch's own looks at the device behind Python's back, and finds another there.
"""

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

# By torch's documentation of autocast.
IN_16_BITS = {
    "__matmul__", "__rmatmul__", "addbmm", "addmm", "addmv", "baddbmm", "bmm", "conv1d", "conv2d", "conv_transpose2d",
    "linear", "matmul", "mm", "mv", "scaled_dot_product_attention",
}  # fmt: skip
IN_32_BITS = {
    "__pow__", "acos", "binary_cross_entropy_with_logits", "cdist", "cosine_similarity", "cross_entropy", "cumsum", "exp",
    "expm1", "group_norm", "kl_div", "l1_loss", "layer_norm", "log", "log1p", "log_softmax", "logsumexp", "mse_loss",
    "nll_loss", "norm", "normalize", "pow", "prod", "reciprocal", "rsqrt", "smooth_l1_loss", "softmax", "sum",
    "vector_norm",
}  # fmt: skip
CAST = (torch.float32, torch.float16, torch.bfloat16)


class Autocast(TorchFunctionMode):
    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(function, "__name__", "")
        if torch.is_autocast_enabled("cuda") and name in IN_16_BITS | IN_32_BITS:
            dtype = torch.get_autocast_dtype("cuda") if name in IN_16_BITS else torch.float32
            args, kwargs = tree_map(lambda value: cast(value, dtype), (tuple(args), kwargs))
        return function(*args, **kwargs)


def cast(value, dtype):
    return value.to(dtype) if isinstance(value, Tensor) and value.is_cuda and value.dtype in CAST else value
