"""Log-probabilities over the vocabulary without the whole [tokens, vocabulary] matrix of logits.

chunked    log-probabilities at chosen ids, the top-K, entropies; backward computes logits again
logits     what those share: the logits' form (scale, softcap, temperature), chunks, dtypes
"""

from distil.vocab.chunked import (
    gather_logps,
    gather_logps_and_entropy,
    topk_and_gather_logps,
    topk_logps,
    topk_logps_and_entropy,
)
from distil.vocab.fused import Chunk, fused_distil_loss, fused_loss, last_to_first
from distil.vocab.logits import CHUNK_BYTES, CHUNK_TOKENS, default_chunk

__all__ = [
    "CHUNK_BYTES",
    "CHUNK_TOKENS",
    "Chunk",
    "default_chunk",
    "fused_distil_loss",
    "fused_loss",
    "gather_logps",
    "gather_logps_and_entropy",
    "last_to_first",
    "topk_and_gather_logps",
    "topk_logps",
    "topk_logps_and_entropy",
]
