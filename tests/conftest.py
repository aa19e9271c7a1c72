"""Toy stand-ins: a character tokenizer with a chat template, and a Llama of few weights."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

from pathlib import Path
from typing import Any

import jaxtyping

# Annotated shapes are checked at run time, in the tests only. objectives and vocab check their
# shapes themselves, with messages that are tested.
SHAPED = ["distil.trainer.scoring", "distil.teacher.teacherpass", "distil.vocab.hidden"]
jaxtyping.install_import_hook(SHAPED, "beartype.beartype")

import pytest
import torch
import yaml
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import distil
from distil.cli import main
from distil.recipe.presets import merged

# The toy models are far too small to share between threads.
torch.set_num_threads(1)

CHARACTERS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ +-=?.,:'<>|_/\n"
TEMPLATE = (
    "{% for m in messages %}<|start|>{{ m['role'] }}\n{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)


def environment() -> dict[str, str]:
    """For a process that imports these tests' helpers and the very package that is tested here."""
    folders = [str(Path(__file__).parent), str(Path(distil.__file__).parent.parent)]
    if given := os.environ.get("PYTHONPATH"):
        folders.append(given)
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(folders)}


def make_tokenizer() -> PreTrainedTokenizerFast:
    """One token a character; pad is the end-of-text token, as in the embedded model."""
    words = ["<unk>", "<|start|>", "<|end|>", *CHARACTERS]
    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    inner.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        unk_token="<unk>",
        bos_token="<|start|>",
        eos_token="<|end|>",
        pad_token="<|end|>",
        chat_template=TEMPLATE,
        padding_side="left",
    )


def make_model(seed: int = 0, *, tied: bool = True) -> LlamaForCausalLM:
    """Two layers, float32, its random weights decided by the seed."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(CHARACTERS) + 3,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=512,
        initializer_range=0.2,
        tie_word_embeddings=tied,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    model = LlamaForCausalLM(config)
    # Every digit ends a rollout beside the tokenizer's own end token, so that lengths differ.
    model.generation_config.eos_token_id = [2, *range(3, 13)]
    return model


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer()


@pytest.fixture
def model() -> LlamaForCausalLM:
    return make_model()


def conversations(count: int) -> list[dict[str, Any]]:
    """Rows of a TRL dataset: questions with a format demand and an answer."""
    return [
        {
            "prompt": [{"role": "user", "content": f"{'long ' * (i % 3)}{i} + 1 = ? short."}],
            "instruction": "short.",
            "answer": str(i + 1),
        }
        for i in range(count)
    ]


def toy_recipe(folder: Path, **parts: dict[str, Any]) -> Path:
    """A recipe's file, and beside it the toy model that it trains on a few sums.

    parts: groups of fields that are laid over it.
    """
    make_model().save_pretrained(folder / "toy")
    make_tokenizer().save_pretrained(folder / "toy")
    recipe = {
        "task": {
            "name": "chain_sum",
            "options": {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1},
            "extract": "last_number",
            "train_size": 8,
            "eval_size": 3,
        },
        "model": {"name": str(folder / "toy")},
        "rollout": {"prompts_per_step": 2, "num_generations": 2, "max_completion_length": 5},
    }
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(merged(recipe, parts)))
    return file


def train(file: Path, folder: Path, *flags: str) -> int:
    """`distil train FILE` into a folder; the exit status."""
    return main(["train", str(file), "--train.output-dir", str(folder), *flags])
