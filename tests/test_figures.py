"""Figures against enumeration and hand arithmetic; intervals; the printed table."""

import itertools
import random
from collections import Counter

import numpy as np
import pytest

from distil.figures.estimates import (
    Attempt,
    Estimate,
    count_ungraded,
    lengths_and_rates,
    maj_at_k,
    mean_interval,
    paired_difference,
    pass_at_k,
    summarise,
    truncated_tokens,
)
from distil.figures.figurenames import figure_names
from distil.figures.layout import as_markdown, as_text
from distil.figures.tables import result_rows

# ---------------------------------------------------------------- figures


@pytest.mark.parametrize("n", range(1, 9))
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
    ],
)
def test_the_majority_shares_its_ties(
    answers: list[str | None], right: str, expected: float
) -> None:
    assert maj_at_k(answers, [a == right for a in answers], len(answers)) == pytest.approx(
        expected, abs=1e-12
    )


def test_every_answer_needs_its_verdict() -> None:
    with pytest.raises(ValueError, match="zip"):
        maj_at_k(["5", "6"], [True], 2)


def majority(answers: tuple[str | None, ...], right: str) -> float:
    """The verdict of one subset, ties shared."""
    counts = Counter(a for a in answers if a is not None)
    winners = [a for a, c in counts.items() if c == max(counts.values())]
    return winners.count(right) / len(winners) if winners else 0.0


@pytest.mark.parametrize("n", range(1, 7))
def test_maj_at_k_is_the_mean_over_all_subsets(n: int) -> None:
    # Every multiset of n answers: two wrong ones, the right one, and none.
    for answers in itertools.combinations_with_replacement((None, "5", "6", "7"), n):
        for k in range(1, n + 1):
            subsets = list(itertools.combinations(answers, k))
            mean = sum(majority(s, "5") for s in subsets) / len(subsets)
            found = maj_at_k(answers, [a == "5" for a in answers], k)
            assert found == pytest.approx(mean, abs=1e-12), (answers, k)


def test_maj_at_k_holds_for_many_answers_in_any_order() -> None:
    rng = random.Random(0)
    for _ in range(20):
        answers = tuple(rng.choice((None, *"123456")) for _ in range(11))
        k = rng.randint(2, 10)
        subsets = list(itertools.combinations(answers, k))
        mean = sum(majority(s, "1") for s in subsets) / len(subsets)
        found = maj_at_k(answers, [a == "1" for a in answers], k)
        assert found == pytest.approx(mean, abs=1e-12)


def test_several_right_answers_add_up_and_mixed_verdicts_count_by_their_share() -> None:
    assert maj_at_k(["1/2", "0.5", "3"], [True, True, False], 3) == pytest.approx(2 / 3)
    assert maj_at_k(["5", "5", "5", "6"], [True, False, False, False], 4) == pytest.approx(1 / 3)


@pytest.mark.parametrize("k", [0, 3])
def test_maj_at_k_outside_its_bounds_is_refused(k: int) -> None:
    with pytest.raises(ValueError, match=rf"maj@{k} of 2 samples"):
        maj_at_k(["5", "6"], [True, False], k)


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


def test_drawing_in_parts_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    values = [i / 7 for i in range(21)]
    whole = mean_interval(values, draws=1000)
    monkeypatch.setattr("distil.figures.estimates.DRAWN_AT_ONCE", 100)
    assert mean_interval(values, draws=1000) == whole


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
        # p: a pair with the 5 is tied, 3 of 6. q: the 1s win alone, beside None and tied with 2.
        "maj@2": pytest.approx([0.25, (1 + 2 + 2 * 0.5 + 0) / 6], abs=1e-12),
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
        (3, ["avg@3", "pass@2", "pass@3", "maj@2", "maj@3"]),
        (8, ["avg@8", "pass@2", "pass@4", "pass@8", "maj@2", "maj@4", "maj@8"]),
    ],
)
def test_k_runs_over_the_powers_of_two_and_n(n: int, names: list[str]) -> None:
    assert list(summarise(attempts("p", *[("5", 1.0)] * n))) == names


def test_k_may_be_named_and_one_above_n_is_passed_over() -> None:
    found = summarise(attempts("p", *[("5", 1.0)] * 4), ks=(1, 3, 3, 5))
    assert list(found) == ["avg@4", "pass@1", "pass@3", "maj@3"]


def test_where_every_named_k_is_above_n_the_average_alone_is_left() -> None:
    two = attempts("p", ("5", 1.0), ("6", 0.0))
    assert summarise(two, ks=(4, 8)) == {"avg@2": [0.5]}
    assert figure_names(2, (4, 8)) == ["avg@2"]
    # A recipe with eval.k above its teacher_samples: the teacher keeps its average.
    rows = result_rows({"before": attempts("p", *[("5", 1.0)] * 4), "teacher": two}, ks=(4,))
    assert ["avg@2", "", "0.500 [0.500, 0.500]"] in rows


def test_lengths_and_rates_by_hand() -> None:
    samples = [
        Attempt("p", "a", None, 0.0, 8, True),
        Attempt("p", "b", "b", 0.0, 2, False),
        Attempt("q", "c", "c", 1.0, 3, False),
        Attempt("q", "", None, 0.0, 6, True),
    ]
    assert lengths_and_rates(samples) == {
        "tokens": [5.0, 4.5], "truncated": [0.5, 0.5], "format": [0.5, 0.5],
    }  # fmt: skip
    assert truncated_tokens(samples) == 7.0
    assert truncated_tokens(samples[1:3]) is None


def test_truncation_that_was_never_noted_is_not_known() -> None:
    assert list(lengths_and_rates(attempts("p", ("5", 1.0)))) == ["tokens", "format"]


def test_a_nan_reward_is_no_success() -> None:
    assert summarise(attempts("p", ("5", float("nan"))))["avg@1"] == [0.0]


BEFORE = attempts("p", ("5", 1.0), ("6", 0.0))
AFTER = attempts("p", ("5", 1.0), ("5", 1.0))
TEACHER = [Attempt("p", "?", None, None, 12, True)]


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
        ["tokens", "3.0", "3.0", "12.0", "+0.0 [+0.0, +0.0]"],
        ["truncated", "", "", "1.000", ""],
        ["format", "1.000", "1.000", "0.000", "+0.000 [+0.000, +0.000]"],
        ["tokens of truncated", "", "", "12.0", ""],
        ["ungraded", "0", "0", "1", ""],
    ]


def test_without_before_and_after_nothing_is_compared() -> None:
    rows = result_rows({"a model": BEFORE})
    assert rows[0] == ["", "a model"]
    assert [row[0] for row in rows[1:]] == ["avg@2", "pass@2", "maj@2", "tokens", "format"]


def test_text_columns_line_up() -> None:
    rows = [["", "before", "after"], ["avg@2", "0.5", ""], ["tokens", "3.0", "12.0"]]
    assert as_text(rows) == "        before  after\navg@2   0.5\ntokens  3.0     12.0"


def test_markdown_keeps_empty_cells() -> None:
    rows = [["", "before"], ["avg@2", ""]]
    assert as_markdown(rows) == "|  | before |\n|---|---|\n| avg@2 |  |"
