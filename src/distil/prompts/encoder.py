"""Prompts as token ids, as TRL encodes the student's, so that both sides render one template.

Left out: what a prompt says (`distil.prompts.messages`), and cutting one that is too long.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from distil.config import Thinking
from distil.errors import ModelError, TrainingError
from distil.types import Message, Prompt


def template_options(thinking: Thinking) -> dict[str, bool]:
    """What a chat template is told of thinking, by the name that Qwen3's and others read."""
    return {} if thinking == "template" else {"enable_thinking": thinking == "on"}


def check_thinking(tokenizer: Any, thinking: Thinking, model: str) -> None:
    """Raises ModelError where `thinking` is on or off, and the chat template renders both alike."""
    if thinking == "template":
        return
    message = [{"role": "user", "content": "?"}]
    shown = (
        {
            tokenizer.apply_chat_template(
                message, tokenize=False, add_generation_prompt=True, **template_options(switch)
            )
            for switch in ("on", "off")
        }
        if tokenizer.chat_template
        else {""}
    )
    if len(shown) == 1:
        raise ModelError(
            f"model.thinking is {thinking}, and the chat template of {model!r} has no such switch "
            "(enable_thinking changes nothing in it). Leave it out, or set it to template."
        )


@dataclass(frozen=True)
class Encoder:
    """A tokenizer with TRL's settings of its chat template; `tools` is None without any."""

    tokenizer: Any
    chat_template: str | None
    options: dict[str, Any]
    tools: Sequence[Any] | None

    def encode(self, prompt: Prompt, *, with_tools: bool = True) -> list[int]:
        """Token ids of a prompt with its generation header."""
        if isinstance(prompt, str):
            return list(self.tokenizer(text=prompt)["input_ids"])
        encoded = self.tokenizer.apply_chat_template(
            prompt, tools=(self.tools or None) if with_tools else None,
            chat_template=self.chat_template, add_generation_prompt=True,
            tokenize=True, return_dict=True, **self.options,
        )  # fmt: skip
        return list(encoded["input_ids"])

    def encode_critique(self, messages: list[Message]) -> list[int]:
        """As `encode`, without tools: a critic calls none. As text without a chat template."""
        if self.tokenizer.chat_template is None:
            return self.encode(messages[-1]["content"] + "\n\n")
        return self.encode(messages, with_tools=False)

    def decode(self, ids: Sequence[int]) -> str:
        """The words of an answer, without special tokens."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    def check_same_template(self, batch: dict[str, Tensor], prompt: Prompt) -> None:
        """Raises TrainingError unless the batch's first row is `prompt`, encoded as here.

        Both sides must render one template: else the first token's cost is an artefact.
        """
        student = batch["prompt_ids"][0][batch["prompt_mask"][0] > 0].tolist()
        ours = self.encode(prompt)
        if student != ours:
            raise TrainingError(
                f"The student's prompt has {len(student)} tokens, and the same prompt encoded for "
                f"the teacher {len(ours)}, or others: the two sides don't use one chat template."
            )
