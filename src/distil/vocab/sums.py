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


class LayerSums:
    """The gradients of an output layer's weight and bias (None: not wanted), a chunk at a time."""

    def __init__(self, weight: Tensor | None, bias: Tensor | None, gain: float) -> None:
        self._like, self._gain = (weight, bias), gain
        self._weight = None if weight is None else torch.zeros_like(weight, dtype=_dtype(weight))
        self._bias = None if bias is None else torch.zeros_like(bias, dtype=wide_dtype(bias.dtype))

    def add(self, product: Tensor, states: Tensor) -> None:
        """Adds gain * product.T @ states, and gain * product's sum over tokens: [tokens, vocab] and
        [tokens, hidden]."""
        if self._weight is not None and self._weight.dtype == product.dtype:
            self._weight.addmm_(product.t(), states, alpha=self._gain)
        elif self._weight is not None:
            self._weight.add_(product.t() @ states, alpha=self._gain)
        if self._bias is not None:
            self._bias.add_(product.sum(0, dtype=self._bias.dtype), alpha=self._gain)

    def gradients(self) -> list[Tensor | None]:
        """Of weight and bias, in their own dtypes."""
        pairs = zip((self._weight, self._bias), self._like, strict=True)
        return [g if g is None or like is None else g.to(like.dtype) for g, like in pairs]


def _dtype(weight: Tensor) -> torch.dtype:
    """In which chunks of its gradient are added up."""
    return weight.dtype if uses_triton(weight) else wide_dtype(weight.dtype)
