"""How the answers of a table are judged, by name: `task.check` of a recipe is a name in KINDS.

A kind says which fields it wants in a row beside question and answer, which `task.options` it has,
how the right answer is written as asked, and how a batch is judged. To add one: write its class
here and name it in KINDS and in `distil.config.CheckName`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from distil.config import TaskConfig
from distil.errors import TaskError
from distil.feedback import answers, choice, mathematics, strings
from distil.feedback.execution import check_programs, extract_program
from distil.feedback.extract import read_answer
from distil.sandbox import Limits, SandboxPool
from distil.sandbox.testformat import read_tests
from distil.types import Feedback, Problem


class Fault(Exception):
    """A row can't be judged by this kind: `field`, and what is wrong with it and the fix."""

    def __init__(self, field: str, fault: str) -> None:
        super().__init__(fault)
        self.field = field


class Kind(ABC):
    """A judge of a table's answers. Unless it says else, a question is asked as it stands.

    fields: what it wants in a row. needs_answer: whether every row has an answer. options: the
    names of its task.options, with their types.
    """

    fields: ClassVar[tuple[str, ...]] = ()
    needs_answer: ClassVar[bool] = True
    options: ClassVar[dict[str, tuple[type, ...]]] = {"reveal": (bool,)}

    def __init__(self, config: TaskConfig) -> None:
        self.extract = config.extract
        self.reveal = bool(config.options.get("reveal", False))
        self.tolerance = float(config.options.get("tolerance", 0.0))

    @abstractmethod
    def check_all(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[Feedback]:
        """Judges each completion. A problem's data holds "solution" and what `row` gave."""

    def row(self, question: str, answer: str, row: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """The question as it is asked, and the row's data. Raises Fault."""
        return question, {}

    def facts(self) -> dict[str, Any]:
        """What a run's folder should say about how answers were judged here."""
        return {}

    def written(self, problem: Problem) -> str:
        """The right answer as an attempt that does what is asked."""
        return strings.demonstration(str(problem.answer), self.extract)

    def check_gold(self, problems: Sequence[Problem]) -> list[Feedback]:
        """The verdicts on the right answers themselves: each has to get full marks."""
        return self.check_all(problems, [self.written(p) for p in problems])

    def read(self, completion: str) -> str | None:
        """What counts as the completion's answer: by task.extract, thinking taken out."""
        return read_answer(completion, self.extract)


class MathKind(Kind):
    """`distil.feedback.mathematics`."""

    def written(self, problem: Problem) -> str:
        """In a box."""
        return mathematics.demonstration(str(problem.answer))

    def check_all(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[Feedback]:
        """Side by side."""
        return mathematics.check_mathematics_all(
            completions,
            [str(p.answer) for p in problems],
            solutions=[p.data["solution"] for p in problems],
            reveal=self.reveal,
        )

    def read(self, completion: str) -> str | None:
        """The last box, else the last line."""
        return mathematics.read_mathematics(completion)


class ChoiceKind(Kind):
    """`distil.feedback.choice`. The field `choices`: texts to be shown, or how many there are."""

    fields = ("choices",)

    def row(self, question: str, answer: str, row: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """The question with its choices below, lettered; a number of them is already in it."""
        choices = row.get("choices")
        texts: Any = choices
        if type(choices) is int and 2 <= choices <= 26:
            texts = [""] * choices
        fine = isinstance(texts, list) and all(isinstance(c, str) for c in texts)
        if not fine or not 2 <= len(texts) <= 26:
            raise Fault(
                "choices",
                f"is {choices!r}. Make it a list of 2 to 26 texts, which are shown below the "
                "question, or the number of choices where the question shows them itself.",
            )
        letters = answers.labels(len(texts))
        if len(answer) != 1 or answer not in letters:
            near = [letter for letter, c in zip(letters, texts, strict=True) if c == answer]
            meant = f" Perhaps you meant {near[0]!r}." if near else ""
            fix = f"Make it the letter of a choice, {answers.in_words(letters)}.{meant}"
            raise Fault("answer", f"is {answer!r}. {fix}")
        lines = [f"{letter}. {c}" for letter, c in zip(letters, texts, strict=True) if c]
        return "\n".join([question, *lines]), {"choices": texts}

    def written(self, problem: Problem) -> str:
        """In a tag."""
        return f"<answer>{problem.answer}</answer>"

    def check_all(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[Feedback]:
        """One after the other."""
        return [
            choice.check_choice(
                completion,
                str(p.answer),
                p.data["choices"],
                solution=p.data["solution"],
                reveal=self.reveal,
            )
            for p, completion in zip(problems, completions, strict=True)
        ]

    def read(self, completion: str) -> str | None:
        """What says the choice."""
        return choice.read_choice(completion)


class ExactKind(Kind):
    """`distil.feedback.strings.check_exact`."""

    def check_all(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[Feedback]:
        """One after the other."""
        return [
            strings.check_exact(
                completion,
                str(p.answer),
                extract=self.extract,
                solution=p.data["solution"],
                reveal=self.reveal,
            )
            for p, completion in zip(problems, completions, strict=True)
        ]


class TolerantKind(Kind):
    """`distil.feedback.strings.check_tolerant`."""

    options: ClassVar[dict[str, tuple[type, ...]]] = {
        "reveal": (bool,),
        "tolerance": (int, float),
    }

    def check_all(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[Feedback]:
        """One after the other."""
        return [
            strings.check_tolerant(
                completion,
                str(p.answer),
                tolerance=self.tolerance,
                extract=self.extract,
                solution=p.data["solution"],
                reveal=self.reveal,
            )
            for p, completion in zip(problems, completions, strict=True)
        ]


class ProgramsKind(Kind):
    """`distil.feedback.execution`: programs, run in the sandbox against the field `tests`.

    `tests` is a list as `distil.sandbox.testformat` has it; the answer, a program that passes them
    all, need not be there. stop_at_first: run no test after one that failed. lcb_prelude: with
    LiveCodeBench's usual imports before each program. reveal: show what hidden tests expect.
    """

    fields = ("tests",)
    needs_answer = False
    options: ClassVar[dict[str, tuple[type, ...]]] = {
        "reveal": (bool,),
        "stop_at_first": (bool,),
        "lcb_prelude": (bool,),
    }

    def __init__(self, config: TaskConfig) -> None:
        super().__init__(config)
        wants = config.sandbox
        self._pool = SandboxPool(
            wants.workers or None, wants.level, wants.preload, allow_unsafe=wants.allow_unsafe
        )
        self._limits = Limits(cpu_s=wants.cpu_s, mem_mb=wants.mem_mb)
        self._first = bool(config.options.get("stop_at_first", False))
        self._lcb = bool(config.options.get("lcb_prelude", False))

    def facts(self) -> dict[str, Any]:
        """The level of the sandbox, and what it stands on."""
        return {"sandbox": self._pool.start()}

    def row(self, question: str, answer: str, row: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """The question as it stands, and the tests, each of which could be run."""
        try:
            read_tests(row.get("tests"), "it")
        except TaskError as error:
            raise Fault("tests", f"can't be used: {error}") from error
        return question, {"tests": row["tests"]}

    def written(self, problem: Problem) -> str:
        """In a block."""
        answer = str(problem.answer)
        return answer if "```" in answer else f"```python\n{answer.rstrip()}\n```"

    def check_all(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[Feedback]:
        """Side by side, as many at a time as the sandbox has workers."""
        shown = [
            p.data["solution"] or (None if p.answer is None else self.written(p)) for p in problems
        ]
        return check_programs(
            self._pool,
            completions,
            [read_tests(p.data["tests"], p.id) for p in problems],
            limits=self._limits,
            stop="first_fail" if self._first else "all",
            prelude="lcb" if self._lcb else "none",
            reveal_expected="all" if self.reveal else "public",
            demonstrations=shown,
        )

    def read(self, completion: str) -> str | None:
        """The program."""
        return extract_program(completion)


KINDS: dict[str, type[Kind]] = {
    "math": MathKind,
    "choice": ChoiceKind,
    "exact": ExactKind,
    "tolerant": TolerantKind,
    "programs": ProgramsKind,
}
