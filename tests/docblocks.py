"""Every block of code in README.md and docs/: where it stands, of what kind, and what it says.

A fenced block is of the kind behind its fence; an indented one is of the kind "commands". Markdown
is read by markdown-it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

PROJECT = Path(__file__).parent.parent
DOCS = PROJECT / "docs"
PAGES = [PROJECT / "README.md", *sorted(DOCS.rglob("*.md"))]

TEXT = "text"
"""The kind of formulas, diagrams and output: nothing to run."""


@dataclass(frozen=True)
class Block:
    """One block of code; `section` is the heading that it stands under."""

    page: str
    line: int
    section: str
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(page: Path) -> Iterator[Block]:
    """The page's blocks, from top to bottom."""
    section, heading = "", False
    for token in MarkdownIt("commonmark").parse(page.read_text(encoding="utf-8")):
        if token.type == "inline" and heading:
            section = token.content
        heading = token.type == "heading_open"
        if token.type in ("fence", "code_block") and token.map is not None:
            kind = token.info.strip() if token.type == "fence" else "commands"
            name = str(page.relative_to(PROJECT))
            yield Block(name, token.map[0] + 1, section, kind, token.content)


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def of_kind(*kinds: str) -> list[Block]:
    return [block for block in BLOCKS if block.kind in kinds]


def commands_of(block: Block) -> list[str]:
    """A block's commands: lines that end in a backslash joined, comments and blank lines left out.

    In a block of the kind console only what follows a prompt, "$ ", is one.
    """
    text = block.text.replace("\\\n", " ")
    if block.kind == "console":
        text = "\n".join(re.findall(r"^\$ (.*)$", text, re.MULTILINE))
    rows = (row.strip() for row in text.splitlines())
    return [row for row in rows if row and not row.startswith("#")]
