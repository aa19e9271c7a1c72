"""The examples run: on toy models, a step each; the notebook on the model that it names."""

import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest

import code_feedback
import own_checker
import served_expert
import tool_agent
from conftest import make_model, make_tokenizer
from distil.recipe.checks import check_recipe
from distil.recipe.recipefile import load_recipe
from distil.runs.folder import read_lines
from vllmserver import MODEL, vllm_server

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Toy models, one step, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    for module in (own_checker, code_feedback, served_expert, tool_agent):
        monkeypatch.setattr(module, "load_model", lambda name: (make_model(), make_tokenizer()))
        monkeypatch.setattr(module, "STEPS", 1)


def test_the_readme_lists_every_example() -> None:
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    files = {f.name for f in EXAMPLES.iterdir() if f.suffix in (".py", ".sh", ".ipynb")}
    assert {name for name in files if f"]({name})" not in text} == set()


def test_a_checker_says_what_is_wrong() -> None:
    assert own_checker.check("After 41 comes 42.", 42) == (True, None)
    assert own_checker.check("42, then 43", 42) == (False, "43 is wrong. The final answer is 42.")
    right, said = own_checker.check("I can't.", 42)
    assert (right, said) == (False, "There is no number in it. The final answer is 42.")


def test_ones_own_checker_trains(toy: None, capsys: Any) -> None:
    own_checker.main()
    assert "right after 16 held-out numbers: 0.00 before, 0.00 after" in capsys.readouterr().out
    records = list(read_lines(Path("runs/own-checker/rollouts.jsonl")))
    assert len(records) == 32
    shown = records[0]["teacher_prompt"][-1]["content"]
    assert shown.endswith("Reply with only the final answer.")
    assert f"The final answer is {records[0]['feedback'][0]['text'].split()[-1]}" in shown


def test_programs_are_run_and_their_reports_teach(toy: None, capsys: Any) -> None:
    code_feedback.main()
    assert "tests: 0.00 before, 0.00 after" in capsys.readouterr().out
    records = list(read_lines(Path("runs/code-feedback/rollouts.jsonl")))
    assert {r["context"] for r in records} == {"report"}


def test_every_function_asked_for_can_be_written() -> None:
    written = """
def double(x): return 2 * x
def square(x): return x * x
def add(a, b): return a + b
def first(xs): return xs[0]
def last(xs): return xs[-1]
def is_even(n): return n % 2 == 0
def longer(a, b): return a if len(a) >= len(b) else b
def total(xs): return sum(xs)
"""
    names: dict[str, Any] = {}
    exec(written, names)
    for function, cases in code_feedback.FUNCTIONS.values():
        for arguments, expected in cases:
            assert names[function](*arguments) == expected


def test_an_expert_behind_a_server_teaches(toy: None, capsys: Any) -> None:
    with vllm_server(max_logprobs=20) as server:
        served_expert.train(server.url, MODEL)
    assert "requests that the expert didn't answer: 0" in capsys.readouterr().out
    asked = [body for _, body in server.requests if body.get("prompt_logprobs")]
    assert len(asked) >= 16


def test_an_agents_lessons_are_what_its_teacher_reads(toy: None) -> None:
    _, tokenizer = tool_agent.load_model("toy")
    tokenizer.chat_template = tool_agent.TEMPLATE
    guessed, shown, ran = list(tool_agent.lessons(tokenizer, [(12, 34), (56, 78)]))[3:6]
    assert guessed["completion"] == "The product is 5678.<|im_end|>"
    assert guessed["prompt"].startswith("<|im_start|>system\nYou can use a tool.")
    assert guessed["prompt"].endswith("Multiply 56 and 78.<|im_end|>\n<|im_start|>assistant\n")
    assert shown["completion"] == "<call>multiply a=56 b=78</call><|im_end|>"
    assert "A correct solution:\nmultiply(a=56, b=78) -> 4368\nThe product is" in shown["prompt"]
    assert "<|im_start|>tool\n4368<|im_end|>" in ran["prompt"]
    assert ran["completion"] == "The product is 4368.<|im_end|>"


def test_an_agent_with_a_tool_trains(toy: None, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(tool_agent, "LESSONS", 1)
    tool_agent.main()
    assert "right on 16 held-out products: 0.00, then 0.00" in capsys.readouterr().out
    record = next(read_lines(Path("runs/tool-agent/rollouts.jsonl")))
    assert record["prompt"][0]["content"].startswith("Multiply ")


def test_the_corrections_recipe_is_one() -> None:
    recipe = load_recipe(str(EXAMPLES / "corrections.yaml"))
    check_recipe(recipe)
    assert recipe.feedback.order[0] == "correction"


def test_the_notebook_draws_the_credit_of_a_wrong_digit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plt, "show", lambda: None)
    cells = json.loads((EXAMPLES / "credit.ipynb").read_text(encoding="utf-8"))["cells"]
    assert all(not c.get("outputs") for c in cells)
    names: dict[str, Any] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), "credit.ipynb", "exec"), names)
    assert names["words"][names["worst"]] == "2"
    above, below = names["figure"].axes
    assert [bar.get_height() for bar in above.patches] == pytest.approx(names["cost"].tolist())
    later = [float(names["cost"][i + 1 :].sum()) for i in range(len(names["ids"]))]
    assert [bar.get_height() for bar in below.patches] == pytest.approx(later, rel=1e-5)
    plt.close("all")
