"""LiveCodeBench and HumanEval: dates, decoded tests, the two tables, and what is refused."""

import base64
import json
import pickle
import zlib
from pathlib import Path
from typing import Any

import pytest

from distil.data import privatetests
from distil.data.livecodebench import half, halved
from distil.data.privatetests import private_tests
from distil.data.rows import BadRow
from distil.data.writing import table_bytes
from distil.errors import DataError
from published import (
    call_row,
    call_test,
    humaneval_row,
    items_of,
    loaded,
    packed,
    prepared,
    stdin_row,
    stdin_test,
    write_lines,
)

LCB = "livecodebench"
READER = "```python\nn = int(input())\nprint(n + {})\n```"
METHOD = (
    "```python\nclass Solution:\n    def addTwo(self, a: int, b: List[int]) -> int:\n"
    "        return a + b[0] + {}\n```"
)


def lcb(tmp_path: Path, *rows: dict[str, Any], **options: bool) -> list[dict[str, Any]]:
    return items_of(prepared(LCB, write_lines(tmp_path / "test6.jsonl", rows), **options), LCB)


# ---------------------------------------------------------------- what is read


def test_public_and_hidden_tests_of_a_program_that_reads(tmp_path: Path) -> None:
    [item] = lcb(tmp_path, stdin_row(3))
    assert item["tests"] == [
        {"stdin": "1\n", "expected": "4\n", "public": True},
        *({"stdin": f"{n}\n", "expected": f"{n + 3}\n", "public": False} for n in range(2, 7)),
    ]
    assert item["id"] == "abc393_a"
    assert item["question"].startswith("Read N and print N + 3.\n\nWrite a Python program that")
    assert (item["difficulty"], item["platform"], item["date"]) == ("easy", "atcoder", "2025-02-01")


def test_a_function_is_called_with_one_json_value_a_line(tmp_path: Path) -> None:
    hidden = json.dumps([call_test('"a"\n[1, null]\n', "{}")])  # hidden tests as plain JSON
    [item] = lcb(tmp_path, call_row(2, private_test_cases=hidden))
    assert item["tests"] == [
        {"function": "addTwo", "args": [1, [2]], "expected": 5, "public": True},
        {"function": "addTwo", "args": ["a", [1, None]], "expected": {}, "public": False},
    ]
    starter = "class Solution:\n    def addTwo(self, a: int, b: List[int]) -> int:"
    assert starter in item["question"]


@pytest.mark.parametrize(
    ("day", "reason"),
    [
        ("2025-01-31T23:59:59", "contest before 2025-02-01"),
        ("2025-02-01T00:00:00", None),
        ("2025-05-01T14:30:00", None),
        ("2025-05-02T00:00:00", "contest after 2025-05-01"),
    ],
)
def test_only_contests_of_the_published_months_are_kept(
    tmp_path: Path, day: str, reason: str | None
) -> None:
    rows = [stdin_row(1), stdin_row(2, contest_date=day)]
    done = prepared(LCB, write_lines(tmp_path / "test6.jsonl", rows))
    assert done.filtered == ({reason: 1} if reason else {})
    assert len(items_of(done, LCB)) == (1 if reason else 2)


def test_tests_of_a_filtered_problem_are_never_decoded(tmp_path: Path) -> None:
    old = stdin_row(2, contest_date="2023-05-01T00:00:00", private_test_cases="%%%")
    assert len(lcb(tmp_path, stdin_row(1), old)) == 1


@pytest.mark.parametrize("count", [1, 2, 5, 40])
def test_half_of_the_tests_is_a_fixed_random_half_and_never_none(count: int) -> None:
    tests = list(range(count))
    chosen = half("abc390_a", tests)
    assert len(chosen) == -(-count // 2)
    assert chosen == sorted(set(chosen))
    assert chosen == half("abc390_a", tests)


def test_the_halves_of_two_problems_and_two_seeds_differ() -> None:
    tests = list(range(40))
    assert half("a", tests) != half("b", tests) != half("b", tests, seed=1)


def test_training_sees_half_of_each_problems_tests_and_evaluation_all(tmp_path: Path) -> None:
    items = lcb(tmp_path, stdin_row(1), call_row(2))
    tables = halved(LCB, items)
    assert list(tables) == ["livecodebench-train", "livecodebench-test"]
    assert tables["livecodebench-test"] == items
    for item, trained in zip(items, tables["livecodebench-train"], strict=True):
        assert len(trained["tests"]) == len(item["tests"]) // 2
        assert all(test in item["tests"] for test in trained["tests"])
        assert {**trained, "tests": item["tests"]} == item


def test_right_programs_pass_in_the_sandbox_and_wrong_ones_do_not(tmp_path: Path) -> None:
    items = lcb(tmp_path, stdin_row(1), call_row(2))
    (tmp_path / "t.jsonl").write_bytes(table_bytes(items))
    task = loaded(tmp_path / "t.jsonl", "programs", 2, 0, lcb_prelude=True)
    reads, calls = sorted(task.train, key=lambda problem: problem.id, reverse=True)
    programs = [READER.format(1), READER.format(2), METHOD.format(2), METHOD.format(3)]
    verdicts = task.check_all([reads, reads, calls, calls], programs)
    assert [verdict.reward for verdict in verdicts] == [1.0, 0.0, 1.0, 0.0]
    assert verdicts[3].text is not None
    assert "Expected\n5" in verdicts[3].text  # a public test
    assert "Expected\n12" not in verdicts[3].text  # a hidden one


# ---------------------------------------------------------------- what is refused

MALFORMED: list[tuple[dict[str, Any], str]] = [
    ({"private_test_cases": "%%%"}, "'private_test_cases' is neither a JSON list nor base64"),
    ({"private_test_cases": "QUJD"}, "'private_test_cases' is base64, but not of zlib data"),
    (
        {"private_test_cases": base64.b64encode(zlib.compress(b"x" * 999)[:-6]).decode()},
        "'private_test_cases' is base64 of zlib data that breaks off before its end.",
    ),
    (
        {"private_test_cases": base64.b64encode(zlib.compress(b"no pickle")).decode()},
        "'private_test_cases' is no pickle that can be read",
    ),
    ({"private_test_cases": packed([])[:-8] + "????"}, "is neither a JSON list nor base64"),
    ({"private_test_cases": "[{]"}, "'private_test_cases' holds no valid JSON"),
    ({"private_test_cases": packed({"a": 1})}, "'private_test_cases' is {'a': 1}, and must be a"),
    ({"private_test_cases": 7}, "'private_test_cases' is 7. Make it a text"),
    ({"private_test_cases": packed([3])}, "has 3 as test 1, and must have an object"),
    (
        {"private_test_cases": packed([{"input": "1", "testtype": "stdin"}])},
        "'private_test_cases' has a test 1 whose 'output' is missing, and must be a text.",
    ),
    (
        {"private_test_cases": packed([{"input": 1, "output": "1", "testtype": "stdin"}])},
        "whose 'input' is 1, and must be a text",
    ),
    (
        {"private_test_cases": packed([{"input": "", "output": "", "testtype": "files"}])},
        "has a test 1 of the testtype 'files'; known are 'stdin' and 'functional'.",
    ),
    (
        {"private_test_cases": "[]", "public_test_cases": "[]"},
        "'private_test_cases' is an empty list, and so is 'public_test_cases'.",
    ),
    ({"public_test_cases": "nothing"}, "'public_test_cases' is 'nothing', and no valid JSON"),
    ({"contest_date": "soon"}, "'contest_date' is 'soon', and no date"),
    ({"question_id": None}, "'question_id' is None. Make it a text"),
    ({"question_id": "abc391_a"}, "the field 'id' is 'abc391_a', and so is that of test6.jsonl, r"),
    (
        {"question_content": "Read N and print N + 1."},
        "",  # the same question as the first row's: no fault, but a repeated row
    ),
    (call_row(2, metadata="{}"), "'metadata' has no 'func_name', and test 1 of 'public_test_ca"),
    (call_row(2, metadata='{"func_name": "a b"}'), "'metadata' has the func_name 'a b'"),
    (call_row(2, metadata="3"), "'metadata' is 3, and must be an object"),
    (call_row(2, starter_code=""), "'starter_code' is empty, and the tests call a function of it"),
    (
        call_row(2, private_test_cases=packed([call_test("one", "1")])),
        "'private_test_cases, test 1' is 'one', and no valid JSON",
    ),
    (
        call_row(2, private_test_cases=packed([call_test("1", "NaN")])),
        "'private_test_cases, test 1' is 'NaN', and no valid JSON (NaN is no number of JSON's)",
    ),
]


@pytest.mark.parametrize(("changes", "message"), MALFORMED)
def test_a_malformed_problem_is_refused_by_file_row_and_field(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    file = write_lines(tmp_path / "test6.jsonl", [stdin_row(1), stdin_row(2, **changes)])
    if message:
        with pytest.raises(DataError) as told:
            prepared(LCB, file)
        assert str(told.value).startswith("test6.jsonl, row 2: the field ")
        assert message in str(told.value)
    done = prepared(LCB, file, skip_bad=True)
    assert [item["id"] for item in items_of(done, LCB)] == ["abc391_a"]
    dropped = done.unsorted + done.tables[LCB].dropped
    assert dropped.total() == 1
    assert next(iter(dropped)).startswith("bad: " if message else "asks the same as another row")


class Harmful:
    """What a pickle can be: a program that runs when it is loaded."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.write_text, (self.target, "harm done"))


@pytest.mark.parametrize("protocol", range(6))
def test_a_harmful_pickle_is_refused_and_not_run(tmp_path: Path, protocol: int) -> None:
    target = tmp_path / "harm"
    pickled = pickle.dumps(Harmful(target), protocol=protocol)
    pickle.loads(pickled)
    assert target.exists()  # it works where it is loaded
    target.unlink()
    text = base64.b64encode(zlib.compress(pickled)).decode()
    with pytest.raises(BadRow, match=r"is a pickle with the opcode [A-Z_]+, and only a pickle of"):
        private_tests(text)
    assert not target.exists()


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_of_a_text_is_read_whatever_its_protocol(protocol: int) -> None:
    tests = [stdin_test("é\n", "x" * 300)]
    pickled = pickle.dumps(json.dumps(tests, ensure_ascii=False), protocol=protocol)
    assert private_tests(base64.b64encode(zlib.compress(pickled)).decode()) == tests


@pytest.mark.parametrize("value", [["a", "b"], ("a",), {"a": "b"}, 3, None, b"[]"])
def test_a_pickle_of_anything_else_is_refused(value: Any) -> None:
    text = base64.b64encode(zlib.compress(pickle.dumps(value))).decode()
    with pytest.raises(BadRow):
        private_tests(text)


@pytest.mark.parametrize("pickled", [b"\x80\x04.", b"\x80\x04\x8c\x02[]\x8c\x02[]."])
def test_a_pickle_of_no_text_or_of_two_is_refused(pickled: bytes) -> None:
    text = base64.b64encode(zlib.compress(pickled)).decode()
    with pytest.raises(BadRow, match=r"is a pickle of [02] texts, and must be of one\."):
        private_tests(text)


def test_a_few_bytes_that_unpack_to_too_many_are_refused_before_they_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = base64.b64encode(zlib.compress(bytes(5_000_000))).decode()
    assert len(text) < 10_000
    with pytest.raises(BadRow, match="unpacks to more than 1,000,000 bytes, which no tests need"):
        private_tests(text, max_bytes=1_000_000)
    asked: list[int] = []

    class Machine:
        eof = True

        def decompress(self, packed: bytes, most: int) -> bytes:
            asked.append(most)
            return b""

    monkeypatch.setattr(privatetests.zlib, "decompressobj", Machine)
    with pytest.raises(BadRow):
        private_tests(text)
    assert asked == [(1 << 30) + 1]


# ---------------------------------------------------------------- HumanEval


def test_a_function_to_complete_has_its_solution_and_hidden_assertions(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "h.jsonl", [humaneval_row(4)])
    [item] = items_of(prepared("humaneval", file), "humaneval")
    assert item["answer"].endswith("    return x + 4\n")
    assert item["question"].endswith('```python\ndef add4(x: int):\n    """Add 4.\n    """\n```')
    [test] = item["tests"]
    assert (test["entry_point"], test["public"]) == ("add4", False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"canonical_solution": "    return x\n"}, "'answer' is '\\n\\ndef add1(x: int):"),
        ({"entry_point": "sub"}, "'entry_point' is 'sub', which 'prompt' doesn't define."),
        ({"test": "def check(candidate):\n    pass"}, "'test' has no function check with an asser"),
        ({"test": "def check(candidate):\n    assert )"}, "the field 'tests' can't be used"),
        ({"prompt": None}, "'prompt' is None"),
    ],
)
def test_a_function_that_cannot_be_judged_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    rows = [humaneval_row(0), humaneval_row(1, **changes)]
    with pytest.raises(DataError) as told:
        prepared("humaneval", write_lines(tmp_path / "h.jsonl", rows))
    assert str(told.value).startswith("h.jsonl, row 2: the field ")
    assert message in str(told.value)


def test_without_verifying_no_program_is_run(tmp_path: Path) -> None:
    wrong = humaneval_row(1, canonical_solution="    return x\n")
    done = prepared("humaneval", write_lines(tmp_path / "h.jsonl", [wrong]), verify=False)
    assert len(items_of(done, "humaneval")) == 1
