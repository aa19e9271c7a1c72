"""A toy model that calls tools: a chat template with calls, and first turns forced to be a call.

The call's tokens are forced one by one inside the model's own `generate`; the turns after it are
sampled freely. So TRL's whole tool loop runs as with a real model. With it come a tool, an
environment and a trainer.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from conftest import make_model, make_tokenizer
from trainertoys import make_trainer

TEMPLATE = (
    "{% if tools %}<|start|>system\ntools"
    "{% for t in tools %} {{ t['function']['name'] }}{% endfor %}<|end|>{% endif %}"
    "{% for m in messages %}<|start|>{{ m['role'] }}\n{{ m['content'] }}"
    "{% for c in m['tool_calls'] or [] %}<call>{{ c['function']['name'] }}"
    "{% for k, v in c['function']['arguments'].items() %} {{ k }}={{ v }}{% endfor %}</call>"
    "{% endfor %}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
RESPONSE = {
    "defaults": {"role": "assistant"},
    "start_anchor": "<|start|>assistant\n",
    "fields": {
        "tool_calls": {
            "open_pattern": r"<call>(?P<name>\w+)",
            "close_pattern": r"</call>",
            "repeats": True,
            "content": "xml-inline",
            "content_args": {
                "tag_pattern": r"(?P<key>\w+)=(?P<value>[^ <]*)",
                "value_parser": {"name": "text"},
            },
            "transform": {
                "type": "function",
                "function": {"name": "{name}", "arguments": "{content}"},
            },
        },
        "content": {"close_pattern": r"<\|end\|>", "content": "text"},
    },
}


def make_tool_tokenizer() -> Any:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = TEMPLATE
    tokenizer.response_template = RESPONSE
    return tokenizer


class _Script(LogitsProcessor):
    """Forces row r's turn to be scripts[r][turn], turn by turn; leaves other turns alone."""

    def __init__(self, scripts: Sequence[Sequence[list[int]]], tokenizer: Any) -> None:
        self._scripts = scripts
        encode = tokenizer(text="<|start|>assistant\n", add_special_tokens=False)
        self._header = encode["input_ids"]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        size = len(self._header)
        for row, ids in enumerate(input_ids.tolist()):
            starts = [i + size for i in range(len(ids)) if ids[i : i + size] == self._header]
            turns = self._scripts[row % len(self._scripts)]
            written = len(ids) - starts[-1]
            if len(starts) > len(turns) or written >= len(turns[len(starts) - 1]):
                continue
            forced = turns[len(starts) - 1][written]
            scores[row] = torch.where(torch.arange(scores.shape[1]) == forced, 0.0, -torch.inf)
        return scores


def make_calling_model(*scripts: Sequence[str]) -> Any:
    """The toy model; scripts[r] are the first turns of row r of the prompts that it is given.

    A second turn is batched with other rows than the first, so give equal scripts where rows call
    more than once.
    """
    model, tokenizer = make_model(), make_tool_tokenizer()
    model.generation_config.eos_token_id = [2]
    ids = [
        [[*tokenizer(text=turn, add_special_tokens=False)["input_ids"], 2] for turn in turns]
        for turns in scripts
    ]
    generate, script = model.generate, _Script(ids, tokenizer)

    def scripted(*args: Any, **kwargs: Any) -> Any:
        return generate(*args, **kwargs, logits_processor=LogitsProcessorList([script]))

    model.generate = scripted
    return model


def find(word: str) -> str:
    """Looks a word up.

    Args:
        word: The word.
    """
    if word == "cat":
        raise ValueError("no <|end|> cat")
    return f"page of {word}<|end|>"


FIRST_TURNS = [["a<call>find word=cat</call>"], ["<call>find word=dog</call>"], ["none"], ["b"]]
OPTIONS: dict[str, Any] = {"max_completion_length": 90, "log_rollouts": 8}


def tool_trainer(folder: Path, *scripts: list[str], **options: Any) -> Any:
    return make_trainer(
        folder,
        model=make_calling_model(*(scripts or FIRST_TURNS)),
        processing_class=make_tool_tokenizer(),
        **(OPTIONS | {"tools": [find]} | options),
    )


class Shelf:
    """An environment: a book to be found, and a reward of its own."""

    def reset(self, answer: str, **row: Any) -> str:
        self.found: list[str] = []
        return f" on shelf {answer}.<|end|>"

    def find(self, word: str) -> str:
        """Looks a word up.

        Args:
            word: The word.
        """
        self.found.append(word)
        return f"{word} found, {len(self.found)}<|end|>"

    def get_reward(self) -> float:
        return float(bool(self.found) and self.found[0] == "dog")
