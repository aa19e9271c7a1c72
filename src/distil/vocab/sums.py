"""Gradients of weight and bias, summed over chunks of tokens.

On a CPU they are summed in the wide dtype; each chunk's part of a narrower one is rounded once. On
a GPU a float32 sum of the gradient of a bfloat16 weight of 151,936 x 4,096 would be 2.3 GiB beside
the gradient, and adding to it would take as long as the product itself. So each chunk's product is
added, in float32, onto the gradient in the weight's dtype, which is rounded once a chunk: chunks
are few there (`logits.default_chunk`), and `benchmarks/kernels.py` prints what the roundings cost.
"""

import torch
from torch import Tensor

from distil.vocab.logits import wide_dtype
from distil.vocab.rows import uses_triton


def new_sum(like: Tensor) -> Tensor:
    """Zeros of the shape of a weight or bias, in the dtype in which chunks are added up."""
    dtype = like.dtype if uses_triton(like) else wide_dtype(like.dtype)
    return torch.zeros_like(like, dtype=dtype)


def add_product_(total: Tensor, product: Tensor, states: Tensor, gain: float) -> Tensor:
    """Adds gain * product.T @ states to it: product [tokens, vocab], states [tokens, hidden]."""
    if total.dtype == product.dtype:
        return total.addmm_(product.t(), states, alpha=gain)
    return total.add_(product.t() @ states, alpha=gain)
