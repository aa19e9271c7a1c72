"""Completions by transformers' `generate`, under a random stream of its own.

So evaluating changes nothing in a training run: the global stream, the model's mode and its
gradients are left as they were.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from distil.config import EvalConfig, Thinking
from distil.distributed.shards import gathered
from distil.evaluate.samplers import Sample, seed_of
from distil.models import computing, frozen_dtype, load_model, to_accelerator
from distil.prompts.encoder import check_thinking, template_options
from distil.trainer.ownpolicy import own_policy
from distil.trainer.probe import stop_ids, stream_of_its_own
from distil.types import Prompt


def loaded(name: str, thinking: Thinking) -> tuple[Any, Any]:
    """Model and tokenizer, on the accelerator if there is one. Raises ModelError."""
    model, tokenizer = load_model(name, frozen_dtype())
    check_thinking(tokenizer, thinking, name)
    to_accelerator(model)
    return model, tokenizer


class LocalSampler:
    """Samples a model that is loaded."""

    def __init__(
        self, model: Any, tokenizer: Any, settings: EvalConfig, length: int, thinking: Thinking
    ) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._settings, self._length = settings, length
        self._options = template_options(thinking)

    @contextmanager
    def session(self, first: int) -> Iterator[None]:
        """Begins the stream: of the evaluation's seed, or one of its own where another left off."""
        training = self._model.training
        seed = seed_of(self._settings.seed, first) if first else self._settings.seed
        self._model.eval()
        try:
            own = stream_of_its_own(self._model.device, seed)
            with gathered(self._model), computing(self._model), own_policy(self._model), own:
                yield
        finally:
            self._model.train(training)

    @torch.no_grad()
    def sample(self, prompts: Sequence[Prompt], first: int) -> list[Sample]:
        """One completion of each prompt."""
        settings, tokenizer = self._settings, self._tokenizer
        encoded = tokenizer(
            [self._render(prompt) for prompt in prompts],
            return_tensors="pt",
            padding=True,
            padding_side="left",
            add_special_tokens=False,
        ).to(self._model.device)
        output = self._model.generate(
            **encoded,
            do_sample=True,
            temperature=settings.temperature,
            top_p=settings.top_p,
            top_k=settings.top_k,
            max_new_tokens=self._length,
            pad_token_id=tokenizer.pad_token_id,
            synced_gpus=False,
        )[:, encoded["input_ids"].shape[1] :]
        ends = torch.tensor(stop_ids(self._model), dtype=torch.long, device=output.device)
        ended = torch.isin(output, ends)
        finished = ended.any(1)
        # Up to and with the first end token: what follows is padding (pad may equal the end token).
        lengths = torch.where(finished, ended.int().argmax(1) + 1, output.shape[1])
        rows = zip(output, lengths.tolist(), finished.tolist(), strict=True)
        return [
            Sample(tokenizer.decode(ids[:length], skip_special_tokens=True), length, not done)
            for ids, length, done in rows
        ]

    def _render(self, prompt: Prompt) -> str:
        if isinstance(prompt, str):
            return prompt
        template = self._tokenizer.apply_chat_template
        return str(template(prompt, tokenize=False, add_generation_prompt=True, **self._options))
