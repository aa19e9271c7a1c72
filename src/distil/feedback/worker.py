"""A process that judges answers: one call a line on its input, one result a line, till it ends.

    python -m distil.feedback.worker MODULE:FUNCTION MEMORY_MB

`distil.feedback.deadline` starts it afresh (never as a fork of a trainer, which may hold a GPU) and
starts another when it dies. Timers end it when a call is late, whatever runs, C code too.
Some verifiers hand a model's answer to `eval`, so once it's ready, anything but values there
(`distil.feedback.literals`), starting programs, writing files and opening connections are refused.
That is a guard and no sandbox: programs are run by `distil.sandbox`.
"""

import importlib
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import Any, TextIO

from distil.feedback.literals import refused

REFUSED = (
    "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "pty.spawn",
    "subprocess.Popen", "socket.", "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link",
    "os.symlink", "os.truncate", "os.chmod", "os.chown", "os.utime", "os.kill", "shutil.",
    "ctypes.dlopen", "ctypes.dlsym",
)  # fmt: skip
"""Beginnings of the audit events that a guarded process may not raise."""

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
STDERR_BYTES = 1 << 20


def main(call: str, memory_mb: int) -> None:
    """Says it's ready, then answers {"arguments", "cpu_s", "wall_s"} until the input ends.

    Answers: {"value": ...}, {"fault": "raised", "note": ...} or {"fault": "memory"}; after the last
    it ends, since what's left of its memory is no good.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a verifier prints is no answer
    module, _, name = call.partition(":")
    function = getattr(importlib.import_module(module), name)
    _lock_in(memory_mb)
    _say(answers, {"ready": True})
    for line in sys.stdin:
        answer = _timed(function, json.loads(line))
        _say(answers, answer)
        if answer.get("fault") == "memory":
            return


def _timed(function: Callable[..., Any], asked: dict[str, Any]) -> dict[str, Any]:
    """The call's answer. Past its CPU time a SIGPROF ends the process, past its time a SIGALRM."""
    signal.setitimer(signal.ITIMER_PROF, asked["cpu_s"])
    signal.setitimer(signal.ITIMER_REAL, asked["wall_s"])
    try:
        return {"value": function(*asked["arguments"])}
    except MemoryError:
        return {"fault": "memory"}
    except (Exception, SystemExit) as error:  # a third-party verifier: one boundary, reported
        return {"fault": "raised", "note": f"{type(error).__name__}: {error}"[:500]}
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)


def _lock_in(memory_mb: int) -> None:
    """Limits and guard, once everything is imported."""
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the trainer's
    resource.setrlimit(resource.RLIMIT_AS, (memory_mb << 20, memory_mb << 20))
    resource.setrlimit(resource.RLIMIT_FSIZE, (STDERR_BYTES, STDERR_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.addaudithook(_guard)


def _guard(event: str, details: tuple[Any, ...]) -> None:
    """Raises PermissionError at an event that no judging needs."""
    writes = event == "open" and bool(details[2] & WRITING)
    if writes or event.startswith(REFUSED):
        raise PermissionError(f"An answer may not do this: {event}.")
    if event == "exec" and details[0].co_filename == "<string>":
        asking = str(sys._getframe(1).f_globals.get("__name__"))
        if why := refused(details[0], asking):
            raise PermissionError(f"An answer may not do this: {why}.")


def _say(answers: TextIO, answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
