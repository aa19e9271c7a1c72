"""Every block of code in README.md and docs/ runs, or is read by the parser that it is for.

Python is run with toy models in the place of what it names; recipes are checked as a run's would
be; commands go through the command line's own parsers, with what does their work left out. A block
of a kind that isn't known here fails.
"""

import ast
import json
import os
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from conftest import make_model, make_tokenizer
from distil.cli import main
from distil.commands.evalflags import eval_flags
from distil.config import Recipe
from distil.feedback.correctionfile import parse
from distil.recipe.checks import check_recipe
from distil.recipe.evalpresets import EVAL_PRESETS
from distil.recipe.presets import PRESETS
from distil.recipe.recipefile import load_recipe
from docblocks import BLOCKS, DOCS, PAGES, PROJECT, TEXT, Block, commands_of, of_kind
from judgeserver import KEY, MODEL, judge_server
from tooltoys import make_calling_model, make_tool_tokenizer
from trainertoys import lines

KINDS = {"python", "yaml", "json", "jsonl", "bash", "console", "commands", TEXT}


def test_every_block_is_of_a_kind_that_is_checked_here() -> None:
    assert [str(block) for block in BLOCKS if block.kind not in KINDS] == []
    assert {block.page for block in BLOCKS} >= {"README.md", "docs/index.md", "docs/feedback.md"}


# ---------------------------------------------------------------- Python

Toys = tuple[Any, Any]


@contextmanager
def a_judge(text: str) -> Iterator[str]:
    with judge_server(lambda body: "It isn't.", key=KEY) as server:
        yield text.replace("http://localhost:8000/v1", server.url).replace("my-judge", MODEL)


def calling_tools() -> Toys:
    return make_calling_model(["<call>find word=cat</call>"]), make_tool_tokenizer()


def plain() -> Toys:
    return make_model(), make_tokenizer()


TOYS: dict[str, Callable[[], Toys]] = {"docs/cookbook/tools.md": calling_tools}
SERVERS: dict[str, Callable[[str], AbstractContextManager[str]]] = {
    "docs/cookbook/judge.md": a_judge
}
# The page's complete file -> what at least one teacher was shown, and words of its prompt.
SHOWN = {
    "sibling": ("sibling", "A correct solution:"),
    "report": ("report", "Feedback on an earlier, unsuccessful attempt:"),
    "traces": ("report", "Feedback on an earlier, unsuccessful attempt:"),
    "expert": ("expert", "3 * 4 = 12, and 12 + 2 = 14."),
    "correction": ("correction", "It is 19."),
    "tools": ("tools", "find(word='cat') -> page 7"),
    "self-critique": ("critique", "Feedback on an earlier, unsuccessful attempt:"),
    "judge": ("critique", "It isn't."),
}
# test_readme.py trains the README's own model with it, and own-task.md shows the same lines.
ELSEWHERE = {"README.md", "docs/own-task.md"}
PYTHON = [block for block in of_kind("python") if block.page not in ELSEWHERE]


def promised(text: str) -> list[tuple[str, Any]]:
    """(expression, value) of every bare expression with a comment behind or below it."""
    rows, found = text.splitlines(), []
    for node in ast.parse(text).body:
        if isinstance(node, ast.Expr) and node.end_lineno is not None:
            behind = rows[node.end_lineno - 1][node.end_col_offset :].strip()
            below = [behind] if behind else []
            for row in rows[node.end_lineno :] if not behind else []:
                if not row.startswith("# "):
                    break
                below.append(row)
            said = " ".join(row.removeprefix("# ") for row in below)
            if said:
                found.append((ast.unparse(node), ast.literal_eval(said)))
    return found


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_python_runs_and_its_comments_say_what_comes_out(
    block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JUDGE_KEY", KEY)
    toys = TOYS.get(block.page, plain)()
    monkeypatch.setattr("distil.models.load_model", lambda name, dtype="auto": toys)
    with SERVERS.get(block.page, nullcontext)(block.text) as text:
        names: dict[str, Any] = {}
        exec(compile(text, str(block), "exec"), names)
    for expression, value in promised(block.text):
        assert eval(expression, names) == value, expression
    page = Path(block.page).stem
    if "cookbook" in block.page and "trainer" in names:
        kind, words = SHOWN[page]
        records = lines(Path(names["args"].output_dir) / "rollouts.jsonl")
        prompts = [r["teacher_prompt"][-1]["content"] for r in records if r["context"] == kind]
        assert any(words in prompt for prompt in prompts)


def test_every_source_has_a_page_with_a_complete_file() -> None:
    files = [b for b in PYTHON if b.text.startswith("# ") and "trainer.train()" in b.text]
    assert {Path(b.page).stem for b in files if "cookbook" in b.page} == set(SHOWN)
    assert {f.stem for f in (DOCS / "cookbook").glob("*.md")} == set(SHOWN)
    text = (DOCS / "feedback.md").read_text(encoding="utf-8")
    assert all(f"(cookbook/{page}.md)" in text for page in SHOWN)


def test_your_own_task_is_the_readmes() -> None:
    readme, page = (
        [block.text for block in of_kind("python") if block.page == name]
        for name in ("README.md", "docs/own-task.md")
    )
    assert readme == page
    assert len(page) == 1


# ---------------------------------------------------------------- recipes and rows


@pytest.mark.parametrize("block", of_kind("yaml"), ids=str)
def test_every_recipe_is_one(block: Block, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(block.text, encoding="utf-8")
    check_recipe(load_recipe(str(tmp_path / "recipe.yaml")))


@pytest.mark.parametrize("block", of_kind("json", "jsonl"), ids=str)
def test_every_row_is_json_and_every_correction_one(block: Block) -> None:
    texts = [block.text] if block.kind == "json" else block.text.splitlines()
    assert all(isinstance(json.loads(text), dict | list) for text in texts)
    if '"correction"' in block.text:
        parsed = parse(block.text.encode())
        assert (parsed.malformed, parsed.torn) == ((), None)


def test_every_field_of_a_recipe_that_the_docs_name_is_there() -> None:
    """`train.steps`, `objective.future: none`: group and field; and presets by name."""
    known = Recipe().as_dict()
    named = 0
    for page in PAGES:
        if page.name == "method.md":  # its names are functions; test_readme.py looks them up
            continue
        text = page.read_text(encoding="utf-8")
        for group, path in re.findall(rf"`({'|'.join(known)})\.([a-z_.]+)(?=[`: ])", text):
            place: Any = known[group]
            if path in ("py", "json", "jsonl"):  # a file's name
                continue
            for field in path.split("."):
                assert field in place, f"{page.name}: {group}.{path}"
                place = place[field]
            named += 1
        for preset in re.findall(r"--preset ([a-z][a-z0-9-]*)", text):
            assert preset in {*PRESETS, *EVAL_PRESETS}, f"{page.name}: {preset}"
    assert named > 200


def test_the_evidence_for_a_choice_is_what_the_results_say() -> None:
    """Every figure of choosing.md with two or three decimals is one of a page that it links."""
    figure = re.compile(r"(?<![\w.])\d?\.\d{2,3}(?![\d.])")
    text = (DOCS / "choosing.md").read_text(encoding="utf-8")
    linked = set(re.findall(r"\]\((\w+\.md)#", text))
    assert linked == {"results.md", "theory.md", "log.md"}
    known = "".join((DOCS / page).read_text(encoding="utf-8") for page in linked)
    known_figures = {found.lstrip("0") for found in figure.findall(known)}
    quoted = {found.lstrip("0") for found in figure.findall(text)}
    assert len(quoted) > 40
    assert sorted(quoted - known_figures) == []


# ---------------------------------------------------------------- commands

# Each command once, and the first place that has it.
COMMANDS = {
    command: str(block)
    for block in reversed(of_kind("commands", "bash", "console"))
    for command in commands_of(block)
}
WORKERS = (
    "distil.commands.train.train",
    "distil.commands.dry_run.dry_run",
    "distil.commands.eval.evaluate_model",
    "distil.commands.run_code.run_code",
    "distil.commands.correct.correct",
    "distil.commands.data.list_data",
    "distil.commands.data.prepare_data",
    "distil.commands.theory.theory",
    "distil.commands.doctor.doctor",
    "distil.compare.compare",
)
PLACEHOLDERS = {"RECIPE": "recipe.yaml", "RUN": "runs/a-run", "SEED": "1"}
# Programs of others, which these pages only name.
FOREIGN = {"vllm", "sha256sum", "apt-get", "source"}
MODULES = {"pytest", "verl.trainer.main_ppo"}


@pytest.fixture
def dry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], None]:
    """Runs `distil WORDS` up to where its work would begin."""
    for worker in WORKERS:
        monkeypatch.setattr(worker, lambda *args, **options: 0)
    monkeypatch.setattr("distil.report.report", lambda *args: tmp_path / "recipe.yaml")
    monkeypatch.chdir(tmp_path)
    for folder in ("recipes", "suites"):
        (tmp_path / folder).symlink_to(PROJECT / folder)
    (tmp_path / "runs/a-run").mkdir(parents=True)
    for file in ("recipe.yaml", "runs/a-run/recipe.yaml"):
        (tmp_path / file).write_text("task: {name: gcd}")

    def run(words: list[str]) -> None:
        words = [re.sub("RECIPE|RUN|SEED", lambda m: PLACEHOLDERS[m[0]], word) for word in words]
        if words[0] == "eval" and words[1].endswith(".json"):
            (tmp_path / words[1]).touch()
        if words[0] == "compare":
            assert (PROJECT / words[1]).is_file()
        assert main(words) == 0

    return run


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_one(
    command: str, dry: Callable[[list[str]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    words = shlex.split(command, comments=True)
    while re.fullmatch(r"[A-Z_]+=\S+", words[0]):
        words.pop(0)
    program, *rest = words
    if program == "accelerate":
        assert rest[:2] == ["launch", "--config_file"]
        assert (PROJECT / rest[2]).is_file()
        assert rest[3:5] == ["-m", "distil.cli"]
        program, rest = "distil", rest[5:]
    if program == "distil":
        dry(rest)
        assert capsys.readouterr().err == ""
    elif program == "make":
        targets = re.findall(r"^([a-z]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE)
        assert set(rest) <= set(targets)
    elif program == "pip":
        check_pip(rest)
    elif program == "python" and rest[0] == "-m":
        assert rest[1] in MODULES
    elif program == "python":
        script = (PROJECT / rest[0]).read_text(encoding="utf-8")
        flags = [word.strip("[]") for word in rest if word.strip("[]").startswith("--")]
        assert [flag for flag in flags if flag not in script] == []
    elif program in ("pytest", "sbatch"):
        files = [word for word in rest if "/" in word]
        assert files
        assert all((PROJECT / file).is_file() for file in files)
    else:
        assert program in FOREIGN or os.access(PROJECT / program, os.X_OK), COMMANDS[command]


def check_pip(words: list[str]) -> None:
    """Requirements are well formed, files are there, and distil's extras are its own."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert words[0] == "install"
    before = ""
    for word in words[1:]:
        if before == "-c":
            assert (PROJECT / word).is_file()
        elif before != "--target" and not word.startswith("-") and not word.isupper():
            wanted = Requirement(word.lstrip("\\"))
            if wanted.name == "distil":
                assert wanted.extras <= set(project["optional-dependencies"])
        before = word


def test_an_evaluations_stored_file_is_told_from_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").symlink_to(PROJECT / "recipes")
    for name in ("mine.json", "start.json"):
        (tmp_path / name).touch()
    commands = [b for b in of_kind("commands") if b.page == "docs/evaluation.md"]
    [block] = [block for block in commands if block.section == "Evaluation"]
    found = [eval_flags(shlex.split(command, comments=True)[2:]) for command in commands_of(block)]
    assert [f.stored for f in found] == [False, False, True, True, True, False]
