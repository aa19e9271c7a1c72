"""Which room may look into which, read from the source, and what loads without torch."""

import ast
import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import distil

SOURCE = Path(distil.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))

# From the bottom up: a room may import only from rooms above it in this list (or itself).
ROOMS = [
    "errors",
    "types",
    "theory",
    "config",
    "figures",
    "recipe",
    "endpoint",
    "sandbox",
    "prompts",
    "feedback",
    "tasks",
    "data",
    "objectives",
    "vocab",
    "distributed",
    "organisms",
    "models",
    "runs",
    "profiling",
    "teacher",
    "trainer",
    "evaluate",
    "live",
    "integrations",
    "commands",
    "compare",
    "report",
    "cli",
]
# Rooms, or single files of them: those that stand by themselves, and those that load without torch.
ALONE = {"errors", "types", "objectives", "theory"}
ALONE |= {
    "vocab.output_layer",
    "distributed.metrics",
    "figures.layout",
    "profiling.parts",
    "profiling.account",
}
LIGHT = {"errors", "types", "theory", "config", "figures", "recipe", "endpoint", "sandbox"}
LIGHT |= {"feedback", "tasks", "data", "compare", "report", "cli"}
LIGHT |= {"prompts.messages", "runs.folder", "runs.best", "evaluate.evalfile", "evaluate.regrade"}
LIGHT |= {"commands.evalflags", "commands.flags", "profiling.account", "distributed.gpus"}
HEAVY = {"torch", "transformers", "trl", "peft", "accelerate", "datasets", "safetensors"}


def name_of(file: Path) -> str:
    """distil/tasks/extract.py -> tasks.extract; distil/tasks/__init__.py -> tasks."""
    parts = file.relative_to(SOURCE).with_suffix("").parts
    return ".".join(p for p in parts if p != "__init__")


def room_of(module: str) -> str:
    return module.split(".")[0]


def imports(nodes: Iterator[ast.AST]) -> Iterator[str]:
    """Dotted names of the modules imported by these nodes; relative imports are refused."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import, line {node.lineno}"
            assert node.module is not None
            if node.module == "distil":
                yield from (f"distil.{alias.name}" for alias in node.names)
            else:
                yield node.module


def all_imports(file: Path) -> set[str]:
    """Every import in the file, those inside functions too."""
    return set(imports(ast.walk(ast.parse(file.read_text(encoding="utf-8")))))


def top_imports(file: Path) -> set[str]:
    """Imports that run when the module is imported: everything outside functions."""

    def outside_functions(node: ast.AST) -> Iterator[ast.AST]:
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                yield child
                yield from outside_functions(child)

    return set(imports(outside_functions(ast.parse(file.read_text(encoding="utf-8")))))


def among(module: str, rooms: set[str]) -> bool:
    """Is it one of the rooms, a file of one, or a file named by itself?"""
    return module in rooms or room_of(module) in rooms


MODULES = {name_of(file): file for file in FILES if file != SOURCE / "__init__.py"}


def test_every_room_has_its_place() -> None:
    assert {room_of(module) for module in MODULES} == set(ROOMS)
    assert len(set(ROOMS)) == len(ROOMS)


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_only_back(module: str) -> None:
    room = room_of(module)
    allowed = set(ROOMS[: ROOMS.index(room) + 1])
    looked_into = {
        room_of(name.removeprefix("distil."))
        for name in all_imports(MODULES[module])
        if name.startswith("distil.")
    }
    assert looked_into - allowed == set()
    assert "distil" not in all_imports(MODULES[module])


@pytest.mark.parametrize(
    "room",
    ["recipe", "prompts", "distributed", "runs", "profiling", "teacher", "trainer", "evaluate"],
)
def test_the_files_of_a_room_have_an_order_too(room: str) -> None:
    """Imports inside functions count; a folder in a room (served, samplers) is one file here."""

    def part(name: str) -> str:
        return ".".join(name.split(".")[:2])

    looked_into: dict[str, set[str]] = {}
    for module in (m for m in MODULES if m.startswith(f"{room}.")):
        seen = {part(n.removeprefix("distil.")) for n in all_imports(MODULES[module])}
        own = {n for n in seen if n.startswith(f"{room}.") and n != part(module)}
        looked_into.setdefault(part(module), set()).update(own)
    TopologicalSorter(looked_into).prepare()  # raises CycleError


@pytest.mark.parametrize("module", [m for m in MODULES if among(m, ALONE)])
def test_the_lowest_rooms_import_nothing_of_distil(module: str) -> None:
    own = f"distil.{room_of(module)}"
    found = {n for n in all_imports(MODULES[module]) if n.split(".")[0] == "distil"}
    assert {n for n in found if n != own and not n.startswith(f"{own}.")} == set()


def test_config_imports_only_the_errors() -> None:
    found = {n for n in all_imports(MODULES["config"]) if n.startswith("distil")}
    assert found <= {"distil.errors", "distil.types"}


@pytest.mark.parametrize("module", [m for m in MODULES if among(m, LIGHT)])
def test_light_rooms_import_nothing_heavy(module: str) -> None:
    assert {n.split(".")[0] for n in top_imports(MODULES[module])} & HEAVY == set()


@pytest.mark.parametrize("module", [m for m in MODULES if among(m, LIGHT - {"cli"})])
def test_light_rooms_import_nothing_heavy_inside_functions_either(module: str) -> None:
    assert {n.split(".")[0] for n in all_imports(MODULES[module])} & HEAVY == set()


def test_light_rooms_load_without_torch() -> None:
    light = ["distil", *(f"distil.{m}" for m in MODULES if among(m, LIGHT))]
    program = (
        "import importlib, json, sys\n"
        "loaded = {}\n"
        "for name in json.loads(sys.argv[1]):\n"
        "    importlib.import_module(name)\n"
        "    loaded[name] = [h for h in json.loads(sys.argv[2]) if h in sys.modules]\n"
        "print(json.dumps(loaded))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(light), json.dumps(sorted(HEAVY))],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == {name: [] for name in light}


def test_the_usage_is_printed_without_anything_heavy() -> None:
    program = (
        "import json, sys\n"
        "from distil.cli import main\n"
        "assert main(['--help']) == 0\n"
        "print(json.dumps([h for h in json.loads(sys.argv[1]) if h in sys.modules]))\n"
    )
    heavy = json.dumps(sorted(HEAVY | {"numpy", "reasoning_gym", "rich", "sympy"}))
    done = subprocess.run(
        [sys.executable, "-c", program, heavy], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("usage: distil COMMAND")
    assert json.loads(done.stdout.splitlines()[-1]) == []


# ---------------------------------------------------------------- the public face


def typing_block() -> dict[str, str]:
    """name -> module, as the TYPE_CHECKING block of distil/__init__.py has it."""
    tree = ast.parse((SOURCE / "__init__.py").read_text(encoding="utf-8"))
    blocks = [
        node
        for node in tree.body
        if isinstance(node, ast.If)
        and isinstance(node.test, ast.Name)
        and node.test.id == "TYPE_CHECKING"
    ]
    assert len(blocks) == 1
    return {
        alias.asname or alias.name: statement.module or ""
        for statement in blocks[0].body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }


def test_type_checkers_and_the_interpreter_see_the_same_names() -> None:
    assert typing_block() == distil._HOMES


def test_all_is_complete_and_in_order() -> None:
    assert distil.__all__ == sorted(distil._HOMES)


@pytest.mark.parametrize("name", distil.__all__)
def test_every_public_name_resolves_to_the_thing_itself(name: str) -> None:
    found = getattr(distil, name)
    assert found.__name__ == name
    assert found.__module__ == distil._HOMES[name]
    assert found.__doc__
    assert found is getattr(importlib.import_module(distil._HOMES[name]), name)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'distil' has no attribute 'Trainer'"):
        distil.Trainer  # noqa: B018


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(SOURCE)))
def test_every_file_opens_with_what_it_is(file: Path) -> None:
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
    assert docstring
    assert docstring.splitlines()[0].endswith((".", ":", "?"))


def test_no_folder_of_the_source_is_one_that_git_ignores() -> None:
    # hatchling leaves such a folder out of the wheel, and ruff doesn't look at it.
    patterns = (SOURCE.parents[1] / ".gitignore").read_text(encoding="utf-8").split()
    anywhere = {p.strip("/") for p in patterns if not p.startswith("/")}
    folders = {folder.name for folder in SOURCE.rglob("*") if folder.is_dir()}
    assert folders & anywhere <= {"__pycache__"}


@pytest.mark.parametrize(
    "room",
    [
        "recipe", "prompts", "teacher", "distributed", "trainer", "runs", "figures", "evaluate",
        "objectives", "vocab", "profiling", "theory", "live", "report", "compare", "integrations",
        "commands", "tasks", "data", "sandbox", "feedback", "organisms",
    ],
)  # fmt: skip
def test_a_room_says_what_each_of_its_files_is(room: str) -> None:
    said = ast.get_docstring(ast.parse((SOURCE / room / "__init__.py").read_text(encoding="utf-8")))
    own = [m.split(".")[1] for m in MODULES if m.startswith(f"{room}.")]
    assert own
    assert [name for name in own if name not in (said or "")] == []


def resolves(name: str) -> bool:
    """Whether a dotted name of ours is a module, or something that one defines or imports."""
    place, rest = SOURCE, name.split(".")[1:]
    while rest and (place / rest[0]).is_dir():
        place, rest = place / rest[0], rest[1:]
    if rest and (place / f"{rest[0]}.py").is_file():
        place, rest = place / f"{rest[0]}.py", rest[1:]
    else:
        place /= "__init__.py"
    return not rest or re.search(rf"^.*\b{rest[0]}\b", place.read_text("utf-8"), re.M) is not None


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(SOURCE)))
def test_names_of_ours_in_a_text_are_those_of_today(file: Path) -> None:
    named = re.findall(r"`(distil(?:\.\w+)+)`", file.read_text(encoding="utf-8"))
    assert [name for name in named if not resolves(name)] == []
