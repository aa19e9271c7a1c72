"""A model of a known shape with random weights, for timings where nothing can be downloaded.

    python benchmarks/shapes.py qwen3-0.6b FOLDER [--tokenizer ANOTHER]
    python benchmarks/step.py --device cuda --canned --model FOLDER

Time and memory don't depend on the weights, as long as rollouts are fixed. bfloat16, normal numbers
of the config's own spread. The tokenizer is the embedded model's, unless a folder is named: its ids
are among the shape's.
"""

import argparse

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PretrainedConfig, Qwen3Config

from distil.models import EMBEDDED, resolve_model
from scale import QWEN3_8B

SHAPES: dict[str, PretrainedConfig] = {
    "qwen3-0.6b": Qwen3Config(
        vocab_size=151_936, hidden_size=1024, intermediate_size=3072, num_hidden_layers=28,
        num_attention_heads=16, num_key_value_heads=8, head_dim=128, tie_word_embeddings=True,
    ),
    "qwen3-8b": QWEN3_8B,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("folder")
    parser.add_argument("--tokenizer", help="a folder that has one")
    args = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(args.tokenizer or resolve_model(EMBEDDED))
    config = SHAPES[args.shape]
    config.eos_token_id = tokenizer.eos_token_id
    config.pad_token_id = tokenizer.pad_token_id
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(args.folder)
    tokenizer.save_pretrained(args.folder)
    print(f"{model.num_parameters():,} parameters in {args.folder}")


if __name__ == "__main__":
    main()
