"""What a model's own generation_config.json says of sampling changes no rollout, and is kept."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import GenerationConfig

from conftest import make_model
from distil.trainer.ownpolicy import CHANGES, changes, own_policy, tell_what_is_left_out
from distil.trainer.probe import sample
from trainertoys import generation_batch, make_trainer

OTHERS: dict[str, Any] = {
    "min_p": 0.9,
    "typical_p": 0.2,
    "epsilon_cutoff": 0.02,
    "repetition_penalty": 50.0,
    "no_repeat_ngram_size": 1,
    "suppress_tokens": list(range(5, 60)),
    "min_new_tokens": 6,
}


@pytest.mark.parametrize("options", [{}, {"share_prompts": True}], ids=["TRL's", "shared"])
@pytest.mark.parametrize("setting", OTHERS)
def test_rollouts_are_those_without_it(
    tmp_path: Path, setting: str, options: dict[str, Any]
) -> None:
    plain = generation_batch(make_trainer(tmp_path, **options))["completion_ids"]
    model = make_model()
    model.generation_config.update(do_sample=True, **{setting: OTHERS[setting]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = make_trainer(tmp_path, model=model, **options)
    assert torch.equal(generation_batch(trainer)["completion_ids"], plain)
    model.save_pretrained(tmp_path / "saved")
    saved = GenerationConfig.from_pretrained(tmp_path / "saved")
    assert getattr(saved, setting) == OTHERS[setting]


def test_it_would_change_them_outside() -> None:
    """So the tests above can fail."""
    model, ids = make_model(), torch.tensor([[1, 20, 30]] * 8)

    def drawn(**setting: Any) -> Any:
        torch.manual_seed(0)
        model.generation_config.update(**{name: None for name in OTHERS} | setting)
        mask = torch.ones_like(ids)
        return model.generate(
            input_ids=ids, attention_mask=mask, do_sample=True, max_new_tokens=6
        ).tolist()

    assert all(drawn(**{name: value}) != drawn() for name, value in OTHERS.items())


@pytest.mark.parametrize("adapter", [False, True])
def test_inside_it_is_left_out_and_afterwards_as_before(adapter: bool) -> None:
    model: Any = make_model()
    if adapter:
        model = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"]))

    def drawn() -> list[list[int]]:
        torch.manual_seed(0)
        return sample(model, [[1, 20]] * 4, max_new_tokens=8, temperature=1.0, pad_token_id=2)

    with own_policy(model):
        plain = drawn()
    model.generation_config.update(**OTHERS)
    config = model.generation_config
    with own_policy(model):
        assert drawn() == plain
        assert model.generation_config.eos_token_id == config.eos_token_id
    assert model.generation_config is config
    with pytest.raises(KeyboardInterrupt), own_policy(model):
        raise KeyboardInterrupt
    assert model.generation_config is config
    assert drawn() != plain


def test_the_user_is_told_of_what_would_have_been_used_only() -> None:
    model = make_model()
    model.generation_config.update(
        temperature=0.6, top_p=0.8, top_k=20, repetition_penalty=1.05, num_beams=1
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tell_what_is_left_out(model)
    model.generation_config.update(typical_p=0.2)
    with pytest.warns(UserWarning, match=r"has typical_p: 0\.2\. Training and evaluation sample"):
        tell_what_is_left_out(model)


def test_every_setting_that_changes_a_policy_is_one_of_transformers() -> None:
    assert set(CHANGES) <= set(vars(GenerationConfig()))
    assert changes({name: value for name, value in CHANGES.items()}) == {}
    assert changes(OTHERS | {"max_new_tokens": 5, "use_cache": False}) == OTHERS
