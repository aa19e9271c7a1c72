"""Corrections: the file, who reads it when, which one counts, and when a trainer uses them."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from transformers import TrainerCallback

from conftest import conversations
from distil.errors import FeedbackError
from distil.feedback import corrections
from distil.feedback.correctionfile import Correction, append, parse, problem_key
from distil.types import Feedback, Prompt
from trainertoys import lines, make_trainer

QUESTION = "What is 2 + 3?"


def stored(file: Path, *rows: Any) -> Path:
    """The file, with these rows appended; a text stands for a raw line."""
    with file.open("a", encoding="utf-8") as f:
        f.writelines((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows)
    return file


def row(problem: str, text: str, **more: str) -> dict[str, str]:
    return {"problem_id": problem, "correction": text, **more}


def said(
    function: Any, *attempts: str, problem: str | None = None, prompt: Prompt = QUESTION
) -> list[str | None]:
    """What each attempt at one problem is told."""
    columns = {} if problem is None else {"problem_id": [problem] * len(attempts)}
    answers = function(
        prompts=[prompt] * len(attempts), completions=list(attempts), rewards=None, **columns
    )
    assert all(
        a is None or a == Feedback(None, None, a.demonstration, "correction") for a in answers
    )
    return [a and a.demonstration for a in answers]


# ---------------------------------------------------------------- which one counts


def test_the_newest_correction_of_a_problem_counts(tmp_path: Path) -> None:
    file = stored(tmp_path / "c.jsonl", row("a", "old"), row("b", "other"), row("a", "new"))
    assert said(corrections(file), "x", "y", problem="a") == ["new", "new"]
    assert said(corrections(file), "x", problem="b") == ["other"]
    assert said(corrections(file), "x", problem="c") == [None]


def test_a_correction_of_this_very_attempt_comes_before_newer_ones(tmp_path: Path) -> None:
    file = stored(
        tmp_path / "c.jsonl",
        row("a", "first for x", attempt="x"),
        row("a", "second for x", attempt="x"),
        row("a", "for y", attempt="y"),
    )
    attempts = ["x", "y", "z", "x "]
    expected = ["second for x", "for y", "for y", "for y"]
    assert said(corrections(file), *attempts, problem="a") == expected


def test_conversational_completions_are_matched_by_their_words(tmp_path: Path) -> None:
    file = stored(tmp_path / "c.jsonl", row("a", "for x", attempt="x"), row("a", "any"))
    function = corrections(file)
    completion = [[{"role": "assistant", "content": "x"}]]
    assert said(function, *completion, problem="a") == ["for x"]


@pytest.mark.parametrize("prompt", [QUESTION, [{"role": "user", "content": QUESTION}]])
def test_without_an_id_the_prompt_names_the_problem_in_either_form(
    tmp_path: Path, prompt: Prompt
) -> None:
    file = stored(tmp_path / "c.jsonl", {"prompt": prompt, "correction": "5"})
    for form in (QUESTION, [{"role": "user", "content": QUESTION}]):
        assert said(corrections(file), "6", prompt=form) == ["5"]
    other = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION}]
    assert said(corrections(file), "6", prompt=other) == [None]
    assert said(corrections(file), "6", problem="7") == [None]


def test_an_id_may_be_a_number(tmp_path: Path) -> None:
    file = stored(tmp_path / "c.jsonl", {"problem_id": 7, "correction": "5"})
    assert said(corrections(file), "6", problem="7") == ["5"]
    assert problem_key(QUESTION, 7) == problem_key("another prompt", "7") == "7"


# ---------------------------------------------------------------- reading the file


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("{", "no JSON"),
        ("[]", "no JSON object"),
        ('"text"', "no JSON object"),
        ('{"problem_id": "a"}', "'correction' must be a text that isn't empty"),
        ('{"problem_id": "a", "correction": " "}', "'correction' must be a text"),
        ('{"problem_id": "a", "correction": 5}', "'correction' must be a text"),
        ('{"correction": "5"}', "must have 'problem_id', or else 'prompt'"),
        ('{"problem_id": "a", "prompt": "b", "correction": "5"}', "'problem_id', or else 'prompt'"),
        ('{"problem_id": true, "correction": "5"}', "'problem_id' must be a text or a number"),
        ('{"prompt": [], "correction": "5"}', "'prompt' must be a text, or a list of messages"),
        ('{"prompt": [{"role": "user"}], "correction": "5"}', "'prompt' must be a text"),
        ('{"problem_id": "a", "correction": "5", "attempt": 6}', "'attempt' must be a text"),
        ("[" * 100_000, "nested too deeply"),
        ('{"problem": "a", "correction": "5"}', "unknown field 'problem'; known: problem_id"),
    ],
)
def test_a_malformed_line_is_an_error_at_the_start_that_names_file_and_line(
    tmp_path: Path, line: str, fault: str
) -> None:
    file = stored(tmp_path / "c.jsonl", row("a", "5"), "", line, row("b", "6"))
    with pytest.raises(FeedbackError) as refused:
        corrections(file)
    assert str(file) in str(refused.value)
    assert "line 3: " in str(refused.value)
    assert fault in str(refused.value)


def test_bytes_that_are_no_text_are_a_malformed_line(tmp_path: Path) -> None:
    assert parse(b'{"problem_id": "a\xff"}\n').malformed == ((1, "it is no UTF-8"),)


def test_many_faults_are_told_by_their_number(tmp_path: Path) -> None:
    file = stored(tmp_path / "c.jsonl", *["{"] * 8)
    with pytest.raises(FeedbackError, match=r"(?s)line 5: .*and 3 more lines") as refused:
        corrections(file)
    assert "line 6" not in str(refused.value)


def test_a_torn_last_line_is_an_error_at_the_start_and_a_whole_one_is_not(tmp_path: Path) -> None:
    file = tmp_path / "c.jsonl"
    file.write_text(json.dumps(row("a", "5")))
    assert said(corrections(file), "6", problem="a") == ["5"]
    file.write_text(json.dumps(row("a", "5"))[:-3])
    with pytest.raises(FeedbackError, match="line 1: it is no JSON"):
        corrections(file)


def test_a_line_ends_nowhere_but_at_its_newline() -> None:
    line = json.dumps(row("a", "one\u2028two\x85three\r"), ensure_ascii=False).encode()
    assert parse(line + b"\n").rows == (Correction("a", "one\u2028two\x85three\r"),)


def test_a_file_that_is_not_there_is_an_error_unless_it_may_come_later(tmp_path: Path) -> None:
    with pytest.raises(FeedbackError, match=r"c\.jsonl' can't be read: No such file"):
        corrections(tmp_path / "c.jsonl")
    function = corrections(tmp_path / "c.jsonl", must_exist=False)
    function.refresh()
    assert said(function, "6", problem="a") == [None]
    stored(tmp_path / "c.jsonl", row("a", "5"))
    assert said(function, "6", problem="a") == [None]  # as it was at the last refresh
    function.refresh()
    assert said(function, "6", problem="a") == ["5"]


def test_a_torn_last_line_waits_for_its_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = stored(tmp_path / "c.jsonl", row("a", "5"))
    function = corrections(file)
    line = json.dumps(row("a", "fünf"), ensure_ascii=False).encode()
    middle = line.index(b"\xc3") + 1  # in the middle of a character, even
    with file.open("ab", buffering=0) as f:
        f.write(line[:middle])
        function.refresh()
        assert (said(function, "6", problem="a"), function.unread) == (["5"], 1)
        f.write(line[middle:] + b"\n")
        function.refresh()
    assert (said(function, "6", problem="a"), function.unread) == (["fünf"], 0)
    assert caplog.messages == []


def test_a_malformed_line_in_midrun_is_passed_over_counted_and_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = stored(tmp_path / "c.jsonl", row("a", "5"))
    function = corrections(file)
    stored(file, "{oops", row("b", "6"))
    function.refresh()
    stored(file, row("c", "7"))
    function.refresh()
    function.refresh()
    assert [said(function, "?", problem=p) for p in "abc"] == [["5"], ["6"], ["7"]]
    assert (function.problems, function.unread) == (3, 1)
    assert len(caplog.messages) == 1
    assert f"{file}, line 2: it is no JSON" in caplog.messages[0]
    file.write_text(file.read_text().replace("{oops\n", ""))
    function.refresh()
    assert function.unread == 0


def test_what_a_vanished_file_said_last_still_counts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = stored(tmp_path / "c.jsonl", row("a", "5"))
    function = corrections(file)
    file.unlink()
    function.refresh()
    function.refresh()
    assert said(function, "6", problem="a") == ["5"]
    assert len(caplog.messages) == 1
    assert "can't be read (No such file or directory)" in caplog.messages[0]
    stored(file, row("a", "five"))
    function.refresh()
    assert said(function, "6", problem="a") == ["five"]


def test_a_change_of_equal_length_is_seen(tmp_path: Path) -> None:
    file = stored(tmp_path / "c.jsonl", row("a", "5"))
    function = corrections(file)
    file.write_text(file.read_text().replace('"5"', '"7"'))
    function.refresh()
    assert said(function, "6", problem="a") == ["7"]


def test_all_processes_have_what_the_main_one_read(tmp_path: Path) -> None:
    """Two machines whose folders aren't the same one, say."""
    main = corrections(stored(tmp_path / "main.jsonl", row("a", "main's")))
    other = corrections(stored(tmp_path / "other.jsonl", row("a", "other's")))
    for told in (["main's"], ["main's"], ["newer"]):
        if told == ["newer"]:
            stored(tmp_path / "main.jsonl", row("a", "newer"))
        stored(tmp_path / "other.jsonl", row("a", "not read"))
        word = main._read_leniently()  # once, by the main process alone
        for function in (main, other):
            function.refresh(lambda read, word=word: word)
            assert said(function, "6", problem="a") == told


# ---------------------------------------------------------------- appending


def test_rows_that_are_appended_are_read_back_whatever_is_in_them(tmp_path: Path) -> None:
    file = tmp_path / "c.jsonl"
    texts = ["5", "two\nlines", '"quoted" \\ \u2028 \x00 ü 😀', "\ud800 alone"]
    for text in texts:
        append(file, row("a", text, attempt="x", by="me", at="2026-01-01"))
    assert parse(file.read_bytes()).rows == tuple(Correction("a", t, "x") for t in texts)


def test_half_of_a_character_reaches_no_tokenizer(tmp_path: Path) -> None:
    file = stored(tmp_path / "c.jsonl", '{"problem_id": "a", "correction": "It is \\ud83d"}')
    assert said(corrections(file), "6", problem="a") == ["It is \\ud83d"]


def test_many_writers_lose_no_row(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from distil.feedback.correctionfile import append\n"
        "for i in range(50):\n"
        "    row = {'problem_id': f'{sys.argv[2]}-{i}', 'correction': 'x' * 5000}\n"
        "    append(Path(sys.argv[1]), row)\n"
    )
    file = tmp_path / "c.jsonl"
    writers = [
        subprocess.Popen([sys.executable, "-c", program, str(file), str(n)]) for n in range(4)
    ]
    assert [w.wait() for w in writers] == [0] * 4
    parsed = parse(file.read_bytes())
    assert {r.problem for r in parsed.rows} == {f"{n}-{i}" for n in range(4) for i in range(50)}
    assert (len(parsed.rows), parsed.malformed, parsed.torn) == (200, (), None)


def test_nothing_is_appended_to_half_a_line_or_from_a_bad_row(tmp_path: Path) -> None:
    file = tmp_path / "c.jsonl"
    file.write_text('{"problem_id": "a", "corr')
    with pytest.raises(FeedbackError, match="ends in a line without a newline"):
        append(file, row("a", "5"))
    with pytest.raises(FeedbackError, match="'correction' must be a text that isn't empty"):
        append(tmp_path / "new.jsonl", row("a", ""))
    with pytest.raises(FeedbackError, match=r"can't be written to .*No such file or directory"):
        append(tmp_path / "nowhere" / "c.jsonl", row("a", "5"))
    assert [p.name for p in tmp_path.iterdir()] == ["c.jsonl"]


# ---------------------------------------------------------------- functions


def test_a_function_is_asked_about_every_rollout(tmp_path: Path) -> None:
    def mine(problem: str, prompt: Prompt, attempt: str) -> str | None:
        return f"{problem}, {prompt}: not {attempt}" if attempt != "5" else None

    assert said(corrections(mine), "6", "5", problem="a") == [f"a, {QUESTION}: not 6", None]
    (tmp_path / "mine.py").write_text("def f(problem, prompt, attempt):\n    return attempt * 2\n")
    assert said(corrections(f"{tmp_path}/mine.py:f"), "6", "5") == ["66", "55"]


def test_a_path_that_leads_to_no_function_is_told(tmp_path: Path) -> None:
    with pytest.raises(FeedbackError, match=r"there is no file '.*none\.py'"):
        corrections(f"{tmp_path}/none.py:f")
    (tmp_path / "mine.py").write_text("g = 3\n")
    for name in ("f", "g"):
        with pytest.raises(FeedbackError, match=f"defines no function '{name}'"):
            corrections(f"{tmp_path}/mine.py:{name}")


def test_a_function_that_returns_no_text_is_named(tmp_path: Path) -> None:
    def broken(problem: str, prompt: Prompt, attempt: str) -> Any:
        return 5

    trainer = make_trainer(tmp_path, feedback_funcs=corrections(broken))
    with pytest.raises(FeedbackError, match="'broken' raised TypeError: a correction is a int"):
        trainer.train()


# ---------------------------------------------------------------- in training


class TypedAfter(TrainerCallback):
    """Somebody who types corrections of every problem, just after a step."""

    def __init__(self, file: Path, step: int) -> None:
        self._file, self._step = file, step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self._step:
            stored(self._file, *(f"{json.dumps(self.one(r))}" for r in conversations(8)))

    @staticmethod
    def one(columns: dict[str, Any]) -> dict[str, Any]:
        return {"prompt": columns["prompt"], "correction": f"no, it is {columns['answer']}"}


def test_what_is_typed_after_a_step_is_shown_to_the_teacher_in_the_next(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "corrections.jsonl"
    trainer = make_trainer(
        tmp_path, feedback_funcs=corrections(file, must_exist=False), max_steps=3,
        feedback_order=["correction"],
    )  # fmt: skip
    trainer.add_callback(TypedAfter(file, step=1))
    trainer.train()
    records = lines(tmp_path / "rollouts.jsonl")
    assert [r["context"] for r in records] == [None] * 8 + ["correction"] * 16
    for record in records[8:]:
        answer = int(record["prompt"][0]["content"].split(" + ")[0].split()[-1]) + 1
        assert record["feedback"] == [
            {"source": "correction", "text": None, "demonstration": f"no, it is {answer}"}
        ]
        shown = record["teacher_prompt"][0]["content"]
        assert f"\n\nA correct solution:\nno, it is {answer}\n\n" in shown
        assert record["problem"] == problem_key(record["prompt"])
    metrics = [m for m in lines(tmp_path / "metrics.jsonl") if "feedback/correction" in m]
    assert [m["feedback/correction"] for m in metrics] == [0.0, 1.0, 1.0]
    assert [m["corrections/problems"] for m in metrics] == [0, 8, 8]
    assert [m["corrections/unread_lines"] for m in metrics] == [0, 0, 0]
    assert caplog.messages == []


def test_with_the_same_corrections_a_run_resumes_bit_for_bit(tmp_path: Path) -> None:
    file = stored(tmp_path / "c.jsonl", *(TypedAfter.one(r) for r in conversations(4)))
    rows = Dataset.from_list([r | {"problem_id": None} for r in conversations(8)])
    options: dict[str, Any] = {
        "feedback_order": ["correction", "sibling"], "train_dataset": rows, "max_steps": 4,
        "save_strategy": "steps", "save_steps": 2,
    }  # fmt: skip
    whole = make_trainer(tmp_path / "whole", feedback_funcs=corrections(file), **options)
    whole.train()
    shutil.copytree(tmp_path / "whole", tmp_path / "again")
    shutil.rmtree(tmp_path / "again/checkpoint-4")
    again = make_trainer(tmp_path / "again", feedback_funcs=corrections(file), **options)
    again.train(resume_from_checkpoint=True)
    first, second = (lines(tmp_path / run / "rollouts.jsonl") for run in ("whole", "again"))
    assert first == second
    assert {r["context"] for r in first} >= {"correction"}
