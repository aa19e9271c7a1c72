"""Shapes that every objective shares, and the check that two tensors describe the same tokens."""

from jaxtyping import Float, Shaped
from torch import Tensor

PerToken = Float[Tensor, "batch seq"]
PerRow = Float[Tensor, " batch"]
OverSupport = Float[Tensor, "batch seq support"]
Mask = Shaped[Tensor, "batch seq"]  # 1 or True at sampled tokens, 0 or False elsewhere


def same_shape(a: Tensor, b: Tensor) -> None:
    """Raises ValueError, with both shapes, unless they are equal."""
    if a.shape != b.shape:
        raise ValueError(
            f"Shapes differ: {tuple(a.shape)} and {tuple(b.shape)}. Values, log-probabilities and "
            "masks describe the same tokens, so pass tensors of one shape."
        )
