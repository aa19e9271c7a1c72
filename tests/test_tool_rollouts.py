"""Multi-turn rollouts with tools in TRL's own loop: masks, gradient, what the teacher reads."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from distil import Feedback
from distil.teacher import teacherpass
from tooltoys import (
    FIRST_TURNS,
    OPTIONS,
    Shelf,
    make_calling_model,
    make_tool_tokenizer,
    tool_trainer,
)
from trainertoys import generation_batch, gradient, lines, make_trainer, plain_gradient, rows_of


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
        scoring = not torch.is_grad_enabled() and kwargs.get("past_key_values") is None
        if scoring and kwargs["attention_mask"].dim() == 2:  # the student's own pass has one row
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


def test_grpo_runs_with_tools_too(tmp_path: Path) -> None:
    trainer = tool_trainer(tmp_path, objective={"name": "grpo"}, max_steps=1)
    trainer.train()
    assert lines(tmp_path / "metrics.jsonl")[0]["tools/call_frequency"] == 0.5


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
