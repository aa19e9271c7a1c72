"""A run's folder: begun once, taken up again only as it was, its logs never half a line."""

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from distil.config import Recipe
from distil.errors import RunError
from distil.runs.folder import (
    PROBLEMS,
    append_lines,
    begin_run,
    check_new_run,
    cut_logs,
    read_lines,
    reopen_run,
    write_json,
    write_text,
)

RECIPE = {"task": {"name": "gcd", "options": {"a": 1}}, "train": {"steps": 3, "output_dir": "x"}}


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


# ---------------------------------------------------------------- beginning


def test_a_new_run_holds_its_recipe_and_its_environment(tmp_path: Path) -> None:
    folder = begin_run(tmp_path / "a" / "b", RECIPE, seed=7)
    assert folder == tmp_path / "a" / "b"
    assert names(folder) == ["environment.json", "recipe.yaml"]
    assert yaml.safe_load((folder / "recipe.yaml").read_text()) == RECIPE
    info = json.loads((folder / "environment.json").read_text())
    assert sorted(info) == ["git", "machine", "seed", "started", "versions"]
    assert info["seed"] == 7
    assert info["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert {"distil", "torch", "transformers", "trl"} <= set(info["versions"])
    assert info["machine"]["cpus"] >= 1


def test_the_recipe_keeps_its_order_for_a_reader(tmp_path: Path) -> None:
    folder = begin_run(tmp_path / "run", Recipe().as_dict(), seed=0)
    groups = [x for x in (folder / "recipe.yaml").read_text().splitlines() if x[0].isalpha()]
    assert groups == [
        "preset: ''", "task:", "model:", "feedback:", "teacher:", "objective:", "rollout:",
        "train:", "eval:", "alarms:",
    ]  # fmt: skip


def test_a_folder_that_exists_already_is_used_if_no_run_lies_there(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    begin_run(tmp_path, RECIPE, seed=0)
    assert names(tmp_path) == ["environment.json", "notes.txt", "recipe.yaml"]


def test_an_existing_run_is_never_written_over(tmp_path: Path) -> None:
    begin_run(tmp_path, RECIPE, seed=0)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(RunError, match=r"already holds a run.*--resume.*--train\.output-dir"):
        begin_run(tmp_path, {"task": {"name": "other"}}, seed=1)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


@pytest.mark.parametrize("name", ["README.md", "model", "before.json", "checkpoint-7", "best"])
def test_what_a_run_would_overwrite_is_left_alone(tmp_path: Path, name: str) -> None:
    theirs = tmp_path / name
    theirs.mkdir() if "." not in name else theirs.write_text("mine")
    with pytest.raises(RunError, match=rf"has {name}, which the run would overwrite"):
        check_new_run(tmp_path)
    assert names(tmp_path) == [name]


@pytest.mark.parametrize("below", ["", "run", "a/b"])
def test_a_folder_that_cannot_be_written_is_told_with_the_reason(
    tmp_path: Path, below: str
) -> None:
    file = tmp_path / "file"
    file.write_text("not a folder")
    with pytest.raises(RunError, match=r"can't be written \((File exists|Not a directory)\)"):
        begin_run(file / below, RECIPE, seed=0)
    assert file.read_text() == "not a folder"


# ---------------------------------------------------------------- taking up again


def test_the_same_recipe_may_go_on(tmp_path: Path) -> None:
    begin_run(tmp_path, Recipe().as_dict(), seed=0)
    assert reopen_run(tmp_path, Recipe().as_dict()) == tmp_path


def test_null_in_a_recipe_is_kept_and_no_value(tmp_path: Path) -> None:
    objective = {"name": "distil", "future": None, "policy_space_clip": None}
    begin_run(tmp_path, {"objective": objective}, seed=0)
    stored = yaml.safe_load((tmp_path / "recipe.yaml").read_text())
    assert stored == {"objective": objective}
    assert reopen_run(tmp_path, {"objective": objective}) == tmp_path
    other = {"name": "distil", "future": "none", "policy_space_clip": 0.0}
    with pytest.raises(RunError) as refused:
        reopen_run(tmp_path, {"objective": other})
    lines = [line for line in str(refused.value).splitlines() if line.startswith("  ")]
    assert lines == [
        "  objective.future: was None, is 'none'",
        "  objective.policy_space_clip: was None, is 0.0",
    ]


def test_another_output_dir_is_no_difference(tmp_path: Path) -> None:
    begin_run(tmp_path, RECIPE, seed=0)
    moved = {**RECIPE, "train": {"steps": 3, "output_dir": "elsewhere"}}
    assert reopen_run(tmp_path, moved) == tmp_path


def test_other_problems_are_not_gone_on_with(tmp_path: Path) -> None:
    begin_run(tmp_path, RECIPE, seed=0, facts={PROBLEMS: "abc"})
    assert reopen_run(tmp_path, RECIPE, "abc") == tmp_path
    with pytest.raises(RunError, match=r"task\.name \(.*\) are others than those"):
        reopen_run(tmp_path, RECIPE, "abd")
    older = begin_run(tmp_path / "older", RECIPE, seed=0)  # which doesn't say
    assert reopen_run(older, RECIPE, "abc") == older


def test_every_difference_is_told(tmp_path: Path) -> None:
    begin_run(tmp_path, RECIPE, seed=0)
    other = {
        "task": {"name": "gcd", "options": {"a": 2, "b": 3}},
        "train": {"steps": 5, "output_dir": "y"},
        "eval": {"samples": 2},
    }
    with pytest.raises(RunError) as refused:
        reopen_run(tmp_path, other)
    lines = [line for line in str(refused.value).splitlines() if line.startswith("  ")]
    assert lines == [
        "  task.options.a: was 1, is 2",
        "  task.options.b: was None, is 3",
        "  train.steps: was 3, is 5",
        "  eval: was None, is {'samples': 2}",
    ]
    assert f"distil train {tmp_path} --resume" in str(refused.value)


def test_a_folder_without_a_run_cannot_be_taken_up(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no run to resume \(No such file or directory\)"):
        reopen_run(tmp_path / "missing", RECIPE)


# ---------------------------------------------------------------- logs


def line(step: int, **fields: Any) -> str:
    return json.dumps({"step": step, **fields}, ensure_ascii=False) + "\n"


@pytest.mark.parametrize("log", ["metrics.jsonl", "rollouts.jsonl"])
def test_lines_after_the_checkpoint_are_dropped(tmp_path: Path, log: str) -> None:
    (tmp_path / log).write_text(line(1) + line(2) + line(2) + line(3) + line(10))
    cut_logs(tmp_path, 2)
    assert (tmp_path / log).read_text() == line(1) + line(2) + line(2)


def test_a_half_written_last_line_is_dropped(tmp_path: Path) -> None:
    whole = line(1, completion="5 €")
    log = tmp_path / "rollouts.jsonl"
    for cut in range(1, len(whole.encode())):
        log.write_bytes(whole.encode() + whole.encode()[:-cut])
        cut_logs(tmp_path, 5)
        kept = whole * (2 if cut == 1 else 1)  # only the newline was missing
        assert log.read_bytes() == kept.encode()


@pytest.mark.parametrize("other", ["7", "[1]", "null", '"step"'])
def test_json_that_is_no_record_is_passed_over_and_dropped(tmp_path: Path, other: str) -> None:
    log = tmp_path / "metrics.jsonl"
    log.write_text(f"{line(1)}{other}\n{line(2)}")
    assert list(read_lines(log)) == [{"step": 1}, {"step": 2}]
    cut_logs(tmp_path, 2)
    assert log.read_text() == line(1) + line(2)


@pytest.mark.parametrize("text", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\r", "ü€😀"])
def test_a_line_ends_nowhere_but_at_its_newline(tmp_path: Path, text: str) -> None:
    whole = line(1, completion=f"before{text}after") + line(2, completion=text)
    (tmp_path / "rollouts.jsonl").write_bytes(whole.encode())
    cut_logs(tmp_path, 2)
    assert (tmp_path / "rollouts.jsonl").read_bytes() == whole.encode()


def test_a_run_that_has_logged_nothing_has_nothing_to_cut(tmp_path: Path) -> None:
    cut_logs(tmp_path, 3)
    assert names(tmp_path) == []
    (tmp_path / "metrics.jsonl").write_text("")
    cut_logs(tmp_path, 3)
    assert (tmp_path / "metrics.jsonl").read_text() == ""


def test_other_files_of_the_run_are_not_cut(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(line(9))
    cut_logs(tmp_path, 0)
    assert (tmp_path / "results.json").read_text() == line(9)


# ---------------------------------------------------------------- writing


def test_writing_replaces_the_whole_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    write_text(file, "a longer text, ä€😀\n")
    write_text(file, "new\n")
    assert file.read_text(encoding="utf-8") == "new\n"
    assert names(tmp_path) == ["a.txt"]


def test_a_kill_while_writing_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(number: int) -> None:
        raise KeyboardInterrupt

    file = tmp_path / "a.txt"
    write_text(file, "old")
    monkeypatch.setattr("os.fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        write_text(file, "new")
    assert file.read_text() == "old"
    monkeypatch.undo()
    write_text(file, "newer")  # what the kill left behind is in nobody's way
    assert file.read_text() == "newer"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_line_of_a_log_holds_no_number_that_json_has_no_word_for(
    tmp_path: Path, value: float
) -> None:
    with pytest.raises(ValueError, match="JSON"):
        append_lines(tmp_path / "log.jsonl", {"step": 1, "reward": value})


def test_json_is_written_for_people(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"text": "ä€", "n": [1]})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == (
        '{\n "text": "ä€",\n "n": [\n  1\n ]\n}\n'
    )
