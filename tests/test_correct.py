"""`distil correct`: which attempts are shown, how, what is stored, and that a run uses it."""

import io
import json
import os
import pty
import select
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import environment, make_model, make_tokenizer
from distil.callbacks import StopAfterStep
from distil.cli import main
from distil.commands.dialogue import without_controls
from distil.feedback.correctionfile import parse
from distil.layout import harmless
from distil.runs import begin_run


def rollout(problem: str, completion: str, **more: Any) -> dict[str, Any]:
    record = {
        "step": 1,
        "problem": problem,
        "prompt": [{"role": "user", "content": f"Question {problem}?"}],
        "completion": completion,
        "reward": 0.0,
        "feedback": [],
    }
    return record | more


def run_of(folder: Path, *rollouts: dict[str, Any], recipe: dict[str, Any] | None = None) -> Path:
    """A run's folder with these rollouts, and a recipe if one is given."""
    if recipe is not None:
        begin_run(folder, recipe, seed=0)
    folder.mkdir(exist_ok=True)
    lines = [json.dumps(r, ensure_ascii=False) + "\n" for r in rollouts]
    (folder / "rollouts.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


Say = Any


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    """Runs `distil correct` on what somebody types; returns what was printed."""

    def run(folder: Path, typed: str, *flags: str, status: int = 0) -> str:
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        assert main(["correct", str(folder), *flags]) == status
        printed = capsys.readouterr()
        return printed.out if status == 0 else printed.err

    return run


def stored(folder: Path) -> list[dict[str, Any]]:
    file = folder / "corrections.jsonl"
    if not file.exists():
        return []
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert len(parse(file.read_bytes()).rows) == len(rows)
    return rows


def shown(printed: str) -> list[str]:
    """The problems that were shown, in order."""
    lines = [line for line in printed.split("\n") if line.startswith("--- ")]
    return [line.split("problem ")[1].split(",")[0] for line in lines]


# ---------------------------------------------------------------- which attempts


FOUR = [
    rollout("a", "old wrong a"),
    rollout("b", "right b", reward=1.0),
    rollout("c", "ungraded c", reward=None, step=2),
    rollout("a", "new wrong a", step=3),
    rollout("a", "right a", reward=0.5, step=3),
    rollout("d", "half right d", reward=0.49, step=4),
    rollout("a", "new wrong a", step=4),
]


def test_each_problems_newest_failed_attempt_is_shown_newest_first(
    tmp_path: Path, say: Say
) -> None:
    printed = say(run_of(tmp_path, *FOUR), ":s\n" * 3)
    assert shown(printed) == ["a", "d", "c"]
    assert "new wrong a" in printed
    assert "old wrong a" not in printed
    assert "Attempt (not graded):\n  ungraded c\n" in printed
    assert stored(tmp_path) == []


def test_problems_with_a_correction_are_left_out_unless_asked_for(tmp_path: Path, say: Say) -> None:
    run_of(tmp_path, *FOUR)
    (tmp_path / "corrections.jsonl").write_text('{"problem_id": "a", "correction": "5"}\n')
    assert shown(say(tmp_path, ":q\n")) == ["d"]
    assert shown(say(tmp_path, ":s\n" * 9)) == ["d", "c"]
    assert shown(say(tmp_path, ":s\n" * 9, "--problem", "a")) == ["a"]
    printed = say(tmp_path, ":s\n" * 9, "--all")
    assert shown(printed) == ["a", "d", "c", "a"]  # the newest two at a are the same attempt
    assert "(corrected before; a new correction counts instead)" in printed
    assert shown(say(tmp_path, ":s\n" * 9, "--all", "--limit", "2")) == ["a", "d"]
    assert shown(say(tmp_path, ":s\n" * 9, "--all", "--problem", "a")) == ["a", "a"]


def test_nothing_to_correct_is_said(tmp_path: Path, say: Say) -> None:
    assert "Nothing to correct" in say(run_of(tmp_path, rollout("a", "x", reward=1.0)), "")


def test_a_problem_that_nobody_failed_at_is_told_with_the_nearest_one(
    tmp_path: Path, say: Say
) -> None:
    run_of(tmp_path, rollout("sum-12", "x"), rollout("sum-3", "x", reward=1.0))
    said = say(tmp_path, "", "--problem", "sum-13", status=2)
    assert "'sum-13' has failed. Perhaps you meant 'sum-12'" in said


def test_a_line_that_is_being_written_is_left_alone(tmp_path: Path, say: Say) -> None:
    run_of(tmp_path, rollout("a", "x"))
    half = json.dumps(rollout("b", "y"))[:-9].encode()
    with (tmp_path / "rollouts.jsonl").open("ab") as file:
        file.write(half)
    assert shown(say(tmp_path, ":s\n" * 2)) == ["a"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [("{oops\n", "JSONDecodeError"), ("{}\n", "KeyError: 'reward'"), ("[1]\n", "TypeError")],
)
def test_a_line_that_is_no_rollout_is_told_with_its_number(
    tmp_path: Path, line: str, reason: str, say: Say
) -> None:
    run_of(tmp_path, rollout("a", "x"))
    with (tmp_path / "rollouts.jsonl").open("a") as file:
        file.write(line)
    assert f"line 2, is no rollout of this version of distil ({reason}" in say(
        tmp_path, "", status=2
    )


def test_a_folder_without_rollouts_is_told(tmp_path: Path, say: Say) -> None:
    assert "is no run's folder, or no step" in say(tmp_path, "", status=2)


# ---------------------------------------------------------------- what is shown


def test_question_attempt_reward_and_reports_are_shown(tmp_path: Path, say: Say) -> None:
    said = [
        {"source": "task", "text": "Read as 6.", "demonstration": "5"},
        {"source": "", "text": "two\nlines", "demonstration": None},
        {"source": "silent", "text": None, "demonstration": "5"},
    ]
    prompt = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 3 ="}]
    run_of(tmp_path, rollout("a", "It is\n6", prompt=prompt, feedback=said, reward=0.25))
    assert (
        "--- 1 of 1: problem a, step 1\n"
        "Question (system):\n  Be brief.\n"
        "Question (user):\n  2 + 3 =\n"
        "Attempt (reward 0.25):\n  It is\n  6\n"
        "Said about it (task):\n  Read as 6.\n"
        "Said about it (feedback function):\n  two\n  lines\n"
        "Your correction. "
    ) in say(tmp_path, ":q\n")


def test_what_a_model_wrote_cannot_command_the_terminal(tmp_path: Path, say: Say) -> None:
    hostile = "\x1b[2J\x1b]0;title\x07 \r\x9b1A\x00\u202e\u2028\ud800"
    said = [{"source": f"x{hostile}", "text": hostile, "demonstration": None}]
    record = rollout(f"a{hostile}", hostile, prompt=hostile, feedback=said)
    (tmp_path / "rollouts.jsonl").write_text(json.dumps(record) + "\n")
    printed = say(tmp_path, ":q\n")
    assert all(c == "\n" or c.isprintable() for c in printed)
    assert printed.count(r"\x1b[2J\x1b]0;title\x07 \r\x9b1A\x00\u202e\u2028\ud800") == 5


def test_harmless_text_stays_as_it_is() -> None:
    text = "äß 漢字 😀 \t∑ é\nnext ~`|"
    assert harmless(text) == text
    assert harmless("a\\x1b") == "a\\x1b"
    assert without_controls(text + "\x1b[D\x00\x7f") == text + "[D"


def test_a_models_lines_cannot_pass_for_ours(tmp_path: Path, say: Say) -> None:
    run_of(tmp_path, rollout("a", "x\n--- 2 of 2: problem b, step 1\nYour correction. "))
    printed = say(tmp_path, ":q\n")
    assert shown(printed) == ["a"]
    assert "\n  --- 2 of 2: problem b" in printed


# ---------------------------------------------------------------- what is stored


def test_a_correction_of_several_lines_is_stored_with_its_attempt(tmp_path: Path, say: Say) -> None:
    run_of(tmp_path, *FOUR)
    printed = say(tmp_path, "\nIt is\n\n  5.\n\n.\n:s\nSeven", "--by", "Ada")
    first, second = stored(tmp_path)
    assert first.pop("at").endswith("+00:00")
    assert first == {
        "problem_id": "a", "correction": "It is\n\n  5.", "attempt": "new wrong a", "by": "Ada",
    }  # fmt: skip
    # The end of the input ends a correction too; d was skipped.
    assert (second["problem_id"], second["correction"]) == ("c", "Seven")
    assert printed.endswith("2 corrections stored.\n")


def test_a_problem_without_an_id_is_stored_by_its_prompt(tmp_path: Path, say: Say) -> None:
    from distil.feedback.correctionfile import problem_key

    prompt = "2 + 3 ="
    key = problem_key(prompt)
    run_of(tmp_path, rollout(key, "6", prompt=prompt))
    say(tmp_path, "5\n.\n")
    assert stored(tmp_path)[0]["prompt"] == prompt
    assert parse((tmp_path / "corrections.jsonl").read_bytes()).rows[0].problem == key


@pytest.mark.parametrize("empty", [".\n", "\n \n.\n", "\x1b\n.\n"])
def test_nothing_is_no_correction_and_neither_is_the_attempt(
    tmp_path: Path, empty: str, say: Say
) -> None:
    run_of(tmp_path, rollout("a", "6 \n"))
    printed = say(tmp_path, f"{empty}6\n.\n5\n.\n")
    assert "That is empty." in printed
    assert "That is the attempt itself." in printed
    assert [r["correction"] for r in stored(tmp_path)] == ["5"]


@pytest.mark.parametrize("end", [":q\n", ""])
def test_quitting_keeps_what_was_stored_before(tmp_path: Path, end: str, say: Say) -> None:
    printed = say(run_of(tmp_path, *FOUR), f"5\n.\n{end}")
    assert [r["problem_id"] for r in stored(tmp_path)] == ["a"]
    assert shown(printed) == ["a", "d"]
    assert printed.endswith("1 correction stored.\n")


def test_ctrl_c_keeps_what_was_stored_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = iter(["5", ".", KeyboardInterrupt])

    def interrupted(prompt: str) -> str:
        line = next(typed)
        if isinstance(line, str):
            return line
        raise line

    monkeypatch.setattr("builtins.input", interrupted)
    assert main(["correct", str(run_of(tmp_path, *FOUR))]) == 130
    assert len(stored(tmp_path)) == 1
    assert capsys.readouterr().out.endswith("1 correction stored.\n")


def editor(tmp_path: Path, body: str) -> str:
    file = tmp_path / "editor.sh"
    file.write_text(f"#!/bin/sh\n{body}\n")
    file.chmod(file.stat().st_mode | stat.S_IEXEC)
    return f"{file} --wait"


def test_an_editor_starts_from_the_attempt_or_from_what_was_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, say: Say
) -> None:
    run_of(tmp_path / "run", rollout("a", "It is 6"), rollout("b", "It is 6"))
    monkeypatch.setenv("EDITOR", editor(tmp_path, 'test "$1" = --wait && sed -i s/6/5/ "$2"'))
    say(tmp_path / "run", ":e\ntyped 6\nand\n:e\n")
    assert [r["correction"] for r in stored(tmp_path / "run")] == ["It is 5", "typed 5\nand"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [(None, "$EDITOR isn't set"), ("exit 3", "ended with status 3"), ("", "That is the attempt")],
)
def test_an_editor_that_gives_nothing_stores_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str | None, reason: str, say: Say
) -> None:
    run_of(tmp_path / "run", rollout("a", "It is 6"))
    monkeypatch.setenv("EDITOR", "" if body is None else editor(tmp_path, body))
    assert reason in say(tmp_path / "run", ":e\n:q\n")
    monkeypatch.setenv("EDITOR", "/nowhere/editor")
    assert "can't be started: No such file" in say(tmp_path / "run", ":e\n:q\n")
    assert stored(tmp_path / "run") == []


# ---------------------------------------------------------------- the run's recipe

SUMS = {
    "task": {
        "name": "chain_sum",
        "options": {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1},
        "extract": "last_number",
        "train_size": 2,
        "eval_size": 0,
    },
    "feedback": {"order": ["correction", "sibling"]},
}


def problem_of_sums() -> tuple[str, str]:
    """(id, answer) of a problem of SUMS."""
    from distil.recipefile import recipe_from
    from distil.tasks import load_task

    problem = load_task(recipe_from(SUMS, prog="test").task).train[0]
    assert problem.answer is not None
    return problem.id, problem.answer


def test_the_runs_task_has_a_say_and_the_person_the_last_word(tmp_path: Path, say: Say) -> None:
    problem, answer = problem_of_sums()
    right = answer.split()[-1].rstrip(".")
    run_of(tmp_path / "run", rollout(problem, "6"), recipe=SUMS)
    printed = say(tmp_path / "run", f"It is 999\n.\nn\nIt is {right}\n.\n")
    assert "The task finds it wrong (reward 0" in printed
    assert "The task finds it right (reward 1)." in printed
    assert "won't use" not in printed
    assert [r["correction"] for r in stored(tmp_path / "run")] == [f"It is {right}"]
    say(tmp_path / "run", "It is 999\n.\ny\n", "--problem", problem)
    assert stored(tmp_path / "run")[-1]["correction"] == "It is 999"
    printed = say(tmp_path / "run", "It is 998\n.\n", "--problem", problem, "--no-grade")
    assert "The task" not in printed
    assert stored(tmp_path / "run")[-1]["correction"] == "It is 998"


def test_a_task_that_cannot_judge_does_not_stand_in_the_way(tmp_path: Path, say: Say) -> None:
    recipe = SUMS | {"task": {"name": "chain_summ"}}
    run_of(tmp_path / "gone", rollout("a", "6"), recipe=recipe)
    assert "It couldn't be graded (TaskError: " in say(tmp_path / "gone", "5\n.\n")
    run_of(tmp_path / "other", rollout("no such problem", "6"), recipe=SUMS)
    assert "The task" not in say(tmp_path / "other", "5\n.\n")
    assert len(stored(tmp_path / "gone")) == len(stored(tmp_path / "other")) == 1


def test_a_run_that_would_not_use_corrections_is_told_at_once(tmp_path: Path, say: Say) -> None:
    recipe = SUMS | {"feedback": {"order": ["sibling"]}}
    printed = say(run_of(tmp_path / "run", rollout("a", "6"), recipe=recipe), ":q\n")
    assert printed.startswith("This run won't use them: its feedback.order doesn't name correction")


def test_corrections_go_where_the_recipe_looks_for_them(tmp_path: Path, say: Say) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text("")
    recipe = SUMS | {"feedback": {"order": ["correction"], "corrections": str(file)}}
    run_of(tmp_path / "run", rollout("a", "6"), recipe=recipe)
    say(tmp_path / "run", "5\n.\n")
    assert parse(file.read_bytes()).rows[0].text == "5"
    assert stored(tmp_path / "run") == []
    file.unlink()
    assert "there is no such file here" in say(tmp_path / "run", "5\n.\n", status=2)
    recipe["feedback"]["corrections"] = "mine.py:f"
    run_of(tmp_path / "other", rollout("a", "6"), recipe=recipe)
    assert "from the function mine.py:f" in say(tmp_path / "other", "5\n.\n", status=2)


# ---------------------------------------------------------------- from end to end

PROBE = """
import sys
from distil.cli import main
status = main(sys.argv[1:])
loaded = [m for m in ("torch", "transformers", "trl", "numpy") if m in sys.modules]
print("loaded", loaded)
sys.exit(status)
"""


def test_through_a_pipe_without_loading_torch(tmp_path: Path) -> None:
    run_of(tmp_path, rollout("a", "6"))
    done = subprocess.run(
        [sys.executable, "-c", PROBE, "correct", str(tmp_path)],
        input=b"f\xfcnf\n.\n", capture_output=True, env=environment(), check=True,
    )  # fmt: skip
    assert done.stdout.endswith(b"1 correction stored.\nloaded []\n")
    assert stored(tmp_path)[0]["correction"] == "f\ufffdnf"  # no UTF-8, and no crash


def talk(command: list[str], exchange: list[tuple[str, bytes]]) -> tuple[int, str]:
    """Runs a command on a terminal of its own: waits for each word, then types the keys."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, env=environment() | {"TERM": "dumb"}
    )
    os.close(slave)
    printed, deadline = b"", time.monotonic() + 60
    for word, keys in [*exchange, ("\0", b"")]:
        start = len(printed)
        while word.encode() not in printed[start:]:
            assert time.monotonic() < deadline, printed.decode(errors="replace")
            if not select.select([master], [], [], 1)[0]:
                continue
            try:
                part = os.read(master, 4096)
            except OSError:  # Linux says so when the other side is closed
                part = b""
            if not part:
                break
            printed += part
        os.write(master, keys) if keys else None
    os.close(master)
    return process.wait(timeout=30), printed.decode(errors="replace").replace("\r\n", "\n")


def test_on_a_terminal_with_keys_and_ctrl_d(tmp_path: Path) -> None:
    run_of(tmp_path, rollout("a", "6 \x1b[31mred"), rollout("b", "7"))
    command = [sys.executable, "-m", "distil.cli", "correct", str(tmp_path)]
    status, printed = talk(
        command, [("\n> ", b"It is 8\n"), ("> ", b"\x04"), ("\n> ", b"5\n"), ("> ", b".\n")]
    )
    assert status == 0, printed
    assert [(r["problem_id"], r["correction"]) for r in stored(tmp_path)] == [
        ("b", "It is 8"),
        ("a", "5"),
    ]
    assert "\x1b[31m" not in printed
    assert r"6 \x1b[31mred" in printed
    assert printed.endswith("2 corrections stored.\n")


def test_a_run_that_is_going_on_uses_them_from_its_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_model().save_pretrained(tmp_path / "toy")
    make_tokenizer().save_pretrained(tmp_path / "toy")
    recipe = SUMS | {
        "model": {"name": str(tmp_path / "toy")},
        "rollout": {"prompts_per_step": 2, "num_generations": 2, "max_completion_length": 5},
        "train": {"steps": 3, "micro_batch": 4, "save_every": 9},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    run = tmp_path / "run"
    after_step = StopAfterStep.on_step_end

    def typed_after_a_step(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        after_step(self, args, state, control, **kwargs)
        if state.global_step == 1:
            monkeypatch.setattr(sys, "stdin", io.StringIO("so 5\n.\n" * 2))
            assert main(["correct", str(run), "--no-grade"]) == 0

    monkeypatch.setattr(StopAfterStep, "on_step_end", typed_after_a_step)
    flags = ["--train.output-dir", str(run)]
    assert main(["train", str(tmp_path / "recipe.yaml"), *flags]) == 0
    assert "2 corrections stored." in capsys.readouterr().out
    records = [json.loads(x) for x in (run / "rollouts.jsonl").read_text().splitlines()]
    for record in records:
        corrected = record["step"] > 1
        assert (record["context"] == "correction") == corrected
        said = [f["demonstration"] for f in record["feedback"] if f["source"] == "correction"]
        assert said == ["so 5"] * corrected
        if corrected:
            assert "A correct solution:\nso 5\n" in record["teacher_prompt"][0]["content"]


def test_a_broken_file_of_corrections_stops_a_run_before_anything_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = SUMS | {
        "model": {"name": str(tmp_path / "no model here")},
        "rollout": {"prompts_per_step": 2},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    (tmp_path / "run").mkdir()
    (tmp_path / "run/corrections.jsonl").write_text('{"problem_id": "a"}\n')
    flags = ["--train.output-dir", str(tmp_path / "run")]
    assert main(["train", str(tmp_path / "recipe.yaml"), *flags]) == 2
    assert "corrections.jsonl' can't be used:\n  line 1: 'correction'" in capsys.readouterr().err
    assert not (tmp_path / "run/recipe.yaml").exists()
