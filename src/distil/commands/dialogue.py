"""A person at the terminal, or a pipe in their place: what is shown, and a text of several lines.

What a model wrote is shown harmless: an escape sequence in it could repaint the screen, or type for
the person. Left out: what is asked, and why.
"""

import contextlib
import io
import os
import shlex
import subprocess
import sys
import tempfile
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from distil.figures.layout import harmless

HOW = 'End with a line of a single "." (or Ctrl-D).  :s skip  :e open $EDITOR  :q quit'


@dataclass(frozen=True)
class Typed:
    """What a person decided: a text, to skip, or to quit."""

    kind: Literal["text", "skip", "quit"]
    text: str = ""


def prepare_terminal() -> None:
    """Line editing where there is any, and no crash over a character that it can't show or read."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  (input() uses it once it is loaded)
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def without_controls(text: str) -> str:
    """The text without control characters (a stray arrow key); lines and tabs stay."""
    return "".join(c for c in text if c in "\n\t" or unicodedata.category(c) != "Cc")


def show(title: str, text: str) -> None:
    """Title, and below it the text, harmless and indented: it can't pass for a line of ours."""
    print(title)
    print("\n".join(f"  {line}" for line in harmless(text).split("\n")))


def ask_yes(question: str) -> bool:
    """Whether the answer begins with y; no at the end of the input."""
    try:
        return _line(f"{question} [y/N] ").strip().lower().startswith("y")
    except EOFError:
        print()
        return False


def type_text(draft: str) -> Typed:
    """Reads lines until "." or the end of the input; the end before anything was typed quits.

    `draft` is what the editor starts with, if nothing has been typed by then.
    """
    lines: list[str] = []
    while True:
        try:
            line = _line("> ")
        except EOFError:
            print()
            return _finished(lines) if any(lines) else Typed("quit")
        if line == ".":
            return _finished(lines)
        if line == ":s":
            return Typed("skip")
        if line == ":q":
            return Typed("quit")
        if line != ":e":
            lines.append(line)
        elif (edited := _edited("\n".join(lines) or draft)) is not None:
            return _finished(edited.split("\n"))


def _line(prompt: str) -> str:
    """One line that is typed; one from a pipe is printed, as a terminal would have echoed it."""
    line = input(prompt)
    if not sys.stdin.isatty():
        print(harmless(line))
    return line


def _finished(lines: list[str]) -> Typed:
    return Typed("text", without_controls("\n".join(lines)).strip("\n"))


def _edited(draft: str) -> str | None:
    """What the person made of the draft in $EDITOR; None, saying why, if they couldn't."""
    command = shlex.split(os.environ.get("EDITOR", ""))
    if not command:
        print("$EDITOR isn't set. Go on typing here, or set it and start again.")
        return None
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "correction.txt"
        file.write_text(draft + "\n", encoding="utf-8", errors="surrogatepass")
        try:
            status = subprocess.run([*command, str(file)]).returncode
        except OSError as error:
            print(f"$EDITOR ({command[0]}) can't be started: {error.strerror}. Go on typing here.")
            return None
        if status:
            print(f"$EDITOR ended with status {status}, so nothing is taken from it.")
            return None
        return file.read_text(encoding="utf-8", errors="replace")
