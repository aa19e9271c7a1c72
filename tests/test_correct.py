"""`distil correct` as somebody sees it: which attempts are shown, how, and what is stored."""

import json
import stat
from pathlib import Path

import pytest

from correcting import Say, rollout, run_of, say, shown, stored
from distil.cli import main
from distil.commands.dialogue import without_controls
from distil.feedback.correctionfile import parse
from distil.figures.layout import harmless

__all__ = ["say"]  # a fixture

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


def test_attempts_that_a_long_run_has_put_aside_are_shown_too(tmp_path: Path, say: Say) -> None:
    run_of(tmp_path, rollout("old", "x"), rollout("both", "older"))
    (tmp_path / "rollouts.jsonl").rename(tmp_path / "rollouts-old.jsonl")
    run_of(tmp_path, rollout("both", "newer", step=2))
    printed = say(tmp_path, ":s\n" * 2)
    assert shown(printed) == ["both", "old"]
    assert "newer" in printed
    assert "older" not in printed


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
    assert "it is no run's folder, or no step" in say(tmp_path, "", status=2)


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
