"""Figures against enumeration and hand arithmetic; sampling that leaves everything as it was."""

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from distil.config import EvalConfig
from distil.evaluate import (
    Attempt,
    Estimate,
    count_ungraded,
    evaluate,
    maj_at_n,
    mean_interval,
    paired_difference,
    pass_at_k,
    summarise,
)
from distil.layout import as_markdown, as_text
from distil.tables import result_rows
from distil.tasks import one_by_one
from distil.types import Feedback, Problem

# ---------------------------------------------------------------- figures


@pytest.mark.parametrize("n", [1, 2, 3, 5, 6])
def test_pass_at_k_is_the_share_of_subsets_with_a_correct_sample(n: int) -> None:
    for correct, k in itertools.product(range(n + 1), range(1, n + 1)):
        subsets = list(itertools.combinations([i < correct for i in range(n)], k))
        share = sum(any(s) for s in subsets) / len(subsets)
        assert pass_at_k(n, correct, k) == pytest.approx(share, abs=1e-12)


def test_pass_at_1_is_the_average() -> None:
    assert pass_at_k(64, 16, 1) == pytest.approx(0.25, abs=1e-12)


def test_pass_at_k_stays_exact_for_many_samples() -> None:
    # The one correct sample of 1000 is among 500 drawn ones with probability 500/1000.
    assert pass_at_k(1000, 1, 500) == pytest.approx(0.5, abs=1e-12)


@pytest.mark.parametrize(
    ("n", "c", "k"), [(4, 1, 0), (4, 1, 5), (4, -1, 2), (4, 5, 2), (0, 0, 1), (0, 0, 0)]
)
def test_pass_at_k_outside_its_bounds_is_refused(n: int, c: int, k: int) -> None:
    with pytest.raises(ValueError, match=rf"pass@{k} of {n} samples with {c} correct"):
        pass_at_k(n, c, k)


@pytest.mark.parametrize(
    ("answers", "right", "expected"),
    [
        (["5", "5", "6"], "5", 1.0),
        (["5", "6", "6"], "5", 0.0),
        (["5", "5", "6", "6"], "5", 0.5),
        (["5", "6", "7"], "5", 1 / 3),
        (["5", "6", "7"], "8", 0.0),
        (["5", None, None], "5", 1.0),
        ([None, None], "5", 0.0),
        ([], "5", 0.0),
    ],
)
def test_the_majority_shares_its_ties(
    answers: list[str | None], right: str, expected: float
) -> None:
    assert maj_at_n(answers, [a == right for a in answers]) == pytest.approx(expected, abs=1e-12)


def test_every_answer_needs_its_verdict() -> None:
    with pytest.raises(ValueError, match="zip"):
        maj_at_n(["5", "6"], [True])


# ---------------------------------------------------------------- intervals


def test_the_interval_of_a_constant_has_no_width() -> None:
    assert mean_interval([0.25] * 7) == Estimate(0.25, 0.25, 0.25)
    assert mean_interval([0.25]) == Estimate(0.25, 0.25, 0.25)


def test_the_interval_holds_the_mean_and_stays_within_the_values() -> None:
    estimate = mean_interval([0.0, 0.0, 0.5, 1.0])
    assert estimate.value == 0.375
    assert 0 <= estimate.low < estimate.value < estimate.high <= 1


def test_the_interval_is_the_same_every_time() -> None:
    values = [i / 7 for i in range(20)]
    assert mean_interval(values) == mean_interval(values)


def test_the_interval_is_as_wide_as_theory_says() -> None:
    # The mean of 400 values, half 0 and half 1, has standard error .5 / 20 = .025.
    estimate = mean_interval([0.0, 1.0] * 200)
    assert estimate.high - estimate.low == pytest.approx(2 * 1.96 * 0.025, rel=0.05)


def test_intervals_hold_the_truth_about_nineteen_times_in_twenty() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        estimate = mean_interval(list(rng.random(40)), draws=500)
        held += estimate.low <= 0.5 <= estimate.high
    # 380 expected of a perfect interval, standard deviation 4.4; the bootstrap's is a bit narrow.
    assert 360 <= held <= 395


def test_the_interval_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="No problems"):
        mean_interval([])


def test_the_same_gain_on_every_problem_is_certain() -> None:
    before, after = [0.0, 0.5, 0.25, 0.75], [0.25, 0.75, 0.5, 1.0]
    assert paired_difference(before, after) == Estimate(0.25, 0.25, 0.25)
    assert paired_difference(after, before) == Estimate(-0.25, -0.25, -0.25)


def test_pairing_is_narrower_than_the_two_intervals_apart() -> None:
    before = [0.0, 0.2, 0.4, 0.6, 0.8]
    after = [0.2, 0.3, 0.5, 0.7, 1.0]
    paired = paired_difference(before, after)
    assert paired.value == pytest.approx(0.14, abs=1e-12)
    alone = mean_interval(before)
    assert paired.high - paired.low < (alone.high - alone.low) / 4


def test_a_paired_comparison_needs_the_same_problems() -> None:
    with pytest.raises(ValueError, match="2 problems before and 3 after"):
        paired_difference([0.0, 1.0], [0.0, 1.0, 1.0])


# ---------------------------------------------------------------- summaries and tables


def attempts(problem: str, *verdicts: tuple[str | None, float | None]) -> list[Attempt]:
    """One attempt a (answer, reward), of 3 tokens each."""
    return [Attempt(problem, answer or "", answer, reward, 3) for answer, reward in verdicts]


def test_summarise_by_hand() -> None:
    samples = [
        *attempts("p", ("5", 1.0), ("6", 0.0), ("6", 0.0), ("7", 0.0)),
        *attempts("q", ("1", 0.5), ("1", 0.5), ("2", 0.4), (None, None)),
    ]
    figures = summarise(samples)
    # p: one of four; two drawn ones hold it with 1 - 3/6. q: two of four; 1 - 1/6.
    assert figures == {
        "avg@4": [0.25, 0.5],
        "pass@2": pytest.approx([0.5, 5 / 6], abs=1e-12),
        "pass@4": [1.0, 1.0],
        "maj@4": [0.0, 1.0],
    }
    assert count_ungraded(samples) == 1


def test_the_order_of_attempts_of_several_problems_does_not_matter() -> None:
    p, q = attempts("p", ("5", 1.0), ("6", 0.0)), attempts("q", ("1", 0.0), ("2", 0.0))
    assert summarise([p[0], q[0], p[1], q[1]]) == summarise([*p, *q])
    assert summarise([*p, *q])["avg@2"] == [0.5, 0.0]


@pytest.mark.parametrize(
    ("n", "names"),
    [
        (1, ["avg@1"]),
        (2, ["avg@2", "pass@2", "maj@2"]),
        (3, ["avg@3", "pass@2", "maj@3", "pass@3"]),
        (8, ["avg@8", "pass@2", "pass@4", "pass@8", "maj@8"]),
    ],
)
def test_k_runs_over_the_powers_of_two_and_n(n: int, names: list[str]) -> None:
    assert sorted(summarise(attempts("p", *[("5", 1.0)] * n))) == sorted(names)


def test_a_nan_reward_is_no_success() -> None:
    assert summarise(attempts("p", ("5", float("nan"))))["avg@1"] == [0.0]


BEFORE = attempts("p", ("5", 1.0), ("6", 0.0))
AFTER = attempts("p", ("5", 1.0), ("5", 1.0))
TEACHER = [Attempt("p", "?", None, None, 12)]


def test_the_table_word_for_word_with_missing_figures() -> None:
    rows = result_rows({"before": BEFORE, "after": AFTER, "teacher": TEACHER})
    assert rows == [
        ["", "before", "after", "teacher", "after - before"],
        [
            "avg@2",
            "0.500 [0.500, 0.500]",
            "1.000 [1.000, 1.000]",
            "",
            "+0.500 [+0.500, +0.500]",
        ],
        [
            "pass@2",
            "1.000 [1.000, 1.000]",
            "1.000 [1.000, 1.000]",
            "",
            "+0.000 [+0.000, +0.000]",
        ],
        ["maj@2", "0.500 [0.500, 0.500]", "1.000 [1.000, 1.000]", "", "+0.500 [+0.500, +0.500]"],
        ["avg@1", "", "", "0.000 [0.000, 0.000]", ""],
        ["tokens", "3.0", "3.0", "12.0", ""],
        ["ungraded", "0", "0", "1", ""],
    ]


def test_without_before_and_after_nothing_is_compared() -> None:
    rows = result_rows({"a model": BEFORE})
    assert rows[0] == ["", "a model"]
    assert [row[0] for row in rows[1:]] == ["avg@2", "pass@2", "maj@2", "tokens"]


def test_text_columns_line_up() -> None:
    rows = [["", "before", "after"], ["avg@2", "0.5", ""], ["tokens", "3.0", "12.0"]]
    assert as_text(rows) == "        before  after\navg@2   0.5\ntokens  3.0     12.0"


def test_markdown_keeps_empty_cells() -> None:
    rows = [["", "before"], ["avg@2", ""]]
    assert as_markdown(rows) == "|  | before |\n|---|---|\n| avg@2 |  |"


# ---------------------------------------------------------------- sampling


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
        (END, [("1", 2), ("12", 3), ("1212", 4), ("", 1)]),
        ([END], [("1", 2), ("12", 3), ("1212", 4), ("", 1)]),
        ([TWO, END], [("1", 2), ("12", 2), ("12", 2), ("", 1)]),
        (None, [("1", 4), ("12", 4), ("1212", 4), ("", 4)]),
    ],
)
def test_tokens_are_counted_up_to_and_with_the_end(
    tokenizer: Any, ends: int | list[int] | None, expected: list[tuple[str, int]]
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
    assert [(a.completion, a.tokens) for a in found] == expected


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
