"""What is sampled is the policy that is trained: softmax(logits / temperature), nothing else.

transformers' `generate` takes whatever its caller leaves out from the model's own
generation_config.json: a min_p there, or a repetition penalty, and rollouts are drawn from another
policy than the one whose gradient is estimated, silently. So such settings are left out while
rollouts, teachers, critics and evaluations are sampled, and stay in the model that is saved. Left
out: vLLM, to which TRL says every setting outright.
"""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from transformers import GenerationConfig

KEPT = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id",
        "cache_implementation")  # fmt: skip
"""Of a model's generation config: which tokens begin, end and fill a row, and how keys are kept."""

SAID = {"temperature", "top_p", "top_k", "min_p", "repetition_penalty"}
"""What TRL's arguments or ours say outright."""

CHANGES: dict[str, Any] = {
    "temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0,
    "typical_p": 1.0, "top_h": None, "epsilon_cutoff": 0.0, "eta_cutoff": 0.0,
    "no_repeat_ngram_size": 0, "encoder_no_repeat_ngram_size": 0,
    "encoder_repetition_penalty": 1.0, "bad_words_ids": None, "suppress_tokens": None,
    "begin_suppress_tokens": None, "sequence_bias": None, "min_length": 0, "min_new_tokens": 0,
    "forced_bos_token_id": None, "forced_eos_token_id": None, "guidance_scale": 1.0,
    "exponential_decay_length_penalty": None, "num_beams": 1, "watermarking_config": None,
    "do_sample": True,
}  # fmt: skip
"""Settings that make another policy of a model, each with the value at which it doesn't."""


def changes(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those of some generation settings that make another policy than softmax(logits)."""
    return {
        name: value
        for name, value in settings.items()
        if name in CHANGES and value is not None and value != CHANGES[name]
    }


@contextmanager
def own_policy(model: Any) -> Iterator[None]:
    """Inside, the model and those it wraps have a generation config with nothing but KEPT.

    So `generate` gives what its caller says, with transformers' own defaults for the rest.
    """
    wrapped = [m for m in model.modules() if "generation_config" in vars(m)]
    before = [m.generation_config for m in wrapped]
    for module, config in zip(wrapped, before, strict=True):
        kept = {name: value for name in KEPT if (value := getattr(config, name, None)) is not None}
        module.generation_config = GenerationConfig(**kept)
    try:
        yield
    finally:
        for module, config in zip(wrapped, before, strict=True):
            module.generation_config = config


def tell_what_is_left_out(model: Any) -> None:
    """Warns of settings in the model's own file that sampling here does without."""
    config = getattr(model, "generation_config", None)
    if config is None:
        return
    ours = changes({n: v for n, v in config.to_dict().items() if n not in SAID | {"do_sample"}})
    if ours:
        named = ", ".join(f"{name}: {value}" for name, value in ours.items())
        warnings.warn(
            f"The model's generation_config.json has {named}. Training and evaluation sample "
            "without, since the policy that is trained is softmax(logits / temperature); the saved "
            "model keeps the setting.",
            stacklevel=2,
        )
