"""Texts that would speak as somebody else: a tokenizer's special tokens, a template's role markers.

Feedback is written by programs, tools and models. Were "<|im_end|>" kept whole in it, its author
could close the user's message and open the assistant's. Special tokens are known to the tokenizer;
markers that a chat template writes in plain text ("[INST]", "### Response:") are found by rendering
conversations of known words and looking at what stands between them. Left out: breaking such texts
(`distil.prompts.messages.escape_special_tokens`), and words that only look like a role's ("user").
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2

from distil.types import Message

SYSTEM, FIRST, ANSWER, SECOND, TOOL = "qxsystem", "qxfirst", "qxanswer", "qxsecond", "qxtool"
USER_TURN: Message = {"role": "user", "content": FIRST}
ANSWER_TURN: Message = {"role": "assistant", "content": ANSWER}

# "<|user|>", "<<SYS>>", "[INST]": broken by themselves, so that no other text in between helps.
TAG = re.compile(r"<<?[^<>\n]{1,60}>>?|\[[^\[\]\n]{1,60}\]")

# A template may refuse any but the last one. What it writes before all of them is left alone, since
# it may be a preamble in plain words, except before a system message of ours.
PROBES: tuple[list[Message], ...] = (
    [USER_TURN, ANSWER_TURN, {"role": "user", "content": SECOND}],
    [{"role": "system", "content": SYSTEM}, USER_TURN],
    [USER_TURN, ANSWER_TURN, {"role": "tool", "content": TOOL}],
    [USER_TURN],
)
REFUSALS = (jinja2.TemplateError, TypeError, ValueError, KeyError, IndexError, AttributeError)


@dataclass(frozen=True)
class Markers:
    """texts: what feedback must not hold; ids: the tokens among them."""

    texts: tuple[str, ...]
    ids: frozenset[int]

    def count(self, ids: Iterable[int]) -> Counter[int]:
        """How often each of them is in a prompt: what feedback must not change."""
        return Counter(i for i in ids if i in self.ids)


def find_markers(tokenizer: Any, chat_template: str | None = None, **options: Any) -> Markers:
    """The markers of a tokenizer and its chat template, or of another `chat_template`.

    Every special token, every added token that the template uses, and the literal texts that it
    puts around messages. `options` are the template's. Without a template, prompts are plain text:
    special tokens only.
    """
    template, rendered = "", []
    if chat_template or tokenizer.chat_template:
        template = tokenizer.get_chat_template(chat_template)
        rendered = _renderings(tokenizer, {"chat_template": chat_template, **options})
    sources = [*rendered, template]
    tokens = {
        token.content: i
        for i, token in tokenizer.added_tokens_decoder.items()
        if token.special or (_marks(token.content) and any(token.content in s for s in sources))
    }
    literals = {text for one in rendered for text in literal_markers(one, list(tokens))}
    ids = frozenset(tokens.values()) - {tokenizer.unk_token_id}  # any unknown letter becomes that
    texts = sorted({*tokens, *literals}, key=lambda t: (-len(t), t))
    return Markers(tuple(t for t in texts if t.strip()), ids)


def literal_markers(rendered: str, tokens: Sequence[str]) -> set[str]:
    """What stands between a probe's words, without `tokens`: tags, and lines of other marks.

    "<s>[INST] qxfirst [/INST] qxanswer</s>[INST] qxsecond [/INST]" -> {"[INST]", "[/INST]"}
    """
    pieces = re.split("|".join((SYSTEM, FIRST, ANSWER, SECOND, TOOL)), rendered)
    if SYSTEM not in rendered:
        pieces = pieces[1:]
    known = sorted((re.escape(t) for t in tokens if t), key=len, reverse=True)
    parted = re.compile("|".join([*known, r"\n"]))
    lines = {line for piece in pieces for line in parted.split(piece)}
    tags = {tag for line in lines for tag in TAG.findall(line)}
    others = {part.strip() for line in lines for part in TAG.split(line)}
    # What is longer, or dated, is a preamble in words.
    short = {text for text in others if len(text) <= 40 and not re.search(r"\d", text)}
    return {text for text in tags | short if _marks(text)}


def _marks(text: str) -> bool:
    """Whether a text is more than a word: "USER:" and "[INST]" are, "user" and ":" aren't."""
    return len(text.strip()) > 1 and re.search(r"[^\w\s]", text) is not None


def _renderings(tokenizer: Any, options: dict[str, Any]) -> list[str]:
    """The probes that the template takes, as it renders them."""
    found: list[str] = []
    for probe in PROBES:
        try:
            found.append(
                tokenizer.apply_chat_template(
                    probe, tokenize=False, add_generation_prompt=True, **options
                )
            )
        except REFUSALS:
            continue  # this template knows no such conversation
    return found
