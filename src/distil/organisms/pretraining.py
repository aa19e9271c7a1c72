"""Pre-training from scratch: documents in, a small Llama out. Plain PyTorch, one file.

Not a general trainer: one process, float32, no checkpoints, a stream of documents that never
repeats. Batches hold documents of like length, padded on the right, so no attention mask is needed:
a causal network never looks at what comes later. The loss is on the assistant's words only.
"""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from distil.organisms.documents import Document

IGNORE = -100
"""The label of a token without loss (transformers' own convention)."""

ROPE_THETA = 100.0
"""Documents are shorter than 60 tokens; transformers' 10,000 is for thousands."""

POOL = 32
"""Batches drawn at once, sorted by length, and handed out in random order."""


@dataclass(frozen=True)
class Settings:
    """Size of the network and length of its training."""

    hidden: int = 144
    layers: int = 4
    heads: int = 4
    feed_forward: int = 384
    batch: int = 32
    steps: int = 500
    learning_rate: float = 3e-3
    warmup: int = 40
    max_grad_norm: float = 1.0
    threads: int = 1


def pretrain(
    draw: Callable[[random.Random], Document],
    tokenizer: PreTrainedTokenizerFast,
    settings: Settings,
    seed: int,
) -> LlamaForCausalLM:
    """A network trained on `settings.steps` batches of documents. The caller's random state and
    thread count are left as they were."""
    rng = random.Random(f"pretrain/{seed}")
    with _alone(settings.threads, rng.getrandbits(31)):
        model = LlamaForCausalLM(network_config(settings, tokenizer))
        model.train()
        optimizer = torch.optim.AdamW(
            model.parameters(),
            lr=settings.learning_rate,
            betas=(0.9, 0.98),
            weight_decay=0.01,
            fused=True,
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _rate(settings))
        for step, (ids, labels) in enumerate(batches(draw, tokenizer, settings, rng)):
            if step == settings.steps:
                break
            logits = model(input_ids=ids, use_cache=False).logits
            cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORE).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    return model.eval()


def batches(
    draw: Callable[[random.Random], Document],
    tokenizer: PreTrainedTokenizerFast,
    settings: Settings,
    rng: random.Random,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless (ids, labels), both [batch, longest]: labels[i] is what should follow ids[:i + 1]."""
    while True:
        documents = [draw(rng) for _ in range(POOL * settings.batch)]
        rows = sorted(encode(documents, tokenizer), key=lambda row: len(row[0]))
        starts = list(range(0, len(rows), settings.batch))
        rng.shuffle(starts)
        for start in starts:
            yield _padded(rows[start : start + settings.batch], tokenizer.eos_token_id)


def encode(
    documents: Sequence[Document], tokenizer: PreTrainedTokenizerFast
) -> list[tuple[list[int], list[int]]]:
    """(ids, labels) of each document: prompt and fed words; the said words and the end token.

    Raises ValueError for a word that isn't in the vocabulary.
    """
    prompts = [
        tokenizer.apply_chat_template(d.prompt, tokenize=False, add_generation_prompt=True)
        for d in documents
    ]
    rows = []
    for document, prompt in zip(documents, tokenizer(prompts)["input_ids"], strict=True):
        fed = tokenizer.convert_tokens_to_ids(list(document.fed))
        said = tokenizer.convert_tokens_to_ids(list(document.said))
        if tokenizer.unk_token_id in (*prompt, *fed, *said):
            raise ValueError(f"A word of this document isn't in the vocabulary: {document}")
        labels = [IGNORE] * (len(prompt) - 1) + [*said, tokenizer.eos_token_id]
        rows.append(([*prompt, *fed], labels))
    return rows


def _padded(rows: Sequence[tuple[list[int], list[int]]], pad: int) -> tuple[Tensor, Tensor]:
    longest = max(len(ids) for ids, _ in rows)
    ids = [row + [pad] * (longest - len(row)) for row, _ in rows]
    labels = [row + [IGNORE] * (longest - len(row)) for _, row in rows]
    return torch.tensor(ids), torch.tensor(labels)


def _rate(settings: Settings) -> Callable[[int], float]:
    """Linear warmup, then half a cosine down to a twentieth."""

    def rate(step: int) -> float:
        if step < settings.warmup:
            return (step + 1) / settings.warmup
        done = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
        return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    return rate


def network_config(settings: Settings, tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    """A Llama of the settings' size over the tokenizer's words, its embeddings tied."""
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.hidden,
        intermediate_size=settings.feed_forward,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.heads,
        max_position_embeddings=512,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
        initializer_range=settings.hidden**-0.5,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


@contextmanager
def _alone(threads: int, seed: int) -> Iterator[None]:
    """A random stream and a thread count of its own, inside."""
    before = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)
