"""The teacher's pass: whatever goes together or is read once, the numbers are each row's alone."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from conftest import make_model
from distil.errors import TrainingError
from distil.teacher import passplan
from distil.teacher.prefixes import can_share
from distil.teacher.teacherpass import TeacherScores, pass_tokens, score_teacher
from distil.vocab.hidden import base_model
from test_hidden import TINY

WINDOW = {"sliding_window": 6}
K = 5


def models() -> dict[str, tuple[nn.Module, bool]]:
    """name -> model, and whether its prompts may be shared."""
    torch.manual_seed(0)
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
    lora = LoraConfig(r=2, lora_alpha=6, target_modules=["q_proj", "v_proj"])
    adapted = get_peft_model(make_model(tied=False), lora)
    eager = make_model()
    eager.set_attn_implementation("eager")
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            parameter += 0.1 * ("lora_B" in name)
    small = {"vocab_size": 40, "hidden_size": 16}
    return {
        "llama": (make_model(), True),
        "llama, eager attention": (eager, True),
        "llama with an adapter": (adapted, True),
        "qwen3": (Qwen3ForCausalLM(Qwen3Config(**TINY)), True),
        "experts": (Qwen3MoeForCausalLM(Qwen3MoeConfig(**TINY, **experts)), True),
        "mistral, no window": (
            MistralForCausalLM(MistralConfig(**TINY, sliding_window=None)), True,
        ),
        "mistral, a window": (MistralForCausalLM(MistralConfig(**TINY, **WINDOW)), False),
        "gemma2, windows and caps": (Gemma2ForCausalLM(Gemma2Config(**TINY, **WINDOW)), False),
        "bloom, no position ids": (
            BloomForCausalLM(BloomConfig(**small, n_layer=2, n_head=2)), False,
        ),
        "mamba, no attention": (
            MambaForCausalLM(MambaConfig(**small, num_hidden_layers=2, state_size=4)), False,
        ),
    }  # fmt: skip


def group(stream: torch.Generator) -> tuple[list[list[int] | None], Tensor, Tensor]:
    """Ten rollouts of two prompts: siblings with one prompt, with half of it, without any."""

    def ids(count: int) -> list[int]:
        return torch.randint(3, 40, (count,), generator=stream).tolist()

    prompts: list[list[int] | None] = []
    for length in (23, 9):
        whole = ids(length)
        prompts += [whole, whole, None, [*whole[: length // 2], *ids(5)], whole]
    completions = torch.randint(3, 40, (10, 12), generator=stream)
    scored = torch.zeros(10, 12, dtype=torch.long)
    for row, end in enumerate((12, 3, 7, 1, 0, 5, 5, 8, 2, 10)):
        scored[row, :end] = 1
    scored[0, 3:6] = 0  # a tool speaks there
    return prompts, completions, scored


def one_by_one(
    model: Any, prompts: list[list[int] | None], completions: Tensor, scored: Tensor
) -> Iterator[tuple[int, int, Tensor]]:
    """(row, token, [V] log-probabilities) at every scored token: full logits, no padding."""
    for row, prompt in enumerate(prompts):
        for token in range(completions.shape[1]):
            if prompt is not None and scored[row, token]:
                seen = torch.tensor([[*prompt, *completions[row, :token].tolist()]])
                yield row, token, model(input_ids=seen).logits[0, -1].log_softmax(-1)


def teacher(model: Any, given: Any, **options: Any) -> TeacherScores:
    settings = {"k": K, "temperature": 1.0, "batch_size": 4} | options
    with torch.no_grad():
        return score_teacher(model, base_model(model), *given, **settings)


@pytest.fixture
def given() -> tuple[list[list[int] | None], Tensor, Tensor]:
    return group(torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", models())
def test_scores_are_those_of_each_token_alone(
    name: str, given: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, shares = models()[name]
    monkeypatch.setattr("distil.teacher.teacherpass.CPU_PASS_TOKENS", 4.0)  # rows here are short
    model.eval()
    prompts, completions, scored = given
    also = torch.arange(10 * 12 * 2).reshape(10, 12, 2) % 40
    scores = teacher(model, given, also=also)
    assert can_share(model, base_model(model)) == shares
    assert (scores.work.tokens > scores.work.positions - scores.work.padding) == shares
    assert scores.work.padding <= passplan.PADDING * scores.work.positions
    seen = torch.zeros_like(scored)
    with torch.no_grad():
        for row, token, logps in one_by_one(model, prompts, completions, scored):
            seen[row, token] = 1
            top = logps.topk(K)
            asked = also[row, token]
            ours, ids = scores.logps[row, token], scores.ids[row, token]
            assert ids.tolist() == [*top.indices.tolist(), *asked.tolist()]
            torch.testing.assert_close(ours[:K], top.values, rtol=0, atol=1e-5)
            for i, other in enumerate(asked.tolist()):
                if other not in top.indices:
                    torch.testing.assert_close(ours[K + i], logps[other], rtol=0, atol=1e-5)
            own = logps[completions[row, token]]
            torch.testing.assert_close(scores.sampled_logps[row, token], own, rtol=0, atol=1e-5)
            entropy = -(logps.exp() * logps).sum()
            torch.testing.assert_close(scores.entropy[row, token], entropy, rtol=0, atol=1e-5)
    assert seen.sum() == 35
    for whole in (scores.logps, scores.ids, scores.sampled_logps, scores.entropy):
        assert not whole[seen == 0].any()


def test_order_and_number_of_rows_at_once_change_nothing(given: Any) -> None:
    prompts, completions, scored = given
    model = make_model().eval()
    whole = teacher(model, given)
    order = [3, 9, 0, 5, 1, 2, 8, 4, 7, 6]
    for size in (1, 3, 32):
        turned = [prompts[i] for i in order], completions[order], scored[order]
        scores = teacher(model, turned, batch_size=size)
        for name in ("logps", "sampled_logps", "entropy"):
            ours = getattr(scores, name)
            torch.testing.assert_close(ours, getattr(whole, name)[order], rtol=0, atol=1e-5)
        assert torch.equal(scores.ids, whole.ids[order])


def test_bfloat16_stays_within_its_own_error(given: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model().eval()
    exact = teacher(model, given, k=0, also=given[1][..., None]).logps
    half = make_model().eval().to(torch.bfloat16)
    errors = []
    for tokens in (1e9, 4.0):  # plain, shared
        monkeypatch.setattr("distil.teacher.teacherpass.CPU_PASS_TOKENS", tokens)
        scores = teacher(half, given, k=0, also=given[1][..., None])
        errors.append((scores.logps - exact).abs().mean().item())
    assert scores.work.tokens > scores.work.positions
    assert 0 < errors[1] < 1.5 * errors[0]


def test_prompts_are_shared_under_autocast_and_in_bfloat16() -> None:
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        model = make_model().eval()
        assert can_share(model, model)
    with torch.no_grad():
        model = make_model().eval().to(torch.bfloat16)
        assert can_share(model, model)


def test_a_batch_without_a_context_or_a_scored_token_is_all_zeros(given: Any) -> None:
    prompts, completions, scored = given
    model = make_model().train()
    for nothing in (([None] * 10, completions, scored), (prompts, completions, 0 * scored)):
        scores = teacher(model, nothing)
        assert not scores.logps.any()
        assert scores.work.positions == 0
    assert model.training


@pytest.mark.parametrize("tokens", [1e9, 4.0])
def test_a_process_with_fewer_passes_than_another_runs_as_many(
    given: Any, monkeypatch: pytest.MonkeyPatch, tokens: float
) -> None:
    """Shards are gathered by all processes for each pass, or by none."""
    monkeypatch.setattr("distil.teacher.teacherpass.CPU_PASS_TOKENS", tokens)
    model = make_model().eval()
    can_share(model, model)  # its own passes, once
    told, ran = [], []

    def most(model: Any, count: int) -> int:
        told.append(count)
        return count + 3

    monkeypatch.setattr("distil.teacher.teacherpass.most", most)
    model.register_forward_hook(lambda *_: ran.append(1))
    prompts, completions, scored = given
    for some in (prompts, [None] * 10):
        ran.clear()
        teacher(model, (some, completions, scored))
        assert len(ran) == told[-1] + 3
    assert told[0] > told[1] == 0


def test_starting_a_pass_costs_large_models_on_accelerators_fewer_tokens() -> None:
    model = make_model()
    assert pass_tokens(model, model) == 32
    model.to("meta")  # stands in for one
    numbers = sum(p.numel() for p in model.parameters())
    assert pass_tokens(model, model) == 2e12 / numbers


def test_one_prompt_too_few_is_refused(given: Any) -> None:
    prompts, completions, scored = given
    with pytest.raises(TrainingError, match="9 teacher prompts for 10 completions"):
        teacher(make_model(), (prompts[:9], completions, scored))


class Shifted(nn.Module):
    """Stands in for a model that counts positions by itself once it has a cache."""

    def __init__(self) -> None:
        super().__init__()
        self.model = make_model().eval()

    def __call__(self, **inputs: Any) -> Any:
        if inputs.get("past_key_values") is not None:
            inputs["position_ids"] = inputs["position_ids"] * 2
        return self.model(**inputs)


def test_a_model_that_differs_when_its_prompts_are_shared_runs_without(given: Any) -> None:
    odd = Shifted()
    assert not can_share(odd, odd.model)
    with torch.no_grad():
        scores = score_teacher(odd, odd.model, *given, k=K, temperature=1.0, batch_size=4)
    assert scores.work.tokens == scores.work.positions - scores.work.padding
    expected = teacher(make_model().eval(), given)
    torch.testing.assert_close(scores.logps, expected.logps, rtol=0, atol=1e-5)
