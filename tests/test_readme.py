"""The README's own example runs as it stands."""

import importlib
import importlib.util
import re
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"


def test_the_twenty_lines_train_the_embedded_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 1
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(blocks[0], str(README), "exec"), names)
    assert names["trainer"].state.global_step == 2  # type: ignore[attr-defined]
    assert (tmp_path / "runs/capitals/rollouts.jsonl").is_file()


def test_the_table_of_the_method_names_functions_and_tests_that_exist() -> None:
    text = (README.parent / "docs" / "method.md").read_text(encoding="utf-8")
    tests = "".join(p.read_text(encoding="utf-8") for p in Path(__file__).parent.glob("test_*.py"))
    named = re.findall(r"`(test_\w+)`", text)
    checked = 0
    for module, name in re.findall(r"`theory\.(\w+)\.(\w+)[`(]", text):
        assert hasattr(importlib.import_module(f"distil.theory.{module}"), name), name
    assert len(named) > 10
    for name in named:
        assert f"def {name}(" in tests, name
    for module, name in re.findall(r"`(\w+(?:\.\w+)?)\.([A-Za-z_]\w*)[`(]", text):
        if importlib.util.find_spec(f"distil.{module.partition('.')[0]}") is not None:
            assert hasattr(importlib.import_module(f"distil.{module}"), name), f"{module}.{name}"
            checked += 1
    assert checked > 15


def test_every_file_of_the_package_has_its_place_in_the_tree() -> None:
    text = README.read_text(encoding="utf-8").partition("```text\n")[2].partition("```")[0]
    source = README.parent / "src" / "distil"
    for file in source.glob("*.py"):
        assert file.name == "__init__.py" or file.name in text, file.name
    for folder in (p for p in source.iterdir() if p.is_dir() and p.name != "__pycache__"):
        assert f" {folder.name}/" in text, folder.name
