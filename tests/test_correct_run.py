"""`distil correct` beside a run: its recipe has a say, a terminal, and a run under way uses it."""

import io
import json
import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import environment, make_model, make_tokenizer
from correcting import Say, rollout, run_of, say, stored
from distil.cli import main
from distil.feedback.correctionfile import parse
from distil.trainer.callbacks import StopAfterStep

__all__ = ["say"]  # a fixture

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
    from distil.recipe.recipefile import recipe_from
    from distil.tasks import load_task

    problem = load_task(recipe_from(SUMS).task).train[0]
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
