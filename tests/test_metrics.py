"""docs/metrics.md names every figure that a run logs, says where it comes from, and no others."""

import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from transformers import PrinterCallback

import distil
from conftest import conversations
from distil import Feedback
from distil.feedback import corrections
from distil.teacher.served import asking
from test_served import served_trainer
from tooltoys import tool_trainer
from trainertoys import lines, make_trainer
from vllmserver import vllm_server

DOCS = Path(__file__).parent.parent / "docs" / "metrics.md"
NEVER_HERE = "Logged with vLLM only"
SOMETIMES = ("Logged with certain settings only", NEVER_HERE)
OWN_CRITIQUE = {"by": "policy", "steps": False, "max_tokens": 8, "per_step": 4}


def documented() -> dict[str, dict[str, list[str]]]:
    """Section -> name -> the row's other cells: meaning, unit, healthy, where."""
    title, *rest = re.split(r"^## (.*)\n", DOCS.read_text(encoding="utf-8"), flags=re.MULTILINE)
    found: dict[str, dict[str, list[str]]] = {}
    for section, text in zip(rest[::2], rest[1::2], strict=True):
        rows = [row[2:-2].split(" | ") for row in text.splitlines() if row.startswith("| `")]
        found[section] = {n: row[1:] for row in rows for n in re.findall(r"`([^`]+)`", row[0])}
    assert "| `reward` |" not in title
    return found


TABLES = documented()
ROWS = {name: cells for rows in TABLES.values() for name, cells in rows.items()}


# ---------------------------------------------------------------- runs that log all of it


def half_tested(completions: list[Any], **columns: Any) -> list[Feedback | None]:
    """A report on every other rollout, as the sandbox gives it."""
    said = Feedback(text="line 1: wrong", progress=0.5)
    return [said if place % 2 else None for place in range(len(completions))]


def everything(folder: Path) -> Any:
    """Two passes over each batch and the one before; samples, critiques, corrections; evaluated."""
    file = folder / "corrections.jsonl"
    file.write_text(json.dumps({"problem_id": "a", "correction": "5"}) + "\n")
    return make_trainer(
        folder, max_steps=4, num_iterations=2, teacher_samples=2, critique=OWN_CRITIQUE,
        objective={"replay_batches": 1, "ratio": "prefix"},
        feedback_order=["correction", "report", "critique"],
        feedback_funcs=[half_tested, corrections(file)],
        eval_dataset=Dataset.from_list(conversations(4)), per_device_eval_batch_size=4,
    )  # fmt: skip


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Run -> every name in its metrics.jsonl."""
    parent = tmp_path_factory.mktemp("metrics")

    def run(name: str, make: Callable[[Path], Any]) -> set[str]:
        folder = parent / name
        folder.mkdir()
        trainer = make(folder)
        trainer.remove_callback(PrinterCallback)  # takes a name away before others see it
        trainer.train()
        if trainer.eval_dataset is not None:
            trainer.evaluate()
        return {name for line in lines(folder / "metrics.jsonl") for name in line}

    def objective(name: str) -> Callable[[Path], Any]:
        return lambda folder: make_trainer(folder, objective={"name": name}, max_steps=1)

    with vllm_server() as server, pytest.MonkeyPatch.context() as patch:
        patch.setattr(asking, "BACK_OFF", 0.001)
        draws = {"served": {"samples": 4}, "max_steps": 1}
        found = {"samples": run("samples", lambda f: served_trainer(f, server, **draws))}
    found["tools"] = run("tools", lambda f: tool_trainer(f, max_steps=1))
    found["everything"] = run("everything", everything)
    return found | {name: run(name, objective(name)) for name in ("reverse_kl", "grpo", "sft")}


def base(name: str) -> str:
    """The name that the table has for a logged one: eval_reward is reward's."""
    name = re.sub(r"^((?:eval_)?rewards/)[^/]+/", r"\1FUNCTION/", name)
    return name.removeprefix("eval_") if name not in ROWS else name


# ---------------------------------------------------------------- both ways


def test_every_figure_that_a_run_logs_is_documented(logged: dict[str, set[str]]) -> None:
    for run, names in logged.items():
        assert {name for name in names if base(name) not in ROWS} == set(), run
    assert any(name.startswith("eval_distil/") for name in logged["everything"])


def test_every_documented_figure_is_logged_by_a_run(logged: dict[str, set[str]]) -> None:
    seen = {base(name) for names in logged.values() for name in names}
    wanted = {name for section, rows in TABLES.items() if section != NEVER_HERE for name in rows}
    assert wanted - seen == set()


@pytest.mark.parametrize("run", ["everything", "reverse_kl", "tools"])
def test_what_every_distillation_logs_stands_in_the_tables_for_all(
    logged: dict[str, set[str]], run: str
) -> None:
    always = {name for section, rows in TABLES.items() if section not in SOMETIMES for name in rows}
    assert always - {base(name) for name in logged[run]} == set()


def test_those_of_certain_settings_are_not_logged_without_them(
    logged: dict[str, set[str]],
) -> None:
    assert set(TABLES[SOMETIMES[0]]) & logged["reverse_kl"] == set()


@pytest.mark.parametrize("name", ROWS)
def test_every_row_says_what_in_which_unit_how_much_and_where(name: str) -> None:
    meaning, unit, healthy, where = ROWS[name]
    assert meaning
    assert unit
    assert healthy
    source = text_of(where.strip("`"))
    group, _, _ = name.rpartition("/")
    written = [f'"{name}"', f'"{name.removesuffix("_per_second")}"']
    if group.startswith(("feedback", "rewards")):  # f"feedback/{kind}"
        written.append(f'"{group.partition("/")[0]}/{{')
    if name.startswith(("train_", "eval_")):  # f"{split}_runtime"
        written.append(f'}}_{name.partition("_")[2]}"')
    assert any(words in source for words in written)


@pytest.mark.parametrize("name", TABLES[NEVER_HERE])
def test_what_no_run_here_logs_is_in_the_source_by_its_whole_name(name: str) -> None:
    assert f'"{name}"' in text_of(TABLES[NEVER_HERE][name][-1].strip("`"))


def text_of(where: str) -> str:
    """The source of a file of src/distil, or of PACKAGE/file."""
    own = Path(distil.__file__).parent / where
    if own.is_file():
        return own.read_text(encoding="utf-8")
    package, _, file = where.partition("/")
    found = importlib.util.find_spec(package)
    assert found is not None, where
    assert found.origin is not None
    return (Path(found.origin).parent / file).read_text(encoding="utf-8")
