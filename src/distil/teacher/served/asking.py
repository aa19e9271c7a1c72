"""Many requests to a server, in parallel: each tried again where it stumbles, all in a time limit.

What can't be had is a `Failure`, as data; nothing here raises because of what a server does.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from distil.config import ServedConfig
from distil.endpoint import Failure, all_within, open_client, post, run_to_end, tried

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
    if not count:
        return []
    client, answered, failed = open_server(settings), 0, 0

    async def one(place: int) -> T | Failure:
        nonlocal answered, failed
        if failed >= max(settings.concurrency, DEAD) and not answered:
            return _SILENT
        asked = {"model": settings.model, **body(place)}
        found = await ask(client, settings, asked, lambda given: read(place, given), TRIES)
        answered += not isinstance(found, Failure)
        failed += isinstance(found, Failure) and not found.final
        return found

    calls = [partial(one, place) for place in range(count)]
    found: list[T | Failure] = run_to_end(
        all_within(client, calls, concurrency=settings.concurrency, deadline=settings.deadline)
    )
    return found


async def ask(
    client: Any,
    settings: ServedConfig,
    body: dict[str, Any],
    read: Callable[[Any], T | Failure],
    tries: int,
) -> T | Failure:
    """One answer, read, or the last try's Failure."""

    async def attempt() -> T | Failure:
        given = await post(client, COMPLETIONS, settings.timeout, body)
        return given if isinstance(given, Failure) else read(given)

    return await tried(attempt, tries, BACK_OFF)
