"""SciKnowEval and MMLU: filters, the published split, repeated rows, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from distil.data.splits import train_test_split
from distil.errors import DataError
from published import items_of, mmlu_row, prepared, sciknoweval_row, write_lines


def test_a_question_becomes_a_row_of_its_domains_table(tmp_path: Path) -> None:
    row = sciknoweval_row(
        1,
        choices={"text": ["x", "y"], "label": ["(1)", "(2)"]},
        answerKey="(2)",
        type="mcq-2-choices",
    )
    done = prepared("sciknoweval", write_lines(tmp_path / "s.jsonl", [row]))
    assert items_of(done, "chemistry") == [
        {
            "id": "chemistry-1",
            "question": "Which of these has 1 protons?",
            "choices": ["x", "y"],
            "answer": "B",
            "task": "counting",
            "subtask": "protons",
            "split": "test",
        }
    ]


def test_only_the_published_domains_level_and_types_are_kept(tmp_path: Path) -> None:
    rows = [
        sciknoweval_row(0, domain="Physics"),
        sciknoweval_row(1, domain="Astronomy"),
        sciknoweval_row(2, details={"level": "L2"}),
        sciknoweval_row(3, details={"level": "L5"}),
        sciknoweval_row(4, type="true_or_false", choices={"text": [], "label": []}, answerKey=""),
        sciknoweval_row(5, domain="Material"),
    ]
    done = prepared("sciknoweval", write_lines(tmp_path / "s.jsonl", rows))
    assert {name: len(table.rows) for name, table in done.tables.items()} == {
        "material": 1,
        "physics": 1,
    }
    assert done.filtered == {
        "domain Astronomy": 1,
        "level L2": 1,
        "level L5": 1,
        "type true_or_false": 1,
    }


@pytest.mark.parametrize("count", [1, 2, 19, 500, 935, 800, 2100])
def test_the_split_is_the_one_that_datasets_makes(count: int) -> None:
    splits = train_test_split(count)
    if count > 1:  # datasets refuses to leave nothing to train on
        table = Dataset.from_dict({"n": list(range(count))}).train_test_split(0.1, seed=42)
        for part in ("train", "test"):
            places = [n for n, split in enumerate(splits) if split == part]
            assert places == sorted(table[part]["n"])
    published = {500: 50, 2100: 210, 935: 94, 800: 80}
    assert splits.count("test") == published.get(count, -(-count // 10))


def test_the_split_is_drawn_first_and_repeated_rows_leave_train(tmp_path: Path) -> None:
    splits = train_test_split(40)
    tests = [n for n, split in enumerate(splits) if split == "test"]
    trains = [n for n, split in enumerate(splits) if split == "train"]
    rows = [sciknoweval_row(n) for n in range(40)]
    rows[trains[0]] = sciknoweval_row(tests[0])  # asked in the test split, too
    rows[trains[2]] = sciknoweval_row(trains[1])  # twice in train
    rows[tests[2]] = sciknoweval_row(tests[1])  # twice in test
    table = prepared("sciknoweval", write_lines(tmp_path / "s.jsonl", rows)).tables["chemistry"]
    assert table.drawn == {"train": 36, "test": 4}
    assert table.dropped == {
        "asks the same as a row of the test split": 1,
        "asks the same as another row": 2,
    }
    kept = {item["id"]: item["split"] for _, item, _ in table.rows}
    gone = {trains[0], max(trains[1:3]), max(tests[1:3])}
    assert set(kept) == {f"chemistry-{n + 1}" for n in range(40) if n not in gone}
    assert all(kept[f"chemistry-{n + 1}"] == "test" for n in tests if n not in gone)


def test_other_choices_make_another_question(tmp_path: Path) -> None:
    other = {"text": ["four", "two", "three", "one"], "label": ["A", "B", "C", "D"]}
    rows = [sciknoweval_row(1), sciknoweval_row(1, choices=other)]
    done = prepared("sciknoweval", write_lines(tmp_path / "s.jsonl", rows))
    assert len(done.tables["chemistry"].rows) == 2


BAD: list[tuple[dict[str, Any] | str, str]] = [
    ("{", "s.jsonl, row 2: no valid JSON (Expecting property name"),
    ("[1]", "s.jsonl, row 2: [1] is no object with named fields."),
    ({"domain": 3}, "s.jsonl, row 2: the field 'domain' is 3. Make it a text that isn't blank."),
    ({"details": "L3"}, "the field 'details' is 'L3'. Make it an object with named fields."),
    ({"details": {"lvl": 1}}, "the field 'details.level' is missing. There is lvl."),
    ({"question": " "}, "the field 'question' is ' '. Make it a text that isn't blank."),
    ({"question": "\ud800"}, "the field 'question' is no Unicode text (surrogates not allowed)."),
    ({"choices": ["a", "b"]}, "the field 'choices' is ['a', 'b']. Make it an object with"),
    ({"choices": {"text": ["a", "b"]}}, "the field 'choices.label' is missing. There is text."),
    ({"choices": {"text": ["a", 2], "label": ["A", "B"]}}, "'choices.text' is ['a', 2]. Make it"),
    (
        {"choices": {"text": list("abcde"), "label": list("ABCD")}},
        "the field 'choices' has 5 texts and 4 labels. Make them equal.",
    ),
    ({"choices": {"text": ["a", "b"], "label": ["A", "A"]}}, "of which two are the same."),
    ({"choices": {"text": ["a"], "label": ["A"]}}, "the field 'choices' has 1 texts and 1 labels"),
    ({"answerKey": "E"}, "the field 'answerKey' is 'E', and the choices are A, B, C, D."),
    ({"answerKey": None}, "the field 'answerKey' is None. Make it a text that isn't blank."),
]


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_a_row_that_is_no_question_is_refused_by_file_row_and_field(
    tmp_path: Path, changes: dict[str, Any] | str, message: str
) -> None:
    wrong = changes if isinstance(changes, str) else sciknoweval_row(1, **changes)
    rows = [sciknoweval_row(0), wrong, sciknoweval_row(2)]
    file = write_lines(tmp_path / "s.jsonl", rows)
    with pytest.raises(DataError) as told:
        prepared("sciknoweval", file)
    assert str(told.value).startswith("s.jsonl, row 2: ")
    assert message in str(told.value)
    assert str(told.value).endswith("drop and count such rows with --skip-bad.")
    done = prepared("sciknoweval", file, skip_bad=True)
    assert len(done.tables["chemistry"].rows) == 2
    assert sum((done.unsorted + done.tables["chemistry"].dropped).values()) == 1
    assert len(done.bad) == 1
    assert message in done.bad[0]


def test_a_missing_field_is_named_with_those_that_there_are(tmp_path: Path) -> None:
    row = sciknoweval_row(1)
    del row["answerKey"]
    with pytest.raises(DataError, match=r"field 'answerKey' is missing\. The row has prompt, que"):
        prepared("sciknoweval", write_lines(tmp_path / "s.jsonl", [row]))


def test_one_question_with_two_answers_is_refused(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "s.jsonl", [mmlu_row(1), mmlu_row(1, correct_answer="D")])
    with pytest.raises(DataError) as told:
        prepared("mmlu", file)
    # One of the two was drawn for the test split, and stays; the other is named.
    assert "the field 'answer' is " in str(told.value)
    assert "answers the same question with " in str(told.value)
    done = prepared("mmlu", file, skip_bad=True)
    assert done.tables["mmlu"].dropped == {"bad: answer": 1}


def test_a_header_among_mmlus_rows_is_no_question(tmp_path: Path) -> None:
    header = {name: name for name in mmlu_row()} | {"correct_answer": "answer", "topic": "maths"}
    rows = [mmlu_row(0), header, mmlu_row(2)]
    done = prepared("mmlu", write_lines(tmp_path / "m.jsonl", rows))
    assert done.filtered == {"a header, not a question": 1}
    assert [item["answer"] for item in items_of(done, "mmlu")] == ["A", "C"]
    assert items_of(done, "mmlu")[1]["choices"] == ["a2", "b2", "c2", "d2"]
    assert items_of(done, "mmlu")[1]["topic"] == "letters"


@pytest.mark.parametrize("answer", ["E", "a", "AB", "answer"])
def test_mmlus_answer_is_the_letter_of_a_choice(tmp_path: Path, answer: str) -> None:
    file = write_lines(tmp_path / "m.jsonl", [mmlu_row(0, correct_answer=answer)])
    with pytest.raises(DataError, match=f"'correct_answer' is '{answer}', and the choices are A"):
        prepared("mmlu", file)


def test_a_list_in_a_json_file_is_read_as_lines_are(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text(json.dumps([mmlu_row(0), mmlu_row(1)]))
    assert len(items_of(prepared("mmlu", tmp_path / "m.json"), "mmlu")) == 2
