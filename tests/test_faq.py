"""docs/faq.md quotes messages that the source really has, and says why and what to do of each."""

import ast
import re

from distil.config import AlarmConfig
from distil.runs.alarms import signs
from docblocks import DOCS, PROJECT

TEXT = (DOCS / "faq.md").read_text(encoding="utf-8")
ENTRIES = re.split(r"^### ", TEXT.split("\n## Recipes", 1)[1], flags=re.MULTILINE)[1:]
QUOTED = [m[1] for entry in ENTRIES if (m := re.match(r"`(.+)`\n", entry))]
VARYING = "\0"


def messages() -> list[str]:
    """Every text in the source; a formatted value is VARYING."""
    found = []
    for file in (PROJECT / "src/distil").rglob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        inner = {id(v) for n in ast.walk(tree) if isinstance(n, ast.JoinedStr) for v in n.values}
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                parts = (v.value if isinstance(v, ast.Constant) else VARYING for v in node.values)
                found.append("".join(map(str, parts)))
            elif (
                isinstance(node, ast.Constant)
                and isinstance(node.value, str)
                and id(node) not in inner
            ):
                found.append(node.value)
    return found


def test_every_quoted_message_begins_a_text_of_the_source() -> None:
    texts = messages()
    for quote in QUOTED:
        parts = [re.escape(part) for part in quote.split("...")]
        pattern = re.compile(f".*?{VARYING}.*?".join(parts), re.DOTALL)
        assert any(pattern.match(text) for text in texts), quote


def test_there_are_twenty_errors_and_all_alarms() -> None:
    alarms = [sign.name for sign in signs(AlarmConfig())]
    assert set(alarms) <= set(QUOTED)
    assert len(QUOTED) - len(alarms) >= 20
    assert len(set(QUOTED)) == len(QUOTED)


def test_every_entry_says_why_and_what_to_do() -> None:
    for entry in ENTRIES:
        why, cure = entry.index("**Why.** "), entry.index("**Cure.** ")
        assert 0 < why < cure, entry.splitlines()[0]
