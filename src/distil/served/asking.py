"""Many requests to a server, in parallel: each tried again where it stumbles, all in a time limit.

What can't be had is a `Failure`, as data; nothing here raises because of what a server does.
"""

import asyncio
import random
from collections.abc import Callable
from typing import Any, TypeVar

from distil.config import ServedConfig
from distil.endpoint import Failure, open_client, post, run_to_end

T = TypeVar("T")

BACK_OFF = 1.0
"""Seconds before the second try, doubled for each later one; up to as many again are added."""

TRIES = 4

DEAD = 4
"""Requests, at least, that must fail before any is answered for the server to be taken for dead."""

COMPLETIONS = "/completions"

_SILENT = Failure("not asked, as no earlier request was answered")


def open_server(settings: ServedConfig) -> Any:
    """A client of the server. Raises RecipeError without the package `openai` or the key."""
    return open_client(
        settings.base_url, settings.api_key_env,
        who="A served teacher", field="teacher.served.api_key_env",
    )  # fmt: skip


def ask_all(
    settings: ServedConfig,
    count: int,
    body: Callable[[int], dict[str, Any]],
    read: Callable[[int, Any], T | Failure],
) -> list[T | Failure]:
    """What `read(i, answer)` makes of the answer to `body(i)`, for i < count, in order.

    A body is made when its turn comes. A request that failed, or whose answer `read` refuses, is
    made `TRIES` times; not one that would fail again. After as many failures as there are requests
    at once (`DEAD`, if more) and no answer, the server is taken for dead; requests that it refuses
    for good don't count. Returns after `settings.deadline` seconds at the latest.
    """
    return run_to_end(_ask_all(settings, count, body, read)) if count else []


async def ask(
    client: Any,
    settings: ServedConfig,
    body: dict[str, Any],
    read: Callable[[Any], T | Failure],
    tries: int,
) -> T | Failure:
    """One answer, read, or the last try's Failure."""
    answer: T | Failure = Failure("never asked")
    for again in range(tries):
        if again:  # at a random moment, so that a crowd doesn't return as one
            await asyncio.sleep(BACK_OFF * 2 ** (again - 1) * (1 + random.random()))
        given = await post(client, COMPLETIONS, settings.timeout, body)
        answer = given if isinstance(given, Failure) else read(given)
        if not isinstance(answer, Failure) or answer.final:
            break
    return answer


async def _ask_all(
    settings: ServedConfig,
    count: int,
    body: Callable[[int], dict[str, Any]],
    read: Callable[[int, Any], T | Failure],
) -> list[T | Failure]:
    gate = asyncio.Semaphore(settings.concurrency)
    answered = failed = 0

    async def one(place: int) -> T | Failure:
        nonlocal answered, failed
        async with gate:
            if failed >= max(settings.concurrency, DEAD) and not answered:
                return _SILENT
            asked = {"model": settings.model, **body(place)}
            found = await ask(client, settings, asked, lambda given: read(place, given), TRIES)
            answered += not isinstance(found, Failure)
            failed += isinstance(found, Failure) and not found.final
            return found

    async with open_server(settings) as client:
        tasks = [asyncio.create_task(one(place)) for place in range(count)]
        _, late = await asyncio.wait(tasks, timeout=settings.deadline)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)  # until each has let its request go
    # result() raises if this package has a bug: whatever the server did is a Failure by now.
    return [Failure("deadline passed") if task in late else task.result() for task in tasks]
