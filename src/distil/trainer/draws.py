"""Tokens drawn by one uniform number each, for transformers' `generate` on a CPU.

`torch.multinomial` draws a random number for every entry of the vocabulary, one after the other on
a CPU: a fifth of a small model's sampling (docs/log.md). By the inverse of the cumulative
distribution one number a row is enough. `generate` takes the largest logit where it doesn't sample,
so the drawn token's is made the only one. Left out: cut distributions (top-k, top-p and the like),
which stay transformers', as does everything on an accelerator.
"""

import copy
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor

from distil.errors import TrainingError

CELL = 256
"""Entries whose sum is known; the one that holds the draw is searched."""

_NO_CUT: dict[str, tuple[Any, ...]] = {
    "top_k": (None, 0),
    "top_p": (None, 1.0),
    "min_p": (None, 0.0),
    "typical_p": (None, 1.0),
    "epsilon_cutoff": (None, 0.0),
    "eta_cutoff": (None, 0.0),
    "top_h": (None,),
}


def by_one_number(config: GenerationConfig, device: torch.device) -> dict[str, Any]:
    """`generate`'s arguments for the same distribution: drawn here if it is whole and on a CPU."""
    whole = all(getattr(config, name, None) in kept for name, kept in _NO_CUT.items())
    if device.type != "cpu" or not config.do_sample or not whole:
        return {"generation_config": config}
    greedy = copy.deepcopy(config)
    greedy.update(do_sample=False, temperature=1.0, top_k=50, top_p=1.0)  # as if never set
    return {
        "generation_config": greedy,
        "logits_processor": [
            DrawProcessor(1.0 if config.temperature is None else config.temperature)
        ],
    }


class DrawProcessor(LogitsProcessor):
    """Leaves of each row one token, drawn from softmax(scores / temperature); -inf elsewhere."""

    def __init__(self, temperature: float) -> None:
        self._temperature = temperature

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """[rows, vocab] -> the same, overwritten. Raises TrainingError if a row has no maximum."""
        rows, vocab = scores.shape
        cells = -(-vocab // CELL)
        padded = scores.new_zeros(rows, cells * CELL)
        p = padded[:, :vocab]  # not normalised: the draw is from 0 to its sum
        torch.sub(scores, scores.amax(-1, keepdim=True), out=p)
        p.div_(self._temperature).exp_()
        inside = padded.view(rows, cells, CELL)
        up_to = inside.sum(-1).double().cumsum(-1)
        if not up_to[:, -1].isfinite().all():
            raise TrainingError(
                "The model's logits hold NaN or infinity, so that no token can be drawn: its "
                "weights have diverged. Go on from a checkpoint, with a lower learning rate."
            )
        draw = torch.rand(rows, 1, dtype=torch.float64) * up_to[:, -1:]
        cell = torch.searchsorted(up_to, draw, right=True).clamp(max=cells - 1)
        before = torch.nn.functional.pad(up_to, (1, 0)).gather(1, cell)
        within = inside[torch.arange(rows), cell[:, 0]].double().cumsum(-1)
        # Sums in other orders differ in the last digits: the draw stays below the cell's own.
        rest = torch.minimum(draw - before, within[:, -1:] * (1 - 1e-12))
        token = CELL * cell + torch.searchsorted(within, rest, right=True)
        return scores.fill_(-torch.inf).scatter_(1, token, 0.0)
