r"""CHAMP: 270 competition problems with worked solutions, hints and concepts.

The column `hint` has a problem's hints and then its concepts. Answers are plain text, "2^(n-1)",
and are written as LaTeX. Many are sentences ("0 is the only possible value"), which nobody can
judge: kept is an answer that is Yes, No, or an expression which the judge knows again in another
form, and tells from another one. Left out: the attempts of models that the set has, too.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from distil.data.dataset import DataSet, Item
from distil.data.reading import read_document
from distil.data.rows import BadRow, Row, as_text, shown
from distil.errors import DataError
from distil.feedback.mathematics import check_mathematics_all, demonstration

WORDS = ("Yes", "No")
UNJUDGED = "the answer can't be judged"
_REMARK = re.compile(r"\s+\([^()]*[a-z]{2,}[ .,][^()]*\)\s*$")
_OTHERWISE = re.compile(r", or (?:equivalently |an equivalent form such as )?")
_COUNTED = re.compile(r"(-?\d+) (?:is the only possible value|values|inequalities|pairs|roots)")
_PLAIN = re.compile(r"[0-9a-zA-Z+\-*/^().!\s]+")
_LONG_POWER = re.compile(r"\^(\d{2,})")
_WORD = re.compile(r"[a-zA-Z]{3,}")
_LATEX = re.compile(r"(?:[0-9a-zA-Z+\-/^().!{}\s]|\\sqrt|\\cdot )+")


def read_champ(path: Path, label: str) -> Iterator[Row]:
    """The problems, each with what its hints and concepts say under `hints`."""
    document = read_document(path, label)
    for part in ("problems", "concepts", "hints"):
        if not isinstance(document, dict) or not isinstance(document.get(part), dict):
            raise DataError(f"{label} has no object {part!r}, as CHAMP's file has.")
    known = {**document["hints"], **document["concepts"]}
    for number, problem in enumerate(document["problems"].values(), start=1):
        if not isinstance(problem, dict):
            yield Row(label, number, problem)
            continue
        names = problem.get("ch_list")
        given = [known.get(name) for name in names] if isinstance(names, list) else None
        yield Row(label, number, {**problem, "hints": given})


def champ(row: Row) -> Item:
    """Question, answer as LaTeX, the steps as solution, hints and concepts as `hint`."""
    hints, steps = row.fields().get("hints"), row.object("solution").get("steps")
    if not isinstance(hints, list) or not all(isinstance(hint, dict) for hint in hints):
        raise BadRow("ch_list", "names a hint or concept that isn't in the file, or is no list.")
    if not isinstance(steps, list) or not steps:
        raise BadRow("solution", f"has the steps {shown(steps)}, and must have a list of them.")
    answer = as_latex(row.text("_answer"))
    worked = [as_text(_part(step, "_text"), "solution.steps") for step in steps]
    texts = [(_part(hint, "name"), as_text(_part(hint, "_text"), "ch_list")) for hint in hints]
    item = {
        "id": row.text("identifier"),
        "question": row.text("_text"),
        "answer": answer,
        "solution": "\n".join([*worked, demonstration(answer)]),
        "category": row.text("category"),
    }
    told = [f"{name[0].upper()}{name[1:]}: {text}" if name else text for name, text in texts]
    return item | ({"hint": "\n".join(told)} if told else {})


def _part(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def as_latex(answer: str) -> str:
    r"""A plain expression as LaTeX, "2^(n-1)*sqrt(3)" as 2^{n-1}\cdot \sqrt{3}; else as it is.

    Of "C(10, 5), or equivalently 252" the first form that is plain; of "98 values" and "0 is the
    only possible value" the number; remarks, "(i.e., all values)", are left out.
    """
    for form in _OTHERWISE.split(answer.replace("\u2212", "-").strip()):
        bare = _REMARK.sub("", form)
        if counted := _COUNTED.fullmatch(bare):
            return counted[1]
        if _PLAIN.fullmatch(bare) and not _words(bare) and bare not in WORDS:
            return _LONG_POWER.sub(r"^{\1}", _braced(bare)).replace("*", r"\cdot ")
    return answer.strip()


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text)) - {"sqrt", "cdot"}


def _braced(text: str) -> str:
    """^(...) and sqrt(...) with the brackets that LaTeX wants."""
    done, rest = "", text
    while found := re.search(r"(\^|sqrt)\(", rest):
        depth, end = 1, found.end()
        while end < len(rest) and depth:
            depth += {"(": 1, ")": -1}.get(rest[end], 0)
            end += 1
        inner = _braced(rest[found.end() : end - 1])
        mark = r"\sqrt" if found[1] == "sqrt" else "^"
        done, rest = f"{done}{rest[: found.start()]}{mark}{{{inner}}}", rest[end:]
    return done + rest


def unjudged(items: Sequence[Item]) -> list[str | None]:
    """For each item the reason why its answer can't be judged, None where it can.

    An expression has to pass in another form, 0 + it, and to fail as another one, 1 + it.
    """
    answers = [item["answer"] for item in items]
    same = check_mathematics_all([rf"\boxed{{0+({a})}}" for a in answers], answers)
    other = check_mathematics_all([rf"\boxed{{1+({a})}}" for a in answers], answers)
    return [
        None if answer in WORDS or (_bare(answer) and (s.reward, o.reward) == (1, 0)) else UNJUDGED
        for answer, s, o in zip(answers, same, other, strict=True)
    ]


def _bare(answer: str) -> bool:
    """No words around it, from which the judge would pick a number."""
    return bool(_LATEX.fullmatch(answer)) and not _words(answer)


CHAMP = DataSet(
    name="champ",
    domain="math",
    about="CHAMP: competition problems with solutions, hints and concepts",
    licence="MIT",
    check="math",
    origins={"champ-dataset": ("dataset_files/v0.json",)},
    convert=champ,
    judgeable=unjudged,
    read=read_champ,
)
