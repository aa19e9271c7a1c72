"""What a locked child does: runs a program as a script, serves its functions, or tests them.

Descriptors: 0, 1, 2 as ever; 3 the job (read to its end, then closed); for functions and tests 4
gives messages and 5 takes them, one JSON line each (`wire`).

A program may do what it likes with all of this: it's its own process. Whatever it says is only its
answer; what was expected of it isn't here. Left out: verdicts (`distil.sandbox.judge`).
"""

import json
import random
from typing import NoReturn

from distil.sandbox.jail.assertions import test_functions
from distil.sandbox.jail.functions import serve_functions
from distil.sandbox.jail.program import fresh_streams, leave, script

JOB = 3
MODES = {"script": script, "functions": serve_functions, "tests": test_functions}


def run(mode: str) -> NoReturn:
    """Reads the job and does it; leaves the process."""
    with open(JOB, "rb") as pipe:
        job = json.loads(pipe.read())
    fresh_streams()
    if job["seed"] is not None:
        random.seed(job["seed"])
    leave(MODES[mode](job) or 0)
