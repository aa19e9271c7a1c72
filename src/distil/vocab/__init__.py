"""Log-probabilities over the vocabulary without the whole [tokens, vocabulary] matrix of logits.

    hidden          a model's hidden states at the tokens that predict a completion
    output_layer    what turns them into logits: matrix, bias, scale, softcap
    chunked         log-probabilities at chosen ids, the top-K, entropies, a chunk of tokens at a
                    time; backward computes the logits again
    fused           a loss and its gradients in one pass, where nothing is computed again
    logits          what those two share: the logits' form (scale, softcap, temperature), chunks
    rows            what is read from a chunk of logits, and written over it
    sums            the weight's gradient, summed over chunks
    launches        `rows` on a GPU: starts the Triton kernels that are in `kernels`

Left out: what the log-probabilities are for (`distil.objectives`). The functions here are those of
`chunked` and `fused`; `hidden` and `output_layer` are imported from their own files.
"""

from distil.vocab.chunked import (
    gather_logps,
    gather_logps_and_entropy,
    topk_and_gather_logps,
    topk_logps,
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
]
