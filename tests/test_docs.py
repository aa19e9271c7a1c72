"""The examples of docs/feedback.md, sandbox.md and evaluation.md run, and say what comes out."""

import ast
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from conftest import conversations
from distil.checks import check_recipe
from distil.flags import eval_flags
from distil.recipefile import load_recipe
from distil.training_args import DistILConfig
from tooltoys import make_calling_model, make_tool_tokenizer
from trainertoys import lines

DOCS = Path(__file__).parent.parent / "docs"
VALUES = ("Answer checks", "reasoning-gym", "Execution traces", "")
FEEDBACK = ("Expert solutions", "Corrections")
TRAINING = ("Tool traces", "Critiques: self-evaluation, or a judge", "Combination")


def blocks(file: str, kind: str) -> dict[str, list[str]]:
    """Section -> its blocks of that kind, for sections that have some; "" is before the first."""
    text = (DOCS / file).read_text(encoding="utf-8")
    title, *rest = re.split(r"^## (.*)\n", text, flags=re.MULTILINE)
    parts = {"": title, **dict(zip(rest[::2], rest[1::2], strict=True))}
    fenced = re.compile(rf"^```{kind}\n(.*?)^```$", re.DOTALL | re.MULTILINE)
    found = {section: fenced.findall(part) for section, part in parts.items()}
    return {section: texts for section, texts in found.items() if texts}


def run(file: str, section: str, names: dict[str, Any]) -> None:
    for text in blocks(file, "python")[section]:
        exec(compile(text, file, "exec"), names)


def promised(text: str) -> list[tuple[str, Any]]:
    """(expression, value) of every bare expression with a comment behind or below it."""
    rows, found = text.splitlines(), []
    for node in ast.parse(text).body:
        if isinstance(node, ast.Expr) and node.end_lineno is not None:
            behind = rows[node.end_lineno - 1][node.end_col_offset :].strip()
            below = [behind] if behind else []
            for row in rows[node.end_lineno :] if not behind else []:
                if not row.startswith("# "):
                    break
                below.append(row)
            said = " ".join(row.removeprefix("# ") for row in below)
            found.append((ast.unparse(node), ast.literal_eval(said)))
    return found


def test_the_examples_that_are_run_here_are_all_there_are() -> None:
    assert set(blocks("feedback.md", "python")) == {*VALUES[:-1], *FEEDBACK, *TRAINING}
    assert set(blocks("sandbox.md", "python")) == {VALUES[-1]}
    assert not any(blocks(file.name, "bash") for file in DOCS.glob("*.md"))


@pytest.mark.parametrize("section", VALUES)
def test_every_comment_says_what_comes_out(section: str) -> None:
    file = "feedback.md" if section else "sandbox.md"
    checked = 0
    for text in blocks(file, "python")[section]:
        names: dict[str, Any] = {}
        exec(compile(text, file, "exec"), names)
        for expression, value in promised(text):
            assert eval(expression, names) == value, expression
            checked += 1
    assert checked


RECIPES = [
    text
    for file in ("feedback.md", "evaluation.md")
    for texts in blocks(file, "yaml").values()
    for text in texts
]


@pytest.mark.parametrize("text", RECIPES)
def test_every_recipe_of_the_docs_is_one(text: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(text, encoding="utf-8")
    check_recipe(load_recipe(str(tmp_path / "recipe.yaml")))


def test_every_evaluation_of_the_docs_is_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (DOCS / "evaluation.md").read_text(encoding="utf-8").replace("\\\n", "")
    commands = [
        shlex.split(row, comments=True) for row in re.findall(r"^    (distil .*)", text, re.M)
    ]
    assert len(commands) == 6
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").symlink_to(DOCS.parent / "recipes")
    for name in ("mine.json", "start.json"):
        (tmp_path / name).touch()
    found = [eval_flags(command[2:]) for command in commands]
    assert [f.stored for f in found] == [False, False, True, True, True, False]


def test_experts_and_corrections_say_what_they_are_there_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for section in FEEDBACK:
        run("feedback.md", section, names)
    expert, looked_up, in_file = names["feedback_funcs"]

    def said(function: Any) -> list[Any]:
        found = function(prompts=["2 + 3?"], completions=["6"], problem_id=["17"])
        return [None if f is None else f.demonstration for f in found]

    assert said(looked_up) == ["It is 5."]
    assert said(in_file) == [None]
    assert expert(["6"], ["It is 5."])[0].demonstration == "It is 5."


def test_tools_train_and_the_arguments_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {
        "model": make_calling_model(["<call>find word=cat</call>"]),
        "tokenizer": make_tool_tokenizer(),
        "dataset": Dataset.from_list(conversations(8)),
        "reward": lambda completions, **columns: [0.0] * len(completions),
    }
    monkeypatch.setattr("distil.DistILConfig", on_a_cpu)
    tools, critiques, combination = TRAINING
    run("feedback.md", tools, names)
    names["trainer"].train()  # at once: the next arguments reset accelerate's state
    first = lines(tmp_path / "runs" / "pages" / "rollouts.jsonl")[0]
    assert first["context"] == "tools"
    assert "find(word='cat') -> page 7" in first["teacher_prompt"][-1]["content"]
    run("feedback.md", critiques, names)
    assert names["args"].critique["by"] == "judge"
    run("feedback.md", combination, names)
    assert names["args"].feedback_combine == "all"


def on_a_cpu(folder: str, **options: Any) -> DistILConfig:
    settings = {"use_cpu": True, "bf16": False, "max_steps": 1, "report_to": "none"}
    return DistILConfig(folder, **(settings | options))
