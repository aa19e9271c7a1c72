"""Prompts as token ids, as TRL encodes the student's, so that both sides render one template.

Left out: what a prompt says (`distil.prompts`), and cutting one that is too long.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from distil.errors import TrainingError
from distil.types import Message, Prompt


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
