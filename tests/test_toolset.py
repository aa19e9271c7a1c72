"""The tools of a run: loaded from files, their outputs escaped, and what they do not go with."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from transformers.utils import get_json_schema

from conftest import make_model, make_tokenizer
from distil.cli import main
from distil.config import FeedbackConfig, Recipe, RolloutConfig, TaskConfig
from distil.errors import RecipeError
from distil.recipe.checks import check_recipe
from distil.trainer.toolset import check_model_calls_tools, escaping, load_tools
from tooltoys import Shelf, find, make_tool_tokenizer, tool_trainer
from trainertoys import lines

# ---------------------------------------------------------------- escaping


def test_escaping_changes_nothing_that_describes_a_tool() -> None:
    async def later(word: str, count: int = 1) -> str:
        """Looks a word up, later.

        Args:
            word: The word.
            count: How often.
        """
        return find(word)

    for tool in (find, later, Shelf().find):
        assert get_json_schema(escaping(tool, str.upper)) == get_json_schema(tool)
    assert escaping(find, str.upper)(word="a") == "PAGE OF A<|END|>"
    assert asyncio.run(escaping(later, str.upper)(word="a")) == "PAGE OF A<|END|>"
    with pytest.raises(RuntimeError, match=r"NO <.END.> CAT"):
        escaping(find, str.upper)(word="cat")
    with pytest.raises(RuntimeError, match=r"NO <.END.> CAT"):
        asyncio.run(escaping(later, str.upper)(word="cat"))


def test_lists_of_content_are_escaped_and_nothing_stays_nothing() -> None:
    blocks = [{"type": "text", "text": "a"}, {"type": "image", "image": 1}]
    assert escaping(lambda: blocks, str.upper)() == [{"type": "text", "text": "A"}, blocks[1]]
    assert escaping(lambda: None, str.upper)() is None


# ---------------------------------------------------------------- recipes

TOOL_FILE = '''
def find(word: str) -> str:
    """Looks a word up.

    Args:
        word: The word.
    """
    return word

def undescribed(word):
    return word

a_number = 3

class AClass:
    pass
'''


@pytest.fixture
def tool_file(tmp_path: Path) -> str:
    file = tmp_path / "my tools.py"
    file.write_text(TOOL_FILE, encoding="utf-8")
    return str(file)


def test_tools_are_loaded_from_files(tool_file: str) -> None:
    (tool,) = load_tools([f"{tool_file}:find"])
    assert tool("a") == "a"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("{file}:fnd", "defines no function 'fnd'"),
        ("{file}:a_number", "defines no function 'a_number'"),
        ("{file}:AClass", "which is no function"),
        ("{file}:undescribed", r"can't be described to a model: .*type hint"),
        ("no/such/file.py:find", "there is no file 'no/such/file.py'"),
    ],
)
def test_tools_that_a_model_could_not_use_are_refused(
    tool_file: str, name: str, message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        load_tools([name.format(file=tool_file)])


def test_a_model_that_was_never_taught_to_call_tools_is_refused() -> None:
    check_model_calls_tools(make_tool_tokenizer(), "toy")
    for template in (make_tokenizer().chat_template, None, "{{ raise_exception('no') }}"):
        tokenizer = make_tokenizer()
        tokenizer.chat_template = template
        with pytest.raises(RecipeError, match="chat template of 'toy' doesn't show a call"):
            check_model_calls_tools(tokenizer, "toy")


RECIPE = """
task: {{name: chain_sum, train_size: 4, eval_size: {eval_size}}}
model: {{name: {model}, dtype: float32}}
feedback: {{order: [sibling, tools, expert]}}
rollout:
  {{prompts_per_step: 2, num_generations: 2, max_completion_length: 8, tools: ["{tools}"],
   max_tool_calling_iterations: 2}}
train: {{steps: 1, micro_batch: 4, output_dir: {folder}}}
"""


def recipe_file(tmp_path: Path, tools: str, eval_size: int = 0) -> str:
    make_model().save_pretrained(tmp_path / "toy")
    make_tool_tokenizer().save_pretrained(tmp_path / "toy")
    file = tmp_path / "recipe.yaml"
    values = {"model": tmp_path / "toy", "folder": tmp_path / "run", "tools": tools}
    file.write_text(RECIPE.format(eval_size=eval_size, **values), encoding="utf-8")
    return str(file)


def test_a_recipe_with_tools_trains(tmp_path: Path, tool_file: str) -> None:
    assert main(["train", recipe_file(tmp_path, f"{tool_file}:find")]) == 0
    log = lines(tmp_path / "run" / "metrics.jsonl")[0]
    assert log["tools/call_frequency"] == 0.0  # the toy calls none, but could


def test_a_table_without_tools_about_a_run_with_them_is_refused(
    tmp_path: Path, tool_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", recipe_file(tmp_path, f"{tool_file}:find", eval_size=5)]) != 0
    assert "task.eval_size is 5" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rollout", "order", "message"),
    [
        ({}, ("tools",), "rollout.tools is empty"),
        ({"max_tool_calling_iterations": 2}, ("expert",), "rollout.tools is empty"),
        ({"tools": ("find",)}, ("tools",), "a tool is path/to/file.py:function"),
        ({"tools": ("a.py:f",), "max_tool_calling_iterations": 0}, ("tools",), "at least 1"),
        ({}, ("critique",), "feedback.critique.by is none"),
    ],
)
def test_recipes_whose_tools_nothing_would_use_are_refused(
    rollout: dict[str, Any], order: Any, message: str
) -> None:
    recipe = Recipe(
        task=TaskConfig(eval_size=0),
        feedback=FeedbackConfig(order=order),
        rollout=RolloutConfig(**rollout),
    )
    with pytest.raises(RecipeError, match=message):
        check_recipe(recipe)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tools": None, "feedback_order": ["tools"]}, "this run has none"),
        ({"teacher_samples": 1}, "drawn without tools"),
        ({"objective": {"name": "sft"}}, "sft imitates"),
        ({"environment_factory": {"a": Shelf}}, "environment_factory is a dict"),
    ],
)
def test_what_tools_do_not_go_with_is_refused(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        tool_trainer(tmp_path, **options)
