"""`distil theory`: what it prints, what it writes and what it leaves; docs/theory.md is its own."""

import re
from pathlib import Path
from types import ModuleType

import pytest

from distil.cli import main
from distil.commands import theory
from distil.theory.claims import Claim
from theoryclaims import claims_of

DOCS = Path(__file__).parent.parent / "docs"
TOY = [
    Claim("toys", "Bars | hold.", "||g||", {"a": 0.25, "a, low": 0.1, "a, high": 0.5}, True),
    Claim("toys", "Rounding is nothing.", "0", {"b": 3e-17, "c": 2.0, "c ±": 0.125}, False),
]


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    """One section of two claims, one figure, a short table: the command's own work."""
    module = ModuleType("toys")
    module.claims = lambda: TOY  # type: ignore[attr-defined]
    monkeypatch.setattr(theory, "SECTIONS", (module,))
    monkeypatch.setattr(theory, "FIGURES", {"dot": lambda path: path.write_bytes(b"png")})
    monkeypatch.setattr(theory, "estimator_rows", lambda: [["estimator", "bias"], ["sum", "0"]])


def test_the_terminal_gets_words_numbers_and_the_count(
    toys: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["theory"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("toys\n\nyes    Bars | hold.\n         ||g||\n")
    assert "a 0.25 [0.1, 0.5]\n" in out
    assert "NO     Rounding is nothing.\n" in out
    assert "b < 1e-8; c 2 ± 0.125\n" in out
    assert re.search(r"2 claims in 0:0\d: 1 hold, 1 don't\.\n$", out)


def test_a_new_folder_gets_a_page_and_figures(toys: None, tmp_path: Path) -> None:
    assert main(["theory", "--out", str(tmp_path / "new")]) == 0
    text = (tmp_path / "new" / "theory.md").read_text()
    assert r"| Bars \| hold. | `\|\|g\|\|` | a 0.25 [0.1, 0.5] | yes |" in text
    assert "| Rounding is nothing. | `0` | b < 1e-8; c 2 ± 0.125 | **no** |" in text
    assert (tmp_path / "new" / "theory" / "dot.png").read_bytes() == b"png"


def test_prose_around_the_marks_stays_and_a_second_run_changes_nothing(
    toys: None, tmp_path: Path
) -> None:
    page = tmp_path / "theory.md"
    page.write_text(f"# Mine\n\n{theory.BEGIN}\nwritten before\n{theory.END}\n\nbehind\n")
    assert main(["theory", "--out", str(tmp_path)]) == 0
    first = page.read_text()
    assert first.startswith(f"# Mine\n\n{theory.BEGIN}\n\n### Toys")
    assert first.endswith(f"{theory.END}\n\nbehind\n")
    assert "written before" not in first
    assert main(["theory", "--out", str(tmp_path)]) == 0
    assert page.read_text() == first


def test_a_page_without_marks_is_refused_and_left(
    toys: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "theory.md").write_text("somebody else's")
    assert main(["theory", "--out", str(tmp_path)]) == 2
    assert "has no place for the table" in capsys.readouterr().err
    assert (tmp_path / "theory.md").read_text() == "somebody else's"
    assert not (tmp_path / "theory").exists()


# ---------------------------------------------------------------- docs/theory.md


def rows_of(text: str) -> list[list[str]]:
    """Cells of every table row."""
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line[:1] == "|"]
    return [[cell.strip() for cell in row] for row in rows]


def as_numbers(text: str) -> list[float]:
    """Every number in a cell, rounding errors as 0."""
    return [float(x) for x in re.findall(r"-?\d+\.?\d*(?:e[+-]?\d+)?", text.replace("< 1e-8", "0"))]


@pytest.mark.parametrize("module", theory.SECTIONS, ids=lambda m: m.__name__.split(".")[-1])
def test_the_docs_have_every_claim_with_its_numbers(module: ModuleType) -> None:
    written = {r[0]: r for r in rows_of((DOCS / "theory.md").read_text(encoding="utf-8"))}
    for claim in claims_of(module.__name__.split(".")[-1]):
        words, _, numbers, holds = written[claim.words.replace("|", r"\|")]
        assert holds == ("yes" if claim.holds else "**no**"), words
        expected = as_numbers(theory.numbers(claim))
        # Three digits, of which the last may be rounded otherwise on another machine.
        assert as_numbers(numbers) == pytest.approx(expected, rel=0.02, abs=1e-6), words


def test_the_docs_have_as_many_claims_as_there_are() -> None:
    text = (DOCS / "theory.md").read_text(encoding="utf-8")
    count = sum(len(claims_of(m.__name__.split(".")[-1])) for m in theory.SECTIONS)
    assert len(re.findall(r"\| (?:yes|\*\*no\*\*) \|$", text, re.MULTILINE)) == count


def test_the_docs_show_every_figure_and_no_other() -> None:
    text = (DOCS / "theory.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"\]\(theory/(\w+)\.png\)", text))
    assert shown == set(theory.FIGURES) == {f.stem for f in (DOCS / "theory").glob("*.png")}
    assert all(f.stat().st_size < 150_000 for f in (DOCS / "theory").glob("*.png"))
