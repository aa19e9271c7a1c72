"""Who is shown what: siblings, reports, experts, and the order in which they are asked."""

import random
from collections.abc import Sequence

import pytest

from distil.errors import RecipeError
from distil.feedback import choose_contexts, combined, correction, expert, report, sibling
from distil.feedback.extract import without_thinking
from distil.feedback.said import NAMED, first_demonstration, first_text
from distil.types import Feedback, Rollout, TeacherContext


def rollout(
    completion: str, reward: float | None, *, group: int = 0, said: Feedback | None = None
) -> Rollout:
    return Rollout(group, completion, reward, () if said is None else (said,))


def siblings(group: Sequence[Rollout], choice: str = "shortest", seed: int = 0) -> list[str | None]:
    """What each rollout of the group is shown by `sibling`."""
    rng = random.Random(seed)
    found = [sibling(i, group, choice, rng) for i in range(len(group))]
    assert all(c is None or c.kind == "sibling" for c in found)
    return [c.demonstration if c else None for c in found]


# ---------------------------------------------------------------- sibling


def test_a_success_is_shown_to_the_others() -> None:
    assert siblings([rollout("right", 1.0), rollout("wrong", 0.0)]) == [None, "right"]


def test_a_lone_success_has_no_sibling() -> None:
    assert siblings([rollout("right", 1.0)]) == [None]


def test_no_rollout_is_its_own_sibling() -> None:
    group = [rollout(word, 1.0) for word in ("a", "bb", "ccc")]
    assert siblings(group) == ["bb", "a", "a"]
    for choice in ("first", "random"):
        for seed in range(20):
            shown = siblings(group, choice, seed)
            assert all(s != g.completion for s, g in zip(shown, group, strict=True))


def test_equal_texts_of_two_successes_are_shown_to_each_other() -> None:
    assert siblings([rollout("5", 1.0), rollout("5", 1.0)]) == ["5", "5"]


@pytest.mark.parametrize("reward", [None, float("nan"), 0.0, 0.49, -1.0, float("-inf")])
def test_no_success_without_half_the_reward(reward: float | None) -> None:
    assert not rollout("?", reward).succeeded
    assert siblings([rollout("?", reward), rollout("wrong", 0.0)]) == [None, None]


def test_half_the_reward_is_a_success() -> None:
    assert rollout("right", 0.5).succeeded
    assert siblings([rollout("right", 0.5), rollout("wrong", 0.0)]) == [None, "right"]


SUCCESSES = [rollout("wrong", 0.0), *(rollout(w, 1.0) for w in ("four", "two", "six", "eight"))]


def test_shortest_takes_the_first_of_the_shortest() -> None:
    assert siblings(SUCCESSES)[0] == "two"
    assert siblings(SUCCESSES)[2] == "six"


def test_first_takes_the_first_in_sampling_order() -> None:
    assert siblings(SUCCESSES, "first")[:3] == ["four", "two", "four"]


def test_random_is_decided_by_the_seed_and_reaches_every_success() -> None:
    assert siblings(SUCCESSES, "random", 3) == siblings(SUCCESSES, "random", 3)
    shown = [siblings(SUCCESSES, "random", seed)[0] for seed in range(200)]
    # 200 draws of 4: each is expected 50 times, with a standard deviation of 6.
    assert set(shown) == {"four", "two", "six", "eight"}
    assert all(25 < shown.count(word) < 75 for word in set(shown))


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("<think>2 and 3</think>\n5", "5"),
        ("a <think>x</think> b <think>y\nz</think> c", "a  b  c"),
        ("5 <think>is it? it never closes", "5"),
        ("<think>never closes", ""),
        ("the prompt opened this</think>\n5", "5"),
        ("one</think> two</think> 5", "5"),
        ("<think>a <think>b</think> c</think> d", "d"),
        ("  5\n", "5"),
        ("no tags", "no tags"),
    ],
)
def test_thinking_is_taken_out(text: str, left: str) -> None:
    assert without_thinking(text) == left


def test_length_is_measured_without_thinking() -> None:
    group = [
        rollout("wrong", 0.0),
        rollout("five!", 1.0),
        rollout(f"<think>{'x' * 50}</think>5", 1.0),
    ]
    assert siblings(group)[0] == "5"


@pytest.mark.parametrize("nothing", ["", " \n", "<think>all of it</think>", "<think>cut off"])
def test_a_success_without_words_is_no_demonstration(nothing: str) -> None:
    assert siblings([rollout("wrong", 0.0), rollout(nothing, 1.0)]) == [None, None]
    group = [rollout("wrong", 0.0), rollout(nothing, 1.0), rollout("right", 1.0)]
    assert siblings(group) == ["right", "right", None]


# ---------------------------------------------------------------- report, expert

SAID = Feedback(text="Read as 6.", demonstration="It is 5.")


def ask(source: object, one: Rollout) -> TeacherContext | None:
    return source(0, [one], "shortest", random.Random(0))


@pytest.mark.parametrize("reward", [0.0, 0.49, None, float("nan")])
def test_an_attempt_that_failed_or_was_not_graded_gets_its_report(reward: float | None) -> None:
    assert ask(report, rollout("6", reward, said=SAID)) == TeacherContext(
        "report", report="Read as 6."
    )


def test_a_success_gets_no_report() -> None:
    assert ask(report, rollout("5", 1.0, said=SAID)) is None


@pytest.mark.parametrize("said", [None, Feedback(), Feedback(text="")])
def test_no_text_is_no_report(said: Feedback | None) -> None:
    assert ask(report, rollout("6", 0.0, said=said)) is None


@pytest.mark.parametrize("reward", [0.0, 1.0, None])
def test_the_expert_speaks_to_success_and_failure_alike(reward: float | None) -> None:
    assert ask(expert, rollout("?", reward, said=SAID)) == TeacherContext(
        "expert", demonstration="It is 5."
    )


@pytest.mark.parametrize("said", [None, Feedback(text="x"), Feedback(demonstration="")])
def test_no_demonstration_is_no_expert(said: Feedback | None) -> None:
    assert ask(expert, rollout("6", 0.0, said=said)) is None


def test_a_context_holds_a_demonstration_or_a_report_or_both() -> None:
    with pytest.raises(ValueError, match="got neither"):
        TeacherContext("sibling")
    assert TeacherContext("sibling", "5").kinds == ("sibling",)
    assert TeacherContext("sibling+report", "5", "Read as 6.").kinds == ("sibling", "report")


# ---------------------------------------------------------------- who said it

SEVERAL = Rollout(
    0,
    "6",
    0.0,
    (
        Feedback(text="by a critic", demonstration="the critic's", source="critique"),
        Feedback(text="", demonstration="a correction", source="correction"),
        Feedback(text="read as 6", source="task"),
        Feedback(text="second text", demonstration="the task's", source="other"),
        Feedback(text="tool failed", source="tools"),
        Feedback(text="second critic", source="critique"),
    ),
)


def test_reports_and_experts_pass_over_named_sources() -> None:
    assert ask(report, SEVERAL) == TeacherContext("report", report="read as 6")
    assert ask(expert, SEVERAL) == TeacherContext("expert", demonstration="the task's")


def test_a_named_source_hears_only_its_own_words() -> None:
    assert [first_text(SEVERAL, name) for name in NAMED] == [None, "by a critic", "tool failed"]
    assert ask(correction, SEVERAL) == TeacherContext("correction", demonstration="a correction")
    assert ask(correction, rollout("6", 0.0, said=SAID)) is None
    assert first_demonstration(SEVERAL, "critique") == "the critic's"
    assert first_demonstration(SEVERAL, "tools") is None


def test_a_source_that_nobody_looks_for_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'task' is no named source.*correction, critique, tools"):
        first_text(SEVERAL, "task")


# ---------------------------------------------------------------- choosing


def kinds(contexts: Sequence[TeacherContext | None]) -> list[str | None]:
    return [c.kind if c else None for c in contexts]


GROUP = [
    rollout("right", 1.0, said=SAID),
    rollout("wrong", 0.0, said=SAID),
    rollout("silent", 0.0),
]


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        (["sibling", "report", "expert"], ["expert", "sibling", "sibling"]),
        (["report", "sibling"], [None, "report", "sibling"]),
        (["expert", "sibling"], ["expert", "expert", "sibling"]),
        (["report"], [None, "report", None]),
        ([], [None, None, None]),
    ],
)
def test_the_first_source_that_has_something_wins(
    order: list[str], expected: list[str | None]
) -> None:
    assert kinds(choose_contexts(GROUP, order)) == expected


def test_all_combines_one_solution_and_every_report_in_order() -> None:
    contexts = choose_contexts(GROUP, ["report", "sibling", "expert"], combine="all")
    assert contexts == [
        TeacherContext("expert", "It is 5."),  # a success: no report, and no other success
        TeacherContext("report+sibling", "right", "Read as 6."),  # the expert isn't needed
        TeacherContext("sibling", "right"),
    ]


def test_the_first_solution_in_the_order_is_the_one_that_is_shown() -> None:
    shown = choose_contexts(GROUP, ["expert", "sibling"], combine="all")
    assert [c and (c.kind, c.demonstration) for c in shown] == [
        ("expert", "It is 5."),
        ("expert", "It is 5."),
        ("sibling", "right"),
    ]


def test_equal_words_of_two_sources_count_for_the_first_alone() -> None:
    same = [TeacherContext("sibling", "5"), TeacherContext("expert", "5")]
    assert combined(same) == TeacherContext("sibling", "5")


def test_two_reports_are_a_blank_line_apart() -> None:
    reports = [TeacherContext("report", report="Read as 6."), TeacherContext("x", report="Carry.")]
    assert combined(reports) == TeacherContext("report+x", report="Read as 6.\n\nCarry.")
    solved = [reports[0], TeacherContext("expert", "5"), reports[1]]
    assert combined(solved) == TeacherContext("report+expert+x", "5", "Read as 6.\n\nCarry.")


def test_nothing_combined_is_no_context() -> None:
    assert combined([]) is None
    assert choose_contexts([rollout("6", 0.0)], ["report", "expert"], combine="all") == [None]


def test_groups_are_not_mixed_even_when_their_rows_are_interleaved() -> None:
    rows = [
        rollout("right 0", 1.0, group=0),
        rollout("wrong 1", 0.0, group=1),
        rollout("wrong 0", 0.0, group=0),
        rollout("right 1", 1.0, group=1),
        rollout("wrong 2", 0.0, group=2),
        rollout("wrong 0", 0.0, group=0),
    ]
    contexts = choose_contexts(rows, ["sibling"])
    shown = [c.demonstration if c else None for c in contexts]
    assert shown == [None, "right 1", "right 0", None, None, "right 0"]


def test_the_order_of_groups_does_not_change_a_random_choice() -> None:
    def group(number: int) -> list[Rollout]:
        return [rollout(f"{number}.{i}", 1.0, group=number) for i in range(4)]

    def choose(rows: list[Rollout], seed: str) -> list[TeacherContext | None]:
        return choose_contexts(rows, ["sibling"], sibling_choice="random", seed=seed)

    there = choose([*group(0), *group(1)], "7/3")
    back = choose([*group(1), *group(0)], "7/3")
    assert there == [*back[4:], *back[:4]]
    assert len({tuple(choose(group(0), f"7/{step}")) for step in range(10)}) > 1


def test_each_group_draws_its_own_random_sibling() -> None:
    rows = [rollout(f"{i}", 1.0, group=g) for g in range(20) for i in range(4)]
    contexts = choose_contexts(rows, ["sibling"], sibling_choice="random", seed="7/3")
    assert {c.demonstration for c in contexts[::4] if c} == {"1", "2", "3"}


def test_no_rollouts_have_no_contexts() -> None:
    assert choose_contexts([], ["sibling"]) == []


def test_an_unknown_source_is_named_with_the_nearest_one() -> None:
    with pytest.raises(RecipeError, match=r"'siblings'.*Perhaps you meant 'sibling'"):
        choose_contexts(GROUP, ["expert", "siblings"])
