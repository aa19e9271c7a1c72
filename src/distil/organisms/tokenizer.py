"""A word-level tokenizer: every word between white space is one token.

Decoding puts one space between words, so a text of a world comes back as it was. Line breaks are
white space and leave no token: the headers of `distil.prompts.messages` part question and feedback.
"""

from collections.abc import Sequence

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from distil.prompts.messages import DEFAULT_CLOSING, DEMONSTRATION_HEADER, REPORT_HEADER

UNKNOWN, USER, ASSISTANT, END = "<unk>", "<|user|>", "<|assistant|>", "<|end|>"

# "<|user|> 4 7 + 3 8 <|assistant|>": each mark stands alone between spaces, since only white space
# parts tokens.
TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|> {{ m['content'] }} "
    "{% if m['role'] == 'assistant' %}<|end|> {% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|> {% endif %}"
)


def make_tokenizer(words: Sequence[str]) -> PreTrainedTokenizerFast:
    """The tokenizer of a world: its words, and those of the prompts' headers."""
    headers = " ".join([DEMONSTRATION_HEADER, REPORT_HEADER, DEFAULT_CLOSING]).split()
    vocabulary = dict.fromkeys([UNKNOWN, USER, ASSISTANT, END, *words, *headers])
    ids = {word: i for i, word in enumerate(vocabulary)}
    inner = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        unk_token=UNKNOWN,
        bos_token=USER,
        eos_token=END,
        pad_token=END,
        additional_special_tokens=[ASSISTANT],
        chat_template=TEMPLATE,
        padding_side="left",
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )
