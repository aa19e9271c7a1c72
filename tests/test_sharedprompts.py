"""Prompts read once a group: the rollouts that TRL's own path samples, from the same numbers."""

from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import make_model, make_tokenizer
from distil.errors import ModelError, RecipeError
from distil.trainer import sharedprompts
from distil.trainer.probe import stop_ids
from distil.trainer.sharedprompts import complete
from trainertoys import generation_batch, make_trainer


@pytest.fixture
def trls_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens aren't drawn by one number, but by the random stream that TRL's own path has."""
    monkeypatch.setattr(sharedprompts, "by_one_number", lambda c, _: {"generation_config": c})


@pytest.mark.usefixtures("trls_draws")
@pytest.mark.parametrize("options", [{}, {"temperature": 0.7}, {"gradient_checkpointing": True}])
def test_the_rollouts_are_those_of_trls_own_path(tmp_path: Path, options: dict[str, Any]) -> None:
    plain, shared = (
        generation_batch(make_trainer(tmp_path / str(share), share_prompts=share, **options))
        for share in (False, True)
    )
    assert len(plain["completion_ids"]) == 8
    assert len(plain["completion_ids"].unique(dim=0)) > 4
    for name in ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "advantages"):
        assert torch.equal(shared[name], plain[name]), name
    torch.testing.assert_close(shared["teacher_logps"], plain["teacher_logps"])


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_drawn_by_one_number_they_follow_the_models_distribution(
    tmp_path: Path, temperature: float
) -> None:
    """Mean log-probability of what was sampled is minus the entropy, within 4 standard errors."""
    trainer = make_trainer(tmp_path, share_prompts=True, temperature=temperature)
    model, prompts = trainer.model.eval(), [[5, 6, 7, 8]] * 800
    torch.manual_seed(2)
    pad = trainer.processing_class.pad_token_id
    written = torch.tensor(complete(model, prompts, trainer.generation_config, pad))
    with torch.no_grad():
        whole = torch.cat([torch.tensor(prompts), written], 1)
        logps = (model(whole).logits[:, 3:-1] / temperature).log_softmax(-1)
    own = logps.gather(-1, written[..., None])[..., 0]
    excess = own + -(logps.exp() * logps).sum(-1)
    ended = torch.isin(written, torch.tensor(stop_ids(model))).cumsum(1)
    real = torch.nn.functional.pad(ended, (1, 0))[:, :-1] == 0
    error = excess[real].std() / real.sum() ** 0.5
    assert real.sum() > 2000
    assert excess[real].mean().abs() < 4 * error


@pytest.mark.usefixtures("trls_draws")
def test_a_run_learns_the_same(tmp_path: Path) -> None:
    trained = []
    for share in (False, True):
        trainer = make_trainer(tmp_path / str(share), share_prompts=share)
        trainer.train()
        trained.append(list(trainer.model.parameters()))
    for own, theirs in zip(*trained, strict=True):
        torch.testing.assert_close(own, theirs, rtol=0, atol=1e-5)


def test_each_distinct_prompt_is_read_once(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, share_prompts=True)
    seen: list[tuple[int, ...]] = []
    trainer.model.get_input_embeddings().register_forward_hook(
        lambda module, inputs, output: seen.append(tuple(inputs[0].shape))
    )
    model, prompts = trainer.model.eval(), [[5, 6, 7, 8]] * 3 + [[9, 10]] * 3
    complete(model, prompts, trainer.generation_config, trainer.processing_class.pad_token_id)
    assert seen[0] == (2, 3)  # both prompts, but for their last tokens
    assert all(shape == (6, 1) for shape in seen[1:])


def test_first_tokens_are_drawn_as_the_model_says(tmp_path: Path) -> None:
    """Chi-square over the vocabulary's likelier words, 3,000 draws, at the 1e-4 level."""
    trainer = make_trainer(tmp_path, share_prompts=True, max_completion_length=1)
    model, prompt = trainer.model.eval(), [5, 6, 7, 8]
    with torch.no_grad():
        expected = 3000 * model(torch.tensor([prompt])).logits[0, -1].softmax(-1)
    torch.manual_seed(0)
    pad = trainer.processing_class.pad_token_id
    drawn = complete(model, [prompt] * 3000, trainer.generation_config, pad)
    counts = torch.bincount(torch.tensor(drawn)[:, 0], minlength=len(expected)).float()
    often = expected >= 5
    cells = [(counts[i], expected[i]) for i in often.nonzero()[:, 0]]
    cells.append((counts[~often].sum(), expected[~often].sum()))
    chi = float(sum((c - e) ** 2 / e for c, e in cells if e > 0))
    degrees = len(cells) - 1
    assert chi < degrees + 4 * (2 * degrees) ** 0.5 + 8


def test_prompts_of_one_token_and_without_equals_are_sampled_too(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, share_prompts=True)
    pad = trainer.processing_class.pad_token_id
    for prompts in ([[5]] * 4, [[5, 6], [7, 8, 9]]):
        torch.manual_seed(3)
        ours = complete(trainer.model.eval(), prompts, trainer.generation_config, pad)
        assert len(ours) == len(prompts)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"rollout_func": lambda prompts, trainer: {}}, "rollout_func"),
        ({"cache_implementation": "static"}, "cache_implementation"),
    ],
)
def test_what_it_does_not_go_with_is_refused(
    tmp_path: Path, options: dict[str, Any], told: str
) -> None:
    with pytest.raises(RecipeError, match=f"share_prompts doesn't go with {told}"):
        make_trainer(tmp_path, share_prompts=True, **options)


def test_a_model_with_windows_is_refused(tmp_path: Path) -> None:
    from transformers import MistralConfig, MistralForCausalLM

    like = make_model().config
    config = MistralConfig(
        vocab_size=like.vocab_size, hidden_size=16, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, sliding_window=4, eos_token_id=2,
        pad_token_id=like.pad_token_id, bos_token_id=1,
    )  # fmt: skip
    tokenizer = make_tokenizer()
    with pytest.raises(ModelError, match="Leave share_prompts out"):
        make_trainer(
            tmp_path, share_prompts=True, model=MistralForCausalLM(config),
            processing_class=tokenizer,
        )  # fmt: skip
