"""The ranges of pyproject.toml begin at what constraints-oldest.txt says was tried."""

import tomllib

from packaging.requirements import Requirement
from packaging.version import Version

from docblocks import PROJECT


def pinned(name: str) -> dict[str, Version]:
    lines = (PROJECT / name).read_text(encoding="utf-8").splitlines()
    pins = [line.split("==") for line in lines if "==" in line and not line.startswith("#")]
    return {package: Version(version) for package, version in pins}


def test_the_lowest_versions_are_those_that_were_tried() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    oldest, usual = pinned("constraints-oldest.txt"), pinned("constraints.txt")
    usual = {name.lower().replace("_", "-"): version for name, version in usual.items()}
    asked = [Requirement(text) for text in project["dependencies"]]
    assert {r.name for r in asked} == set(oldest)
    for requirement in asked:
        lowest = next(s for s in requirement.specifier if s.operator == ">=")
        # A range may name fewer digits than a release has.
        assert oldest[requirement.name] == Version(lowest.version), requirement.name
        assert requirement.specifier.contains(usual[requirement.name]), requirement.name
