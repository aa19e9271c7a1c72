"""Sampling that leaves everything as it was, and grading what came."""

from collections import Counter
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from distil.config import EvalConfig
from distil.evaluate.judging import evaluate
from distil.figures.estimates import Attempt
from distil.tasks import one_by_one
from distil.types import Feedback, Problem

END, ONE, TWO = 2, 4, 5  # ids of the toy tokenizer: <|end|> (also its pad), "1", "2"


class Echo:
    """Every completion is its own answer, and right if it holds a digit."""

    instruction = ""
    train: tuple[Problem, ...] = ()
    heldout: tuple[Problem, ...] = ()

    def check(self, problem: Problem, completion: str) -> Feedback:
        return Feedback(float(any(c.isdigit() for c in completion)))

    def check_all(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[Feedback]:
        return one_by_one(self.check, problems, completions)

    def read(self, completion: str) -> str | None:
        return completion or None


PROBLEMS = [Problem("p", "1 + 1 ="), Problem("q", "a longer question: 2 + 2 =")]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """A model this small only waits for a second thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def sample(model: Any, tokenizer: Any, **changes: Any) -> list[Attempt]:
    options = {"samples": 4, "max_completion_length": 6, **changes}
    settings = EvalConfig(batch_size=options.pop("batch_size", 8), seed=options.pop("seed", 1))
    return evaluate(
        model,
        tokenizer,
        Echo(),
        PROBLEMS,
        lambda p: [{"role": "user", "content": p.question}],
        settings,
        title="test",
        **options,
    )


def test_evaluating_leaves_the_global_random_state_alone(model: Any, tokenizer: Any) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    sample(model, tokenizer)
    assert torch.equal(torch.get_rng_state(), before)


def test_samples_depend_on_the_evaluations_seed_only(model: Any, tokenizer: Any) -> None:
    torch.manual_seed(5)
    first = sample(model, tokenizer)
    torch.manual_seed(6)
    assert sample(model, tokenizer) == first
    assert sample(model, tokenizer, seed=2) != first


@pytest.mark.parametrize("training", [True, False])
def test_the_models_mode_is_left_as_it_was(model: Any, tokenizer: Any, training: bool) -> None:
    model.train(training)
    sample(model, tokenizer)
    assert model.training is training


def test_dropout_and_gradients_are_off_while_sampling(model: Any, tokenizer: Any) -> None:
    seen = []
    model.register_forward_pre_hook(
        lambda module, _: seen.append((module.training, torch.is_grad_enabled()))
    )
    sample(model.train(), tokenizer)
    assert set(seen) == {(False, False)}


@pytest.mark.parametrize("batch_size", [3, 8, 64])
def test_every_problem_gets_its_samples_in_order(
    model: Any, tokenizer: Any, batch_size: int
) -> None:
    found = sample(model, tokenizer, batch_size=batch_size)
    assert [a.problem for a in found] == ["p"] * 4 + ["q"] * 4
    assert all(1 <= a.tokens <= 6 for a in found)
    assert all(a.reward == any(c.isdigit() for c in a.completion) for a in found)
    assert all(a.answer == (a.completion or None) for a in found)


def test_every_end_token_of_the_generation_config_ends_a_completion(
    model: Any, tokenizer: Any
) -> None:
    free = [a.completion for a in sample(model, tokenizer)]
    common, _ = Counter("".join(text[:-1] for text in free)).most_common(1)[0]
    assert any(common in text[:-1] for text in free)
    model.generation_config.eos_token_id = [END, tokenizer.convert_tokens_to_ids(common)]
    found = [a.completion for a in sample(model, tokenizer)]
    assert any(text.endswith(common) for text in found)
    assert not any(common in text[:-1] for text in found)


class Scripted:
    """Stands in for a model: `generate` appends the same ids to every prompt."""

    device = torch.device("cpu")
    training = True

    def __init__(self, script: list[list[int]], ends: int | list[int] | None) -> None:
        self._script = torch.tensor(script)
        self.generation_config = SimpleNamespace(eos_token_id=ends)
        self.asked: dict[str, Any] = {}

    def modules(self) -> list[Any]:
        return [self]

    def generate(self, *, input_ids: Tensor, **options: Any) -> Tensor:
        self.asked = {"input_ids": input_ids, **options}
        return torch.cat([input_ids, self._script], dim=1)

    def eval(self) -> None:
        self.train(False)

    def train(self, mode: bool) -> None:
        self.training = mode


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        # pad == end: the padding after the end doesn't count, the end itself does.
        (END, [("1", 2, False), ("12", 3, False), ("1212", 4, True), ("", 1, False)]),
        ([END], [("1", 2, False), ("12", 3, False), ("1212", 4, True), ("", 1, False)]),
        ([TWO, END], [("1", 2, False), ("12", 2, False), ("12", 2, False), ("", 1, False)]),
        (None, [("1", 4, True), ("12", 4, True), ("1212", 4, True), ("", 4, True)]),
    ],
)
def test_tokens_are_counted_up_to_and_with_the_end_and_none_is_a_truncation(
    tokenizer: Any, ends: int | list[int] | None, expected: list[tuple[str, int, bool]]
) -> None:
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == END
    assert tokenizer.convert_tokens_to_ids(["1", "2"]) == [ONE, TWO]
    script = [
        [ONE, END, END, END],
        [ONE, TWO, END, END],
        [ONE, TWO, ONE, TWO],
        [END, END, END, END],
    ]
    found = sample(Scripted(script, ends), tokenizer, samples=2, batch_size=4)
    assert [(a.completion, a.tokens, a.truncated) for a in found] == expected


def test_prompts_are_padded_on_the_left_and_end_with_the_generation_header(tokenizer: Any) -> None:
    tokenizer.padding_side = "right"  # as some tokenizers come
    model = Scripted([[END], [END]], END)
    sample(model, tokenizer, samples=1, batch_size=2)
    ids, mask = model.asked["input_ids"], model.asked["attention_mask"]
    for row, kept, problem in zip(ids, mask, PROBLEMS, strict=True):
        text = f"<|start|>user\n{problem.question}<|end|><|start|>assistant\n"
        assert tokenizer.decode(row[kept.bool()]) == text
        assert torch.equal(kept, kept.sort().values)


def test_the_settings_reach_the_sampler(tokenizer: Any) -> None:
    model = Scripted([[END], [END]], END)
    sample(model, tokenizer, samples=1, batch_size=2, max_completion_length=9)
    wanted = {
        "do_sample": True,
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
        "max_new_tokens": 9,
        "pad_token_id": END,
    }
    assert {k: model.asked[k] for k in wanted} == wanted


def test_what_a_models_files_say_of_sampling_changes_nothing(model: Any, tokenizer: Any) -> None:
    """Qwen2.5's bring a repetition penalty, which neither training nor vLLM's sampler has."""
    plain = sample(model, tokenizer)
    model.generation_config.update(repetition_penalty=50.0, min_p=0.9, typical_p=0.1)
    assert sample(model, tokenizer) == plain
    assert model.generation_config.typical_p == 0.1


def test_the_template_is_told_whether_to_think(tokenizer: Any) -> None:
    tokenizer.chat_template += "{% if enable_thinking is defined %}{{ enable_thinking }}{% endif %}"
    ends = {"on": "assistant\nTrue", "off": "assistant\nFalse", "template": "assistant\n"}
    for thinking, end in ends.items():
        model = Scripted([[END], [END]], END)
        sample(model, tokenizer, samples=1, batch_size=2, thinking=thinking)
        assert tokenizer.decode(model.asked["input_ids"][0]).endswith(end)
