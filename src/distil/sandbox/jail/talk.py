"""Messages of a locked child: what it's asked, what it answers, how it tells of an exception."""

import linecache
import os
import traceback
from collections import deque
from collections.abc import Iterator
from typing import Any

from distil.sandbox.jail.wire import from_line, to_line

REQUESTS, ANSWERS = 4, 5
FRAMES = 3
MESSAGE = 2000
"""Characters of an exception's message that cross; feedback shows fewer."""


def lines() -> Iterator[Any]:
    """Messages from the broker, until it closes the pipe."""
    with open(REQUESTS, "rb") as pipe:
        for line in pipe:
            yield from_line(line)


def say(message: Any) -> None:
    """A line to the broker."""
    line = memoryview(to_line(message))
    while line:
        line = line[os.write(ANSWERS, line) :]


def described(error: BaseException, name: str) -> dict[str, Any]:
    """type, message and the last frames in file `name` of an exception, as a message."""
    own = (
        (line, frame.f_code.co_name)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_code.co_filename == name
    )
    found = [
        [line, function[:100], linecache.getline(name, line).strip()[:300]]
        for line, function in deque(own, maxlen=FRAMES)
    ]
    if isinstance(error, SyntaxError) and error.filename == name:
        found = [[error.lineno or 0, "<module>", (error.text or "").strip()[:300]]]
    try:
        message = str(error)
    except Exception:
        message = "(its message can't be printed)"
    if isinstance(error, SyntaxError):
        message = error.msg or message
    return {"type": type(error).__name__[:100], "message": message[:MESSAGE], "frames": found}
