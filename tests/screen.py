"""A terminal in 40 lines: what a person would see after everything that was written to it.

Only the controls that rich's Live uses; any other escape sequence is an error.
"""

import re

CONTROL = re.compile(r"\x1b\[(\?25[lh]|2K|\d*A|[\d;]*m)|([\r\n])|([^\x1b\r\n]+)")


def screen(written: str) -> list[str]:
    """The rows, from the first that was written on to the last; nothing scrolls away."""
    rows, row, column = [""], 0, 0
    place = 0
    while place < len(written):
        found = CONTROL.match(written, place)
        assert found, f"an unknown sequence: {written[place : place + 20]!r}"
        place = found.end()
        code, move, text = found.groups()
        if text:
            old = rows[row].ljust(column)
            rows[row] = old[:column] + text + old[column + len(text) :]
            column += len(text)
        elif move == "\r":
            column = 0
        elif move == "\n":
            row, column = row + 1, 0
            rows += [""] * (row + 1 - len(rows))
        elif code == "2K":
            rows[row] = ""
        elif code.endswith("A"):
            row = max(0, row - int(code[:-1] or 1))
    return rows
