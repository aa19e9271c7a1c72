"""The mathematics sets: which fields are read, how answers are written, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from distil.data.champ import UNJUDGED, as_latex, unjudged
from distil.errors import DataError
from published import champ_document, items_of, prepared, write_lines

WORKED = "She has 3*4 = <<3*4=12>>12 eggs.\nShe sells 12*100 = <<12*100=1200>>1200.\n#### 1,200"
PLAIN = "She has 3*4 = 12 eggs.\nShe sells 12*100 = 1200.\nThe final answer is \\boxed{1200}."


def one(tmp_path: Path, name: str, row: dict[str, Any]) -> dict[str, Any]:
    [item] = items_of(prepared(name, write_lines(tmp_path / "rows.jsonl", [row])), name)
    return item


@pytest.mark.parametrize(
    ("name", "row", "item"),
    [
        (
            "hard-math",
            {"problem": "1+1?", "solution": "Two.", "answer": "2", "source": "OmniMath"},
            {"id": "hard-math-1", "question": "1+1?", "answer": "2", "solution": "Two.",
             "source": "OmniMath"},
        ),
        (
            "aime24",  # HuggingFaceH4/aime_2024
            {"id": 60, "problem": "P", "solution": "S", "answer": "025", "year": "2024"},
            {"id": "aime24-60", "question": "P", "answer": "25", "solution": "S"},
        ),
        (
            "aime25",  # math-ai/aime25
            {"problem": "P", "answer": "70", "id": "0"},
            {"id": "aime25-0", "question": "P", "answer": "70"},
        ),
        (
            "aime25",  # yentinglin/aime_2025, whose solutions say no more than the answer
            {"id": "1", "problem": "P", "answer": "70", "solution": r"\boxed{70}", "url": "u"},
            {"id": "aime25-1", "question": "P", "answer": "70"},
        ),
        (
            "hmmt25",  # MathArena/hmmt_feb_2025
            {"problem_idx": 2, "problem": "P", "answer": r"\frac{1}{2}", "problem_type": ["x"]},
            {"id": "hmmt25-2", "question": "P", "answer": r"\frac{1}{2}"},
        ),
        (
            "amc23",  # math-ai/amc23
            {"id": 0, "answer": 27.0, "url": "u", "question": "P"},
            {"id": "amc23-0", "question": "P", "answer": "27"},
        ),
        ("amc23", {"answer": "27.0", "question": "P"},
         {"id": "amc23-1", "question": "P", "answer": "27"}),
        ("amc23", {"answer": 2.5, "question": "P"},
         {"id": "amc23-1", "question": "P", "answer": "2.5"}),
        (
            "minerva",  # math-ai/minervamath
            {"question": "P", "answer": r"4.5e33"},
            {"id": "minerva-1", "question": "P", "answer": "4.5e33"},
        ),
        (
            "gsm8k",  # openai/gsm8k
            {"question": "Eggs?", "answer": WORKED},
            {"id": "gsm8k-1", "question": "Eggs?", "answer": "1200", "solution": PLAIN},
        ),
    ],
)  # fmt: skip
def test_a_row_of_each_set_becomes_a_problem(
    tmp_path: Path, name: str, row: dict[str, Any], item: dict[str, Any]
) -> None:
    assert one(tmp_path, name, row) == item


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("hard-math", {"solution": None}, "the field 'solution' is None. Make it a text"),
        ("hard-math", {"problem": ["1+1?"]}, "the field 'problem' is ['1+1?']. Make it a text"),
        ("hard-math", {"answer": True}, "the field 'answer' is True. Make it a text"),
        ("hard-math", {"answer": "{2"}, "the field 'answer' is '{2', and its own check gives it n"),
        ("aime24", {"answer": "1000"}, "'answer' is '1000', and must be a whole number from 0 to"),
        ("aime24", {"answer": "1/2"}, "'answer' is '1/2', and must be a whole number from 0 to"),
        ("aime24", {"id": 1.5}, "the field 'id' is 1.5. Make it a text or a whole number."),
        ("aime24", {"id": 7, "problem": "Q"}, "the field 'id' is 'aime24-7', and so is that of "),
        ("gsm8k", {"answer": "No end"}, "'answer' has 0 lines that begin with ####, and must have"),
        ("gsm8k", {"answer": "#### 1\n#### 2"}, "'answer' has 2 lines that begin with ####"),
        (
            "gsm8k",
            {"upstream_answer": "So\n#### 3", "expected": "4"},
            "the field 'expected' is '4', and 'upstream_answer' ends in '3'.",
        ),
    ],
)
def test_a_row_that_is_no_problem_is_refused_by_file_row_and_field(
    tmp_path: Path, name: str, changes: dict[str, Any], message: str
) -> None:
    base: dict[str, Any] = {
        "hard-math": {"problem": "1+1?", "solution": "Two.", "answer": "2", "source": "x"},
        "aime24": {"id": 8, "problem": "P", "answer": "2"},
        "gsm8k": {"question": "P", "answer": "So\n#### 2"},
    }[name]
    first = {**base, "problem": "First?", "question": "First?"}
    first |= {"id": 7} if name == "aime24" else {}
    file = write_lines(tmp_path / "rows.jsonl", [first, {**base, **changes}])
    with pytest.raises(DataError) as told:
        prepared(name, file)
    assert str(told.value).startswith("rows.jsonl, row 2: ")
    assert message in str(told.value)
    assert len(items_of(prepared(name, file, skip_bad=True), name)) == 1


def test_a_missing_answer_is_named(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "rows.jsonl", [{"problem": "1+1?", "solution": "Two."}])
    with pytest.raises(DataError, match=r"'answer' is missing\. The row has problem, solution"):
        prepared("hard-math", file)


def test_the_parts_that_a_hubs_files_are_named_after_become_the_split(tmp_path: Path) -> None:
    for part, count in (("train", 3), ("test", 2)):
        rows = [{"question": f"{part} {n}", "answer": f"#### {n}"} for n in range(count)]
        write_lines(tmp_path / f"{part}-00000-of-00001.jsonl", rows)
    items = items_of(prepared("gsm8k", tmp_path), "gsm8k")
    assert [(item["id"], item["split"]) for item in items] == [
        ("gsm8k-test-1", "test"),
        ("gsm8k-test-2", "test"),
        ("gsm8k-train-1", "train"),
        ("gsm8k-train-2", "train"),
        ("gsm8k-train-3", "train"),
    ]


def test_only_aime_is_taken_from_a_file_of_several_sets(tmp_path: Path) -> None:
    def case(source: str, **fields: str) -> dict[str, Any]:
        return {"source": source, "id": fields["id"], "choices": [], "question": fields["id"],
                "answer": "70", "kind": "integer"}  # fmt: skip

    cases = [case("AIME2025", id="aime2025-01"), case("GPQA Diamond", id="g"), case("X", id="x")]
    (tmp_path / "cases.json").write_text(json.dumps({"source": "s", "count": 3, "cases": cases}))
    done = prepared("aime25", tmp_path / "cases.json")
    assert [item["id"] for item in items_of(done, "aime25")] == ["aime2025-01"]
    assert done.filtered == {"another set, GPQA Diamond": 1, "another set, X": 1}


# ---------------------------------------------------------------- CHAMP


def champ_file(tmp_path: Path, document: Any) -> Path:
    (tmp_path / "v0.json").write_text(json.dumps(document))
    return tmp_path / "v0.json"


def test_hints_come_before_concepts_and_sentences_are_no_answers(tmp_path: Path) -> None:
    done = prepared("champ", champ_file(tmp_path, champ_document()))
    first, third = items_of(done, "champ")
    assert first == {
        "id": "P_1",
        "question": "How many are P_1?",
        "answer": r"2^{n-1}\cdot \sqrt{3}",
        "solution": "Think of P_1.\nCount.\n"
        r"The final answer is \boxed{2^{n-1}\cdot \sqrt{3}}.",
        "category": "Combinatorics",
        "hint": "Try n = 1.\nRule of sum: Add.",
    }
    assert (third["id"], third["answer"], "hint" in third) == ("P_3", "No", False)
    assert done.tables["champ"].dropped == {UNJUDGED: 1}


@pytest.mark.parametrize(
    ("answer", "latex"),
    [
        ("239", "239"),
        ("(2n)!/(2^n*n!)", r"(2n)!/(2^n\cdot n!)"),
        ("2^((n+1)/2)+sqrt(4a+1)", r"2^{(n+1)/2}+\sqrt{4a+1}"),
        ("2^997", "2^{997}"),
        ("x^3\u2212x", "x^3-x"),
        ("C(10, 5), or equivalently 252", "252"),
        ("5/14, or approximately 35.7%", "5/14"),
        ("sum_(i=1)^n i^2, or equivalently n(n+1)/6", "n(n+1)/6"),
        ("100 (i.e., all values)", "100"),
        ("0 (no such selection is possible)", "0"),
        ("98 values", "98"),
        ("-3 is the only possible value", "-3"),
        ("Yes", "Yes"),
        ("Always greater than 20", "Always greater than 20"),
        ("x=6, y=5", "x=6, y=5"),
    ],
)
def test_a_plain_answer_is_written_as_latex(answer: str, latex: str) -> None:
    assert as_latex(answer) == latex


def test_what_can_be_judged_is_known_again_and_told_apart() -> None:
    fine = ["239", r"2^{n-1}\cdot \sqrt{3}", "Yes", "n!/(2n)"]
    # The judge would pick a number out of the first two, and take 20 for the whole answer.
    poor = ["Always greater than 20", "The limit exists and is equal to 2", "x=6, y=5", "floor(n)"]
    said = unjudged([{"answer": answer} for answer in [*fine, *poor]])
    assert said == [None] * len(fine) + [UNJUDGED] * len(poor)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ch_list": ["H_9"]}, "'ch_list' names a hint or concept that isn't in the file"),
        ({"ch_list": "H_1"}, "'ch_list' names a hint or concept that isn't in the file"),
        ({"solution": {"steps": []}}, "'solution' has the steps [], and must have a list of them."),
        ({"solution": "Count."}, "'solution' is 'Count.'. Make it an object with named fields."),
        ({"solution": {"steps": ["Count."]}}, "'solution.steps' is None. Make it a text"),
        ({"_answer": 3}, "'_answer' is 3. Make it a text"),
        ({"identifier": "P_1"}, "the field 'id' is 'P_1', and so is that of v0.json, row 1."),
    ],
)
def test_a_malformed_champ_problem_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    document = champ_document()
    document["problems"]["P_3"] |= changes
    with pytest.raises(DataError) as told:
        prepared("champ", champ_file(tmp_path, document))
    assert str(told.value).startswith("v0.json, row 3: the field ")
    assert message in str(told.value)


def test_another_file_than_champs_is_refused(tmp_path: Path) -> None:
    file = champ_file(tmp_path, {k: v for k, v in champ_document().items() if k != "hints"})
    with pytest.raises(DataError, match=r"v0\.json has no object 'hints', as CHAMP's file has"):
        prepared("champ", file)
