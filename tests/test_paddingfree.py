"""The student's pass without padding: padded rows' numbers and gradient, on fewer tokens."""

import copy
import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from conftest import make_model
from distil.trainer import paddingfree
from distil.trainer.flatrows import FlatRow, lay_out
from distil.trainer.paddingfree import NAME, flat_hidden, padded_hidden, prepare, works
from distil.vocab.hidden import base_model
from test_teacherpass import models
from trainertoys import STALE, generation_batch, gradient, make_trainer, rows_of

Batch = dict[str, Tensor]


def micro_batch(kind: str = "mixed") -> Batch:
    """Seven rollouts of three prompts: lengths 5, 9, 5 and 1 to 8 tokens, one of them unscored.

    "alike": of one prompt. "nothing": none has a scored token. "one": each has just one token.
    """
    stream = torch.Generator().manual_seed(2)

    def ids(count: int) -> list[int]:
        return torch.randint(3, 40, (count,), generator=stream).tolist()

    prompts = [ids(5), ids(9), ids(5)]
    of = [0, 1, 0, 2, 0, 1, 1] if kind != "alike" else [0] * 7
    ends = [8, 3, 1, 5, 0, 8, 2]
    ends = {"nothing": [0] * 7, "one": [1] * 7}.get(kind, ends)
    width = max(len(prompts[p]) for p in of)
    batch = {
        "prompt_ids": [[2] * (width - len(prompts[p])) + prompts[p] for p in of],
        "prompt_mask": [[0] * (width - len(prompts[p])) + [1] * len(prompts[p]) for p in of],
        "completion_ids": [ids(8) for _ in of],
        "completion_mask": [[1] * max(end, 4) + [0] * (8 - max(end, 4)) for end in ends],
        "scored": [[1] * end + [0] * (8 - end) for end in ends],
    }
    found = {name: torch.tensor(rows) for name, rows in batch.items()}
    found["scored"][0, 3:6] = 0  # a tool speaks there
    return found


def laid_out(batch: Batch) -> FlatRow:
    flat = lay_out(batch)
    assert flat is not None
    return flat


@pytest.mark.parametrize("kind", ["mixed", "alike", "one"])
@pytest.mark.parametrize("checkpointing", [False, True], ids=["", "checkpointed"])
@pytest.mark.parametrize("name", [name for name, (_, shares) in models().items() if shares])
def test_hidden_states_and_gradient_are_those_of_padded_rows(
    name: str, checkpointing: bool, kind: str
) -> None:
    model: Any = models()[name][0].train()
    base, batch = base_model(model), micro_batch(kind)
    if checkpointing:
        base.gradient_checkpointing_enable({"use_reentrant": False})
    scored = batch["scored"] > 0
    factor = torch.randn(int(scored.sum()), 16, generator=torch.Generator().manual_seed(3))

    def run(hidden: Tensor) -> tuple[Tensor, list[Tensor]]:
        model.zero_grad()
        (hidden[scored] * factor).sum().backward()
        grads = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        return hidden[scored].detach(), grads

    expected = run(padded_hidden(model, base, batch))
    prepare(base)
    if name == "llama, eager attention":
        assert base.config._attn_implementation == "eager"
        assert not works(model, base)
        return
    assert works(model, base)
    got = run(flat_hidden(model, base, laid_out(batch)))
    assert len(got[1]) == len(expected[1]) > 0
    for mine, theirs in zip((got[0], *got[1]), (expected[0], *expected[1]), strict=True):
        assert (mine - theirs).norm() <= 1e-5 * theirs.norm()


def test_each_distinct_prompt_is_read_once_and_only_what_predicts_a_scored_token() -> None:
    flat = laid_out(micro_batch())
    #        three prompts, then 7 + 0 tokens of the first one's, 2 + 7 + 1 of the second's, 4
    assert flat.ids.shape == (1, 5 + 9 + 5 + 7 + 0 + 2 + 7 + 1 + 4)
    assert flat.layout.owned == (2, 3, 1)
    assert flat.positions[0].tolist() == [
        *range(5), *range(9), *range(5), *range(5, 12), *range(9, 11), *range(9, 16), 9,
        *range(5, 9),
    ]  # fmt: skip
    assert len(laid_out(micro_batch("alike")).layout.seen) == 1  # one mask for all
    assert len(flat.layout.seen) == 6


def test_without_a_scored_token_a_pass_still_reaches_every_weight() -> None:
    model: Any = make_model().train()
    prepare(model)
    flat = laid_out(micro_batch("nothing"))
    assert flat.ids.numel() == 1
    assert works(model, model)
    hidden = flat_hidden(model, model, flat)
    assert hidden.shape == (7, 8, 16)
    (0.0 * hidden.sum()).backward()
    reached = [p.grad is not None for n, p in model.named_parameters() if "lm_head" not in n]
    assert all(reached)


def test_scored_padding_is_left_to_padded_rows() -> None:
    batch = micro_batch()
    batch["scored"] = torch.ones_like(batch["scored"])
    assert lay_out(batch) is None


@pytest.mark.parametrize("name", [name for name, (_, shares) in models().items() if not shares])
def test_other_models_run_padded(name: str) -> None:
    model: Any = models()[name][0]
    before = model.config._attn_implementation
    prepare(model)
    assert model.config._attn_implementation == before
    assert not works(model, model)


def test_a_model_that_gives_other_numbers_gets_its_attention_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One that doesn't hand on to its layers what it has no name for."""
    model: Any = make_model()
    own = LlamaForCausalLM.forward

    @functools.wraps(own)
    def forward(self: Any, *args: Any, layout: Any = None, **kwargs: Any) -> Any:
        return own(self, *args, **kwargs)

    monkeypatch.setattr(LlamaForCausalLM, "forward", forward)
    prepare(model)
    assert model.config._attn_implementation == NAME
    assert not works(model, model)
    assert model.config._attn_implementation == "sdpa"
    assert not works(model, model)


def test_everything_else_of_the_model_goes_on_as_with_sdpa(tmp_path: Path) -> None:
    plain: Any = make_model().eval()
    model = copy.deepcopy(plain)
    prepare(model)
    ids = torch.tensor([[2, 2, 5, 6, 7], [9, 10, 11, 12, 13]])
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    written = [
        m.generate(input_ids=ids, attention_mask=mask, max_new_tokens=6, do_sample=False)
        for m in (plain, model)
    ]
    assert torch.equal(*written)
    model.save_pretrained(tmp_path)
    assert NAME not in (tmp_path / "config.json").read_text()
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert again.config._attn_implementation == "sdpa"


OBJECTIVES: dict[str, dict[str, Any]] = {
    "distil": {"objective": {}},
    "hybrid": {"objective": {"name": "distil+grpo"}},
    "student's support": {"objective": {"support": "joined"}},
    "stale": {"objective": {"ratio": "prefix"}} | STALE,
    "sft": {"objective": {"name": "sft"}},
    "checkpointed": {"gradient_checkpointing": True},
}


@pytest.mark.parametrize("options", OBJECTIVES.values(), ids=OBJECTIVES)
def test_a_trainers_gradient_is_the_same(
    tmp_path: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = []
    monkeypatch.setattr(
        "distil.trainer.scoring.flat_hidden",
        lambda *a: runs.append(a[2].ids.numel()) or paddingfree.flat_hidden(*a),
    )
    found = []
    for asked in (False, True):
        assert not runs
        trainer = make_trainer(tmp_path / str(asked), padding_free=asked, **options)
        batch = generation_batch(trainer)
        found.append(gradient(trainer, [rows_of(batch, [0, 5, 2, 4]), rows_of(batch, [1, 6])]))
    assert runs
    assert found[0].abs().max() > 1e-3
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-6)


def test_who_does_not_want_it_has_sdpa_also_after_another_trainer(tmp_path: Path) -> None:
    model: Any = make_model()
    for options, name in (
        ({}, NAME), ({"padding_free": False}, "sdpa"), ({}, NAME),
        ({"objective": {"name": "grpo"}}, "sdpa"),
    ):  # fmt: skip
        make_trainer(tmp_path, model=model, **options)
        assert model.config._attn_implementation == name
