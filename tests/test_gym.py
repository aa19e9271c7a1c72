"""reasoning-gym's own scores: every dataset's answers, and programs for answers."""

import pytest
from reasoning_gym.factory import DATASETS, create_dataset

from distil.feedback import answers
from distil.feedback.deadline import Outcome
from distil.feedback.gym import as_json, from_json
from distil.feedback.reasoning import check_reasoning, check_reasoning_all, judged

NO_ANSWERS = {"boxnet", "graph_color", "propositional_logic", "rubiks_cube", "rush_hour"}
"""They know no answer of their own, only how to check one."""

MANY_LINES = {
    "arc_agi", "binary_matrix", "futoshiki", "kakurasu", "manipulate_matrix", "mini_sudoku",
    "modulo_grid", "n_queens", "pool_matrix", "rearc", "rotate_matrix", "sudoku", "survo",
    "tower_of_hanoi",
}  # fmt: skip
"""Their answers have several lines, which the default extractor doesn't read."""

NAMES = sorted(set(DATASETS) - {"composite"})  # a composite has no problems but others'


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # arc_agi's own data file
def test_every_dataset_of_reasoning_gym_gives_its_own_answers_full_marks(name: str) -> None:
    made = create_dataset(name, seed=7, size=2)
    entries = [made[0], made[1]]
    assert [from_json(as_json(e)) for e in entries] == entries
    golds = [e["answer"] for e in entries]
    if name in NO_ANSWERS:
        assert golds == [None, None]
        golds = ["", ""]
        full = (0.0, answers.ABSENT)
    else:
        full = (1.0, None)
    verdicts = check_reasoning_all(golds, name, entries)
    assert [(v.reward, v.text) for v in verdicts] == [full] * 2
    by_line = check_reasoning_all(golds, name, entries, extract="last_line")
    assert (by_line == verdicts) == (name not in MANY_LINES)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("spiral_matrix", "entry['answer'].split()"),
        ("spiral_matrix", "[c for c in entry['answer'].split()]"),
        ("string_insertion", "entry['answer']"),
        ("string_insertion", "[entry['answer']]"),
        ("binary_matrix", "[r.split() for r in entry['answer'].split('\\n')]"),
        ("n_queens", "[r.split() for r in entry['answer'].split('\\n')]"),
        ("spiral_matrix", "entry.update(answer='7') or [7]"),
        ("spiral_matrix", "().__class__.__base__.__subclasses__()"),
        ("countdown", "getattr(1, 'real')"),
        ("countdown", "__import__('os').getpid()"),
        ("countdown", "lambdify((), 'open(1)')"),
        ("countdown", "__builtins__"),
    ],
)
def test_an_answer_that_is_a_program_isnt_run(name: str, said: str) -> None:
    [entry] = create_dataset(name, seed=1, size=1)
    nonsense = check_reasoning("nonsense", name, entry).reward
    assert check_reasoning(said, name, entry).reward == nonsense
    # Nor has it changed anything for those that come after it.
    assert check_reasoning(entry["answer"], name, entry).reward == 1


def test_values_may_be_evaluated_as_their_verifier_does() -> None:
    [entry] = create_dataset("spiral_matrix", seed=1, size=1)
    listed = str([int(n) for n in entry["answer"].split()])
    assert check_reasoning(listed, "spiral_matrix", entry).text == (
        f"The answer was read as {listed!r}. It scores 0.10 of 1."
    )
    [entry] = create_dataset("countdown", seed=1, size=1)
    assert check_reasoning(f"1*({entry['answer']})/abs(-1)", "countdown", entry).reward == 0.025


def test_an_endless_answer_to_a_verifier_that_evaluates_it_is_wrong() -> None:
    [entry] = create_dataset("countdown", seed=1, size=1)
    verdict = check_reasoning("9**9**9**9", "countdown", entry, cpu_s=0.5)
    assert verdict.reward == 0
    assert verdict.text == (
        f"The answer was read as '9**9**9**9'. {answers.TOO_MUCH.format(what='time')}"
    )


def test_partial_marks_stay_below_a_success() -> None:
    def told(score: float) -> tuple[float | None, str | None]:
        verdict = judged("gcd", "6", Outcome(score), "5", reveal=False)
        return verdict.reward, verdict.text

    assert told(1.0) == (1.0, None)
    assert told(0.5) == (0.25, "The answer was read as '6'. It scores 0.50 of 1.")
    assert told(0.01) == (0.005, "The answer was read as '6'. It is wrong.")
    assert told(float("nan"))[0] is None
    assert judged("gcd", "6", Outcome(0.0), "5", reveal=True).text == (
        "The answer was read as '6'. It is wrong. The right answer is '5'."
    )
