"""Stored evaluations: recomputed without a model, compared, judged anew, and gone on with."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import environment, make_model, make_tokenizer
from distil.cli import main
from distil.config import EvalConfig, Recipe, TaskConfig
from distil.errors import RunError
from distil.evaluate.evalfile import Evaluation, Partial, read, settings_of, store
from distil.evaluate.samplers import local
from distil.figures.estimates import Attempt
from evaltoys import QUESTIONS, problems_file, task_flags

SETTINGS = settings_of("m", {"kind": "vllm"}, "off", TaskConfig(), EvalConfig(samples=4), 9)
RIGHT, WRONG = ("5", 1.0), ("6", 0.0)
Write = Callable[..., Path]


def made(rewards: dict[str, list[tuple[str, float]]]) -> list[Attempt]:
    return [Attempt(p, a, a, r, 3, False) for p, group in rewards.items() for a, r in group]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def stored(name: str, rewards: dict[str, list[tuple[str, float]]], **more: Any) -> Path:
        asked = {problem: f"digest of {problem}" for problem in rewards}
        parts = {"settings": SETTINGS, "versions": {"torch": "1"}, "problems": asked, **more}
        store(tmp_path / name, Evaluation("", made(rewards), **parts))
        return tmp_path / name

    return stored


@pytest.fixture
def toy(tmp_path: Path) -> str:
    make_model().save_pretrained(tmp_path / "toy")
    make_tokenizer().save_pretrained(tmp_path / "toy")
    return str(tmp_path / "toy")


def sampling(toy: str, folder: Path, *flags: str) -> list[str]:
    task = task_flags(problems_file(folder))
    length = ["--max-completion-length", "5", "--eval.batch-size", "4"]
    return ["eval", toy, *task, "--n", "4", *length, *flags]


# ---------------------------------------------------------------- recomputing


def test_what_is_stored_is_read_as_it_was(write: Write) -> None:
    file = write("a.json", {"p": [RIGHT, WRONG]})
    found = read(file)
    assert found == Evaluation(
        str(file), made({"p": [RIGHT, WRONG]}), json.loads(json.dumps(SETTINGS)),
        {"torch": "1"}, {"p": "digest of p"},
    )  # fmt: skip


def test_any_k_is_recomputed_in_a_process_without_torch(write: Write) -> None:
    file = write("a.json", {"p": [RIGHT, WRONG, WRONG, WRONG], "q": [RIGHT] * 4})
    program = (
        "import sys; from distil.cli import main; main(sys.argv[1:])\n"
        "print([m for m in ('torch', 'transformers', 'reasoning_gym') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "eval", str(file), "--k", "1,3"],
        capture_output=True, text=True, check=True, env=environment(),
    )  # fmt: skip
    rows = [line.split()[:2] for line in done.stdout.splitlines()[1:8]]
    # p: a triple holds the one right answer with 3/4, and never wins by it.
    assert rows == [
        ["avg@4", "0.625"], ["pass@1", "0.625"], ["pass@3", "0.875"], ["maj@3", "0.500"],
        ["tokens", "3.0"], ["truncated", "0.000"], ["format", "1.000"],
    ]  # fmt: skip
    assert done.stdout.endswith("[]\n")


def test_an_evaluation_from_before_truncation_was_noted_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    attempt = {"problem": "p", "completion": "5", "answer": "5", "reward": 1.0, "tokens": 2}
    (tmp_path / "before.json").write_text(json.dumps({"seconds": 1.0, "attempts": [attempt] * 2}))
    recipe = Recipe(eval=EvalConfig(samples=2, temperature=0.5))
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe.as_dict()))
    assert main(["eval", str(tmp_path / "before.json")]) == 0
    out = capsys.readouterr().out
    assert "avg@2" in out
    assert "truncated" not in out
    assert "1 problems x 2 samples of chain_sum, temperature 0.5" in out  # the run's recipe


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--n", "2"], "holds completions that are drawn already"),
        (["--preset", "math-4b"], "holds completions that are drawn already"),
        (["--endpoint", "http://h/v1"], "holds completions that are drawn already"),
        (["--k", "5"], "--k names 5, and must lie between 1 and the 4 samples"),
        (["--k", "1,0"], "--k names 0, and must lie between 1 and the 4 samples"),
        (["--out", "b.json"], "goes with --regrade"),
    ],
)
def test_what_a_stored_evaluation_cannot_heed_is_refused(
    write: Write, capsys: pytest.CaptureFixture[str], flags: list[str], expected: str
) -> None:
    assert main(["eval", str(write("a.json", {"p": [RIGHT] * 4})), *flags]) == 2
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"attempts": []}', '{"attempts": [{"a": 1}]}'])
def test_a_file_that_is_no_evaluation_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    (tmp_path / "x.json").write_text(text)
    assert main(["eval", str(tmp_path / "x.json")]) == 2
    assert "RunError" in capsys.readouterr().err


def test_a_missing_file_is_no_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "missing.json"]) == 2
    assert "There is no file 'missing.json'" in capsys.readouterr().err


# ---------------------------------------------------------------- comparing


def test_two_evaluations_are_paired_by_problem_in_any_order(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    a = write("a.json", {"p": [RIGHT, RIGHT], "q": [RIGHT, WRONG]})
    b = write("b.json", {"q": [WRONG, WRONG], "p": [RIGHT, WRONG]})
    assert main(["eval", str(a), "--against", str(b)]) == 0
    out = capsys.readouterr().out
    # A gains half on p and half on q: paired in the files' own order it would be 1 and 0.
    assert "avg@2      0.750 [0.500, 1.000]  0.250 [0.000, 0.500]  +0.500 [+0.500, +0.500]" in out
    assert "differ" not in out


def test_settings_and_versions_that_differ_are_told(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    a = write("a.json", {"p": [RIGHT]})
    other = {**SETTINGS, "model": "m2", "temperature": 0.25, "thinking": "on"}
    b = write("b.json", {"p": [WRONG]}, settings=other, versions={"torch": "2"})
    c = write("c.json", {"p": [WRONG]}, settings={})
    assert main(["eval", str(a), "--against", str(b)]) == 0
    out = capsys.readouterr().out
    assert f"A: {a} (m)\nB: {b} (m2)\n" in out
    told = out[out.index("Warning") :].splitlines()
    assert told == [
        "Warning: these settings differ (A, B):", "  thinking: 'off', 'on'",
        "  temperature: 1.0, 0.25", "Versions that differ (A, B):", "  torch: '1', '2'",
    ]  # fmt: skip
    assert main(["eval", str(a), "--against", str(c)]) == 0
    assert f"Warning: {c} says nothing of its settings." in capsys.readouterr().out


def test_evaluations_of_two_n_share_their_k(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = write("a.json", {"p": [RIGHT] * 4}), write("b.json", {"p": [WRONG] * 2})
    assert main(["eval", str(a), "--against", str(b)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    signed = [words[0] for words in lines if len(words) > 3 and words[-3][:1] in "+-"]
    assert signed == ["pass@1", "pass@2", "maj@2", "tokens", "truncated", "format"]


def test_other_problems_are_not_compared(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    a = write("a.json", {"p": [RIGHT], "q": [RIGHT]})
    fewer = write("b.json", {"p": [RIGHT]})
    renamed = write("c.json", {"p": [RIGHT], "q": [RIGHT]}, problems={"p": "another", "q": "x"})
    assert main(["eval", str(a), "--against", str(fewer)]) == 2
    assert "1 problems are in the first only, 0 in the second only ('q'" in capsys.readouterr().err
    assert main(["eval", str(a), "--against", str(renamed)]) == 2
    assert "their problem 'p' isn't the same question" in capsys.readouterr().err


def test_a_model_is_not_sampled_to_be_compared_with_other_problems(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    b = write("b.json", {"p": [RIGHT]})
    assert main([*sampling("./no-model", tmp_path), "--against", str(b)]) == 2
    assert "can't be compared: 3 problems are in the first only" in capsys.readouterr().err
    assert main([*sampling("./no-model", tmp_path), "--k", "4", "--against", str(b)]) == 2
    assert f"must lie between 1 and the 1 samples of each problem in {b}" in capsys.readouterr().err


# ---------------------------------------------------------------- sampling, and going on


def test_samples_are_kept_and_judged_anew(
    toy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, new = tmp_path / "a.json", tmp_path / "new.json"
    assert main(sampling(toy, tmp_path, "--out", str(out))) == 0
    sampled = read(out)
    assert len(sampled.attempts) == 12
    assert sampled.settings["model"] == toy
    assert sampled.settings["task"]["check"] == "exact"
    assert {a.truncated for a in sampled.attempts} <= {True, False}
    # The same completions, but what is right is another thing today.
    rows = [json.loads(line) for line in (tmp_path / "problems.jsonl").read_text().splitlines()]
    answers = [a.answer for a in sampled.attempts if a.problem == "1" and a.answer]
    rows[0]["answer"] = answers[0]
    (tmp_path / "problems.jsonl").write_text("\n".join(map(json.dumps, rows)))
    capsys.readouterr()
    assert main(["eval", str(out), "--regrade", "--out", str(new)]) == 0
    was = {id(a): a.reward for a in sampled.attempts}
    judged = read(new).attempts
    changed = sum(was[id(a)] != b.reward for a, b in zip(sampled.attempts, judged, strict=True))
    assert changed >= answers.count(answers[0]) > 0
    assert f"Judged anew: {changed} of 12 verdicts changed." in capsys.readouterr().out
    assert [a.reward for a in judged if a.problem == "1"] == [
        float(a.answer == answers[0]) for a in sampled.attempts if a.problem == "1"
    ]
    assert main(["eval", str(out), "--regrade", "--out", str(new)]) == 2
    assert "is there already" in capsys.readouterr().err


def test_completions_are_not_judged_by_other_problems(
    toy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a.json"
    assert main(sampling(toy, tmp_path, "--out", str(out))) == 0
    problems_file(tmp_path, ["4 + 4 =", *QUESTIONS[1:]])
    assert main(["eval", str(out), "--regrade"]) == 2
    assert "problem '1' has another question" in capsys.readouterr().err
    problems_file(tmp_path, QUESTIONS[:2])
    assert main(["eval", str(out), "--regrade", *task_flags(tmp_path / "problems.jsonl", 2)]) == 2
    assert "The task's problem '3' has another question" in capsys.readouterr().err


def test_a_killed_evaluation_goes_on_where_it_was(
    toy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, partial = tmp_path / "a.json", tmp_path / "a.json.partial.jsonl"
    flags = ["--out", str(out)]
    draw = local.LocalSampler.sample

    def killed(self: Any, prompts: Any, first: int) -> Any:
        if first == 8:
            raise KeyboardInterrupt
        return draw(self, prompts, first)

    with monkeypatch.context() as patch:
        patch.setattr(local.LocalSampler, "sample", killed)
        assert main(sampling(toy, tmp_path, *flags)) == 130
    assert not out.exists()
    with partial.open("a") as file:
        file.write('{"attempts": [{"prob')  # as a kill in the midst of writing leaves it
    kept = [json.loads(line)["attempts"] for line in partial.read_text().splitlines()[1:3]]
    assert main([*sampling(toy, tmp_path, *flags), "--eval.temperature", "0.5"]) == 2
    assert "begun with other settings (then, now):\n  settings.temperature: 1.0, 0.5" in (
        capsys.readouterr().err
    )
    assert main(sampling(toy, tmp_path, *flags)) == 0
    assert "Going on after the 8 attempts" in capsys.readouterr().out
    stored = json.loads(out.read_text())["attempts"]
    assert stored[:8] == kept[0] + kept[1]
    assert [a["problem"] for a in stored[8:]] == [a["problem"] for a in stored[8:9]] * 4
    assert len(stored) == 12
    assert not partial.exists()


def test_another_question_under_the_same_name_is_not_gone_on_with(tmp_path: Path) -> None:
    Partial(tmp_path / "a.json", SETTINGS, {"p": "1"}).keep(made({"p": [RIGHT]}))
    assert Partial(tmp_path / "a.json", SETTINGS, {"p": "1"}).done == made({"p": [RIGHT]})
    with pytest.raises(RunError, match=r"problems\.p: '1', '2'"):
        Partial(tmp_path / "a.json", SETTINGS, {"p": "2"})


@pytest.mark.parametrize(
    ("number", "damaged"),
    [(2, b'{"attempts": [{"prob'), (2, b"\xff"), (2, b"{}"), (2, b'{"attempts": [{"x": 1}]}'),
     (1, b"[]"), (1, b"{")],
)  # fmt: skip
def test_a_damaged_line_of_an_evaluation_under_way_is_named(
    tmp_path: Path, number: int, damaged: bytes
) -> None:
    partial = Partial(tmp_path / "a.json", SETTINGS, {"p": "1"})
    partial.keep(made({"p": [RIGHT]}))
    partial.keep(made({"p": [WRONG]}))
    rows = partial.path.read_bytes().split(b"\n")
    rows[number - 1] = damaged
    partial.path.write_bytes(b"\n".join(rows))
    with pytest.raises(RunError, match=rf"partial.jsonl, line {number}, is damaged .*starts anew"):
        Partial(tmp_path / "a.json", SETTINGS, {"p": "1"})
    assert partial.path.read_bytes() == b"\n".join(rows)
