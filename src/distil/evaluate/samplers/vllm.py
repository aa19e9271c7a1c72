"""Completions by vLLM in this process. Untested on the real vLLM: the tests' is a stand-in.

vLLM schedules a batch's requests by itself: give it large ones (eval.batch_size).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from distil.config import EvalConfig, Thinking
from distil.errors import RecipeError
from distil.evaluate.samplers import Sample, as_messages, seed_of
from distil.models import resolve_model
from distil.prompts.encoder import check_thinking, template_options
from distil.types import Prompt


class VllmSampler:
    """vLLM's `LLM`, its own chat template and end tokens."""

    def __init__(
        self, model: str, settings: EvalConfig, length: int, thinking: Thinking, gpus: int
    ) -> None:
        try:
            import vllm
        except ImportError as error:
            raise RecipeError(
                "--vllm samples with the package vllm, which isn't installed. Install the extra: "
                "pip install 'distil[vllm]', or leave the flag out."
            ) from error
        self._settings, self._length, self._parameters = settings, length, vllm.SamplingParams
        source = resolve_model(model)
        self._engine = vllm.LLM(model=source, dtype="auto", tensor_parallel_size=gpus)
        check_thinking(self._engine.get_tokenizer(), thinking, model)
        self._options = template_options(thinking) or None

    @contextmanager
    def session(self, first: int) -> Iterator[None]:
        """Nothing: each request has a seed of its own."""
        yield

    def sample(self, prompts: Sequence[Prompt], first: int) -> list[Sample]:
        """One completion of each prompt."""
        settings = self._settings
        parameters = [
            self._parameters(
                temperature=settings.temperature,
                top_p=settings.top_p,
                top_k=settings.top_k or -1,
                max_tokens=self._length,
                seed=seed_of(settings.seed, first + place),
            )
            for place in range(len(prompts))
        ]
        outputs = self._engine.chat(
            [as_messages(prompt) for prompt in prompts],
            sampling_params=parameters,
            chat_template_kwargs=self._options,
            use_tqdm=False,
        )
        found = [output.outputs[0] for output in outputs]
        return [Sample(o.text, len(o.token_ids), o.finish_reason == "length") for o in found]
