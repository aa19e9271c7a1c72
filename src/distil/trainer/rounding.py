"""How many steps are lost where weights of 16 bits are trained as they are.

AdamW moves a weight by about the learning rate. bfloat16 has 8 significant bits, so that a weight
of .02 lies 6e-5 from the halfway point to its neighbour, and a step of 1e-6 is rounded away, each
time anew. Weights kept in float32 lose none; passes compute in bfloat16 all the same (autocast).
FSDP2 and DeepSpeed keep float32 ones themselves. Left out: rounding at random.
"""

import warnings
from collections.abc import Iterable

import torch
from torch import Tensor

READ = 4096
"""Entries of each tensor that are tried, evenly spaced."""
TOLD = 0.05
"""A smaller share is not told."""


@torch.no_grad()
def lost_share(parameters: Iterable[Tensor], learning_rate: float) -> float:
    """The share of entries that a step of `learning_rate` leaves as they are, by a sample of each.

    Equals, of all entries w, the mean of (w + rate == w) and (w - rate == w) in w's own dtype.
    """
    lost = total = 0.0
    for parameter in parameters:
        flat = parameter.detach().flatten()
        some = flat[:: max(1, len(flat) // READ)]
        wide = some.double()
        kept = [(wide + step).to(some.dtype) == some for step in (learning_rate, -learning_rate)]
        lost += len(flat) * (kept[0] & kept[1]).double().mean().item()
        total += len(flat)
    return lost / total if total else 0.0


def warn_of_lost_steps(parameters: Iterable[Tensor], learning_rate: float) -> None:
    """Warns if many of a learning rate's steps would change nothing."""
    narrow = [p for p in parameters if p.requires_grad and p.dtype.itemsize < 4]
    share = lost_share(narrow, learning_rate)
    if share > TOLD:
        warnings.warn(
            f"{share:.0%} of the trained weights can't move: they are kept in {narrow[0].dtype}, "
            f"where a step of the learning rate ({learning_rate:g}) is rounded away. Load the "
            "model with dtype float32; passes compute in bfloat16 all the same (bf16=True).",
            stacklevel=2,
        )
