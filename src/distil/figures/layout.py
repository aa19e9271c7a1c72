"""Text for people: tables (terminal, Markdown), durations, and what a model wrote made harmless."""

import unicodedata


def as_text(rows: list[list[str]]) -> str:
    """Columns lined up with spaces."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in rows
    )


def as_markdown(rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def clock(seconds: float) -> str:
    """95 -> '1:35', 4000 -> '1:06:40'."""
    whole = max(0, round(seconds))
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def harmless(text: str) -> str:
    r"""The text with everything invisible written out, as in "\x1b[2J" or "\u202e".

    That is control and format characters, line separators, surrogates and unassigned code points;
    line ends and tabs stay.
    """
    return "".join(c if c in "\n\t" or not _invisible(c) else _written_out(c) for c in text)


def _invisible(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def _written_out(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
