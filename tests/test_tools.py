"""Tool traces: the text, its bounds, and multi-turn rollouts through TRL's own tool loop."""

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.utils import get_json_schema

from conftest import make_model, make_tokenizer
from distil import Feedback, teacherpass
from distil.checks import check_recipe
from distil.cli import main
from distil.config import FeedbackConfig, Recipe, RolloutConfig, TaskConfig
from distil.errors import RecipeError
from distil.feedback import choose_contexts
from distil.feedback.tools import tool_calls, tool_traces, trace_text, transcript
from distil.prompts import CUT_MARK
from distil.toolset import check_model_calls_tools, escaping, load_tools
from distil.types import Rollout
from tooltoys import make_calling_model, make_tool_tokenizer
from trainertoys import (
    generation_batch,
    gradient,
    lines,
    make_trainer,
    plain_gradient,
    rows_of,
)


def call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def said(content: str, *calls: dict[str, Any]) -> dict[str, Any]:
    return {
        "role": "assistant",
        "content": content,
        **({"tool_calls": list(calls)} if calls else {}),
    }


def answered(name: str, content: Any) -> dict[str, Any]:
    return {"role": "tool", "name": name, "content": content}


ATTEMPT = [
    said("Let me look.", call("find", word="cat")),
    answered("find", "{'error': 'no such word'}"),
    said("", call("find", word="dog"), call("size", of="dog")),
    answered("size", "large"),
    answered("find", "page 7"),
    said("It is on page 7."),
]


# ---------------------------------------------------------------- the text


def test_a_trace_says_each_call_with_what_came_of_it() -> None:
    assert trace_text(tool_calls(ATTEMPT)) == (
        "find(word='cat') failed: no such word\nfind(word='dog') -> page 7\nsize(of='dog') -> large"
    )


def test_a_transcript_shows_words_calls_and_outputs_in_order() -> None:
    assert transcript(ATTEMPT) == (
        "Let me look.\nfind(word='cat') failed: no such word\n"
        "find(word='dog') -> page 7\nsize(of='dog') -> large\nIt is on page 7."
    )


def test_a_transcript_leaves_each_turns_thinking_out() -> None:
    turns = [
        said("<think>which?</think>Looking.", call("find", word="a")),
        answered("find", "3"),
        said("so it is three</think>Three."),
    ]
    assert transcript(turns) == "Looking.\nfind(word='a') -> 3\nThree."


def test_single_turns_are_kept_as_they_are() -> None:
    assert transcript("plain <think>text") == "plain <think>text"
    assert transcript([said("<think>a</think>b")]) == "<think>a</think>b"
    assert tool_traces(completions=["plain", [said("no tools")]]) == [None, None]


def test_calls_without_an_answer_were_not_run() -> None:
    assert (
        trace_text(tool_calls([said("", call("find", word="a"))])) == "find(word='a') was not run"
    )


def test_only_trls_own_error_form_is_an_error() -> None:
    for content, failed in [
        ("{'error': 'it\\'s gone'}", True),
        ('{"error": "gone"}', True),
        ("{'error': 1, 'found': 2}", False),
        ("{'error': [", False),
        ("error: none", False),
        ("{'error': " + "[" * 5000, False),
    ]:
        (found,) = tool_calls([said("", call("f")), answered("f", content)])
        assert found.failed is failed, content[:30]
    (found,) = tool_calls([said("", call("f")), answered("f", "{'error': 'it\\'s gone'}")])
    assert found.output == "it's gone"


def test_outputs_as_lists_of_content_give_their_text() -> None:
    blocks = [{"type": "image", "image": None}, {"type": "text", "text": "a cat"}]
    (found,) = tool_calls([said("", call("look")), answered("look", blocks)])
    assert str(found) == "look() -> a cat"


def test_a_trace_is_bounded_and_keeps_what_failed() -> None:
    many = []
    for i in range(40):
        content = "{'error': 'broken'}" if i == 3 else "fine " * 400
        many += [said("", call("f", i=i)), answered("f", content)]
    text = trace_text(tool_calls(many), 3000)
    assert text is not None
    assert len(text) <= 3000 + 3 * len(CUT_MARK)
    shown = text.splitlines()
    assert "f(i=3) failed: broken" in shown
    assert shown[0] == "[...]"  # what was left out before it
    assert shown.index("f(i=3) failed: broken") < next(
        i for i, line in enumerate(shown) if line.startswith("f(i=39)")
    )


def test_one_huge_argument_and_one_huge_output_are_cut() -> None:
    huge = [said("", call("f", x="a" * 10**6)), answered("f", "b" * 10**6)]
    text = trace_text(tool_calls(huge))
    assert text is not None
    assert len(text) < 1500


def test_only_rollouts_that_did_not_succeed_are_shown_their_trace() -> None:
    trace = (Feedback(text="f() -> 1", source="tools"), Feedback(text="wrong", source="task"))
    group = [Rollout(0, "a", 0.0, trace), Rollout(0, "b", 1.0, trace), Rollout(0, "c", None, trace)]
    kinds = [c and c.report for c in choose_contexts(group, ["tools"])]
    assert kinds == ["f() -> 1", None, "f() -> 1"]
    assert choose_contexts(group, ["report"])[0].report == "wrong"


# ---------------------------------------------------------------- in the trainer


def find(word: str) -> str:
    """Looks a word up.

    Args:
        word: The word.
    """
    if word == "cat":
        raise ValueError("no <|end|> cat")
    return f"page of {word}<|end|>"


FIRST_TURNS = [["a<call>find word=cat</call>"], ["<call>find word=dog</call>"], ["none"], ["b"]]
OPTIONS: dict[str, Any] = {"max_completion_length": 90, "log_rollouts": 8}


def tool_trainer(folder: Path, *scripts: list[str], **options: Any) -> Any:
    return make_trainer(
        folder,
        model=make_calling_model(*(scripts or FIRST_TURNS)),
        processing_class=make_tool_tokenizer(),
        **(OPTIONS | {"tools": [find]} | options),
    )


def decoded(tokenizer: Any, ids: torch.Tensor) -> str:
    return str(tokenizer.decode(ids.tolist()))


def test_tools_run_and_their_tokens_are_masked(tmp_path: Path) -> None:
    trainer = tool_trainer(tmp_path, feedback_order=["expert"])
    batch = generation_batch(trainer)
    spoken = batch["completion_mask"] * batch["tool_mask"]
    assert torch.equal(batch["active"], spoken)
    assert batch["active_count"] == spoken.sum()
    tokenizer = trainer.processing_class
    for row, output in ((0, "{'error': 'no < |end|> cat'}"), (1, "page of dog< |end|>")):
        hidden = (batch["completion_mask"][row] > 0) & (batch["tool_mask"][row] == 0)
        shown = decoded(tokenizer, batch["completion_ids"][row][hidden])
        characters = [c if c in tokenizer.get_vocab() else "<unk>" for c in output]
        assert shown == f"<|start|>tool\n{''.join(characters)}<|end|><|start|>assistant\n"
    assert (batch["tool_mask"][2] == 1).all()  # it called nothing


def test_the_gradient_equals_the_plain_one_with_tool_tokens_masked(tmp_path: Path) -> None:
    trainer = tool_trainer(tmp_path, feedback_order=["expert"], objective={"credit_end": True})
    batch = generation_batch(trainer)
    texts = rendered(trainer)
    assert (batch["tool_mask"] == 0).sum() > 100
    ours = gradient(trainer, [rows_of(batch, [0, 2, 4, 6]), rows_of(batch, [1, 3, 5, 7])]).clone()
    plain = plain_gradient(trainer, batch, texts, batch["tool_mask"])
    torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-6)
    unmasked = plain_gradient(trainer, batch, texts)
    assert (ours - unmasked).abs().max() > 100 * (ours - plain).abs().max()


def rendered(trainer: Any) -> list[str]:
    render = trainer.processing_class.apply_chat_template
    return [
        render(r["teacher_prompt"], tools=trainer.tools, tokenize=False, add_generation_prompt=True)
        for r in trainer.rollout_log._records
    ]


def test_the_teacher_reads_the_same_tokens_those_of_tools_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = tool_trainer(tmp_path, feedback_order=["expert"])
    read: list[list[int]] = []
    forward = trainer.model.model.forward

    def spying(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled() and kwargs.get("past_key_values") is None:
            ids, mask = kwargs["input_ids"], kwargs["attention_mask"]
            read.extend(row[m > 0].tolist() for row, m in zip(ids, mask, strict=True))
        return forward(*args, **kwargs)

    monkeypatch.setattr(trainer.model.model, "forward", spying)
    monkeypatch.setattr(teacherpass, "can_share", lambda *_: False)  # each row in one piece
    batch = generation_batch(trainer)
    encode = trainer.processing_class
    for row, text in enumerate(rendered(trainer)):
        completion = batch["completion_ids"][row][batch["completion_mask"][row] > 0].tolist()
        whole = encode(text)["input_ids"] + completion
        scored = (batch["scored"][row] > 0).nonzero()[-1].item() + 1
        assert whole[: len(whole) - len(completion) + scored - 1] in read


def test_traces_become_what_the_teacher_is_shown(tmp_path: Path) -> None:
    def nothing(completions: list[Any], **columns: Any) -> list[float]:
        return [0.0] * len(completions)

    trainer = tool_trainer(
        tmp_path, feedback_order=["tools"], feedback_funcs=[], reward_funcs=nothing, max_steps=1
    )
    trainer.train()
    records = lines(tmp_path / "rollouts.jsonl")
    assert [r["context"] for r in records] == ["tools", "tools", None, None] * 2
    content = records[0]["teacher_prompt"][-1]["content"]
    assert "find(word='cat') failed: no < |end|> cat\n\nshort." in content
    assert records[1]["completion"].startswith("find(word='dog') -> page of dog< |end|>\n")
    log = lines(tmp_path / "metrics.jsonl")[0]
    assert log["feedback/tools"] == 0.5
    assert log["tools/call_frequency"] == 0.5
    assert log["tools/failure_frequency"] == 0.5
    hidden = [t for r in records if "tokens" in r for t in r["tokens"]["mask"]]
    costs = [
        c for r in records if "tokens" in r
        for c, m in zip(r["tokens"]["cost"], r["tokens"]["mask"], strict=True) if m
    ]  # fmt: skip
    assert 0 in hidden
    assert log["distil/cost"] == pytest.approx(sum(costs) / len(costs), abs=1e-4)


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


def test_grpo_runs_with_tools_too(tmp_path: Path) -> None:
    trainer = tool_trainer(tmp_path, objective={"name": "grpo"}, max_steps=1)
    trainer.train()
    assert lines(tmp_path / "metrics.jsonl")[0]["tools/call_frequency"] == 0.5


class Shelf:
    """An environment: a book to be found, and a reward of its own."""

    def reset(self, answer: str, **row: Any) -> str:
        self.found: list[str] = []
        return f" on shelf {answer}.<|end|>"

    def find(self, word: str) -> str:
        """Looks a word up.

        Args:
            word: The word.
        """
        self.found.append(word)
        return f"{word} found, {len(self.found)}<|end|>"

    def get_reward(self) -> float:
        return float(bool(self.found) and self.found[0] == "dog")


def test_environments_give_rewards_outputs_and_feedback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")

    def from_shelf(environments: list[Shelf], **columns: Any) -> list[Feedback | None]:
        return [
            Feedback(text=f"took {' '.join(e.found)}") if e.found else None for e in environments
        ]

    trainer = make_trainer(
        tmp_path, model=make_calling_model(*FIRST_TURNS), processing_class=make_tool_tokenizer(),
        environment_factory=Shelf, reward_funcs=[], feedback_funcs=from_shelf,
        feedback_order=["sibling", "report", "tools"], max_steps=1, **OPTIONS,
    )  # fmt: skip
    trainer.train()
    records = lines(tmp_path / "rollouts.jsonl")
    assert [r["reward"] for r in records] == [0, 1, 0, 0] * 2
    assert [r["context"] for r in records] == ["sibling", None, "sibling", "sibling"] * 2
    assert re.search(r"short\. on shelf \d\.< \|end\|>$", records[0]["prompt"][-1]["content"])
    shown = records[0]["teacher_prompt"][-1]["content"]
    assert "find(word='dog') -> dog found, 1< |end|>" in shown
    assert [f["text"] for f in records[0]["feedback"]] == [
        "took cat",
        records[0]["feedback"][1]["text"],
    ]


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
